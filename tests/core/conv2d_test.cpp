// Convolution and its gradients against a double reference that follows the definition, and the adjoint identity
// <conv(x), dy> = <x, input_grad(dy)> = <w, weight_grad(dy, x)>, which holds for exact gradients only.

#include <fmt/format.h>

#include "core/threads.h"
#include "tests/core/kernel_cases.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::expect_close;
using testing::poisoned;
using testing::RandomTensors;
using testing::sum_tolerance;

using Case = testing::Conv2dCase;

/// Every product x * w of the convolution: f(index in x, index in w, index in y).
template <class F>
void for_each_product(const Case& t, F&& f) {
  const int64_t cg = t.c / t.shape.groups, fg = t.f / t.shape.groups;
  for (int64_t y = 0; y < t.y().numel(); ++y) {
    const int64_t ow = y % t.out_w(), oh = y / t.out_w() % t.out_h(), of = y / (t.out_w() * t.out_h()) % t.f;
    const int64_t n = y / (t.out_w() * t.out_h() * t.f);
    for (int64_t k = 0; k < cg * t.kh * t.kw; ++k) {
      const int64_t c = of / fg * cg + k / (t.kh * t.kw);
      const int64_t ih = oh * t.shape.stride_h + k / t.kw % t.kh * t.shape.dilation_h - t.shape.padding_h;
      const int64_t iw = ow * t.shape.stride_w + k % t.kw * t.shape.dilation_w - t.shape.padding_w;
      if (ih < 0 || iw < 0 || ih >= t.h || iw >= t.w) continue;
      f(static_cast<size_t>(((n * t.c + c) * t.h + ih) * t.w + iw), static_cast<size_t>(of * cg * t.kh * t.kw + k),
        static_cast<size_t>(y));
    }
  }
}

