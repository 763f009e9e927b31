#include "core/mask.h"
#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {
namespace {

bool bit(const int64_t* words, int64_t unit) { return static_cast<uint64_t>(words[unit / 64]) >> (unit % 64) & 1; }

template <class T>
void apply_row(const MaskLayout& layout, const int64_t* words, int64_t row, T* x) {
  if (layout.recurrent) {
    const bool row_exists = bit(words, row % layout.row_period);
    for (int64_t c = 0; c < layout.columns; ++c)
      if (!row_exists || !bit(words, c)) x[c] = 0;
    return;
  }
  const int64_t first_unit = layout.unit_of(row, 0);
  for (int64_t block = 0; block < layout.grid_columns; ++block) {
    if (bit(words, first_unit + block)) continue;
    std::fill_n(x + block * layout.block_columns, layout.block_columns, T{0});
  }
}

}  // namespace

void apply_mask(const MaskLayout& layout, const Tensor& words, Tensor& x) {
  const int64_t* bits = words.data<int64_t>();
  dispatch_floating(x.dtype(), "apply_mask", [&](auto zero) {
    using T = decltype(zero);
    T* values = x.data<T>();
    parallel_for(layout.rows, std::max<int64_t>(1, 32768 / layout.columns), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) apply_row(layout, bits, row, values + row * layout.columns);
    });
  });
}

}  // namespace espalier::cpu
