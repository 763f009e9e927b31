// Numbers as unsigned keys in the same order, for sorting and selection by digits.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace espalier {

template <class T>
using OrderedKey = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

/// The key of a number: ascending, -0 equal to 0, NaN the largest.
template <class T>
constexpr OrderedKey<T> ordered_key(T value) {
  using Key = OrderedKey<T>;
  constexpr Key kSign = Key{1} << (8 * sizeof(Key) - 1);
  if constexpr (std::is_floating_point_v<T>) {
    if (value != value) return std::numeric_limits<Key>::max();
    // -0 + 0 = 0. Negative numbers grow with falling bits; all bits flipped they come first, in order.
    const Key bits = std::bit_cast<Key>(value + T{0});
    return bits & kSign ? ~bits : bits | kSign;
  } else {
    return static_cast<Key>(value) ^ kSign;
  }
}

/// The number that has this key; a key of none is a NaN.
constexpr double double_of_key(uint64_t key) {
  constexpr uint64_t kSign = uint64_t{1} << 63;
  return std::bit_cast<double>(key & kSign ? key ^ kSign : ~key);
}

}  // namespace espalier
