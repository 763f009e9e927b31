// cuDNN's convolutions against the CPU's, over many geometries.
#include <fmt/format.h>

#include "core/precision.h"
#include "tests/core/kernel_cases.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::Call;
using testing::expect_same;
using testing::RandomTensors;
using testing::sum_tolerance;

using Case = testing::Conv2dCase;

/// The three passes; `rounding` is what the precision in force adds to f32's epsilon. Returns the device's results.
std::vector<double> run_case(const Case& t, DType dtype, bool with_bias, double rounding = 0) {
  RandomTensors random(dtype);
  const Tensor x = random(t.x()), w = random(t.weight()), dy = random(t.y());
  const Tensor bias = with_bias ? random({t.f}) : Tensor();
  const double worse = 1 + rounding / testing::epsilon(dtype);
  const int64_t kernel = t.kh * t.kw, groups = t.shape.groups;
  std::vector<double> results;
  const auto keep = [&](const Kernels& kernels, const Tensor& out) {
    if (&kernels != &testing::cuda()) return;
    for (double v : out.to_vector<double>()) results.push_back(v);
  };
  const std::string name = std::string(name_of(dtype)) + " " + t.name();
  expect_same({.inputs = {x, w, bias},
               .outputs = {Tensor::empty(t.y(), dtype)},
               .absolute = worse * sum_tolerance(dtype, t.c / groups * kernel + 1, 4),
               .what = "y of " + name},
              [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                kernels.conv2d(in[0], in[1], in[2], t.shape, out[0]);
                keep(kernels, out[0]);
              });
  expect_same({.inputs = {dy, w},
               .outputs = {Tensor::empty(t.x(), dtype)},
               .absolute = worse * sum_tolerance(dtype, t.f / groups * kernel, 4),
               .what = "dx of " + name},
              [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                kernels.conv2d_input_grad(in[0], in[1], t.shape, out[0]);
                keep(kernels, out[0]);
              });
  expect_same({.inputs = {dy, x},
               .outputs = {Tensor::empty(t.weight(), dtype)},
               .absolute = worse * sum_tolerance(dtype, t.n * t.out_h() * t.out_w(), 4),
               .what = "dw of " + name},
              [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                kernels.conv2d_weight_grad(in[0], in[1], t.shape, out[0]);
                keep(kernels, out[0]);
              });
  return results;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {1, 1, 1, 1, 1, 1, 1},
      {1, 1, 1, 1, 2, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {3, 2, 5, 7, 4, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {3, 16, 16, 16, 20, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {2, 1, 28, 28, 20, 5, 5},
      {1, 8, 9, 7, 6, 4, 3, {.groups = 2}},
      {3, 2, 11, 13, 5, 3, 3, {.dilation_h = 2, .dilation_w = 3}},
      {2, 4, 6, 6, 4, 3, 3, {.groups = 4}},
      {3, 6, 9, 11, 7, 1, 1, {.stride_h = 2, .stride_w = 2}},
      {2, 4, 6, 5, 3, 1, 1, {.padding_h = 1, .padding_w = 2}},  // padding beyond the kernel
      {2, 4, 3, 4, 5, 5, 6, {.padding_h = 2, .padding_w = 1}},  // kernel larger than the image
      {3, 3, 17, 13, 5, 3, 3, {.stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1}},
      {1, 3, 20, 23, 5, 2, 2, {.stride_h = 5, .stride_w = 4}},  // stride beyond the kernel
      {2, 3, 13, 14, 4, 3, 2, {.stride_h = 3, .stride_w = 2, .padding_h = 2, .padding_w = 1}},
      {2, 3, 15, 19, 4, 3, 2, {.stride_h = 2, .stride_w = 3, .padding_h = 1, .dilation_h = 3, .dilation_w = 2}},
      {1, 2, 9, 40, 3, 1, 7, {.padding_w = 3}},
      {2, 8, 10, 9, 12, 3, 3, {.stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1, .groups = 2}},
      {3, 7, 11, 37, 7, 3, 3, {.padding_h = 1, .padding_w = 1, .groups = 7}},  // depthwise
      {2, 100, 5, 5, 40, 3, 3, {.padding_h = 1, .padding_w = 1}},
  };
  return list;
}

TEST(CudaConv2d, AgreesWithTheCpu) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : cases()) {
      run_case(t, dtype, false);
      run_case(t, dtype, true);
    }
  }
}

