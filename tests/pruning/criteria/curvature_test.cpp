// OBD, Fisher and WoodFisher on quadratics, where the true loss changes and constrained minima are known.
#include "pruning/criteria/woodfisher.h"
#include "pruning/pruner.h"
#include "tests/pruning/criteria/support.h"

namespace espalier {
namespace {

using namespace criteria_testing;
using testing_support::expect_contains;
using testing_support::message_of;

/// Linear regression at its minimum w, where the empirical Fisher is the Hessian: every input comes twice, with the
/// residuals +1 and -1, so that gradients are +-x and F = H = mean of x x^T.
struct Quadratic {
  explicit Quadratic(const std::vector<std::vector<int>>& inputs, Values weights)
      : data(images_of(twice(inputs), {1, 1, static_cast<int64_t>(weights.size())})),
        w(std::move(weights)),
        net(regression(w)) {
    const Matrix x = rows_of(data);
    Values targets;
    for (size_t n = 0; n < x.size(); ++n) {
      double y = n % 2 == 0 ? 1 : -1;
      for (size_t i = 0; i < w.size(); ++i) y += x[n][i] * w[i];
      targets.push_back(y);
    }
    hessian.assign(w.size(), Values(w.size(), 0.0));
    for (const Values& row : x)
      for (size_t i = 0; i < w.size(); ++i)
        for (size_t j = 0; j < w.size(); ++j) hessian[i][j] += row[i] * row[j] / static_cast<double>(x.size());
    input.loss = squared_error(targets);
  }
  static std::vector<std::vector<int>> twice(const std::vector<std::vector<int>>& inputs) {
    std::vector<std::vector<int>> result;
    for (const auto& row : inputs) {
      result.push_back(row);
      result.push_back(row);
    }
    return result;
  }

  /// The loss when weight i alone becomes 0.
  double change_of_removing(size_t i) const {
    const double before = loss_on(input);
    Values without = w;
    without[i] = 0;
    set_weights(*net, without);
    const double change = loss_on(input) - before;
    set_weights(*net, w);
    return change;
  }
  /// The best weights when those of `removed` are 0, by the normal equations: H_KK w_K = (H w)_K.
  Values best_without(const std::vector<size_t>& removed) const {
    std::vector<size_t> kept;
    for (size_t i = 0; i < w.size(); ++i)
      if (std::find(removed.begin(), removed.end(), i) == removed.end()) kept.push_back(i);
    Matrix a;
    Values b;
    for (size_t i : kept) {
      a.emplace_back();
      for (size_t j : kept) a.back().push_back(hessian[i][j]);
      b.push_back(0);
      for (size_t j = 0; j < w.size(); ++j) b.back() += hessian[i][j] * w[j];
    }
    const Values x = solved(a, b);
    Values result(w.size(), 0.0);
    for (size_t k = 0; k < kept.size(); ++k) result[kept[k]] = x[k];
    return result;
  }
  double loss_of_weights(const Values& weights) const {
    set_weights(*net, weights);
    const double loss = loss_on(input);
    set_weights(*net, w);
    return loss;
  }
  Mask mask_without(const std::vector<size_t>& removed) const {
    std::vector<bool> exists(w.size(), true);
    for (size_t i : removed) exists[i] = false;
    return Mask::from_units({1, static_cast<int64_t>(w.size())}, Pattern::element(), exists);
  }

