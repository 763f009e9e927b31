// Linear layers with masked weights take the sparse kernels where these are faster, and compute the same.
#include <cmath>

#include "core/sparse/dispatch.h"
#include "layers/linear.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

/// Sparse kernels are off while alive.
class DenseOnly {
 public:
  DenseOnly() : before_(sparse_enabled()) { set_sparse_enabled(false); }
  ~DenseOnly() { set_sparse_enabled(before_); }
  DenseOnly(const DenseOnly&) = delete;
  DenseOnly& operator=(const DenseOnly&) = delete;

 private:
  bool before_;
};

/// A layer of 256 x 320 with every tenth weight, whose products all are faster sparse at 128 examples.
Linear sparse_layer(GradientFlow flow = GradientFlow::masked) {
  Linear layer(320, 256);
  std::vector<bool> exists(256 * 320);
  for (size_t i = 3; i < exists.size(); i += 10) exists[i] = true;
  Parameter(layer.weight()).set_mask(Mask::from_units({256, 320}, Pattern::element(), exists), flow);
  return layer;
}

struct Pass {
  Tensor y, dx, dw, db;
};
Pass pass_of(Linear& layer, const BackwardOptions& options = {}) {
  const Variable x(noise({4, 32, 320}, 1, DType::f32), true);
  layer.zero_grad();
  const Variable y = layer(x);
  sum(square(y)).backward({}, options);
  return {y.data(), x.grad().data(), layer.weight().grad(), layer.bias().grad()};
}

void expect_rounding_apart(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape(), b.shape());
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double size = 0;
  for (const double value : y) size = std::max(size, std::abs(value));
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], 1e-5 * size) << i;
}

TEST(SparseLinearLayer, ComputesWhatTheDenseOneDoesToRounding) {
  ASSERT_TRUE(choose_linear(WeightProduct::weight_gradient, 256, 320, 8192, 128).is_sparse());
  Linear layer = sparse_layer();
  const auto has_plan = [&] { return !layer.weight().operand().weight_view()->plan->is_empty(); };
  Pass dense;
  {
    const DenseOnly guard;
    dense = pass_of(layer);
  }
  EXPECT_FALSE(has_plan());
  const Pass sparse = pass_of(layer);
  EXPECT_TRUE(has_plan());
  expect_rounding_apart(sparse.y, dense.y);
  expect_rounding_apart(sparse.dx, dense.dx);
  expect_rounding_apart(sparse.dw, dense.dw);
  EXPECT_EQ(layer.weight().mask().apply(sparse.dw).to_vector<float>(), sparse.dw.to_vector<float>());
}

TEST(SparseLinearLayer, SeesNewValuesAndNewMasks) {
  Linear layer = sparse_layer();
  pass_of(layer);
  Tensor weight = layer.weight().data();
  weight.fill_(0.5);
  Parameter(layer.weight()).set_mask(layer.weight().mask());  // zeros again where no weights are
  const Pass values = pass_of(layer);
  std::vector<bool> exists(256 * 320);
  for (size_t i = 0; i < exists.size(); i += 9) exists[i] = true;
  Parameter(layer.weight()).set_mask(Mask::from_units({256, 320}, Pattern::element(), exists));
  const Pass mask = pass_of(layer);
  const DenseOnly guard;
  expect_rounding_apart(mask.y, pass_of(layer).y);
  Linear other = sparse_layer();
  Tensor same = other.weight().data();
  same.fill_(0.5);
  Parameter(other.weight()).set_mask(other.weight().mask());
  Tensor bias = other.bias().data();
  bias.copy_(layer.bias().data());
  expect_rounding_apart(values.y, pass_of(other).y);
}

TEST(SparseLinearLayer, IsDenseForRegrowthAndForSecondDerivatives) {
  Linear layer = sparse_layer(GradientFlow::dense);
  const Tensor gradient = pass_of(layer).dw;
  const auto values = gradient.to_vector<float>();
  EXPECT_GT(std::count_if(values.begin(), values.end(), [](float g) { return g != 0; }), 256 * 320 / 2);

  Linear masked = sparse_layer();
  const Variable x(noise({64, 320}, 2, DType::f32), true);
  const Variable loss = sum(square(masked(x)));
  const Variable first = grad({loss}, {x}, {.create_graph = true})[0];
  EXPECT_TRUE(grad({sum(square(first))}, {masked.weight().variable()})[0].defined());
}

}  // namespace
}  // namespace espalier
