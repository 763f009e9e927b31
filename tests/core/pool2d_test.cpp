// Pooling against loops over the definition, in double.

#include <functional>

#include <fmt/format.h>

#include "tests/core/kernel_cases.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::expect_close;
using testing::poisoned;
using testing::RandomTensors;
using testing::sum_tolerance;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Case = testing::Pool2dCase;

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {1, 1, 1, 1, {1, 1, 1, 1, 0, 0}},   {3, 5, 8, 8, {2, 2, 2, 2, 0, 0}},   {1, 2, 9, 7, {2, 2, 2, 2, 0, 0}},
      {2, 3, 70, 66, {2, 2, 2, 2, 0, 0}}, {2, 3, 11, 13, {3, 3, 2, 2, 1, 1}}, {2, 2, 10, 7, {2, 3, 3, 1, 1, 0}},
      {1, 3, 5, 6, {5, 6, 1, 1, 0, 0}},   {2, 1, 3, 3, {4, 4, 2, 3, 2, 2}},   {1, 2, 12, 12, {1, 1, 4, 5, 0, 0}},
  };
  return list;
}

/// Calls f(output index, input index within the plane's tensor) for every value in every window.
void for_each_pair(const Case& t, const std::function<void(size_t, size_t)>& f) {
  const int64_t oh = t.out_h(), ow = t.out_w();
  for (int64_t plane = 0; plane < t.n * t.c; ++plane) {
    for (int64_t out = 0; out < oh * ow; ++out) {
      for (int64_t h = 0; h < t.h; ++h) {
        for (int64_t w = 0; w < t.w; ++w) {
          const int64_t kh = h + t.shape.padding_h - out / ow * t.shape.stride_h;
          const int64_t kw = w + t.shape.padding_w - out % ow * t.shape.stride_w;
          if (kh < 0 || kw < 0 || kh >= t.shape.kernel_h || kw >= t.shape.kernel_w) continue;
          f(static_cast<size_t>(plane * oh * ow + out), static_cast<size_t>((plane * t.h + h) * t.w + w));
        }
      }
    }
  }
}

void check_max_pool(const Case& t, const Tensor& x) {
  SCOPED_TRACE(fmt::format("{} {}", name_of(x.dtype()), t.name()));
  Tensor y = poisoned(t.y(), x.dtype()), index = Tensor::full(t.y(), -7, DType::i64), dx = poisoned(t.x(), x.dtype());
  cpu().max_pool2d(x, t.shape, y, index);

  const std::vector<double> xs = x.to_vector<double>();
  const size_t outputs = static_cast<size_t>(y.numel()), plane = static_cast<size_t>(t.h * t.w);
  std::vector<double> ys(outputs, -std::numeric_limits<double>::infinity());
  std::vector<int64_t> indices(outputs, -1);
  for_each_pair(t, [&](size_t out, size_t in) {
    const bool wins = indices[out] < 0 || (!std::isnan(ys[out]) && (std::isnan(xs[in]) || xs[in] > ys[out]));
    if (wins) ys[out] = xs[in], indices[out] = static_cast<int64_t>(in % plane);
  });
  expect_close(y, ys, 0, 0, "y");
  EXPECT_EQ(index.to_vector<int64_t>(), indices);

  const Tensor dy = RandomTensors(x.dtype(), 3)(t.y());
  cpu().max_pool2d_grad(dy, index, dx);
  const std::vector<double> dys = dy.to_vector<double>();
  std::vector<double> dxs(xs.size(), 0.0);
  for (size_t out = 0; out < outputs; ++out) {
    dxs[out / static_cast<size_t>(t.out_h() * t.out_w()) * plane + static_cast<size_t>(indices[out])] += dys[out];
  }
  expect_close(dx, dxs, sum_tolerance(x.dtype(), t.shape.kernel_h * t.shape.kernel_w, 4), 0, "dx");
}

TEST(MaxPool2d, TakesTheLargestOfEachWindow) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) check_max_pool(t, RandomTensors(dtype)(t.x()));
  }
}

TEST(MaxPool2d, FirstWinsOnTies) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) check_max_pool(t, Tensor::ones(t.x(), dtype));
  }
}

