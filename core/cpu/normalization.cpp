// Batch normalisation (Ioffe & Szegedy 2015) of x seen as (N,C,S): statistics over N and S for each channel.
//
// Sums are taken in double, in an order that does not depend on the number of threads: the batch is cut into
// parts, each part gives a partial sum for each channel, and these are added in order.

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/backend/normalization.h"
#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kGrainElements = 1 << 13;  // elements that are worth a thread
constexpr int64_t kMaxParts = 16;            // parts of the batch
constexpr int64_t kColumns = 64;             // channels of one task when S is 1

/// For each channel, the sums of value(i, channel) over the indices i of x that belong to it; value gives Sums.
template <class F>
std::vector<Sums> channel_sums(const ChannelSizes& x, F&& value) {
  const int64_t parts =
      std::clamp<int64_t>(x.count() * x.c / kGrainElements, 1, std::min(std::max<int64_t>(x.n, 1), kMaxParts));
  std::vector<Sums> partial(static_cast<size_t>(parts * x.c));
  if (x.s == 1) {
    // Rows of channels: neighbouring channels fill the vectors.
    const int64_t blocks = (x.c + kColumns - 1) / kColumns;
    parallel_for(parts * blocks, 1, [&](int64_t begin, int64_t end) {
      const auto own = value;  // nobody else sees it: its members stay in registers
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / blocks, c0 = task % blocks * kColumns, c1 = std::min(c0 + kColumns, x.c);
        double first[kColumns] = {}, second[kColumns] = {};
        for (int64_t n = x.n * part / parts; n < x.n * (part + 1) / parts; ++n) {
#pragma omp simd
          for (int64_t c = c0; c < c1; ++c) {
            const Sums v = own(n * x.c + c, c);
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
      const auto own = value;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / x.c, c = task % x.c;
        double first = 0, second = 0;
        for (int64_t n = x.n * part / parts; n < x.n * (part + 1) / parts; ++n) {
          const int64_t start = (n * x.c + c) * x.s;
#pragma omp simd reduction(+ : first, second)
          for (int64_t i = start; i < start + x.s; ++i) {
            const Sums v = own(i, c);
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
void for_each_element(const ChannelSizes& x, F&& f) {
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
  const ChannelSizes sizes(x);
  dispatch_floating(x.dtype(), "batch_norm_stats", [&]<class T>(T) {
    const Deviations<T> values{x.data<T>(), sizes.s};
    const std::vector<Sums> sums = channel_sums(sizes, values);
    for (int64_t c = 0; c < sizes.c; ++c) {
      const Statistics<T> channel(values, sums[static_cast<size_t>(c)], sizes.count(), c, epsilon);
      mean.data<T>()[c] = channel.mean;
      variance.data<T>()[c] = channel.variance;
      inv_std.data<T>()[c] = channel.inv_std;
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
  const ChannelSizes sizes(x);
  dispatch_floating(x.dtype(), "batch_norm", [&]<class T>(T) {
    const T *from = x.data<T>(), *center = mean.data<T>();
    T* to = y.data<T>();
    std::vector<T> scales(static_cast<size_t>(sizes.c)), shifts(scales);
    for (size_t c = 0; c < scales.size(); ++c) {
      scales[c] = inv_std.data<T>()[c] * (weight.defined() ? weight.data<T>()[c] : T{1});
      shifts[c] = bias.defined() ? bias.data<T>()[c] : T{0};
    }
    for_each_element(sizes, [=, scale = scales.data(), shift = shifts.data()](int64_t i, int64_t c) {
      to[i] = normalized(from[i], center[c], scale[c], shift[c]);
    });
  });
}

void batch_norm_grad(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& inv_std, const Tensor& weight,
                     Tensor& dx, Tensor& dweight, Tensor& dbias) {
  const ChannelSizes sizes(x);
  dispatch_floating(x.dtype(), "batch_norm_grad", [&]<class T>(T) {
    const Gradients<T> in{dy.data<T>(), x.data<T>(), mean.data<T>()};
    const T* const inverse = inv_std.data<T>();
    T* to = dx.data<T>();
    const std::vector<Sums> sums = channel_sums(sizes, in);
    std::vector<T> scales(static_cast<size_t>(sizes.c)), means(scales), slopes(scales);  // for vectors along C
    for (size_t c = 0; c < scales.size(); ++c) {
      const T factor = weight.defined() ? weight.data<T>()[c] : T{1};
      const Slopes<T> channel(sums[c], sizes.count(), inverse[c], factor);
      dbias.data<T>()[c] = channel.dbias;
      dweight.data<T>()[c] = channel.dweight;
      scales[c] = channel.scale, means[c] = channel.mean_dy, slopes[c] = channel.slope;
    }
    for_each_element(sizes,
                     [=, scale = scales.data(), mean_dy = means.data(), slope = slopes.data()](int64_t i, int64_t c) {
                       to[i] = input_gradient(in.dy[i], in.x[i] - in.mean[c], scale[c], mean_dy[c], slope[c]);
                     });
  });
}

}  // namespace espalier::cpu
