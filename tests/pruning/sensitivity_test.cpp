// Sensitivity curves and the sparsities that follow from them.
#include <nlohmann/json.hpp>

#include "pruning/sensitivity.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

/// Loss 1; site "a" (100 weights) loses nothing until 0.5, then rises by 1 until 0.9; "b" (300) rises from the start.
Sensitivity two_sites() {
  return {.loss = 1,
          .accuracy = 0.9,
          .curves = {{.site = "a", .weights = 100, .points = {{0.5, 0.5, 1.0, 0.9}, {0.9, 0.9, 2.0, 0.5}}},
                     {.site = "b", .weights = 300, .points = {{0.5, 0.5, 1.5, 0.8}, {0.9, 0.9, 1.9, 0.6}}}}};
}

TEST(Sensitivity, TolerancesBecomeSparsities) {
  using Sparsities = std::map<std::string, double>;
  EXPECT_EQ(sparsities_within(two_sites(), 0), (Sparsities{{"a", 0.5}, {"b", 0}}));
  Sparsities found = sparsities_within(two_sites(), 0.5);
  EXPECT_DOUBLE_EQ(found["a"], 0.7);
  EXPECT_DOUBLE_EQ(found["b"], 0.5);
  found = sparsities_within(two_sites(), 9);
  EXPECT_DOUBLE_EQ(found["a"], 0.9);
  EXPECT_DOUBLE_EQ(found["b"], 0.9);
  // Tolerance t: a = 0.5 + 0.4t, b = t up to 0.5; (100a + 300b)/400 = 0.125 + 0.85t = 0.465 at t = 0.4.
  found = sparsities_for(two_sites(), 0.465);
  EXPECT_NEAR(found["a"], 0.66, 1e-6);
  EXPECT_NEAR(found["b"], 0.4, 1e-6);
  // What costs nothing is more than what is asked for.
  found = sparsities_for(two_sites(), 0.1);
  EXPECT_NEAR(found["a"], 0.4, 1e-9);
  EXPECT_EQ(found["b"], 0);
  expect_contains(message_of<ArgumentError>([] { sparsities_for(two_sites(), 0.95); }), "0.9000");
  EXPECT_THROW(sparsities_within(two_sites(), -1), ArgumentError);
}

TEST(Sensitivity, CurvesAreThoseOfPruningOneSiteByHand) {
  const ModulePtr net = small_network(1);
  net->parameters()[4].set_mask(
      Mask::from_scores({10, 24}, Pattern::element(), abs(net->parameters()[4].data()).reshape({240}), 200));
  const NamedTensors before = copy_of(state_of(*net));
  const Mask mask = net->parameters()[4].mask();
  const Pruner pruner(net, weight_sites(*net));
  const Dataset data = digits_test();
  const Sensitivity found = measure_sensitivity(pruner, data, {.sparsities = {0.25, 0.5, 0.9}});
  expect_identical(state_of(*net), before);
  EXPECT_EQ(net->parameters()[4].mask(), mask);
  EXPECT_FALSE(net->parameters()[0].mask().defined());
  EXPECT_EQ(found.loss, evaluate(*net, data).loss);
  ASSERT_EQ(found.curves.size(), 2U);

  const ModulePtr copy = net->clone();
  Parameter weight = copy->parameters()[0];
  weight.set_mask(Mask::from_scores(weight.shape(), Pattern::element(), abs(weight.data()).reshape({1536}), 768));
  EXPECT_EQ(found.curves[0].points[1].loss, evaluate(*copy, data).loss);
  EXPECT_DOUBLE_EQ(found.curves[0].points[1].sparsity, 0.5);
  EXPECT_EQ(found.curves[0].weights, 1536);
  EXPECT_DOUBLE_EQ(found.curves[1].points[2].sparsity, 0.9);

  expect_contains(found.to_string(), "1.weight");
  expect_contains(found.to_string(), "90 %");
  EXPECT_EQ(found.to_json()["sites"][0]["points"][1]["loss"], found.curves[0].points[1].loss);
  EXPECT_THROW(measure_sensitivity(pruner, {}), ArgumentError);
  EXPECT_THROW(measure_sensitivity(pruner, data, {.sparsities = {0.5, 0.5}}), ArgumentError);
}

TEST(Sensitivity, GivesThePrunerItsAllocation) {
  const ModulePtr net = small_network(1);
  const auto sites = weight_sites(*net);
  const Sensitivity found = measure_sensitivity(Pruner(net, sites), digits_test());
  const auto sparsities = sparsities_for(found, 0.6);
  Pruner pruner(net, sites, {.allocation = {.sparsity_of = sparsities}});
  pruner.prune(0);
  EXPECT_NEAR(pruner.sparsity(), 0.6, 2e-3);
}

}  // namespace
}  // namespace espalier
