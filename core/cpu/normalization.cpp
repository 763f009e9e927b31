// Batch normalisation (Ioffe & Szegedy 2015) of x seen as (N,C,S): statistics over N and S for each channel.
//
// Sums are taken in double, in an order that does not depend on the number of threads: the batch is cut into
// parts, each part gives a partial sum for each channel, and these are added in order.

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kGrainElements = 1 << 13;  // elements that are worth a thread
constexpr int64_t kMaxParts = 16;            // parts of the batch
constexpr int64_t kColumns = 64;             // channels of one task when S is 1

/// x as (N,C,S).
struct Sizes {
  int64_t n, c, s;

  explicit Sizes(const Tensor& x) : n(x.size(0)), c(x.size(1)), s(1) {
    for (int axis = 2; axis < x.rank(); ++axis) s *= x.size(axis);
  }
  int64_t count() const { return n * s; }  ///< values of one channel
};

/// Two sums over the values of a channel.
struct Sums {
  double first = 0, second = 0;
};

/// For each channel, the sums of value(i, channel) over the indices i of x that belong to it; value gives Sums.
template <class F>
std::vector<Sums> channel_sums(const Sizes& x, F&& value) {
  const int64_t parts =
      std::clamp<int64_t>(x.count() * x.c / kGrainElements, 1, std::min(std::max<int64_t>(x.n, 1), kMaxParts));
  std::vector<Sums> partial(static_cast<size_t>(parts * x.c));
  if (x.s == 1) {
    // Rows of channels: neighbouring channels fill the vectors.
    const int64_t blocks = (x.c + kColumns - 1) / kColumns;
    parallel_for(parts * blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / blocks, c0 = task % blocks * kColumns, c1 = std::min(c0 + kColumns, x.c);
        double first[kColumns] = {}, second[kColumns] = {};
        for (int64_t n = x.n * part / parts; n < x.n * (part + 1) / parts; ++n) {
#pragma omp simd
          for (int64_t c = c0; c < c1; ++c) {
            const Sums v = value(n * x.c + c, c);
            first[c - c0] += v.first;
            second[c - c0] += v.second;
          }
        }
        for (int64_t c = c0; c < c1; ++c)
          partial[static_cast<size_t>(part * x.c + c)] = {first[c - c0], second[c - c0]};
      }
    });
  } else {
    parallel_for(parts * x.c, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / x.c, c = task % x.c;
        double first = 0, second = 0;
        for (int64_t n = x.n * part / parts; n < x.n * (part + 1) / parts; ++n) {
          const int64_t start = (n * x.c + c) * x.s;
#pragma omp simd reduction(+ : first, second)
          for (int64_t i = start; i < start + x.s; ++i) {
            const Sums v = value(i, c);
            first += v.first;
            second += v.second;
          }
        }
        partial[static_cast<size_t>(task)] = {first, second};
      }
    });
  }
  for (int64_t i = x.c; i < parts * x.c; ++i) {
    partial[static_cast<size_t>(i % x.c)].first += partial[static_cast<size_t>(i)].first;
    partial[static_cast<size_t>(i % x.c)].second += partial[static_cast<size_t>(i)].second;
  }
  partial.resize(static_cast<size_t>(x.c));
  return partial;
}

/// Calls f(i, channel) for every element, vectorised along S, or along C where S is 1.
template <class F>
void for_each_element(const Sizes& x, F&& f) {
  if (x.s == 1) {
    parallel_for(x.n, std::max<int64_t>(1, kGrainElements / std::max<int64_t>(x.c, 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t n = begin; n < end; ++n) {
#pragma omp simd
                     for (int64_t c = 0; c < x.c; ++c) f(n * x.c + c, c);
                   }
                 });
  } else {
    const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(x.s, 1));
    parallel_for(x.n * x.c, grain, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const int64_t c = plane % x.c;
#pragma omp simd
        for (int64_t i = plane * x.s; i < (plane + 1) * x.s; ++i) f(i, c);
      }
    });
  }
}

}  // namespace

