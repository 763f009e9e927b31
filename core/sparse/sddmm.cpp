#include "core/sparse/sddmm.h"

#include <algorithm>

#include "core/sparse/place.h"
#include "core/sparse/tiles.h"
#include "core/threads.h"

namespace espalier {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
constexpr int kVectors = 8;                    // of a row of dy, in registers
constexpr int64_t kWidth = kLanes * kVectors;  // columns of dy and x that are summed in one go
constexpr int64_t kPanelRows = 32;             // rows of dy that are laid out at a time

using Lanes = float __attribute__((vector_size(4 * kLanes), aligned(4)));
using Indices = int32_t __attribute__((vector_size(4 * kLanes)));

/// In every 2 * kHalf lanes, sums of a's halves first, then of b's.
template <int kHalf>
Lanes fold(const Lanes& a, const Lanes& b) {
  Indices low{}, high{};
  for (int j = 0; j < kLanes; ++j) {
    low[j] = j / (2 * kHalf) * (2 * kHalf) + j % kHalf + ((j & kHalf) != 0 ? kLanes : 0);
    high[j] = low[j] + kHalf;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

/// Lane j is the sum of the lanes of v[j]: a tree of folds.
template <int kStride = 1>
inline __attribute__((always_inline)) Lanes sums_of_lanes(const Lanes* v) {
  if constexpr (kStride == kLanes)
    return *v;
  else
    return fold<kStride>(sums_of_lanes<2 * kStride>(v), sums_of_lanes<2 * kStride>(v + kStride));
}

/// Entries first up to last of one row of dy; rows of kWidth floats.
void run_row(const int32_t* column, int64_t first, int64_t last, const float* dy, const float* x, bool adds, float* g) {
  Lanes d[kVectors];
  for (int j = 0; j < kVectors; ++j) d[j] = reinterpret_cast<const Lanes*>(dy)[j];
  Lanes products[kLanes] = {};
  for (int64_t e = first; e < last; e += kLanes) {
    const auto here = static_cast<int>(std::min<int64_t>(kLanes, last - e));
    for (int i = 0; i < here; ++i) {
      const auto* xs = reinterpret_cast<const Lanes*>(x + int64_t{column[e + i]} * kWidth);
      Lanes even = xs[0] * d[0], odd = xs[1] * d[1];
      for (int j = 2; j < kVectors; j += 2) {
        even += xs[j] * d[j];
        odd += xs[j + 1] * d[j + 1];
      }
      products[i] = even + odd;
    }
    const Lanes sums = sums_of_lanes(products);
    if (here == kLanes) {
      auto& to = reinterpret_cast<Lanes&>(g[e]);
      to = adds ? to + sums : sums;
    } else {
      for (int i = 0; i < here; ++i) g[e + i] = adds ? g[e + i] + sums[i] : sums[i];
    }
  }
}

/// lay_dy and lay_x(first row, rows, block, to) lay rows, kWidth columns from the block's on, zeros right of the last.
template <class LayDy, class LayX>
void run_blocks(const Csr& a, int64_t n, const LayDy& lay_dy, const LayX& lay_x, float* g) {
  if (n == 0) std::fill(g, g + a.nnz(), 0.0F);
  for (int64_t block = 0; block * kWidth < n; ++block) {
    float* x = place_for(a.columns * kWidth);
    parallel_for(a.columns, 64,
                 [&](int64_t begin, int64_t end) { lay_x(begin, end - begin, block, x + begin * kWidth); });
    parallel_for((a.rows + kPanelRows - 1) / kPanelRows, 1, [&](int64_t begin, int64_t end) {
      alignas(64) float dy[kPanelRows * kWidth];
      for (int64_t row = begin * kPanelRows; row < std::min(a.rows, end * kPanelRows); ++row) {
        const int64_t within = row % kPanelRows;
        if (within == 0) lay_dy(row, std::min(kPanelRows, a.rows - row), block, dy);
        run_row(a.column.data(), a.row_offsets[static_cast<size_t>(row)], a.row_offsets[static_cast<size_t>(row) + 1],
                dy + within * kWidth, x, block > 0, g);
      }
    });
  }
}

}  // namespace

void sddmm(const Csr& a, const float* dy, int64_t dy_stride, const float* x, int64_t x_stride, int64_t n, float* g) {
  const auto lay = [n](const float* from, int64_t stride) {
    return [=](int64_t first, int64_t rows, int64_t block, float* to) {
      pack_tile(from + first * stride + block * kWidth, rows, std::min(kWidth, n - block * kWidth), stride, kWidth, to);
    };
  };
  run_blocks(a, n, lay(dy, dy_stride), lay(x, x_stride), g);
}

void sddmm_batch(const Csr& a, const float* dy, int64_t dy_stride, const float* x, int64_t x_stride, int64_t n,
                 float* g) {
  const auto lay = [n](const float* from, int64_t stride) {
    return [=](int64_t first, int64_t rows, int64_t block, float* to) {
      pack_tile_transposed(from + block * kWidth * stride + first, rows, std::min(kWidth, n - block * kWidth), stride,
                           kWidth, to);
    };
  };
  run_blocks(a, n, lay(dy, dy_stride), lay(x, x_stride), g);
}

}  // namespace espalier
