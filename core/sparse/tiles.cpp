#include "core/sparse/tiles.h"

#include <algorithm>
#include <cstring>

namespace espalier {
namespace {

constexpr int kSide = 8;
using Lanes = float __attribute__((vector_size(4 * kSide), aligned(4)));
using Indices = int32_t __attribute__((vector_size(4 * kSide)));

/// Swaps, in a square of kSide x kSide, the upper right and the lower left of each square of 2 * kHalf.
template <int kHalf>
void swap_corners(Lanes* square) {
  Indices upper{}, lower{};
  for (int j = 0; j < kSide; ++j) {
    upper[j] = (j & kHalf) != 0 ? kSide + j - kHalf : j;
    lower[j] = (j & kHalf) != 0 ? kSide + j : j + kHalf;
  }
  for (int i = 0; i < kSide; ++i) {
    if ((i & kHalf) != 0) continue;
    const Lanes a = square[i], b = square[i + kHalf];
    square[i] = __builtin_shuffle(a, b, upper);
    square[i + kHalf] = __builtin_shuffle(a, b, lower);
  }
}

void transpose_square(Lanes* square) {
  swap_corners<1>(square);
  swap_corners<2>(square);
  swap_corners<4>(square);
}

}  // namespace

namespace {
/// Rows of a fixed number of squares' sides, whole.
template <int kSides>
void copy_rows(const float* x, int64_t rows, int64_t stride, float* tile) {
  for (int64_t k = 0; k < rows; ++k, x += stride, tile += kSides * kSide)
    for (int j = 0; j < kSides; ++j) reinterpret_cast<Lanes*>(tile)[j] = reinterpret_cast<const Lanes*>(x)[j];
}
}  // namespace

void pack_tile(const float* x, int64_t rows, int64_t width, int64_t stride, int64_t tile_width, float* tile) {
  if (width == tile_width && width == kSide) return copy_rows<1>(x, rows, stride, tile);
  if (width == tile_width && width == 2 * kSide) return copy_rows<2>(x, rows, stride, tile);
  if (width == tile_width && width == 4 * kSide) return copy_rows<4>(x, rows, stride, tile);
  for (int64_t k = 0; k < rows; ++k, x += stride, tile += tile_width) {
    std::memcpy(tile, x, static_cast<size_t>(width) * sizeof(float));
    std::fill(tile + width, tile + tile_width, 0.0F);
  }
}

void pack_tile_transposed(const float* x, int64_t rows, int64_t width, int64_t stride, int64_t tile_width,
                          float* tile) {
  int64_t k = 0;
  for (; k + kSide <= rows; k += kSide) {
    for (int64_t i = 0; i < tile_width; i += kSide) {
      Lanes square[kSide] = {};
      for (int64_t r = 0; r < std::min<int64_t>(kSide, width - i); ++r)
        square[r] = *reinterpret_cast<const Lanes*>(x + (i + r) * stride + k);
      transpose_square(square);
      for (int64_t r = 0; r < kSide; ++r) *reinterpret_cast<Lanes*>(tile + (k + r) * tile_width + i) = square[r];
    }
  }
  for (; k < rows; ++k)
    for (int64_t i = 0; i < tile_width; ++i) tile[k * tile_width + i] = i < width ? x[i * stride + k] : 0.0F;
}

void unpack_tile_transposed(const float* tile, int64_t rows, int64_t width, int64_t tile_width, const float* bias,
                            float* y, int64_t stride) {
  int64_t k = 0;
  for (; k + kSide <= rows; k += kSide) {
    const Lanes more = bias != nullptr ? *reinterpret_cast<const Lanes*>(bias + k) : Lanes{};
    for (int64_t i = 0; i < width; i += kSide) {
      Lanes square[kSide];
      for (int64_t r = 0; r < kSide; ++r) square[r] = *reinterpret_cast<const Lanes*>(tile + (k + r) * tile_width + i);
      transpose_square(square);
      for (int64_t r = 0; r < std::min<int64_t>(kSide, width - i); ++r) {
        const Lanes sum = bias != nullptr ? square[r] + more : square[r];
        *reinterpret_cast<Lanes*>(y + (i + r) * stride + k) = sum;
      }
    }
  }
  for (; k < rows; ++k)
    for (int64_t i = 0; i < width; ++i)
      y[i * stride + k] = tile[k * tile_width + i] + (bias != nullptr ? bias[k] : 0.0F);
}

}  // namespace espalier
