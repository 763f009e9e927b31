#include "cuda/mask.h"

#include "core/backend/operators.h"
#include "cuda/elementwise.h"
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

/// A thread for each unit: its elements in row-major order, as on the CPU, for the same bits.
template <class T>
__global__ void sum_units(MaskLayout layout, const T* x, double* sums) {
  const int64_t units = layout.row_period / layout.block_rows * layout.grid_columns;
  for (int64_t u = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; u < units; u += int64_t{gridDim.x} * blockDim.x) {
    double sum = 0;
    if (layout.recurrent) {
      for (int64_t row = 0; row < layout.rows; ++row) {
        const bool is_own_row = row % layout.row_period == u;
        const int64_t begin = is_own_row ? 0 : u, end = is_own_row ? layout.columns : u + 1;
        for (int64_t column = begin; column < end; ++column)
          sum += static_cast<double>(x[row * layout.columns + column]);
      }
    } else {
      const int64_t first_row = u / layout.grid_columns * layout.block_rows;
      const int64_t first_column = u % layout.grid_columns * layout.block_columns;
      for (int64_t period = 0; period < layout.rows; period += layout.row_period)
        for (int64_t row = period + first_row; row < period + first_row + layout.block_rows; ++row)
          for (int64_t column = first_column; column < first_column + layout.block_columns; ++column)
            sum += static_cast<double>(x[row * layout.columns + column]);
    }
    sums[u] = sum;
  }
}

__global__ void count_set_bits(int64_t n, const int64_t* words, unsigned long long* count) {
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, step = int64_t{gridDim.x} * blockDim.x;
  unsigned bits = 0;
  for (int64_t w = thread; w < n; w += step) bits += static_cast<unsigned>(__popcll(static_cast<uint64_t>(words[w])));
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) bits += __shfl_down_sync(kFullWarp, bits, distance);
  if (thread % kWarp == 0 && bits > 0) atomicAdd(count, static_cast<unsigned long long>(bits));
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

void sum_over_units(const MaskLayout& layout, const Tensor& x, Tensor& sums) {
  if (sums.numel() == 0) return;
  constexpr int kThreads = 128;
  Context& context = Context::of(x.device());
  dispatch_floating(x.dtype(), "sum_over_units", [&](auto zero) {
    using T = decltype(zero);
    launch(context, {"sum_over_units", blocks_for(context, sums.numel(), kThreads), kThreads}, sum_units<T>, layout,
           x.data<T>(), sums.data<double>());
  });
}

void combine_bits(BitOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  with_bits(op, [&](auto f) { map<int64_t>("combine_bits", out, f, Operand<int64_t>(a), Operand<int64_t>(b)); });
}

void count_bits(const Tensor& words, Tensor& count) {
  cuda::fill(count, 0);
  if (words.numel() == 0) return;
  constexpr int kThreads = 256;
  Context& context = Context::of(words.device());
  launch(context, {"count_bits", blocks_for(context, words.numel(), kThreads), kThreads}, count_set_bits, words.numel(),
         words.data<int64_t>(), static_cast<unsigned long long*>(count.raw()));
}

}  // namespace espalier::cuda
