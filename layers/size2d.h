// Size2d: a height and a width, or one number for both.
#pragma once

#include <cstdint>
#include <string>

namespace espalier {

/// {.kernel = 3} is 3x3, {.kernel = {1, 3}} is 1 high and 3 wide.
struct Size2d {
  constexpr Size2d(int64_t square) : h(square), w(square) {}
  constexpr Size2d(int64_t height, int64_t width) : h(height), w(width) {}
  constexpr bool operator==(const Size2d&) const = default;
  /// "3x3"
  std::string to_string() const { return std::to_string(h) + "x" + std::to_string(w); }

  int64_t h, w;
};

}  // namespace espalier