void run_case(const Case& t, DType dtype, bool with_bias) {
  SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), t.name()));
  RandomTensors random(dtype);
  const Tensor x = random(t.x()), w = random(t.weight()), dy = random(t.y());
  const Tensor bias = with_bias ? random({t.f}) : Tensor();
  Tensor y = poisoned(t.y(), dtype), dx = poisoned(t.x(), dtype), dw = poisoned(t.weight(), dtype);
  cpu().conv2d(x, w, bias, t.shape, y);
  cpu().conv2d_input_grad(dy, w, t.shape, dx);
  cpu().conv2d_weight_grad(dy, x, t.shape, dw);

  const std::vector<double> xs = x.to_vector<double>(), ws = w.to_vector<double>(), dys = dy.to_vector<double>();
  std::vector<double> ys(dys.size(), 0.0), dxs(xs.size(), 0.0), dws(ws.size(), 0.0);
  if (with_bias) {
    const std::vector<double> b = bias.to_vector<double>();
    for (size_t i = 0; i < ys.size(); ++i) {
      ys[i] = b[i / static_cast<size_t>(t.out_h() * t.out_w()) % static_cast<size_t>(t.f)];
    }
  }
  for_each_product(t, [&](size_t ix, size_t iw, size_t iy) {
    ys[iy] += xs[ix] * ws[iw];
    dxs[ix] += dys[iy] * ws[iw];
    dws[iw] += dys[iy] * xs[ix];
  });
  const int64_t kernel = t.kh * t.kw, groups = t.shape.groups;
  expect_close(y, ys, sum_tolerance(dtype, t.c / groups * kernel + 1, 4), 0, "y");
  expect_close(dx, dxs, sum_tolerance(dtype, t.f / groups * kernel, 4), 0, "dx");
  expect_close(dw, dws, sum_tolerance(dtype, t.n * t.out_h() * t.out_w(), 4), 0, "dw");

  if (!with_bias) {
    // The sum over all outputs of products of three standard normal values.
    const double bound = sum_tolerance(dtype, t.y().numel() * (t.c / groups) * kernel, 4);
    EXPECT_NEAR(testing::dot(y, dy), testing::dot(x, dx), bound);
    EXPECT_NEAR(testing::dot(y, dy), testing::dot(w, dw), bound);
  }
}

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {1, 1, 1, 1, 1, 1, 1},
      {1, 1, 1, 1, 2, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {3, 2, 5, 7, 4, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {1, 3, 32, 32, 16, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {3, 16, 16, 16, 20, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {5, 8, 8, 8, 9, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {2, 1, 28, 28, 20, 5, 5},
      {3, 20, 12, 12, 50, 5, 5},
      {1, 8, 9, 7, 6, 4, 3, {.groups = 2}},
      {3, 2, 11, 13, 5, 3, 3, {.dilation_h = 2, .dilation_w = 3}},
      {2, 4, 6, 6, 4, 3, 3, {.groups = 4}},
      {2, 6, 9, 11, 7, 1, 1},
      {3, 6, 9, 11, 7, 1, 1, {.stride_h = 2, .stride_w = 2}},
      {2, 4, 6, 5, 3, 1, 1, {.padding_h = 1, .padding_w = 2}},  // padding beyond the kernel
      {2, 4, 3, 4, 5, 5, 6, {.padding_h = 2, .padding_w = 1}},  // kernel larger than the image
      {3, 3, 17, 13, 5, 3, 3, {.stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1}},
      {3, 4, 32, 32, 6, 3, 3, {.stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1}},
      {1, 3, 20, 23, 5, 2, 2, {.stride_h = 5, .stride_w = 4}},  // stride beyond the kernel
      {2, 3, 13, 14, 4, 3, 2, {.stride_h = 3, .stride_w = 2, .padding_h = 2, .padding_w = 1}},
      {2, 3, 15, 12, 4, 3, 3, {.padding_h = 2, .padding_w = 2, .dilation_h = 2, .dilation_w = 2}},
      {2, 3, 15, 19, 4, 3, 2, {.stride_h = 2, .stride_w = 3, .padding_h = 1, .dilation_h = 3, .dilation_w = 2}},
      {2, 3, 16, 16, 4, 2, 2, {.stride_h = 2, .stride_w = 2, .dilation_h = 2, .dilation_w = 2}},
      {1, 2, 9, 40, 3, 1, 7, {.padding_w = 3}},
      {2, 2, 40, 9, 3, 7, 1, {.padding_h = 3}},
      {3, 8, 10, 9, 12, 3, 3, {.padding_h = 1, .padding_w = 1, .groups = 2}},
      {2, 8, 10, 9, 12, 3, 3, {.stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1, .groups = 2}},
      {3, 7, 11, 37, 7, 3, 3, {.padding_h = 1, .padding_w = 1, .groups = 7}},  // depthwise
      {2, 6, 14, 15, 6, 5, 3, {.stride_h = 2, .stride_w = 2, .padding_h = 2, .padding_w = 1, .groups = 6}},
      {2, 5, 12, 70, 10, 3, 3, {.padding_h = 2, .padding_w = 2, .dilation_h = 2, .dilation_w = 2, .groups = 5}},
      {2, 4, 7, 7, 4, 1, 1, {.groups = 4}},
      {1, 40, 4, 4, 16, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {2, 100, 5, 5, 40, 3, 3, {.padding_h = 1, .padding_w = 1}},  // K beyond one panel
      {3, 256, 2, 2, 520, 1, 1},                                   // weights beyond L2's share
      {2, 2, 50, 60, 3, 3, 3, {.padding_h = 1, .padding_w = 1}},
  };
  return list;
}

TEST(Conv2d, AgreesWithTheDefinitionF32) {
  for (const Case& t : cases()) {
    run_case(t, DType::f32, false);
    run_case(t, DType::f32, true);
  }
}

TEST(Conv2d, AgreesWithTheDefinitionF64) {
  for (const Case& t : cases()) {
    run_case(t, DType::f64, false);
    run_case(t, DType::f64, true);
  }
}

TEST(Conv2d, AgreesWithTheDefinitionOnRandomGeometry) {
  std::mt19937 engine(7);
  const auto pick = [&](int low, int high) { return int64_t{std::uniform_int_distribution<int>(low, high)(engine)}; };
  for (int i = 0; i < 150; ++i) {
    const int64_t groups = pick(1, 3);
    const Case t{pick(1, 4),          groups * pick(1, 5),
                 pick(1, 20),         pick(1, 35),
                 groups * pick(1, 6), pick(1, 4),
                 pick(1, 4),          {pick(1, 3), pick(1, 3), pick(0, 3), pick(0, 3), pick(1, 3), pick(1, 3), groups}};
    if (t.h + 2 * t.shape.padding_h < t.shape.dilation_h * (t.kh - 1) + 1) continue;
    if (t.w + 2 * t.shape.padding_w < t.shape.dilation_w * (t.kw - 1) + 1) continue;
    run_case(t, DType::f32, false);
  }
}

TEST(Conv2d, BitsDoNotDependOnTheNumberOfThreads) {
  const Case list[] = {
      {7, 6, 13, 13, 10, 3, 3, {.stride_h = 2, .stride_w = 1, .padding_h = 1, .padding_w = 1, .groups = 2}},
      {2, 3, 32, 32, 16, 3, 3, {.padding_h = 1, .padding_w = 1}},
      {5, 20, 12, 12, 50, 5, 5},
      {2, 9, 14, 14, 9, 3, 3, {.padding_h = 1, .padding_w = 1, .groups = 9}},
  };
  const int threads = num_threads();
  for (const Case& t : list) {
    SCOPED_TRACE(t.name());
    RandomTensors random(DType::f32);
    const Tensor x = random(t.x()), w = random(t.weight()), dy = random(t.y()), bias = random({t.f});
    std::vector<std::vector<float>> results;
    for (int wanted : {threads, 1, 3}) {
      set_num_threads(wanted);
      Tensor y = poisoned(t.y(), DType::f32), dx = poisoned(t.x(), DType::f32), dw = poisoned(t.weight(), DType::f32);
      cpu().conv2d(x, w, bias, t.shape, y);
      cpu().conv2d_input_grad(dy, w, t.shape, dx);
      cpu().conv2d_weight_grad(dy, x, t.shape, dw);
      std::vector<float> all;
      for (const Tensor& result : {y, dx, dw}) {
        for (float v : result.to_vector<float>()) all.push_back(v);
      }
      results.push_back(all);
    }
    set_num_threads(threads);
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[0], results[2]);
  }
}

TEST(Conv2d, EmptyBatchHasZeroWeightGradient) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Conv2dShape shape;
    const Tensor x = Tensor::empty({0, 2, 4, 4}, dtype), dy = Tensor::empty({0, 3, 2, 2}, dtype);
    Tensor dw = poisoned({3, 2, 3, 3}, dtype), y = Tensor::empty({0, 3, 2, 2}, dtype), dx = Tensor::empty_like(x);
    cpu().conv2d(x, Tensor::ones({3, 2, 3, 3}, dtype), Tensor(), shape, y);
    cpu().conv2d_input_grad(dy, Tensor::ones({3, 2, 3, 3}, dtype), shape, dx);
    cpu().conv2d_weight_grad(dy, x, shape, dw);
    EXPECT_EQ(dw.to_vector<double>(), std::vector<double>(54, 0.0));
  }
}

}  // namespace
}  // namespace espalier
