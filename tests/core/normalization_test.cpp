// Batch normalisation against two-pass sums in long double, and its gradient against the derivative of the loss.

#include <fmt/format.h>

#include "tests/core/kernel_testing.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::expect_close;
using testing::poisoned;
using testing::RandomTensors;
using testing::sum_tolerance;

const Shape kBatchShapes[] = {{1, 1},       {7, 5},          {128, 200},   {2, 3, 1, 1},
                              {3, 4, 5, 7}, {16, 6, 12, 12}, {1, 3, 9, 4}, {4, 1, 30, 30}};

/// x as (N,C,S): the channel of element i.
size_t channel_of(const Shape& shape, size_t i) {
  const int64_t s = shape.numel() / (shape[0] * shape[1]);
  return static_cast<size_t>(static_cast<int64_t>(i) / s % shape[1]);
}

struct Moments {
  std::vector<double> mean, variance;
};

Moments moments_of(const Tensor& x) {
  const std::vector<double> values = x.to_vector<double>();
  const size_t c = static_cast<size_t>(x.size(1));
  const long double count = static_cast<long double>(values.size() / c);
  std::vector<long double> mean(c, 0), square(c, 0);
  for (size_t i = 0; i < values.size(); ++i) mean[channel_of(x.shape(), i)] += values[i] / count;
  for (size_t i = 0; i < values.size(); ++i) {
    const long double d = values[i] - mean[channel_of(x.shape(), i)];
    square[channel_of(x.shape(), i)] += d * d / count;
  }
  return {{mean.begin(), mean.end()}, {square.begin(), square.end()}};
}

TEST(BatchNorm, StatisticsAreThoseOfEachChannel) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kBatchShapes) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const Tensor x = RandomTensors(dtype)(shape, 0.5, 2);
      Tensor mean = poisoned({shape[1]}, dtype), variance = mean.clone(), inv_std = mean.clone();
      cpu().batch_norm_stats(x, 1e-5, mean, variance, inv_std);
      const Moments expected = moments_of(x);
      // The kernel sums in double: what remains is the rounding of the result, and of double for f64.
      const double sum = sum_tolerance(DType::f64, x.numel(), 16);
      expect_close(mean, expected.mean, sum, 2 * testing::epsilon(dtype), "mean");
      expect_close(variance, expected.variance, sum, 2 * testing::epsilon(dtype), "variance");
      std::vector<double> inverse;
      for (double v : variance.to_vector<double>()) inverse.push_back(1 / std::sqrt(v + 1e-5));
      expect_close(inv_std, inverse, 0, 2 * testing::epsilon(dtype), "inv_std");
    }
  }
}

TEST(BatchNorm, StatisticsSurviveALargeMean) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : {Shape{64, 3, 8, 8}, Shape{4096, 3}}) {
      const Tensor x = RandomTensors(dtype)(shape, 1e4, 1);
      Tensor mean = poisoned({3}, dtype), variance = mean.clone(), inv_std = mean.clone();
      cpu().batch_norm_stats(x, 0, mean, variance, inv_std);
      const Moments expected = moments_of(x);
      expect_close(mean, expected.mean, 0, 2 * testing::epsilon(dtype), "mean");
      expect_close(variance, expected.variance, sum_tolerance(DType::f64, x.numel(), 16), 2 * testing::epsilon(dtype),
                   "variance");
      // Normalising keeps the digits: subtract first, then scale.
      Tensor y = poisoned(shape, dtype);
      cpu().batch_norm(x, mean, Tensor::ones({3}, dtype), Tensor(), Tensor(), y);
      std::vector<double> ys = x.to_vector<double>();
      const std::vector<double> means = mean.to_vector<double>();
      for (size_t i = 0; i < ys.size(); ++i) ys[i] -= means[channel_of(shape, i)];
      expect_close(y, ys, 0, testing::epsilon(dtype), "y");
    }
  }
}

TEST(BatchNorm, AFirstValueFarFromTheRestDoesNoHarm) {
  std::vector<double> values(1000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i == 0 ? 1e4 : static_cast<double>(i % 10);
  const Tensor x = Tensor::from(values, {1000, 1}).to(DType::f32);
  Tensor mean = poisoned({1}, DType::f32), variance = mean.clone(), inv_std = mean.clone();
  cpu().batch_norm_stats(x, 0, mean, variance, inv_std);
  expect_close(mean, moments_of(x).mean, 0, 2 * testing::epsilon(DType::f32), "mean");
  expect_close(variance, moments_of(x).variance, 0, 2 * testing::epsilon(DType::f32), "variance");
}

TEST(BatchNorm, ConstantChannelHasNoVariance) {
  const Tensor x = Tensor::full({5, 2, 3, 3}, 0.1);
  Tensor mean = poisoned({2}, DType::f32), variance = mean.clone(), inv_std = mean.clone();
  cpu().batch_norm_stats(x, 0.25, mean, variance, inv_std);
  EXPECT_EQ(mean.to_vector<float>(), std::vector<float>(2, 0.1F));
  EXPECT_EQ(variance.to_vector<float>(), std::vector<float>(2, 0.0F));
  EXPECT_EQ(inv_std.to_vector<float>(), std::vector<float>(2, 2.0F));
}

TEST(BatchNorm, RunningStatisticsTakeInABatch) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const auto row = [&](std::vector<double> values) { return Tensor::from(values, {2}).to(dtype); };
    Tensor mean = row({1, -2}), variance = row({4, 0}), batches = Tensor::full({}, 7, DType::i64);
    cpu().batch_norm_track(row({3, 2}), row({2, 8}), 0.25, 1.5, mean, variance, batches);
    EXPECT_EQ(mean.to_vector<double>(), (std::vector<double>{1.5, -1}));
    EXPECT_EQ(variance.to_vector<double>(), (std::vector<double>{3.75, 3}));
    EXPECT_EQ(batches.item(), 8);
  }
}

