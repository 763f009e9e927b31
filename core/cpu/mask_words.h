// Masks as CPU kernels see them: words of one bit for each weight, which vector instructions apply whole.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "core/mask.h"

namespace espalier::cpu {

/// An unsigned integer as wide as T.
template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
/// Bit j of `bits` on all bits of a T: what kept() takes.
template <class T>
BitsOf<T> lane(uint32_t bits, int64_t j) {
  return BitsOf<T>{0} - (bits >> j & 1);
}
/// `value` where the lane is set, else 0, also for NaN. Without a branch, so that compilers make vectors of it.
template <class T>
T kept(BitsOf<T> lane, T value) {
  return std::bit_cast<T>(std::bit_cast<BitsOf<T>>(value) & lane);
}

/// Which of a weight's elements exist, 64 to a word in row-major order, lowest bit first, whatever the pattern.
class MaskWords {
 public:
  static constexpr int64_t kBits = 64;

  MaskWords(const MaskLayout& layout, const int64_t* units)
      : layout_(layout),
        units_(units),
        numel_(layout.rows * layout.columns),
        is_flat_(layout.block_rows == 1 && layout.row_period == layout.rows && kBits % layout.block_columns == 0 &&
                 !layout.recurrent) {}

  int64_t size() const { return (numel_ + kBits - 1) / kBits; }

  /// Calls f(first, count, bits) for the elements of words [begin, end), half a word at a time: bit j of the uint32_t
  /// `bits` is element first + j, for lane(bits, j).
  template <class F>
  void for_each_half(int64_t begin, int64_t end, F&& f) const {
    constexpr int64_t kHalf = kBits / 2;
    Place place = place_of(begin * kBits);
    for (int64_t w = begin; w < end; ++w) {
      const int64_t first = w * kBits, left = numel_ - first;
      const uint64_t word = is_flat_ ? flat_word(w) : gathered(place, std::min(left, kBits));
      const auto low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> kHalf);
      if (left >= kBits) {  // the count is a constant here, so that f's loop has no remainder
        f(first, kHalf, low);
        f(first + kHalf, kHalf, high);
      } else {
        f(first, std::min(left, kHalf), low);
        if (left > kHalf) f(first + kHalf, left - kHalf, high);
      }
    }
  }

 private:
  /// Each of eight bits `Width` times.
  template <int Width>
  static constexpr std::array<uint64_t, 256> kWide = [] {
    std::array<uint64_t, 256> table{};
    for (size_t bits = 0; bits < table.size(); ++bits)
      for (int place = 0; place < 8 * Width; ++place) table[bits] |= uint64_t{bits >> place / Width & 1} << place;
    return table;
  }();

  /// Where an element is; divisions are slow, so that those of a row are done once.
  struct Place {
    int64_t row, column;
    int64_t first_unit;  ///< of the row
  };

  Place place_of(int64_t element) const {
    const int64_t row = element / layout_.columns;
    return {row, element % layout_.columns, layout_.unit_of(row, 0)};
  }

  static uint64_t lowest(int64_t count) { return count >= kBits ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }
  bool unit(int64_t i) const { return static_cast<uint64_t>(units_[i / kBits]) >> (i % kBits) & 1; }

  /// The bits of `count` units from the first one on.
  uint64_t unit_bits(int64_t first, int64_t count) const {
    const int64_t at = first / kBits, shift = first % kBits;
    uint64_t bits = static_cast<uint64_t>(units_[at]) >> shift;
    if (shift + count > kBits) bits |= static_cast<uint64_t>(units_[at + 1]) << (kBits - shift);
    return bits & lowest(count);
  }

  /// Word w where rows don't matter: element i belongs to unit i / width, so that a word is 64 / width whole units.
  uint64_t flat_word(int64_t w) const {
    const int64_t width = layout_.block_columns, count = kBits / width;
    return width == 1 ? static_cast<uint64_t>(units_[w]) : widened(unit_bits(w * count, count), count);
  }

  /// The bits of `count` neighbours in a row.
  uint64_t row_bits(const Place& place, int64_t count) const {
    if (layout_.recurrent) return unit(place.first_unit) ? unit_bits(place.column, count) : 0;
    const int64_t width = layout_.block_columns;
    if (width == 1) return unit_bits(place.first_unit + place.column, count);
    if (width == layout_.columns) return unit(place.first_unit) ? lowest(count) : 0;
    // The first unit may have begun before, the others begin at multiples of their width.
    const int64_t block = place.column / width, first_unit = place.first_unit + block;
    const int64_t run = std::min(count, (block + 1) * width - place.column);
    const uint64_t bits = unit(first_unit) ? lowest(run) : 0;
    if (run == count) return bits;
    const int64_t others = (count - run + width - 1) / width;
    return bits | (widened(unit_bits(first_unit + 1, others), others) << run & lowest(count));
  }

  /// Bit k of `bits` on the places k * width ... k * width + width - 1, for less than 64 places in all but the last
  /// unit.
  uint64_t widened(uint64_t bits, int64_t count) const {
    const int64_t width = layout_.block_columns;
    if (width >= kBits) return bits != 0 ? ~uint64_t{0} : 0;
    uint64_t wide = 0;
    if (width == 2 || width == 4 || width == 8) {
      // Eight units at a time, from a table: one by one they would take as long as the weights' arithmetic.
      const std::array<uint64_t, 256>& table = width == 2 ? kWide<2> : width == 4 ? kWide<4> : kWide<8>;
      for (int64_t k = 0; k < count; k += 8) wide |= table[bits >> k & 255] << k * width;
    } else {
      for (int64_t k = 0; k < count; ++k) wide |= (bits >> k & 1) << k * width;
      wide = (wide << width) - wide;  // from each unit's first place up to its last
    }
    return wide;
  }

  /// The bits of `count` elements from a place on, which moves behind them.
  uint64_t gathered(Place& place, int64_t count) const {
    uint64_t bits = 0;
    for (int64_t done = 0; done < count;) {
      const int64_t piece = std::min(count - done, layout_.columns - place.column);
      bits |= row_bits(place, piece) << done;
      done += piece;
      place.column += piece;
      if (place.column == layout_.columns && place.row + 1 < layout_.rows)
        place = {place.row + 1, 0, layout_.unit_of(place.row + 1, 0)};
    }
    return bits;
  }

  MaskLayout layout_;
  const int64_t* units_;
  int64_t numel_;
  bool is_flat_;  ///< units are runs of 2^i <= 64 neighbours, over the ends of rows as within them
};

}  // namespace espalier::cpu