void batch_norm_stats(const Tensor& x, double epsilon, Tensor& mean, Tensor& variance, Tensor& inv_std) {
  const Sizes sizes(x);
  dispatch_floating(x.dtype(), "batch_norm_stats", [&]<class T>(T) {
    const T* from = x.data<T>();
    // Deviations from the channel's first value instead of from zero: one pass, and since that is a value of the
    // data, the square of its distance from the mean is at most N*S variances, so little cancels.
    const auto shift = [=, s = sizes.s](int64_t c) { return static_cast<double>(from[c * s]); };
    const std::vector<Sums> sums = channel_sums(sizes, [=](int64_t i, int64_t c) {
      const double d = static_cast<double>(from[i]) - shift(c);
      return Sums{d, d * d};
    });
    const double scale = 1 / static_cast<double>(sizes.count());
    T *to_mean = mean.data<T>(), *to_variance = variance.data<T>(), *to_inverse = inv_std.data<T>();
    for (int64_t c = 0; c < sizes.c; ++c) {
      const Sums& sum = sums[static_cast<size_t>(c)];
      const double deviation = sum.first * scale;
      to_mean[c] = static_cast<T>(sizes.count() > 0 ? shift(c) + deviation : deviation);
      const double square = std::max(sum.second * scale - deviation * deviation, 0.0);
      to_variance[c] = static_cast<T>(square);
      to_inverse[c] = static_cast<T>(1 / std::sqrt(square + epsilon));
    }
  });
}

void batch_norm_track(const Tensor& mean, const Tensor& variance, double momentum, double unbias, Tensor& running_mean,
                      Tensor& running_var, Tensor& batches) {
  *batches.data<int64_t>() += 1;
  dispatch_floating(mean.dtype(), "batch_norm_track", [&]<class T>(T) {
    const T share = static_cast<T>(momentum), factor = static_cast<T>(unbias);
    const T *center = mean.data<T>(), *square = variance.data<T>();
    T *to_mean = running_mean.data<T>(), *to_var = running_var.data<T>();
    for (int64_t c = 0; c < mean.numel(); ++c) {
      to_mean[c] += share * (center[c] - to_mean[c]);
      to_var[c] += share * (square[c] * factor - to_var[c]);
    }
  });
}

void batch_norm(const Tensor& x, const Tensor& mean, const Tensor& inv_std, const Tensor& weight, const Tensor& bias,
                Tensor& y) {
  const Sizes sizes(x);
  dispatch_floating(x.dtype(), "batch_norm", [&]<class T>(T) {
    const T *from = x.data<T>(), *center = mean.data<T>();
    T* to = y.data<T>();
    // The mean is subtracted before scaling: x * scale + shift would cancel where the mean is large.
    std::vector<T> scales(static_cast<size_t>(sizes.c)), shifts(scales);
    for (size_t c = 0; c < scales.size(); ++c) {
      scales[c] = inv_std.data<T>()[c] * (weight.defined() ? weight.data<T>()[c] : T{1});
      shifts[c] = bias.defined() ? bias.data<T>()[c] : T{0};
    }
    for_each_element(sizes, [=, scale = scales.data(), shift = shifts.data()](int64_t i, int64_t c) {
      to[i] = (from[i] - center[c]) * scale[c] + shift[c];
    });
  });
}

void batch_norm_grad(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& inv_std, const Tensor& weight,
                     Tensor& dx, Tensor& dweight, Tensor& dbias) {
  const Sizes sizes(x);
  dispatch_floating(x.dtype(), "batch_norm_grad", [&]<class T>(T) {
    const T *grad = dy.data<T>(), *from = x.data<T>(), *center = mean.data<T>(), *inverse = inv_std.data<T>();
    T* to = dx.data<T>();
    const std::vector<Sums> sums = channel_sums(sizes, [=](int64_t i, int64_t c) {
      const double g = static_cast<double>(grad[i]);
      return Sums{g, g * static_cast<double>(from[i] - center[c])};
    });
    // With u = (x - mean) inv_std: dx = weight inv_std (dy - mean(dy) - u mean(dy u)).
    std::vector<T> scales(static_cast<size_t>(sizes.c)), means(scales), slopes(scales);
    const double count = static_cast<double>(sizes.count());
    for (size_t c = 0; c < scales.size(); ++c) {
      const double inv = static_cast<double>(inverse[c]);
      dbias.data<T>()[c] = static_cast<T>(sums[c].first);
      dweight.data<T>()[c] = static_cast<T>(sums[c].second * inv);
      scales[c] = inverse[c] * (weight.defined() ? weight.data<T>()[c] : T{1});
      means[c] = static_cast<T>(sums[c].first / count);
      slopes[c] = static_cast<T>(sums[c].second * inv * inv / count);
    }
    for_each_element(sizes,
                     [=, scale = scales.data(), mean_dy = means.data(), slope = slopes.data()](int64_t i, int64_t c) {
                       to[i] = scale[c] * (grad[i] - mean_dy[c] - (from[i] - center[c]) * slope[c]);
                     });
  });
}

}  // namespace espalier::cpu