struct Parameters {
  Tensor mean, inv_std, weight, bias;
};

Parameters random_parameters(RandomTensors& random, int64_t channels, bool affine) {
  const Tensor raw = random({channels}, 1.5, 0.1);
  return {random({channels}), raw, affine ? random({channels}) : Tensor(), affine ? random({channels}) : Tensor()};
}

TEST(BatchNorm, NormalisesScalesAndShifts) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kBatchShapes) {
      for (bool affine : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {} affine {}", name_of(dtype), shape, affine));
        RandomTensors random(dtype);
        const Tensor x = random(shape);
        const Parameters p = random_parameters(random, shape[1], affine);
        Tensor y = poisoned(shape, dtype);
        cpu().batch_norm(x, p.mean, p.inv_std, p.weight, p.bias, y);
        std::vector<double> ys = x.to_vector<double>();
        const std::vector<double> mean = p.mean.to_vector<double>(), inv = p.inv_std.to_vector<double>();
        for (size_t i = 0; i < ys.size(); ++i) {
          const size_t c = channel_of(shape, i);
          ys[i] = (ys[i] - mean[c]) * inv[c];
          if (affine) ys[i] = ys[i] * p.weight.to_vector<double>()[c] + p.bias.to_vector<double>()[c];
        }
        expect_close(y, ys, sum_tolerance(dtype, 4, 8), 0, "y");
        if (shape.numel() > 10000) break;
      }
    }
  }
}

/// Gradient of sum(dy * y) written as the chain rule through mean and variance separately, as in the paper.
TEST(BatchNorm, GradientPassesThroughTheStatistics) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kBatchShapes) {
      for (bool affine : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {} affine {}", name_of(dtype), shape, affine));
        RandomTensors random(dtype);
        const Tensor x = random(shape), dy = random(shape), weight = affine ? random({shape[1]}) : Tensor();
        const Moments moments = moments_of(x);
        const size_t channels = static_cast<size_t>(shape[1]);
        std::vector<double> inv_values(channels);
        for (size_t c = 0; c < channels; ++c) inv_values[c] = 1 / std::sqrt(moments.variance[c] + 1e-1);
        const Tensor mean = Tensor::from(moments.mean, {shape[1]}).to(dtype);
        const Tensor inv_std = Tensor::from(inv_values, {shape[1]}).to(dtype);
        Tensor dx = poisoned(shape, dtype), dw = poisoned({shape[1]}, dtype), db = poisoned({shape[1]}, dtype);
        cpu().batch_norm_grad(dy, x, mean, inv_std, weight, dx, dw, db);

        const std::vector<double> xs = x.to_vector<double>(), dys = dy.to_vector<double>();
        const std::vector<double> ws = affine ? weight.to_vector<double>() : std::vector<double>(channels, 1.0);
        const double count = static_cast<double>(xs.size() / channels);
        std::vector<double> dws(channels), dbs(channels), dvariance(channels), dmean(channels), dxs(xs.size());
        for (size_t i = 0; i < xs.size(); ++i) {
          const size_t c = channel_of(shape, i);
          const double inv = inv_values[c], centered = xs[i] - moments.mean[c];
          dws[c] += dys[i] * centered * inv;
          dbs[c] += dys[i];
          dvariance[c] += dys[i] * ws[c] * centered * -0.5 * inv * inv * inv;
          dmean[c] += dys[i] * ws[c] * -inv;
        }
        for (size_t i = 0; i < xs.size(); ++i) {
          const size_t c = channel_of(shape, i);
          dxs[i] =
              dys[i] * ws[c] * inv_values[c] + dvariance[c] * 2 * (xs[i] - moments.mean[c]) / count + dmean[c] / count;
        }
        expect_close(dw, dws, sum_tolerance(dtype, static_cast<int64_t>(count), 8), 0, "dweight");
        expect_close(db, dbs, sum_tolerance(dtype, static_cast<int64_t>(count), 4), 0, "dbias");
        expect_close(dx, dxs, sum_tolerance(dtype, 4, 32), 0, "dx");
      }
    }
  }
}

}  // namespace
}  // namespace espalier
