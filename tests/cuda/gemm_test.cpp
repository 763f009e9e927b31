// cuBLAS's matrix products against the CPU's, over the layouts that it takes as they are and those it can't, and what
// each precision promises.
#include "core/precision.h"
#include "tests/core/kernel_cases.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::Call;
using testing::expect_same;
using testing::matrices;
using testing::RandomTensors;
using testing::View;

TEST(CudaGemm, EveryLayoutAndSize) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    RandomTensors random(dtype);
    for (const auto& [batch, m, k, n] : std::vector<std::array<int64_t, 4>>{{1, 1, 1, 1},
                                                                            {1, 5, 3, 4},
                                                                            {3, 4, 7, 2},
                                                                            {2, 1, 9, 6},
                                                                            {2, 6, 9, 1},
                                                                            {5, 1, 8, 1},
                                                                            {2, 33, 1, 17},
                                                                            {9, 16, 20, 12}}) {
      for (const View& a : matrices(random, batch, m, k)) {
        for (const View& b : matrices(random, batch, k, n)) {
          for (const bool accumulate : {false, true}) {
            Call call{.inputs = {a.x, b.x},
                      .outputs = {random({batch, m, n})},
                      .absolute = testing::sum_tolerance(dtype, k + 1, 4),
                      // A repeated column by a repeated row: k equal terms, whose roundings add up with k, not with its
                      // root.
                      .relative = static_cast<double>(k) * testing::epsilon(dtype),
                      .accumulates = accumulate,
                      .what = a.name + " by " + b.name + " " + a.x.shape().to_string()};
            expect_same(call, [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
              kernels.matmul(in[0], in[1], accumulate, out[0]);
            });
          }
        }
      }
    }
  }
}

TEST(CudaGemm, LongSumsHaveTheSameBitsEveryTime) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    RandomTensors random(dtype);
    const Tensor a = random({2, 70, 900}), b = random({2, 900, 40});
    std::vector<std::vector<double>> results;
    for (int run = 0; run < 2; ++run) {
      Call call{.inputs = {a, b},
                .outputs = {Tensor::empty({2, 70, 40}, dtype)},
                .absolute = testing::sum_tolerance(dtype, 900, 4),
                .what = "long"};
      expect_same(call, [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
        kernels.matmul(in[0], in[1], false, out[0]);
        if (&kernels == &testing::cuda()) results.push_back(out[0].to_vector<double>());
      });
    }
    EXPECT_EQ(results[0], results[1]);
  }
}

TEST(CudaGemm, EmptySizes) {
  const Device device = testing::device();
  const Tensor a = Tensor::zeros({2, 3, 0}, DType::f32, device), b = Tensor::zeros({2, 0, 4}, DType::f32, device);
  Tensor out = Tensor::full({2, 3, 4}, NAN, DType::f32, device), none = Tensor::empty({0, 3, 4}, DType::f32, device);
  testing::cuda().matmul(a, b, false, out);
  EXPECT_EQ(out.to_vector<float>(), std::vector<float>(24, 0.0f));
  out.fill_(2);
  testing::cuda().matmul(a, b, true, out);
  EXPECT_EQ(out.to_vector<float>(), std::vector<float>(24, 2.0f));
  testing::cuda().matmul(Tensor::zeros({0, 3, 2}, DType::f32, device), Tensor::zeros({0, 2, 4}, DType::f32, device),
                         false, none);
}

/// What the device makes of value * 1: each element of a product whose sums have that one term, among zeros.
double product_of(double value, MatmulPrecision precision) {
  const Device device = testing::device();
  Tensor a = Tensor::zeros({1, 64, 32}, DType::f32, device), out = Tensor::full({1, 64, 64}, NAN, DType::f32, device);
  a.slice(2, 5, 6).fill_(value);
  set_matmul_precision(precision);
  testing::cuda().matmul(a, Tensor::ones({1, 32, 64}, DType::f32, device), false, out);
  set_matmul_precision(MatmulPrecision::f32);
  const std::vector<double> values = out.to_vector<double>();
  for (double v : values) EXPECT_EQ(v, values[0]);
  return values[0];
}

TEST(CudaGemm, PrecisionsRoundTheirFactorsAndF32DoesNot) {
  const double fine = 1 + std::ldexp(1, -20), coarse = 1 + std::ldexp(1, -10);
  EXPECT_EQ(product_of(fine, MatmulPrecision::f32), fine);
  EXPECT_EQ(product_of(coarse, MatmulPrecision::tf32), coarse);
  EXPECT_NEAR(product_of(fine, MatmulPrecision::tf32), fine, std::ldexp(1, -10));
  EXPECT_NEAR(product_of(coarse, MatmulPrecision::bf16), coarse, std::ldexp(1, -7));
}

}  // namespace
}  // namespace espalier
