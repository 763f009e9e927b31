// Pooling against the CPU's. The order of all sums is the CPU's too, so that most results have its bits.
#include <fmt/format.h>

#include "tests/core/kernel_cases.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::Call;
using testing::expect_same;
using testing::RandomTensors;
using testing::sum_tolerance;

using Case = testing::Pool2dCase;

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {1, 1, 1, 1, {1, 1, 1, 1, 0, 0}},   {3, 5, 8, 8, {2, 2, 2, 2, 0, 0}},   {1, 2, 9, 7, {2, 2, 2, 2, 0, 0}},
      {1, 1, 70, 66, {3, 3, 1, 1, 1, 1}}, {2, 3, 11, 13, {3, 3, 2, 2, 1, 1}}, {2, 2, 10, 7, {2, 3, 3, 1, 1, 0}},
      {1, 3, 5, 6, {5, 6, 1, 1, 0, 0}},   {2, 1, 3, 3, {4, 4, 2, 3, 2, 2}},   {1, 2, 12, 12, {1, 1, 4, 5, 0, 0}},
  };
  return list;
}

/// The pair of kernels; the gradient from the CPU's winners.
void check_max_pool(const Case& t, const Tensor& x) {
  const DType dtype = x.dtype();
  const std::string name = std::string(name_of(dtype)) + " " + t.name();
  Tensor index;
  expect_same({.inputs = {x}, .outputs = {Tensor::empty(t.y(), dtype), Tensor::empty(t.y(), DType::i64)}, .what = name},
              [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                kernels.max_pool2d(in[0], t.shape, out[0], out[1]);
                if (&kernels == &testing::cpu()) index = out[1];
              });
  expect_same({.inputs = {RandomTensors(dtype, 3)(t.y()), index},
               .outputs = {Tensor::empty(t.x(), dtype)},
               .what = "gradient of " + name},
              [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                kernels.max_pool2d_grad(in[0], in[1], out[0]);
              });
}

TEST(CudaMaxPool2d, TakesTheLargestOfEachWindow) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) check_max_pool(t, RandomTensors(dtype)(t.x()));
  }
}

TEST(CudaMaxPool2d, FirstWinsOnTies) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) check_max_pool(t, Tensor::ones(t.x(), dtype));
  }
}

TEST(CudaMaxPool2d, FirstNaNWinsAndInfinitiesAreOrdinary) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) {
      std::vector<double> values = RandomTensors(dtype)(t.x()).to_vector<double>();
      for (size_t i = 0; i < values.size(); ++i) {
        if (i % 7 == 3) values[i] = std::numeric_limits<double>::quiet_NaN();
        if (i % 5 == 1) values[i] = kInf;
        if (i % 3 == 1) values[i] = -kInf;
      }
      check_max_pool(t, Tensor::from(values, t.x()).to(dtype));
    }
  }
}

TEST(CudaMaxPool2d, OneWinnerOfAllWindowsGetsAllGradients) {
  // 30 x 30 windows of 11 x 11 on one plane; 121 of them hold the peak. Large enough for several bands.
  const Case t{1, 1, 40, 40, {11, 11, 1, 1, 0, 0}};
  Tensor x = Tensor::zeros(t.x());
  x.slice(2, 20, 21).slice(3, 17, 18).fill_(5);
  check_max_pool(t, x);
}

TEST(CudaAvgPool2d, CountsPaddingAsZeros) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) {
      const double tolerance = sum_tolerance(dtype, t.shape.kernel_h * t.shape.kernel_w);
      RandomTensors random(dtype);
      expect_same({.inputs = {random(t.x())},
                   .outputs = {Tensor::empty(t.y(), dtype)},
                   .absolute = tolerance,
                   .what = t.name()},
                  [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                    kernels.avg_pool2d(in[0], t.shape, out[0]);
                  });
      expect_same({.inputs = {random(t.y())},
                   .outputs = {Tensor::empty(t.x(), dtype)},
                   .absolute = tolerance,
                   .what = "gradient of " + t.name()},
                  [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                    kernels.avg_pool2d_grad(in[0], t.shape, out[0]);
                  });
    }
  }
}

TEST(CudaAdaptiveAvgPool2d, CoversTheImageWithWindows) {
  const Shape images[] = {{2, 3, 8, 8}, {1, 2, 7, 10}, {3, 1, 1, 1}, {1, 1, 3, 40}, {2, 2, 33, 35}};
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& x : images) {
      for (const auto& [oh, ow] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 3}, {7, 10}, {5, 4}}) {
        const Shape y{x[0], x[1], oh, ow};
        const std::string name = fmt::format("{} to {}", x, y);
        RandomTensors random(dtype);
        expect_same({.inputs = {random(x)},
                     .outputs = {Tensor::empty(y, dtype)},
                     .absolute = sum_tolerance(dtype, x[2] * x[3]),
                     .what = name},
                    [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                      kernels.adaptive_avg_pool2d(in[0], out[0]);
                    });
        expect_same({.inputs = {random(y)},
                     .outputs = {Tensor::empty(x, dtype)},
                     .absolute = sum_tolerance(dtype, oh * ow),
                     .what = "gradient of " + name},
                    [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                      kernels.adaptive_avg_pool2d_grad(in[0], out[0]);
                    });
      }
    }
  }
}

TEST(CudaPool2d, EmptyBatches) {
  const Device device = testing::device();
  const Tensor x = Tensor::empty({0, 2, 4, 4}, DType::f32, device);
  Tensor y = Tensor::empty({0, 2, 2, 2}, DType::f32, device), dx = Tensor::empty_like(x);
  Tensor index = Tensor::empty({0, 2, 2, 2}, DType::i64, device);
  const Pool2dShape shape;
  testing::cuda().max_pool2d(x, shape, y, index);
  testing::cuda().max_pool2d_grad(y, index, dx);
  testing::cuda().avg_pool2d(x, shape, y);
  testing::cuda().avg_pool2d_grad(y, shape, dx);
  testing::cuda().adaptive_avg_pool2d(x, y);
  testing::cuda().adaptive_avg_pool2d_grad(y, dx);
  EXPECT_EQ(dx.numel(), 0);
}

}  // namespace
}  // namespace espalier
