// The one seam between a real GPU and the emulated one: kernels are launched with launch(), never with <<<>>>, and
// shared memory is declared with the macros below. Everything else in a .cu file is plain CUDA C++.
//
//   SHARED_ARRAY(T, name, count)     static shared memory of a block: `count` is a constant
//   DYNAMIC_SHARED_ARRAY(T, name)    the launch's Launch::shared_bytes as an array of T
//
// An element of these arrays is read by a conversion to T and written by an assignment, and &name[i] goes to the atomic
// functions only: the emulator follows every access, to find those that are out of bounds, not yet written, or not
// separated from another thread's by a barrier.
#pragma once

#include <fmt/format.h>

#include "cuda/context.h"

#if defined(ESPALIER_CUDA_EMULATION)  // the emulator's <cuda_runtime.h> defines it
#include "cuda/emulation/launch.h"
#elif defined(__CUDACC__)
#define SHARED_ARRAY(T, name, count) __shared__ T name[count]
#define DYNAMIC_SHARED_ARRAY(T, name)                                   \
  extern __shared__ __align__(16) unsigned char name##_dynamic_bytes[]; \
  T* const name = reinterpret_cast<T*>(name##_dynamic_bytes)
#endif

namespace espalier::cuda {

/// How a kernel is launched. `name` appears in errors, such as "conv2d.add_bias".
struct Launch {
  const char* name;
  dim3 grid, block;
  size_t shared_bytes = 0;
};

constexpr int kWarp = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

/// Blocks of `threads` threads that cover n elements, at most eight for each multiprocessor: kernels loop over the
/// rest.
inline unsigned blocks_for(const Context& context, int64_t n, int threads) {
  const int64_t wanted = (n + threads - 1) / threads, most = int64_t{8} * context.multiprocessors();
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

/// Throws Error with the kernel, its grid, block and stream.
[[noreturn]] void launch_failed(const Context& context, const Launch& launch, const char* why);
/// Throws ArgumentError when no GPU can run a grid or block of this size (CUDA C++ Programming Guide, "Compute
/// Capabilities").
void check_limits(const Launch& launch);

#if defined(ESPALIER_CUDA_EMULATION) || defined(__CUDACC__)
/// Enqueues a kernel on the context's stream. Arguments are converted to the kernel's parameters.
template <class... Parameters, class... Arguments>
void launch(Context& context, const Launch& how, void (*kernel)(Parameters...), Arguments... arguments) {
  check_limits(how);
#ifdef __CUDACC__
  kernel<<<how.grid, how.block, how.shared_bytes, context.stream()>>>(static_cast<Parameters>(arguments)...);
#else
  emulation::launch(how.name, how.grid, how.block, how.shared_bytes, context.stream(), kernel,
                    static_cast<Parameters>(arguments)...);
#endif
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) launch_failed(context, how, cudaGetErrorString(status));
}
#endif

}  // namespace espalier::cuda
