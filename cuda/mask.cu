#include "cuda/mask.h"

#include "cuda/table.h"

namespace espalier::cuda {
namespace {

/// x is only written: what exists costs one bit of reading.
template <class T>
__global__ void apply(MaskLayout layout, bool one_bit_each, const int64_t* words, T* x) {
  const int64_t n = layout.rows * layout.columns;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x)
    if (!(one_bit_each ? unit_exists(words, i) : weight_exists(layout, words, i))) x[i] = T{0};
}

}  // namespace

void apply_mask(const MaskLayout& layout, const Tensor& words, Tensor& x) {
  if (x.numel() == 0) return;
  constexpr int kThreads = 256;
  Context& context = Context::of(x.device());
  dispatch_floating(x.dtype(), "apply_mask", [&](auto zero) {
    using T = decltype(zero);
    launch(context, {"apply_mask", blocks_for(context, x.numel(), kThreads), kThreads}, apply<T>, layout,
           has_one_bit_each(layout), words.data<int64_t>(), x.data<T>());
  });
}

}  // namespace espalier::cuda
