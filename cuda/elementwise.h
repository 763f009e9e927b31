// The one family of elementwise kernels: out[i] = f(in[i]...) for any number of operands and any strides, with 16-byte
// accesses where all operands are dense and aligned.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "core/backend/dispatch.h"
#include "core/backend/index_space.h"
#include "cuda/launch.h"

namespace espalier::cuda {

constexpr int kElementwiseThreads = 256;

/// V neighbours, moved by one access.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T of[V];
};

/// What a kernel reads: a tensor's elements, or one number in place of them all.
template <class T>
struct Operand {
  const T* data;
  T number;
  Strides strides;

  explicit Operand(const Tensor& x) : data(static_cast<const T*>(x.raw())), number(), strides(x.strides()) {}
  /// A number steps along with the output, so that it stands in no way of the dense path.
  Operand(T value, const Tensor& out) : data(nullptr), number(value), strides(out.strides()) {}
};

/// The part of an Operand that goes to the device.
template <class T>
struct Source {
  const T* data;
  T number;

  __device__ T at(int64_t offset) const { return data ? data[offset] : number; }
  template <int V>
  __device__ Pack<T, V> pack(int64_t i) const {
    if (data) return reinterpret_cast<const Pack<T, V>*>(data)[i];
    Pack<T, V> same;
    for (int v = 0; v < V; ++v) same.of[v] = number;
    return same;
  }
};

/// out[i] = f(in[i]...) for i < n, V at a time; the last n % V elements one by one.
template <int V, class F, class R, class... T>
__global__ void map_dense(int64_t n, F f, R* out, Source<T>... in) {
  const int64_t packs = n / V, step = int64_t{gridDim.x} * blockDim.x;
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const auto apply = [&f](const Pack<T, V>&... x) {
    Pack<R, V> result;
    for (int v = 0; v < V; ++v) result.of[v] = f(x.of[v]...);
    return result;
  };
  for (int64_t i = first; i < packs; i += step)
    reinterpret_cast<Pack<R, V>*>(out)[i] = apply(in.template pack<V>(i)...);
  if (first < n - packs * V) out[packs * V + first] = f(in.at(packs * V + first)...);
}

template <class F, class R, class... T, size_t... K>
__device__ void map_element(const int64_t (&offsets)[1 + sizeof...(T)], const F& f, R* out, std::index_sequence<K...>,
                            const Source<T>&... in) {
  out[offsets[0]] = f(in.at(offsets[1 + K])...);
}

template <class F, class R, class... T>
__global__ void map_strided(backend::IndexSpace<1 + sizeof...(T)> space, F f, R* out, Source<T>... in) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < space.numel;
       i += int64_t{gridDim.x} * blockDim.x) {
    int64_t offsets[1 + sizeof...(T)];
    space.offsets(i, offsets);
    map_element(offsets, f, out, std::index_sequence_for<T...>{}, in...);
  }
}

/// out = f(in...), elements of type R from operands of out's shape.
template <class R, class F, class... T>
void map(const char* name, Tensor& out, F f, const Operand<T>&... in) {
  if (out.numel() == 0) return;
  constexpr int kOperands = 1 + sizeof...(T);
  constexpr int kPack = 16 / static_cast<int>(std::max({sizeof(R), sizeof(T)...}));
  Context& context = Context::of(out.device());
  R* const to = static_cast<R*>(out.raw());
  const auto space =
      backend::in_memory_order<kOperands>(out.shape(), std::array<Strides, kOperands>{out.strides(), in.strides...});
  const auto aligned = [](const void* address, size_t size) {
    return reinterpret_cast<uintptr_t>(address) % (size * kPack) == 0;
  };
  // Named with their full types: of a template with a pack alone, launch() couldn't tell which function is meant.
  if (space.contiguous() && aligned(to, sizeof(R)) && (aligned(in.data, sizeof(T)) && ...)) {
    void (*const kernel)(int64_t, F, R*, Source<T>...) = map_dense<kPack, F, R, T...>;
    launch(context,
           {name, blocks_for(context, (space.numel + kPack - 1) / kPack, kElementwiseThreads), kElementwiseThreads},
           kernel, space.numel, f, to, Source<T>{in.data, in.number}...);
  } else {
    void (*const kernel)(backend::IndexSpace<kOperands>, F, R*, Source<T>...) = map_strided<F, R, T...>;
    launch(context, {name, blocks_for(context, space.numel, kElementwiseThreads), kElementwiseThreads}, kernel, space,
           f, to, Source<T>{in.data, in.number}...);
  }
}

}  // namespace espalier::cuda
