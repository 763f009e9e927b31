// Gradient criteria against gradients by hand, finite differences and the true change of the loss.
#include "pruning/criteria/scoring.h"
#include "tests/pruning/criteria/support.h"

namespace espalier {
namespace {

using namespace criteria_testing;

struct Regression {
  Dataset data = images_of({{1, 2, 0}, {3, -1, 1}, {0, 2, 2}, {-2, 1, 1}, {1, 1, -3}}, {1, 1, 3});
  Values w{0.5, -1, 2}, targets{1, 0, -2, 3, 1};
  ModulePtr net = regression(w);
  CriterionInput input{.module = *net, .data = &data, .loss = squared_error(targets), .batch_size = 8, .batches = 1};

  /// Of the mean loss of these examples: mean of (x.w - y) x.
  Values gradient(const std::vector<int64_t>& examples) const {
    const Matrix x = rows_of(data);
    Values g(3, 0.0);
    for (int64_t n : examples) {
      const Values& row = x[static_cast<size_t>(n)];
      double residual = -targets[static_cast<size_t>(n)];
      for (size_t i = 0; i < 3; ++i) residual += row[i] * w[i];
      for (size_t i = 0; i < 3; ++i) g[i] += residual * row[i] / static_cast<double>(examples.size());
    }
    return g;
  }
};

TEST(GradientCriteria, MagnitudeOfTheMeanGradient) {
  Regression r;
  const Values g = r.gradient({0, 1, 2, 3, 4});
  const Values expected{std::abs(g[0]), std::abs(g[1]), std::abs(g[2])};
  expect_near(scores_of(*gradient_criterion(), r.input), expected, 1e-12);
  r.input.batch_size = 2;  // 2, 2 and 1 examples: the same mean
  r.input.batches = 3;
  expect_near(scores_of(*gradient_criterion(), r.input), expected, 1e-12);
}

TEST(GradientCriteria, SnipSharesOutTheSensitivity) {
  Regression r;
  const Values g = r.gradient({0, 1, 2, 3, 4});
  Values expected;
  double total = 0;
  for (size_t i = 0; i < 3; ++i) total += std::abs(g[i] * r.w[i]);
  for (size_t i = 0; i < 3; ++i) expected.push_back(std::abs(g[i] * r.w[i]) / total);
  expect_near(scores_of(*snip_criterion(), r.input), expected, 1e-12);
}

TEST(GradientCriteria, TaylorAveragesOverBatches) {
  Regression r;
  r.input.batch_size = 2;
  r.input.batches = 2;
  r.input.seed = 5;
  const std::vector<int64_t> order =
      DataLoader(r.data, {.batch_size = 2, .shuffle = true, .seed = r.input.seed}).order(0);
  const Values a = r.gradient({order[0], order[1]}), b = r.gradient({order[2], order[3]});
  Values squared, absolute;
  for (size_t i = 0; i < 3; ++i) {
    squared.push_back((std::pow(a[i] * r.w[i], 2) + std::pow(b[i] * r.w[i], 2)) / 2);
    absolute.push_back((std::abs(a[i] * r.w[i]) + std::abs(b[i] * r.w[i])) / 2);
  }
  expect_near(scores_of(*taylor_criterion(), r.input), squared, 1e-12);
  expect_near(scores_of(*taylor_criterion({.squared = false}), r.input), absolute, 1e-12);
}

TEST(GradientCriteria, TaylorIsTheSquaredChangeOfALossThatIsLinear) {
  Regression r;
  r.input.loss = [](const Variable& outputs, const Batch&) { return mean(outputs) + mean(outputs) * 0.25; };
  const double before = loss_on(r.input);
  Values squares, sizes;
  for (size_t i = 0; i < 3; ++i) {
    Values without = r.w;
    without[i] = 0;
    set_weights(*r.net, without);
    squares.push_back(std::pow(loss_on(r.input) - before, 2));
    sizes.push_back(std::abs(loss_on(r.input) - before));
  }
  set_weights(*r.net, r.w);
  expect_near(scores_of(*taylor_criterion(), r.input), squares, 1e-12);
  expect_near(scores_of(*taylor_criterion({.squared = false}), r.input), sizes, 1e-12);
}

TEST(GradientCriteria, DenseFlowSaysWhatMaskedWeightsWouldBeWorth) {
  Regression r;
  Parameter weight = r.net->parameters()[0];
  const Mask mask = Mask::from_units(weight.shape(), Pattern::element(), {true, false, true});
  r.w[1] = 0;
  const double g = r.gradient({0, 1, 2, 3, 4})[1];
  weight.set_mask(mask, GradientFlow::dense);
  EXPECT_NEAR(scores_of(*gradient_criterion(), r.input)[1], std::abs(g), 1e-12);
  weight.set_mask(mask, GradientFlow::masked);
  EXPECT_EQ(scores_of(*gradient_criterion(), r.input)[1], 0);
}

/// A network with curvature everywhere: 2 tanh units.
ModulePtr curved_network() {
  set_seed(3);
  return double_network(Flatten(), Linear(3, 2), Tanh(), Linear(2, 1));
}

TEST(GradientCriteria, GraspIsTheHessianTimesTheGradient) {
  Regression r;
  const ModulePtr net = curved_network();
  CriterionInput input{.module = *net, .data = &r.data, .loss = r.input.loss, .batch_size = 2, .batches = 3};
  const Values w = weights_of(*net), g = gradient_on(input);
  const auto gradient_at = [&](double step) {
    Values moved = w;
    for (size_t i = 0; i < w.size(); ++i) moved[i] += step * g[i];
    set_weights(*net, moved);
    return gradient_on(input);
  };
  const double step = 1e-5;
  const Values up = gradient_at(step), down = gradient_at(-step);
  set_weights(*net, w);
  Values expected;
  for (size_t i = 0; i < w.size(); ++i) expected.push_back(w[i] * (up[i] - down[i]) / (2 * step));
  // The difference quotient is off by step^2 times the third derivative and by 1e-16/step: 1e-8 with room.
  expect_near(scores_of(*grasp_criterion(), input), expected, 1e-7);
}

TEST(GradientCriteria, LowGraspScoresAreWeightsWhoseRemovalMakesTheGradientGrow) {
  Regression r;
  const ModulePtr net = curved_network();
  CriterionInput input{.module = *net, .data = &r.data, .loss = r.input.loss};
  const Values w = weights_of(*net), score = scores_of(*grasp_criterion(), input);
  const auto flow = [&](size_t i, double factor) {  // |g|^2 with weight i scaled
    Values moved = w;
    moved[i] *= factor;
    set_weights(*net, moved);
    double total = 0;
    for (double g : gradient_on(input)) total += g * g;
    return total;
  };
  const double step = 1e-5;
  for (size_t i = 0; i < w.size(); ++i)  // the derivative along removal is -2 w (Hg)
    EXPECT_NEAR((flow(i, 1 - step) - flow(i, 1 + step)) / (2 * step), -2 * score[i], 1e-6 * (1 + std::abs(score[i])));
}

TEST(GradientCriteria, FrozenAndUnusedParameters) {
  Regression r;
  Parameter weight = r.net->parameters()[0];
  const Values expected = scores_of(*taylor_criterion(), r.input);
  weight.set_requires_grad(false);
  const NoGrad no_grad;
  EXPECT_EQ(scores_of(*taylor_criterion(), r.input), expected);
  EXPECT_FALSE(weight.requires_grad());
  EXPECT_FALSE(grad_enabled());
  const Parameter unused("unused", Tensor::ones({2}, DType::f64));
  EXPECT_EQ(gradient_criterion()->score({unused}, r.input).at(unused.id()).to_vector<double>(), (Values{0, 0}));
}

}  // namespace
}  // namespace espalier
