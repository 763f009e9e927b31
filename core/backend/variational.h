// Sparse variational dropout for one weight (Molchanov, Ashukha & Vetrov 2017): a mean w and a variance alpha w^2.
#pragma once

#include <cmath>

#include "core/kernels.h"

namespace espalier::backend {

constexpr double kLogAlphaClip = 8, kVariationalEpsilon = 1e-8;

/// What log alpha = log sigma^2 - log(this) is made of.
template <class T>
constexpr T squared(T weight) {
  return weight * weight + static_cast<T>(kVariationalEpsilon);
}
template <class T>
constexpr T clipped_log_alpha(T log_sigma2, T log_squared) {
  const T value = log_sigma2 - log_squared;
  const T low = static_cast<T>(-kLogAlphaClip), high = static_cast<T>(kLogAlphaClip);
  return value < low ? low : value > high ? high : value;
}
/// Where log alpha is clipped, log sigma^2 has no gradient.
template <class T>
constexpr bool is_inside(T log_alpha) {
  return log_alpha > static_cast<T>(-kLogAlphaClip) && log_alpha < static_cast<T>(kLogAlphaClip);
}

/// Gradients of the weight and of log sigma^2.
template <class T>
struct VariationalGradient {
  T weight, log_sigma2;
};

/// Of the variance, which has the gradient `up`.
template <class T>
constexpr VariationalGradient<T> variance_gradient(T up, T weight, T log_alpha, T variance) {
  const bool inside = is_inside(log_alpha);
  // alpha w^2 with alpha = exp(s)/(w^2 + e) has the derivative 2 alpha w e/(w^2 + e).
  const T slope = weight == 0 ? T{0} : 2 * variance / weight;
  const T epsilon = static_cast<T>(kVariationalEpsilon);
  return {up * (inside ? slope * epsilon / (weight * weight + epsilon) : slope), inside ? up * variance : T{0}};
}

/// Of scale times the KL. gate = sigmoid(k2 + k3 log_alpha), rest = sigmoid(log_alpha).
template <class T>
constexpr VariationalGradient<T> kl_gradient(T scale, T weight, T log_alpha, T gate, T rest) {
  using Kl = KlApproximation;
  const T slope = -static_cast<T>(Kl::kK1 * Kl::kK3) * gate * (1 - gate) - static_cast<T>(0.5) * (1 - rest);
  const T g = is_inside(log_alpha) ? scale * slope : T{0};
  return {-g * 2 * weight / squared(weight), g};
}

/// A draw, and in place of the noise what backward multiplies the sample's gradient by for that of the variance.
template <class T>
struct GaussianSample {
  T sample, slope;

  constexpr GaussianSample(T mean, T variance, T noise) {
    const T deviation = std::sqrt(variance + static_cast<T>(kVariationalEpsilon));
    sample = mean + deviation * noise;
    slope = noise / (2 * deviation);
  }
};

}  // namespace espalier::backend
