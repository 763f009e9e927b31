// Sensitivity curves, the sparsities that follow from them, and pruning to a budget.
#include <cmath>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "pruning/sensitivity.h"
#include "tests/training/support.h"
#include "training/checkpoint.h"

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

TEST(Budget, FindsTheSmallestSparsityThatFits) {
  const ModulePtr net = small_network(1);
  const double all = count_existing(*net);
  EXPECT_EQ(all, static_cast<double>(net->num_parameters()));
  Pruner pruner(net, weight_sites(*net));
  const BudgetResult free = prune_to_budget(pruner, {.amount = all}, [](Module& m) { return count_existing(m); });
  EXPECT_EQ(free.tries, 1);
  EXPECT_FALSE(net->parameters()[0].mask().defined());

  const Budget budget{.amount = 600, .precision = 1e-4};
  const BudgetResult result = prune_to_budget(pruner, budget, [](Module& m) { return count_existing(m); });
  EXPECT_LE(count_existing(*net), 600);
  EXPECT_GT(count_existing(*net), 600 - 2 - 1e-4 * 1776);
  EXPECT_EQ(result.cost, count_existing(*net));
  EXPECT_NEAR(result.sparsity, pruner.sparsity(), 1e-3);
}

TEST(Budget, BytesAreThoseOfTheFile) {
  for (const Pattern& pattern : {Pattern::element(), Pattern::channel(0)}) {
    set_seed(1);
    const ModulePtr net = share(Sequential(Flatten(), Linear(64, 24), ReLU(), Linear(24, 10)));
    EXPECT_EQ(count_bytes(*net), 4.0 * static_cast<double>(net->num_parameters()));
    Pruner pruner(net, weight_sites(*net, pattern));
    const double half = count_bytes(*net) / 2;
    prune_to_budget(pruner, {.kind = BudgetKind::bytes, .amount = half}, [](Module& m) { return count_bytes(m); });
    EXPECT_LE(count_bytes(*net), half);
    const TemporaryFolder folder;
    const std::string path = folder.file("net.safetensors");
    save_checkpoint(path, *net);
    std::ifstream file(path, std::ios::binary);
    uint64_t header = 0;  // a safetensors file: the header's size, the header, the tensors
    file.read(reinterpret_cast<char*>(&header), sizeof header);
    EXPECT_EQ(count_bytes(*net), static_cast<double>(std::filesystem::file_size(path) - sizeof header - header));
  }
}

TEST(Budget, OutOfReachNamesTheNearestAndChangesNothing) {
  const ModulePtr net = small_network(1);
  const NamedTensors before = copy_of(state_of(*net));
  Pruner pruner(net, weight_sites(*net), {.allocation = {.protect = {"1.weight"}}});
  // 240 weights of the second layer may go, all but one: 1858 parameters become 1619 at least.
  const double all = count_existing(*net);
  const std::string message = message_of<ArgumentError>([&] {
    prune_to_budget(pruner, {.amount = 100, .precision = 1e-4}, [](Module& m) { return count_existing(m); });
  });
  expect_contains(message, "100 parameters");
  expect_contains(message, fmt::format("{}", all - 239));
  expect_identical(state_of(*net), before);
  EXPECT_FALSE(net->parameters()[4].mask().defined());
  EXPECT_THROW(prune_to_budget(pruner, {.amount = 0}, [](Module&) { return 1.0; }), ArgumentError);
  EXPECT_THROW(prune_to_budget(pruner, {.amount = 5}, {}), ArgumentError);
  expect_contains(message_of<ArgumentError>([] { parse_budget_kind("milisecond"); }), "milliseconds");
}

}  // namespace
}  // namespace espalier
