// Criteria of the weights alone, by hand.
#include "tests/pruning/criteria/support.h"

namespace espalier {
namespace {

using namespace criteria_testing;

Values scores(const CriterionPtr& criterion, const Module& net) {
  return scores_of(*criterion, {.module = const_cast<Module&>(net)});
}

TEST(WeightCriteria, MagnitudesAreNorms) {
  const ModulePtr net = regression({-3, 0.5, 2});
  EXPECT_EQ(scores(magnitude_criterion(), *net), (Values{3, 0.5, 2}));
  EXPECT_EQ(scores(magnitude_l2_criterion(), *net), (Values{9, 0.25, 4}));
}

TEST(WeightCriteria, RandomIsUniformAndItsSeeds) {
  const ModulePtr net = regression(Values(1000, 0.0));
  const auto of_seed = [&](uint64_t seed) { return scores_of(*random_criterion(), {.module = *net, .seed = seed}); };
  const Values values = of_seed(1);
  EXPECT_EQ(of_seed(1), values);
  EXPECT_NE(of_seed(2), values);
  double mean = 0;
  for (const double value : values) {
    EXPECT_TRUE(value >= 0 && value < 1);
    mean += value / 1000;
  }
  EXPECT_NEAR(mean, 0.5, 0.05);
}

TEST(WeightCriteria, EnergyIsHalfTheSquare) {
  const ModulePtr net = regression({-3, 0.5, 2});
  EXPECT_EQ(scores(energy_criterion(), *net), (Values{4.5, 0.125, 2}));
}

TEST(WeightCriteria, SigmaIsZeroAtTheThreshold) {
  const ModulePtr net = regression({1, -3, 5, -7});  // mean 4, variance (9+1+1+9)/4 = 5
  const double threshold = 4 - 0.5 * std::sqrt(5.0);
  EXPECT_DOUBLE_EQ(sigma_threshold(net->parameters()[0].data(), 0.5), threshold);
  expect_near(scores(sigma_criterion(0.5), *net), {1 - threshold, 3 - threshold, 5 - threshold, 7 - threshold}, 1e-15);
}

TEST(WeightCriteria, SigmaCountsExistingWeightsOnly) {
  const ModulePtr net = regression({1, -3, 100, -7});
  Parameter weight = net->parameters()[0];
  weight.set_mask(Mask::from_units(weight.shape(), Pattern::element(), {true, true, false, true}));
  const double mean = 11.0 / 3, sigma = std::sqrt((1 + 9 + 49) / 3.0 - mean * mean);
  EXPECT_NEAR(sigma_threshold(weight.data(), 2, weight.mask()), mean - 2 * sigma, 1e-14);
  const double t = mean - sigma;
  expect_near(scores(sigma_criterion(), *net), {1 - t, 3 - t, 0, 7 - t}, 1e-14);
  weight.set_mask(Mask::from_units(weight.shape(), Pattern::element(), {false, false, false, false}));
  EXPECT_EQ(scores(sigma_criterion(), *net), (Values{0, 0, 0, 0}));
}

TEST(WeightCriteria, SigmaThresholdMakesAMask) {
  const Tensor weight = Tensor::from<float>({1, -3, 5, -7}, {2, 2});
  const Mask mask = Mask::from_threshold(weight.shape(), Pattern::element(), abs(weight), sigma_threshold(weight, 0));
  EXPECT_EQ(mask.units(), (std::vector<bool>{false, false, true, true}));
  EXPECT_THROW(sigma_threshold(Tensor::zeros({0, 3}), 1), ArgumentError);
  EXPECT_THROW(sigma_criterion(std::nan("")), ArgumentError);
}

TEST(WeightCriteria, LampDividesByTheWeightsAtLeastAsLarge) {
  const ModulePtr net = regression({2, -1, 3, 0});  // squares 4, 1, 9, 0
  expect_near(scores(lamp_criterion(), *net), {4.0 / 13, 1.0 / 14, 1, 0}, 1e-15);
  const ModulePtr equal = regression({2, 2});
  expect_near(scores(lamp_criterion(), *equal), {0.5, 1}, 1e-15);
}

TEST(WeightCriteria, ConnectionsOfAUnitAreItsRowAndTheColumnsThatReadIt) {
  const ModulePtr net = double_network(Flatten(), Linear(3, 2), Linear(2, 4));
  std::vector<Parameter> p = net->parameters();  // weight, bias, weight, bias
  p[0].set_mask(Mask::from_units(p[0].shape(), Pattern::element(), {true, false, true, false, true, false}));
  p[2].set_mask(
      Mask::from_units(p[2].shape(), Pattern::element(), {true, true, false, true, false, true, false, true}));
  const Site unit{.name = "hidden",
                  .units = 2,
                  .members = {{.parameter = p[0], .pattern = Pattern::channel(0)},
                              {.parameter = p[1], .pattern = Pattern::channel(0)},
                              {.parameter = p[2], .pattern = Pattern::channel(1), .masked = false}}};
  const std::vector<Site> sites{unit};
  const CriterionPtr criterion = connections_criterion();
  const Saliencies saliencies = criterion->score(net->parameters(), {.module = *net, .sites = &sites});
  EXPECT_EQ(unit_scores(unit, saliencies), (Values{2 + 1, 1 + 4}));
}

}  // namespace
}  // namespace espalier
