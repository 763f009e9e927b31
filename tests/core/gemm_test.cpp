#include "core/ops.h"
#include "core/threads.h"
#include "tests/core/kernel_cases.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::matrices;
using testing::poisoned;
using testing::RandomTensors;
using testing::View;

/// (B,M,K)(B,K,N) -> (B,M,N) by definition, plus `start`; row-major. Also sums of |a||b|, for the tolerance.
struct Product {
  std::vector<double> values, magnitudes;
};
Product reference(const Tensor& a, const Tensor& b) {
  Product product;
  for (int64_t batch = 0; batch < a.size(0); ++batch) {
    for (int64_t i = 0; i < a.size(1); ++i) {
      for (int64_t j = 0; j < b.size(2); ++j) {
        double sum = 0, magnitude = 0;
        for (int64_t k = 0; k < a.size(2); ++k) {
          const double term = testing::value_at(a, {batch, i, k}) * testing::value_at(b, {batch, k, j});
          sum += term;
          magnitude += std::abs(term);
        }
        product.values.push_back(sum);
        product.magnitudes.push_back(magnitude);
      }
    }
  }
  return product;
}

/// The rounding of a sum is at most its length times epsilon, times the sum of the terms' magnitudes.
void expect_product(const Tensor& out, const Product& product, int64_t k, double start, const std::string& what) {
  const std::vector<double> got = out.to_vector<double>();
  ASSERT_EQ(got.size(), product.values.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const double bound =
        static_cast<double>(k + 2) * testing::epsilon(out.dtype()) * (product.magnitudes[i] + std::abs(start));
    ASSERT_TRUE(std::abs(got[i] - product.values[i] - start) <= bound)
        << what << ": element " << i << " is " << got[i] << ", expected " << product.values[i] + start;
  }
}

TEST(Gemm, EveryLayoutAndSizeAgreesWithTheDefinition) {
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
          const Product expected = reference(a.x, b.x);
          const std::string what = a.name + " by " + b.name + " " + a.x.shape().to_string();
          Tensor out = poisoned({batch, m, n}, dtype);
          cpu().matmul(a.x, b.x, false, out);
          expect_product(out, expected, k, 0, what);
          out.fill_(0.75);
          cpu().matmul(a.x, b.x, true, out);
          expect_product(out, expected, k, 0.75, "accumulated " + what);
        }
      }
    }
  }
}

TEST(Gemm, LargeProductsInSeveralThreads) {
  RandomTensors random(DType::f32);
  const Tensor a = random({1, 130, 300}), b = random({1, 300, 120});
  Tensor out = poisoned({1, 130, 120}, DType::f32);
  cpu().matmul(a, b, false, out);
  expect_product(out, reference(a, b), 300, 0, "large");
  const Tensor many = random({70, 12, 40}), others = random({70, 40, 9});
  Tensor outs = poisoned({70, 12, 9}, DType::f32);
  cpu().matmul(many, others, false, outs);
  expect_product(outs, reference(many, others), 40, 0, "batch");
  const int threads = num_threads();
  for (const int count : {1, 4}) {
    set_num_threads(count);
    out.fill_(NAN);
    cpu().matmul(a, b, false, out);
    expect_product(out, reference(a, b), 300, 0, "threads");
  }
  set_num_threads(threads);
}

TEST(Gemm, EmptySizes) {
  Tensor out = poisoned({2, 3, 4}, DType::f32);
  cpu().matmul(Tensor::zeros({2, 3, 0}), Tensor::zeros({2, 0, 4}), false, out);
  EXPECT_EQ(out.to_vector<float>(), std::vector<float>(24, 0.0f));
  out.fill_(2);
  cpu().matmul(Tensor::zeros({2, 3, 0}), Tensor::zeros({2, 0, 4}), true, out);
  EXPECT_EQ(out.to_vector<float>(), std::vector<float>(24, 2.0f));
  EXPECT_EQ(matmul(Tensor::zeros({0, 3}), Tensor::zeros({3, 4})).shape(), (Shape{0, 4}));
  EXPECT_EQ(matmul(Tensor::zeros({0, 2, 3}), Tensor::zeros({0, 3, 4})).shape(), (Shape{0, 2, 4}));
}

TEST(Gemm, NaNAndInfinityInAnInputReachTheResult) {
  for (const int64_t n : {int64_t{1}, int64_t{40}}) {
    Tensor a = Tensor::ones({1, 40, 40});
    a.slice(1, 0, 1).slice(2, 7, 8).fill_(NAN);
    const Tensor out = matmul(a, Tensor::zeros({1, 40, n}));
    EXPECT_EQ(sum(isnan(out)).item(), static_cast<double>(n));
  }
}

}  // namespace
}  // namespace espalier