TEST(CudaConv2d, AgreesWithTheCpuOnRandomGeometry) {
  std::mt19937 engine(7);
  const auto pick = [&](int low, int high) { return int64_t{std::uniform_int_distribution<int>(low, high)(engine)}; };
  for (int i = 0; i < 60; ++i) {
    const int64_t groups = pick(1, 3);
    const Case t{pick(1, 4),          groups * pick(1, 5),
                 pick(1, 20),         pick(1, 25),
                 groups * pick(1, 6), pick(1, 4),
                 pick(1, 4),          {pick(1, 3), pick(1, 3), pick(0, 3), pick(0, 3), pick(1, 3), pick(1, 3), groups}};
    if (t.h + 2 * t.shape.padding_h < t.shape.dilation_h * (t.kh - 1) + 1) continue;
    if (t.w + 2 * t.shape.padding_w < t.shape.dilation_w * (t.kw - 1) + 1) continue;
    run_case(t, DType::f32, false);
  }
}

TEST(CudaConv2d, SameBitsEveryTime) {
  const Case list[] = {
      {7, 6, 13, 13, 10, 3, 3, {.stride_h = 2, .stride_w = 1, .padding_h = 1, .padding_w = 1, .groups = 2}},
      {5, 8, 12, 12, 16, 5, 5},
      {4, 9, 14, 14, 9, 3, 3, {.padding_h = 1, .padding_w = 1, .groups = 9}},
  };
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Case& t : list) EXPECT_EQ(run_case(t, dtype, true), run_case(t, dtype, true)) << t.name();
  }
}

TEST(CudaConv2d, FasterPrecisionsStayWithinTheirRounding) {
  const Case t{3, 16, 12, 12, 20, 3, 3, {.padding_h = 1, .padding_w = 1}};
  for (MatmulPrecision precision : {MatmulPrecision::tf32, MatmulPrecision::bf16}) {
    set_matmul_precision(precision);
    run_case(t, DType::f32, true, std::ldexp(1, -10));
    set_matmul_precision(MatmulPrecision::f32);
  }
}

TEST(CudaConv2d, EmptySizes) {
  const Device device = testing::device();
  for (DType dtype : {DType::f32, DType::f64}) {
    const Conv2dShape shape;
    // No images.
    const Tensor w = Tensor::ones({3, 2, 3, 3}, dtype, device);
    const Tensor x = Tensor::empty({0, 2, 4, 4}, dtype, device), dy = Tensor::empty({0, 3, 2, 2}, dtype, device);
    Tensor dw = Tensor::full({3, 2, 3, 3}, NAN, dtype, device), y = Tensor::empty_like(dy), dx = Tensor::empty_like(x);
    testing::cuda().conv2d(x, w, Tensor(), shape, y);
    testing::cuda().conv2d_input_grad(dy, w, shape, dx);
    testing::cuda().conv2d_weight_grad(dy, x, shape, dw);
    EXPECT_EQ(dw.to_vector<double>(), std::vector<double>(54, 0.0));
    // No input channels: the bias is all there is.
    const Tensor nothing = Tensor::empty({2, 0, 4, 4}, dtype, device),
                 no_w = Tensor::empty({3, 0, 3, 3}, dtype, device);
    const Tensor bias = Tensor::arange(0, 3, 1, dtype).to(device);
    Tensor from_bias = Tensor::full({2, 3, 2, 2}, NAN, dtype, device),
           zeros = Tensor::full({2, 3, 2, 2}, NAN, dtype, device);
    testing::cuda().conv2d(nothing, no_w, bias, shape, from_bias);
    testing::cuda().conv2d(nothing, no_w, Tensor(), shape, zeros);
    for (size_t i = 0; i < 24; ++i) EXPECT_EQ(from_bias.to_vector<double>()[i], static_cast<double>(i / 4 % 3));
    EXPECT_EQ(zeros.to_vector<double>(), std::vector<double>(24, 0.0));
    // No output channels.
    Tensor dx_of_none = Tensor::full({2, 2, 4, 4}, NAN, dtype, device);
    testing::cuda().conv2d_input_grad(Tensor::empty({2, 0, 2, 2}, dtype, device),
                                      Tensor::empty({0, 2, 3, 3}, dtype, device), shape, dx_of_none);
    EXPECT_EQ(dx_of_none.to_vector<double>(), std::vector<double>(64, 0.0));
  }
}

}  // namespace
}  // namespace espalier
