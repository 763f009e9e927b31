// Random numbers from the words of Philox blocks. The counter of a block is (block, stream) and the key is the seed,
// each as two 32-bit words, low word first. Values are numbered in row-major order:
//   f32 uniform    value i: word i%4 of block offset + i/4, its upper 24 bits
//   f64 uniform    value i: words 2(i%2) and 2(i%2)+1 of block offset + i/2, the upper 53 of their 64 bits
//   f32 normal     a block gives four values: Box-Muller pairs of words 0, 1 and of words 2, 3; the first word of a
//                  pair gives the radius (f32(word) + 1) / 2^32, the second the angle, its upper 24 bits of a turn
//   f64 normal     a block gives two values: one Box-Muller pair of words 0, 1 and words 2, 3
//   bernoulli      any dtype, value i: word i%4 of block offset + i/4 is below p * 2^32
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace espalier::backend {

/// In [0, 1).
constexpr float uniform_of(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }
constexpr double uniform_of(uint32_t high, uint32_t low) {
  return static_cast<double>((uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

/// Uniform f32 of [low, high): rounding may carry start + width * u up to the excluded bound.
struct UniformRange {
  float start, width, last;

  UniformRange(double low, double high)
      : start(static_cast<float>(low)),
        width(static_cast<float>(high - low)),
        last(width > 0 ? std::nextafter(static_cast<float>(high), start) : start) {}
  constexpr float of(uint32_t word) const {
    const float value = start + width * uniform_of(word);
    return value > last ? last : value;
  }
};

/// The radius of a Box-Muller pair, in (0, 1]. All 32 bits go into it, so that the tails reach 6.6 standard deviations.
constexpr float radius_of(uint32_t word) { return (static_cast<float>(word) + 1.0f) * 0x1p-32f; }
/// 1 - u lies in (0, 1]: its logarithm is finite.
constexpr double radius_of(uint32_t high, uint32_t low) { return 1.0 - uniform_of(high, low); }

/// True with probability p.
struct Trial {
  uint32_t threshold;
  bool always;  ///< 2^32 doesn't fit a word

  explicit Trial(double p) {
    const auto below = static_cast<uint64_t>(std::llround(std::clamp(p, 0.0, 1.0) * 0x1p32));
    threshold = static_cast<uint32_t>(below);
    always = below >> 32;
  }
  constexpr bool succeeds(uint32_t word) const { return (word < threshold) | always; }
};

}  // namespace espalier::backend
