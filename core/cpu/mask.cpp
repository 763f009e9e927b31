#include <algorithm>
#include <bit>

#include "core/backend/operators.h"
#include "core/cpu/mask_words.h"
#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {

void apply_mask(const MaskLayout& layout, const Tensor& words, Tensor& x) {
  constexpr int64_t kGrainWords = 512;  // that are worth a thread
  const MaskWords exists(layout, words.data<int64_t>());
  dispatch_floating(x.dtype(), "apply_mask", [&](auto zero) {
    using T = decltype(zero);
    T* const values = x.data<T>();
    parallel_for(exists.size(), kGrainWords, [&](int64_t begin, int64_t end) {
      exists.for_each_half(begin, end, [&](int64_t first, int64_t count, uint32_t bits) {
        if (bits == ~uint32_t{0}) return;  // patterns of whole rows have long runs of these
        T* const v = values + first;
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) v[j] = kept(lane<T>(bits, j), v[j]);
      });
    });
  });
}

void sum_over_units(const MaskLayout& layout, const Tensor& x, Tensor& sums) {
  double* const sum = sums.data<double>();
  std::fill_n(sum, sums.numel(), 0.0);
  dispatch_floating(x.dtype(), "sum_over_units", [&]<class T>(T) {
    const T* value = x.data<T>();
    for (int64_t row = 0; row < layout.rows; ++row) {
      double* unit = sum + layout.unit_of(row, 0);
      for (int64_t column = 0; column < layout.columns; column += layout.block_columns, ++unit)
        for (int64_t i = 0; i < layout.block_columns; ++i, ++value) {
          *unit += static_cast<double>(*value);
          // An element of w_hh belongs to the unit of its row and to that of its column.
          if (layout.recurrent && sum + i != unit) sum[i] += static_cast<double>(*value);
        }
    }
  });
}

void combine_bits(BitOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  const auto *left = a.data<int64_t>(), *right = b.data<int64_t>();
  int64_t* const to = out.data<int64_t>();
  const int64_t count = out.numel();
  with_bits(op, [&](auto f) {
#pragma omp simd
    for (int64_t w = 0; w < count; ++w) to[w] = f(left[w], right[w]);
  });
}

void count_bits(const Tensor& words, Tensor& count) {
  const int64_t* const bits = words.data<int64_t>();
  int64_t total = 0;
  for (int64_t w = 0; w < words.numel(); ++w) total += std::popcount(static_cast<uint64_t>(bits[w]));
  *count.data<int64_t>() = total;
}

}  // namespace espalier::cpu