  Dataset data;
  Values w;
  ModulePtr net;
  Matrix hessian;
  CriterionInput input{.module = *net, .data = &data, .batch_size = 4, .batches = 100};
};

// Damping of 1e-9 beside Hessians of about 1 moves results by about 1e-9 times their condition.
constexpr double kDamping = 1e-9, kTolerance = 1e-6;

Quadratic coupled() {
  return Quadratic({{1, 2, 0, 1}, {2, -1, 1, 0}, {0, 1, 2, -1}, {1, 1, -1, 2}, {-1, 0, 1, 1}, {2, 1, 0, -2}},
                   {1, -0.5, 2, 0.75});
}

TEST(Obd, IsTheTrueLossChangeWhenTheHessianIsDiagonal) {
  const Quadratic q({{3, 0, 0}, {0, 1, 0}, {0, 0, -2}, {1, 0, 0}}, {0.5, -2, 1});
  Values expected;
  for (size_t i = 0; i < 3; ++i) expected.push_back(q.change_of_removing(i));
  expect_near(scores_of(*obd_criterion({.probes = 1}), q.input), expected, 1e-9);
}

TEST(Obd, FisherIsTheTrueLossChangeWhereItIsTheHessian) {
  const Quadratic q = coupled();
  Values expected;  // at the minimum of a quadratic: 1/2 h_ii w_i^2, whatever the other entries
  for (size_t i = 0; i < q.w.size(); ++i) expected.push_back(q.change_of_removing(i));
  expect_near(scores_of(*obd_criterion({.diagonal = HessianDiagonal::empirical_fisher}), q.input), expected, 1e-9);
}

TEST(Obd, AUnitCostsTheSumOverItsWeights) {
  const Quadratic q({{3, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, -2, 0}, {0, 0, 0, 1}}, {0.5, -2, 1, 3});
  const Site site = site_of("pairs", q.net->parameters()[0], Pattern::block(1, 2));
  const Saliencies s = obd_criterion({.probes = 1})->score(q.net->parameters(), q.input);
  const double before = loss_on(q.input);
  expect_near(unit_scores(site, s),
              {q.loss_of_weights({0, 0, 1, 3}) - before, q.loss_of_weights({0.5, -2, 0, 0}) - before}, 1e-9);
}

TEST(Obd, HutchinsonConvergesToTheDiagonal) {
  Quadratic q = coupled();
  q.input.batch_size = q.data.size();  // one batch: its Hessian is the whole one
  constexpr int64_t kProbes = 400;
  const Values score = scores_of(*obd_criterion({.probes = kProbes}), q.input);
  for (size_t i = 0; i < q.w.size(); ++i) {
    double variance = 0;  // of z_i (Hz)_i
    for (size_t j = 0; j < q.w.size(); ++j)
      if (j != i) variance += q.hessian[i][j] * q.hessian[i][j];
    EXPECT_NEAR(2 * score[i] / (q.w[i] * q.w[i]), q.hessian[i][i],
                4 * std::sqrt(variance / static_cast<double>(kProbes)) + 1e-9)
        << i;
  }
}

TEST(Obd, SecondDerivativesOfALossThatIsNoQuadratic) {
  const Dataset data = images_of({{1, 2}, {-1, 1}, {2, -1}}, {1, 1, 2});
  const ModulePtr net = double_network(Flatten(), Linear(2, 1, {.bias = false}));
  net->parameters()[0].set_data(Tensor::from<double>({0.3, -0.4}, {1, 2}));
  // loss = w0^4 + exp(w1): nothing couples the weights, so one probe is exact.
  const Parameter weight = net->parameters()[0];
  const CriterionInput input{.module = *net,
                             .data = &data,
                             .loss =
                                 [&weight](const Variable& outputs, const Batch&) {
                                   const Variable w = reshape(Variable(weight), {2});
                                   return square(square(select(w, 0, 0))) + exp(select(w, 0, 1)) + sum(outputs) * 0.0;
                                 },
                             .batch_size = 3};
  const double h0 = 12 * 0.3 * 0.3, h1 = std::exp(-0.4);
  expect_near(scores_of(*obd_criterion({.probes = 2}), input), {0.5 * h0 * 0.09, 0.5 * h1 * 0.16}, 1e-12);
}

TEST(Obd, BadOptions) {
  EXPECT_THROW(obd_criterion({.probes = 0}), ArgumentError);
  EXPECT_THROW(woodfisher_criterion({.block_size = 0}), ArgumentError);
  EXPECT_THROW(woodfisher_criterion({.damping = 0}), ArgumentError);
}

TEST(WoodFisher, ScoresAreTheInverseByHand) {
  // One example with x = (1, 2) twice, residuals +-1: F = lambda I + x x^T, and its inverse is known in closed form.
  const Quadratic q({{1, 2}}, {3, -1});
  const Matrix x = rows_of(q.data);
  const double lambda = 0.5, a = x[0][0], b = x[0][1], determinant = lambda * (lambda + a * a + b * b);
  const Values inverse{(lambda + b * b) / determinant, (lambda + a * a) / determinant};
  expect_near(scores_of(*woodfisher_criterion({.damping = lambda}), q.input),
              {9 / (2 * inverse[0]), 1 / (2 * inverse[1])}, 1e-10);
}

TEST(WoodFisher, ScoresAreTheLossAfterTheOthersMovedToTheirBest) {
  const Quadratic q = coupled();
  const double before = loss_on(q.input);
  Values expected;
  for (size_t i = 0; i < q.w.size(); ++i) expected.push_back(q.loss_of_weights(q.best_without({i})) - before);
  expect_near(scores_of(*woodfisher_criterion({.damping = kDamping}), q.input), expected, kTolerance);
}

TEST(WoodFisher, TheUpdateIsTheConstrainedMinimum) {
  for (const std::vector<size_t>& removed :
       {std::vector<size_t>{2}, std::vector<size_t>{0, 3}, std::vector<size_t>{0, 1, 2}}) {
    const Quadratic q = coupled();
    const Values expected = q.best_without(removed);
    obs_update(q.net->parameters(), {q.mask_without(removed)}, q.input, {.damping = kDamping});
    expect_near(weights_of(*q.net), expected, kTolerance);
    for (size_t i : removed) EXPECT_EQ(weights_of(*q.net)[i], 0);
  }
}

TEST(WoodFisher, BlocksAreIndependent) {
  // Inputs of which only two neighbours are ever set together: blocks of two lose nothing.
  const Quadratic q({{1, 2, 0, 0}, {2, 1, 0, 0}, {0, 0, 1, -1}, {0, 0, 2, 1}}, {1, -0.5, 2, 0.75});
  const WoodFisherOptions options{.block_size = 2, .damping = kDamping};
  const double before = loss_on(q.input);
  Values expected;
  for (size_t i = 0; i < q.w.size(); ++i) expected.push_back(q.loss_of_weights(q.best_without({i})) - before);
  expect_near(scores_of(*woodfisher_criterion(options), q.input), expected, kTolerance);
  const Values best = q.best_without({0, 3});
  obs_update(q.net->parameters(), {q.mask_without({0, 3})}, q.input, options);
  expect_near(weights_of(*q.net), best, kTolerance);
}

TEST(WoodFisher, ALastBlockThatIsSmaller) {
  const Quadratic q = coupled();
  // Blocks {0,1,2} and {3}: the last weight's score is its diagonal alone.
  const Values score = scores_of(*woodfisher_criterion({.block_size = 3, .damping = kDamping}), q.input);
  EXPECT_NEAR(score[3], 0.5 * q.hessian[3][3] * q.w[3] * q.w[3], kTolerance);
}

TEST(WoodFisher, WorksWithThePruner) {
  const Quadratic q = coupled();
  auto surgeon = std::make_shared<BrainSurgeon>(WoodFisherOptions{.damping = kDamping});
  Pruner pruner(q.net, weight_sites(*q.net),
                {.criterion = surgeon, .data = q.data, .loss = q.input.loss, .batch_size = 4, .batches = 100});
  pruner.prune(0.5);
  const std::vector<bool> exists = q.net->parameters()[0].mask().units();
  surgeon->update();
  std::vector<size_t> removed;
  for (size_t i = 0; i < exists.size(); ++i)
    if (!exists[i]) removed.push_back(i);
  ASSERT_EQ(removed.size(), 2u);
  expect_near(weights_of(*q.net), q.best_without(removed), kTolerance);
  EXPECT_THROW(surgeon->update(), ArgumentError);  // once only
}

TEST(WoodFisher, WeightsRemovedBeforeStayRemoved) {
  const Quadratic q = coupled();
  Parameter weight = q.net->parameters()[0];
  weight.set_mask(q.mask_without({1}));
  const Values before = weights_of(*q.net);
  BrainSurgeon surgeon({.damping = 1e-3});
  const Values score = scores_of(surgeon, q.input);
  EXPECT_EQ(score[1], 0);
  weight.set_mask(q.mask_without({1, 2}));
  surgeon.update();
  EXPECT_EQ(weights_of(*q.net)[1], 0);
  EXPECT_EQ(weights_of(*q.net)[2], 0);
  EXPECT_NE(weights_of(*q.net)[0], before[0]);
}

TEST(WoodFisher, UpdatesOnlyTheWeightsThatWereScored) {
  const Quadratic q = coupled();
  BrainSurgeon surgeon({.damping = kDamping});
  scores_of(surgeon, q.input);
  Values moved = q.w;
  moved[0] += 1;
  set_weights(*q.net, moved);
  expect_contains(message_of<ArgumentError>([&] { surgeon.update(); }), "before training");
  EXPECT_EQ(weights_of(*q.net), moved);
  EXPECT_THROW(BrainSurgeon().update(), ArgumentError);
  EXPECT_THROW(obs_update(q.net->parameters(), {}, q.input), ArgumentError);
  EXPECT_THROW(obs_update(q.net->parameters(), {Mask::all({2, 2})}, q.input), ArgumentError);
}

}  // namespace
}  // namespace espalier
