// The arithmetic of batch normalisation (Ioffe & Szegedy 2015) for one channel; backends sum over its values.
#pragma once

#include <cmath>

#include "core/tensor.h"

namespace espalier::backend {

/// x as (N,C,S).
struct ChannelSizes {
  int64_t n, c, s = 1;

  explicit ChannelSizes(const Tensor& x) : n(x.size(0)), c(x.size(1)) {
    for (int axis = 2; axis < x.rank(); ++axis) s *= x.size(axis);
    if (s == 0) n = 0, s = 1;  // nothing either way, but S divides
  }
  constexpr int64_t count() const { return n * s; }  ///< values of one channel
};

/// Two sums over the values of a channel, in double.
struct Sums {
  double first = 0, second = 0;
};

/// For the statistics: deviations from the channel's first value instead of from zero. One pass, and since that is a
/// value of the data, the square of its distance from the mean is at most N*S variances, so little cancels.
template <class T>
struct Deviations {
  const T* x;
  int64_t s;

  constexpr double shift(int64_t c) const { return static_cast<double>(x[c * s]); }
  constexpr Sums operator()(int64_t i, int64_t c) const {
    const double d = static_cast<double>(x[i]) - shift(c);
    return {d, d * d};
  }
};

/// What the sums of the deviations of channel c say.
template <class T>
struct Statistics {
  T mean, variance, inv_std;

  constexpr Statistics(const Deviations<T>& values, const Sums& sums, int64_t count, int64_t c, double epsilon) {
    const double scale = 1 / static_cast<double>(count), deviation = sums.first * scale;
    const double square = sums.second * scale - deviation * deviation;
    const double positive = square < 0 ? 0.0 : square;  // NaN stays NaN
    mean = static_cast<T>(count > 0 ? values.shift(c) + deviation : deviation);
    variance = static_cast<T>(positive);
    inv_std = static_cast<T>(1 / std::sqrt(positive + epsilon));
  }
};

/// For the gradient: sums of dy and of dy (x - mean).
template <class T>
struct Gradients {
  const T *dy, *x, *mean;

  constexpr Sums operator()(int64_t i, int64_t c) const {
    const double g = static_cast<double>(dy[i]);
    return {g, g * static_cast<double>(x[i] - mean[c])};
  }
};

/// What the sums of the gradients of a channel say: the parameters' gradients, and the coefficients of input_gradient.
template <class T>
struct Slopes {
  T scale, mean_dy, slope, dweight, dbias;

  constexpr Slopes(const Sums& sums, int64_t count, T inv_std, T weight) {
    const double inv = static_cast<double>(inv_std), number = static_cast<double>(count);
    scale = inv_std * weight;
    mean_dy = static_cast<T>(sums.first / number);
    slope = static_cast<T>(sums.second * inv * inv / number);
    dweight = static_cast<T>(sums.second * inv);
    dbias = static_cast<T>(sums.first);
  }
};
/// With u = (x - mean) inv_std: dx = weight inv_std (dy - mean(dy) - u mean(dy u)).
template <class T>
constexpr T input_gradient(T dy, T centered, T scale, T mean_dy, T slope) {
  return scale * (dy - mean_dy - centered * slope);
}

/// The mean is subtracted before scaling: x * scale + shift would cancel where the mean is large.
template <class T>
constexpr T normalized(T x, T mean, T scale, T bias) {
  return (x - mean) * scale + bias;
}

}  // namespace espalier::backend
