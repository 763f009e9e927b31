// The reduced precisions to which tensor cores round the inputs of a product; sums stay in float.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace espalier::emulation {

enum class Precision {
  full,
  tf32,  ///< 10 mantissa bits, ties away from zero (PTX ISA, "cvt.rna.tf32")
  bf16,  ///< 7 mantissa bits, ties to even
  fp16,  ///< IEEE half: 10 mantissa bits, ties to even, and its range
};

inline float round_to(Precision precision, float value) {
  if (precision == Precision::full || !std::isfinite(value)) return value;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (precision == Precision::tf32) return std::bit_cast<float>((bits + 0x1000U) & ~0x1fffU);
  if (precision == Precision::bf16) return std::bit_cast<float>((bits + 0x7fffU + ((bits >> 16) & 1U)) & ~0xffffU);
  const float magnitude = std::abs(value);
  if (magnitude >= 65520) return std::copysign(std::numeric_limits<float>::infinity(), value);
  if (magnitude < 0x1p-14F) return std::nearbyint(value * 0x1p24F) * 0x1p-24F;  // subnormal halves lie 2^-24 apart
  return std::bit_cast<float>((bits + 0xfffU + ((bits >> 13) & 1U)) & ~0x1fffU);
}
inline double round_to(Precision, double value) { return value; }

}  // namespace espalier::emulation
