// Elementary functions that the compiler can vectorise: branch-free f32 versions, a few ulp from exact, right for
// NaN, infinities, overflow and subnormals. The double overloads are std:: and serve as the reference.
// Polynomials: Cephes (Moshier) expf, logf, tanhf; erf after N. Juffa's single-precision erff.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace espalier::cpu::vector_math {

// Comparisons below are written so that a NaN falls through unchanged: `x > bound ? bound : x`.

/// e^x, about 1 ulp. Results below 2^-126 are subnormal, not flushed.
inline float exp(float x) {
  x = x > 89.0f ? 89.0f : x;      // e^89 overflows to infinity below
  x = x < -104.0f ? -104.0f : x;  // e^-104 rounds to 0
  // Adding 1.5 * 2^23 rounds x / ln 2 to an integer that can be read from the low mantissa bits.
  const float shifted = x * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors: n reaches from -150 to 128, beyond what one exponent field holds.
  const int32_t k = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(12582912.0f);
  const int32_t half = k >> 1;
  const float scale1 = std::bit_cast<float>((static_cast<uint32_t>(half) + 127u) << 23);
  const float scale2 = std::bit_cast<float>((static_cast<uint32_t>(k - half) + 127u) << 23);
  return p * scale1 * scale2;
}
inline double exp(double x) { return std::exp(x); }

/// Natural logarithm, about 1 ulp; log(0) = -inf, log(x < 0) = NaN.
inline float log(float x) {
  const bool subnormal = x < std::numeric_limits<float>::min();
  const float scaled = subnormal ? x * 8388608.0f : x;
  // scaled = m * 2^e with m in [sqrt(1/2), sqrt(2))
  const uint32_t bits = std::bit_cast<uint32_t>(scaled);
  const int32_t e = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;
  const float m = std::bit_cast<float>(bits - (static_cast<uint32_t>(e) << 23)) - 1.0f;
  const float exponent = static_cast<float>(subnormal ? e - 23 : e);
  const float square = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  float y = p * m * square;
  y = y - exponent * 2.12194440e-4f;
  y = y - 0.5f * square;
  y = m + y;
  y = y + exponent * 0.693359375f;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  y = x == kInfinity ? kInfinity : y;
  y = x == 0.0f ? -kInfinity : y;
  y = x < 0.0f ? std::numeric_limits<float>::quiet_NaN() : y;
  return x != x ? x : y;
}
inline double log(double x) { return std::log(x); }

/// log(1 + x), accurate near 0: the rounding error of 1 + x is put back to first order (Goldberg 1991, theorem 4).
inline float log1p(float x) {
  const float u = 1.0f + x;
  const float correction = (x - (u - 1.0f)) / u;
  const float y = log(u);
  // At x = -1 and x = inf the correction is 0/0 or inf - inf; below |x| = 2^-24, x itself is the answer.
  const float corrected = u == 0.0f || u == std::numeric_limits<float>::infinity() ? y : y + correction;
  return u == 1.0f ? x : corrected;
}
inline double log1p(double x) { return std::log1p(x); }

/// Hyperbolic tangent, about 2 ulp.
inline float tanh(float x) {
  const float a = std::fabs(x);
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float near = p * z * x + x;
  const float far = std::copysign(1.0f - 2.0f / (exp(2.0f * a) + 1.0f), x);
  return a < 0.625f ? near : far;
}
inline double tanh(double x) { return std::tanh(x); }

/// 1 / (1 + e^-x), about 2 ulp on both tails.
inline float sigmoid(float x) {
  const float e = exp(-std::fabs(x));
  const float y = 1.0f / (1.0f + e);
  return x < 0.0f ? e * y : y;
}
inline double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return x < 0 ? e / (1 + e) : 1 / (1 + e);
}

/// Error function, about 2 ulp.
inline float erf(float x) {
  const float t = std::fabs(x);
  const float s = x * x;
  float far = -1.72853470e-5f * t + 3.83197126e-4f;
  far = far * s + (-3.88396438e-3f * t + 2.42546219e-2f);
  far = far * t - 1.06777877e-1f;
  far = far * t - 6.34846687e-1f;
  far = far * t - 1.28717512e-1f;
  far = far * t - t;
  far = t > 4.0f ? 1.0f : 1.0f - exp(far);
  float near = -5.96761703e-4f;
  near = near * s + 4.99119423e-3f;
  near = near * s - 2.67681349e-2f;
  near = near * s + 1.12819925e-1f;
  near = near * s - 3.76125336e-1f;
  near = near * s + 1.28379166e-1f;
  near = near * x + x;
  return t > 0.927734375f ? std::copysign(far, x) : near;
}
inline double erf(double x) { return std::erf(x); }

/// Sine and cosine of one turn: sin(2 pi u), cos(2 pi u) for u in [0, 1).
template <class T>
struct SinCos {
  T sin, cos;
};
inline SinCos<float> sincos_turn(float u) {
  // Quarter turns are taken off exactly, so only [-1/8, 1/8] of a turn is left for the polynomials.
  const float shifted = u * 4.0f + 12582912.0f;
  const int32_t quarter = std::bit_cast<int32_t>(shifted);
  const float r = (u - (shifted - 12582912.0f) * 0.25f) * 6.283185307179586f;
  const float z = r * r;
  const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
  const float c =
      ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
  const float sine = quarter & 1 ? c : s;
  const float cosine = quarter & 1 ? s : c;
  return {quarter & 2 ? -sine : sine, (quarter + 1) & 2 ? -cosine : cosine};
}
inline SinCos<double> sincos_turn(double u) {
  const double angle = u * 6.283185307179586476925286766559;
  return {std::sin(angle), std::cos(angle)};
}

}  // namespace espalier::cpu::vector_math
