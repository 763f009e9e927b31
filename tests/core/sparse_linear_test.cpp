// A masked Linear's products, against dense ones in double; and the choice between the two.
#include "core/sparse/sparse_linear.h"

#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/ops.h"
#include "core/random.h"
#include "core/sparse/dispatch.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_error;

Mask random_mask(const Shape& weight, double density, Generator& generator) {
  std::vector<bool> exists;
  for (int64_t i = 0; i < weight.numel(); ++i) exists.push_back(generator.next_uniform() < density);
  return Mask::from_units(weight, Pattern::element(), exists);
}

void expect_close(const Tensor& got, const Tensor& expected, int64_t terms) {
  ASSERT_EQ(got.shape(), expected.shape());
  const auto a = got.to_vector<double>(), b = expected.to_vector<double>();
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(a[i], b[i], 6e-8 * static_cast<double>(terms + 2) * std::sqrt(static_cast<double>(terms + 2)) * 4) << i;
}

TEST(SparseLinear, IsTheDenseProductOfTheMaskedWeight) {
  Generator generator(17);
  const struct {
    int64_t n, outputs, inputs;
    double density;
  } cases[] = {{128, 40, 60, 0.1}, {1, 9, 33, 0.5}, {37, 65, 17, 0.02}, {0, 5, 6, 0.5}, {16, 8, 8, 0}, {20, 8, 9, 1}};
  for (const auto& c : cases) {
    SCOPED_TRACE(fmt::format("({},{}) of {}, {}", c.outputs, c.inputs, c.n, c.density));
    const Mask mask = random_mask({c.outputs, c.inputs}, c.density, generator);
    Tensor weight = mask.apply(randn({c.outputs, c.inputs}, generator));
    SparseLinear plan(mask, weight);
    for (int round = 0; round < 2; ++round) {
      const Tensor x = randn({c.n, c.inputs}, generator), dy = randn({c.n, c.outputs}, generator);
      const Tensor bias = randn({c.outputs}, generator);
      const Tensor wide = weight.to(DType::f64);
      const Tensor y = matmul(x.to(DType::f64), wide.transpose(0, 1));
      expect_close(plan.forward(x, bias), y + bias.to(DType::f64), c.inputs);
      expect_close(plan.forward(x, {}), y, c.inputs);
      expect_close(plan.input_gradient(dy), matmul(dy.to(DType::f64), wide), c.outputs);
      const Tensor gradient = plan.weight_gradient(dy, x);
      expect_close(gradient, mask.apply(matmul(dy.to(DType::f64).transpose(0, 1), x.to(DType::f64))), c.n);
      EXPECT_EQ(mask.apply(gradient).to_vector<float>(), gradient.to_vector<float>());
      weight = mask.apply(randn({c.outputs, c.inputs}, generator));  // after an update
      plan.refill(weight);
    }
  }
}

TEST(SparseLinear, SaysWhatDoesNotFit) {
  const Mask mask = Mask::all({2, 3});
  SparseLinear plan(mask, Tensor::ones({2, 3}));
  expect_error([&] { plan.forward(Tensor::ones({4, 2}), {}); }, {"a batch (N,3), got (4,2)"});
  expect_error([&] { plan.forward(Tensor::ones({4, 3}, DType::f64), {}); }, {"f32"});
  expect_error([&] { plan.forward(Tensor::ones({4, 3}), Tensor::ones({3})); }, {"a bias (2), got (3)"});
  expect_error([&] { plan.weight_gradient(Tensor::ones({4, 2}), Tensor::ones({5, 3})); }, {"(4,2) and (5,3)"});
  expect_error([&] { plan.refill(Tensor::ones({3, 2})); }, {"a weight (2,3), got (3,2)"});
}

TEST(KernelChoice, IsSparseWhereFewWeightsAreLeftOfMany) {
  for (const WeightProduct product :
       {WeightProduct::forward, WeightProduct::input_gradient, WeightProduct::weight_gradient}) {
    for (const VectorIsa isa : {VectorIsa::portable, VectorIsa::avx2, VectorIsa::avx512}) {
      SCOPED_TRACE(fmt::format("{} {}", static_cast<int>(product), name_of(isa)));
      EXPECT_TRUE(choose_linear(product, 1024, 1024, 1024 * 51, 128, isa).is_sparse());
      EXPECT_FALSE(choose_linear(product, 1024, 1024, 1024 * 1024, 128, isa).is_sparse());
      EXPECT_FALSE(choose_linear(product, 10, 84, 84, 128, isa).is_sparse());  // too small for a plan to matter
      double before = 0;
      for (int64_t nnz = 0; nnz <= 1024 * 1024; nnz += 1 << 16) {  // no weight makes it faster
        const KernelChoice choice = choose_linear(product, 1024, 1024, nnz, 128, isa);
        EXPECT_GT(choice.sparse, before);
        before = choice.sparse;
      }
    }
  }
}

}  // namespace
}  // namespace espalier
