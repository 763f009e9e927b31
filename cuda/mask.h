// Whether a weight exists, for every kernel that applies masks.
#pragma once

#include "core/mask.h"
#include "cuda/launch.h"

namespace espalier::cuda {

/// The bit of a unit in a mask's words: 64 a word, lowest bit first.
__device__ inline bool unit_exists(const int64_t* words, int64_t unit) {
  return static_cast<uint64_t>(words[unit / 64]) >> (unit % 64) & 1;
}

/// Element i is unit i: the usual case, which needs no divisions.
inline bool has_one_bit_each(const MaskLayout& layout) {
  return layout.units() == layout.rows * layout.columns && !layout.recurrent;
}

/// Whether element i of a weight, in row-major order, exists (MaskLayout has the formula).
__device__ inline bool weight_exists(const MaskLayout& layout, const int64_t* words, int64_t i) {
  const int64_t row = i / layout.columns, column = i - row * layout.columns;
  const int64_t unit_row = row % layout.row_period;
  if (layout.recurrent) return unit_exists(words, unit_row) && unit_exists(words, column);
  return unit_exists(words, unit_row / layout.block_rows * layout.grid_columns + column / layout.block_columns);
}

}  // namespace espalier::cuda