TEST(MaxPool2d, FirstNaNWinsAndInfinitiesAreOrdinary) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) {
      std::vector<double> values = RandomTensors(dtype)(t.x()).to_vector<double>();
      for (size_t i = 0; i < values.size(); ++i) {
        if (i % 7 == 3) values[i] = kNaN;
        if (i % 5 == 1) values[i] = kInf;
        if (i % 3 == 1) values[i] = -kInf;
      }
      check_max_pool(t, Tensor::from(values, t.x()).to(dtype));
    }
  }
}

TEST(AvgPool2d, CountsPaddingAsZeros) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), t.name()));
      RandomTensors random(dtype);
      const Tensor x = random(t.x()), dy = random(t.y());
      Tensor y = poisoned(t.y(), dtype), dx = poisoned(t.x(), dtype);
      cpu().avg_pool2d(x, t.shape, y);
      cpu().avg_pool2d_grad(dy, t.shape, dx);
      const std::vector<double> xs = x.to_vector<double>(), dys = dy.to_vector<double>();
      std::vector<double> ys(dys.size(), 0.0), dxs(xs.size(), 0.0);
      const int64_t area = t.shape.kernel_h * t.shape.kernel_w;
      for_each_pair(t, [&](size_t out, size_t in) {
        ys[out] += xs[in] / static_cast<double>(area);
        dxs[in] += dys[out] / static_cast<double>(area);
      });
      expect_close(y, ys, sum_tolerance(dtype, area), 0, "y");
      expect_close(dx, dxs, sum_tolerance(dtype, area), 0, "dx");
      EXPECT_NEAR(testing::dot(y, dy), testing::dot(x, dx), sum_tolerance(dtype, y.numel() * area));
    }
  }
}

TEST(AdaptiveAvgPool2d, CoversTheImageWithWindows) {
  const Case sizes[] = {{2, 3, 8, 8, {}}, {1, 2, 7, 10, {}}, {3, 1, 1, 1, {}}, {1, 1, 3, 40, {}}};
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : sizes) {
      for (const auto& [oh, ow] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 3}, {7, 10}, {5, 4}}) {
        SCOPED_TRACE(fmt::format("{} {} -> {},{}", name_of(dtype), t.x(), oh, ow));
        RandomTensors random(dtype);
        const Shape out_shape{t.n, t.c, oh, ow};
        const Tensor x = random(t.x()), dy = random(out_shape);
        Tensor y = poisoned(out_shape, dtype), dx = poisoned(t.x(), dtype);
        cpu().adaptive_avg_pool2d(x, y);
        cpu().adaptive_avg_pool2d_grad(dy, dx);
        const std::vector<double> xs = x.to_vector<double>(), dys = dy.to_vector<double>();
        std::vector<double> ys(dys.size(), 0.0), dxs(xs.size(), 0.0);
        for (int64_t out = 0; out < y.numel(); ++out) {
          const int64_t i = out / ow % oh, j = out % ow, plane = out / (oh * ow);
          const auto first = [](int64_t o, int64_t n, int64_t size) {
            return static_cast<int64_t>(std::floor(static_cast<double>(o * size) / static_cast<double>(n)));
          };
          const auto last = [](int64_t o, int64_t n, int64_t size) {
            return static_cast<int64_t>(std::ceil(static_cast<double>((o + 1) * size) / static_cast<double>(n)));
          };
          const int64_t h0 = first(i, oh, t.h), h1 = last(i, oh, t.h), w0 = first(j, ow, t.w), w1 = last(j, ow, t.w);
          const double area = static_cast<double>((h1 - h0) * (w1 - w0));
          for (int64_t h = h0; h < h1; ++h) {
            for (int64_t w = w0; w < w1; ++w) {
              const size_t in = static_cast<size_t>((plane * t.h + h) * t.w + w);
              ys[static_cast<size_t>(out)] += xs[in] / area;
              dxs[in] += dys[static_cast<size_t>(out)] / area;
            }
          }
        }
        expect_close(y, ys, sum_tolerance(dtype, t.h * t.w), 0, "y");
        expect_close(dx, dxs, sum_tolerance(dtype, oh * ow), 0, "dx");
      }
    }
  }
}

}  // namespace
}  // namespace espalier
