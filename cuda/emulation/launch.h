// The emulated side of cuda/launch.h: shared memory whose accesses are followed, and launches.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>

#include <cuda_runtime.h>

#include "cuda/emulation/fault.h"

#define SHARED_ARRAY(T, name, count)              \
  static const char name##_tag = 0;               \
  const espalier::emulation::SharedArray<T> name( \
      static_cast<T*>(espalier::emulation::static_shared(&name##_tag, (count) * sizeof(T), #name)), (count), #name)
#define DYNAMIC_SHARED_ARRAY(T, name)                                                        \
  size_t name##_bytes = 0;                                                                   \
  T* const name##_data = static_cast<T*>(espalier::emulation::dynamic_shared(name##_bytes)); \
  const espalier::emulation::SharedArray<T> name(name##_data, static_cast<int64_t>(name##_bytes / sizeof(T)), #name)

namespace espalier::emulation {

/// One of a kernel's parameters, in place.
struct Argument {
  void* value;
  size_t bytes;
  bool pointer, constant;  ///< a pointer; to const
};

/// A launch whose kernel and parameters have lost their types.
struct Call {
  const char* name;
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
  const void* kernel;
  const Argument* arguments;
  size_t argument_count;
  void (*invoke)(const void* bound);  ///< runs the kernel for the running thread
  const void* bound;
};

/// Checks the launch, makes device pointers among the arguments usable, runs every thread. What goes wrong becomes the
/// status that cudaGetLastError() returns.
void run(const Call& call);

template <class... Parameters, class... Arguments>
void launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            void (*kernel)(Parameters...), Arguments... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "a kernel's parameters are copied byte by byte");
  using Bound = std::pair<void (*)(Parameters...), std::tuple<Parameters...>>;
  Bound bound(kernel, std::tuple<Parameters...>(static_cast<Parameters>(arguments)...));
  std::apply(
      [&](Parameters&... parameters) {
        const Argument list[sizeof...(Parameters) + 1] = {
            Argument{&parameters, sizeof(Parameters), std::is_pointer_v<Parameters>,
                     std::is_const_v<std::remove_pointer_t<Parameters>>}...,
            Argument{}};
        run({name, grid, block, shared_bytes, stream, reinterpret_cast<const void*>(kernel), list,
             sizeof...(Parameters),
             [](const void* b) {
               const auto& [function, values] = *static_cast<const Bound*>(b);
               std::apply(function, values);
             },
             &bound});
      },
      bound.second);
}

}  // namespace espalier::emulation
