// Sites, allocation and the Pruner, on weights small enough to check by hand.
#include <gtest/gtest.h>

#include "layers/containers.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "pruning/pruner.h"
#include "pruning/schedules/gradual.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using testing_support::digits;
using testing_support::expect_contains;
using testing_support::message_of;

/// Two layers without bias whose weights are 1, 2, ..., 8 and 10, 20, 30, 40.
ModulePtr counted_network() {
  auto net = share(Sequential(Linear(4, 2, {.bias = false}), Linear(2, 2, {.bias = false})));
  std::vector<Parameter> p = net->parameters();
  p[0].set_data(Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {2, 4}));
  p[1].set_data(Tensor::from<float>({10, 20, 30, 40}, {2, 2}));
  return net;
}

std::vector<int64_t> kept(const Module& net) {
  std::vector<int64_t> counts;
  for (const Parameter& p : net.parameters())
    counts.push_back(p.mask().defined() ? p.mask().count_elements() : p.numel());
  return counts;
}

TEST(Pruner, GlobalScopeRemovesTheSmallestWeightsOfAllLayers) {
  const ModulePtr net = counted_network();
  Pruner pruner(net, weight_sites(*net));
  pruner.prune(0.5);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{2, 4}));
  EXPECT_DOUBLE_EQ(pruner.sparsity(), 0.5);
  EXPECT_EQ(net->parameters()[0].data().to_vector<float>(), (std::vector<float>{0, 0, 0, 0, 0, 0, 7, 8}));
}

TEST(Pruner, LayerScopeRemovesTheSameShareOfEach) {
  const ModulePtr net = counted_network();
  Pruner(net, weight_sites(*net), {.allocation = {.scope = Scope::layer}}).prune(0.5);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{4, 2}));
}

TEST(Pruner, ErkKeepsSmallLayersDenser) {
  const ModulePtr net = counted_network();
  // (2+4)/8 = 0.75 and (2+2)/4 = 1: densities 0.75e and e with 8*0.75e + 4e = 6, e = 0.6.
  Pruner(net, weight_sites(*net), {.allocation = {.scope = Scope::erk}}).prune(0.5);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{4, 2}));  // 3.6 and 2.4, to the nearest weight
}

TEST(Pruner, SitesWithTheirOwnSparsityAndProtectedOnes) {
  const ModulePtr net = counted_network();
  Pruner(net, weight_sites(*net), {.allocation = {.sparsity_of = {{"1.weight", 0.75}}}}).prune(0.25);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{6, 1}));
  const ModulePtr other = counted_network();
  Pruner(other, weight_sites(*other), {.allocation = {.scope = Scope::layer, .protect = {"0.*"}}}).prune(0.25);
  EXPECT_EQ(kept(*other), (std::vector<int64_t>{8, 3}));
}

TEST(Pruner, NoLayerCollapsesUnlessAsked) {
  const ModulePtr net = counted_network();
  Pruner pruner(net, weight_sites(*net), {.allocation = {.min_units = 2}});
  pruner.prune(0.6);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{2, 3}));
  const std::string message = message_of<ArgumentError>([&] { pruner.prune(0.9); });
  expect_contains(message, "0.6667");
  Pruner(net, weight_sites(*net), {.allocation = {.min_units = 0}}).prune(0.75);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{0, 3}));
}

TEST(Pruner, LayersWithNextToNothingLeftAreFound) {
  const auto net = share(Sequential(Linear(20, 30), Linear(30, 20), Linear(20, 1), Linear(1, 1)));
  const auto sites = weight_sites(*net);
  const auto keep = [&](size_t site, int64_t count) {
    std::vector<bool> exists(static_cast<size_t>(sites[site].units), false);
    std::fill(exists.begin(), exists.begin() + count, true);
    set_existing_units(sites[site], exists);
  };
  EXPECT_TRUE(find_collapses(sites).empty()) << "the one weight of the last layer was never more";
  keep(0, 6);  // exactly 1 %
  EXPECT_TRUE(find_collapses(sites).empty());
  keep(0, 5);
  keep(1, 1);
  keep(2, 3);
  const std::vector<Collapse> found = find_collapses(sites);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].to_string(), "0.weight: 5 of 600 units, 0.83 % of its weights");
  EXPECT_EQ(found[1].to_string(), "1.weight: 1 of 600 units, 0.17 % of its weights");
  EXPECT_EQ(find_collapses(sites, 3).size(), 3U) << "three units are the least that was to be kept";
}

TEST(Pruner, LayersThatLostMoreThanNineTenthsOfTheirRowsAreFound) {
  const auto net = share(Sequential(Linear(64, 24), Linear(24, 16)));
  const std::vector<Site> sites = weight_sites(*net, Pattern::channel());
  std::vector<bool> few(24, false);
  few[3] = few[4] = few[5] = true;
  set_existing_units(sites[0], few);
  EXPECT_TRUE(find_collapses(sites).empty()) << "21 of 24 are gone";
  few[3] = false;
  set_existing_units(sites[0], few);
  ASSERT_EQ(find_collapses(sites).size(), 1U);
  EXPECT_EQ(find_collapses(sites)[0].units_left, 2);
  EXPECT_TRUE(find_collapses(weight_sites(*net)).empty()) << "single weights";
}

TEST(Pruner, ByLayersProtectedOnesSetNoLimit) {
  const ModulePtr net = counted_network();  // of 12 weights 8 are protected
  Pruner pruner(net, weight_sites(*net), {.allocation = {.scope = Scope::layer, .protect = {"0.*"}}});
  pruner.prune(0.75);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{8, 1}));
  const ModulePtr other = counted_network();
  Pruner all(other, weight_sites(*other), {.allocation = {.scope = Scope::layer, .protect = {"*"}}});
  EXPECT_NO_THROW(all.prune(0.75));
  EXPECT_EQ(kept(*other), (std::vector<int64_t>{8, 4}));
}

TEST(Pruner, ErkMakesUpForWhatIsProtected) {
  const ModulePtr net = counted_network();
  Pruner(net, weight_sites(*net), {.allocation = {.scope = Scope::erk, .protect = {"1.*"}}}).prune(0.5);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{2, 4}));
}

TEST(Pruner, WeightsOfTwoSitesCountOnce) {
  // Rows and columns of one weight (8,8): half of it stays with 6 of one and 5 or 6 of the other, not with 4 and 4.
  for (const Scope scope : {Scope::global, Scope::layer, Scope::erk}) {
    set_seed(1);
    const ModulePtr net = share(Sequential(Linear(8, 8, {.bias = false})));
    const Parameter weight = net->parameters()[0];
    const std::vector<Site> sites = {site_of("rows", weight, Pattern::channel(0)),
                                     site_of("columns", weight, Pattern::channel(1))};
    Pruner pruner(net, sites, {.allocation = {.scope = scope}});
    pruner.prune(0.5);
    EXPECT_NEAR(pruner.sparsity(), 0.5, 4.0 / 64) << name_of(scope);
    EXPECT_NEAR(pruner.removed_share(), 0.5, 4.0 / 64) << name_of(scope);
    pruner.prune(0.75);
    EXPECT_NEAR(pruner.sparsity(), 0.75, 4.0 / 64) << name_of(scope);
    if (scope == Scope::global) continue;
    const std::vector<bool> rows = existing_units(sites[0]), columns = existing_units(sites[1]);
    EXPECT_EQ(std::count(rows.begin(), rows.end(), true), 4) << name_of(scope);
    EXPECT_EQ(std::count(columns.begin(), columns.end(), true), 4) << name_of(scope);
  }
}

TEST(Pruner, ASparsityByHandIsOfTheSitesOwnWeights) {
  set_seed(1);
  const ModulePtr net = share(Sequential(Linear(8, 8, {.bias = false})));
  const Parameter weight = net->parameters()[0];
  const std::vector<Site> sites = {site_of("rows", weight, Pattern::channel(0)),
                                   site_of("columns", weight, Pattern::channel(1))};
  Pruner pruner(net, sites, {.allocation = {.sparsity_of = {{"rows", 0.5}, {"columns", 0.25}}}});
  pruner.prune(0.5);
  EXPECT_EQ(weight.mask().count_elements(), 4 * 6);
}

TEST(Pruner, RoundsTheNumberOfUnitsUp) {
  const ModulePtr net = share(Sequential(Linear(4, 10), Linear(10, 4)));
  Pruner(net, {site_of("0", net->parameters()[0], Pattern::channel(0))}, {.allocation = {.round_to = 4}}).prune(0.5);
  EXPECT_EQ(net->parameters()[0].mask().count(), 8);
}

TEST(Pruner, SparsityOfHiddenUnitsCountsSharedWeightsOnce) {
  // Units of w_hh (32,8) are 4 rows and a column: k of 8 units leave 4*k*k of 256 weights.
  for (const auto& [sparsity, units] : std::vector<std::pair<double, int64_t>>{{0.75, 4}, {0.4375, 6}, {0.9375, 2}}) {
    const ModulePtr lstm = share(LSTM(3, 8));
    Pruner pruner(lstm, weight_sites(*lstm, Pattern::recurrent()));
    pruner.prune(0.2);
    pruner.prune(sparsity);
    EXPECT_DOUBLE_EQ(pruner.sparsity(), sparsity);
    EXPECT_EQ(lstm->parameters()[1].mask().count(), units);
  }
}

TEST(Pruner, NOfMNeverKeepsMoreThanNOfAnyM) {
  const ModulePtr net = counted_network();
  Pruner(net, {site_of("0", net->parameters()[0], Pattern::n_of_m(2, 4))}).prune(0.5);
  EXPECT_EQ(net->parameters()[0].data().to_vector<float>(), (std::vector<float>{0, 0, 3, 4, 0, 0, 7, 8}));
}

TEST(Pruner, NOfMLeavesProtectedLayersWhole) {
  for (const Scope scope : {Scope::global, Scope::layer, Scope::erk}) {
    const auto net = share(Sequential(Linear(8, 4, {.bias = false}), Linear(4, 2, {.bias = false})));
    const std::vector<Site> sites = weight_sites(*net, Pattern::n_of_m(2, 4));
    Pruner(net, sites, {.allocation = {.scope = scope, .protect = {"0.*"}, .as_far_as_possible = true}}).prune(0.5);
    EXPECT_EQ(count_sparsity({sites[0]}).masked, 0) << name_of(scope);
    EXPECT_GE(count_sparsity({sites[1]}).masked, 4) << name_of(scope);
  }
}

TEST(Pruner, WhatIsRemovedStaysRemovedUnlessRegrowIsSet) {
  const ModulePtr net = counted_network();
  Pruner pruner(net, weight_sites(*net));
  pruner.prune(0.5);
  Parameter weight = net->parameters()[0];
  Tensor values = weight.data();
  values.copy_(Tensor::from<float>({99, 0, 0, 0, 0, 0, 7, 8}, {2, 4}));  // not through the mask: a forbidden revival
  pruner.prune(0.6);
  EXPECT_EQ(weight.data().to_vector<float>()[0], 0);
  EXPECT_EQ(weight.mask().count(), 1);
}

TEST(Pruner, MaskedWeightsInsideOfUnitsAreNoRemovedUnits) {
  const ModulePtr net = counted_network();
  Pruner(net, weight_sites(*net)).prune(0.5);  // row 0 of the first layer has gone, and half of row 1
  Pruner rows(net, {site_of("1", net->parameters()[1], Pattern::channel(0))});
  net->parameters()[1].set_mask(Mask::from_units({2, 2}, Pattern::element(), {true, false, false, true}));
  EXPECT_DOUBLE_EQ(rows.sparsity(), 0.5);
  EXPECT_DOUBLE_EQ(rows.removed_share(), 0);
  rows.prune(0.5);
  EXPECT_DOUBLE_EQ(rows.removed_share(), 0.5);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{2, 1}));
  EXPECT_DOUBLE_EQ(Pruner(net, {site_of("0", net->parameters()[0], Pattern::channel(0))}).removed_share(), 0.5);
}

TEST(Pruner, RoundingBringsNothingBack) {
  const auto net = share(Sequential(Linear(1, 10, {.bias = false})));
  const std::vector<Site> sites = {site_of("0", net->parameters()[0], Pattern::channel(0))};
  Pruner(net, sites).prune(0.3);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{7}));
  Pruner(net, sites, {.allocation = {.round_to = 4}}).prune(0.35);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{7}));
  Pruner(net, sites, {.allocation = {.round_to = 4}}).prune(0.6);
  EXPECT_EQ(kept(*net), (std::vector<int64_t>{4}));
  // Nor more than n of m.
  const auto other = share(Sequential(Linear(8, 1, {.bias = false})));
  Pruner(other, weight_sites(*other, Pattern::n_of_m(2, 4)), {.allocation = {.round_to = 3}}).prune(0.5);
  EXPECT_EQ(kept(*other), (std::vector<int64_t>{4}));
}

TEST(Pruner, BadInput) {
  const ModulePtr net = counted_network();
  Pruner pruner(net, weight_sites(*net));
  EXPECT_THROW(pruner.prune(1), ArgumentError);
  EXPECT_THROW(pruner.prune(-0.1), ArgumentError);
  EXPECT_THROW(pruner.prune(std::nan("")), ArgumentError);
  expect_contains(message_of<ArgumentError>([&] { weight_sites(*net, Pattern::block(3, 1)); }), "3");
  expect_contains(message_of<ArgumentError>([&] { weight_sites(*net, Pattern::kernel()); }), "fits no weight");
  expect_contains(message_of<ArgumentError>([&] { make_criterion("magnitud"); }), "magnitude");
  Pruner typo(net, weight_sites(*net), {.allocation = {.protect = {"1.wieght"}}});
  expect_contains(message_of<ArgumentError>([&] { typo.prune(0.1); }), "1.weight");
}

TEST(SparsityCurves, AreWhatTheirFormulasSay) {
  EXPECT_DOUBLE_EQ(sparsity_at(SparsityCurve::cubic, 0.5, 0, 0.8), 0.8 - 0.8 * 0.125);
  EXPECT_DOUBLE_EQ(sparsity_at(SparsityCurve::linear, 0.5, 0, 0.8), 0.4);
  EXPECT_DOUBLE_EQ(sparsity_at(SparsityCurve::geometric, 0.5, 0, 0.96), 0.8);
  EXPECT_DOUBLE_EQ(sparsity_at(SparsityCurve::one_shot, 0, 0, 0.8), 0.8);
}

TEST(GradualPruning, ReachesTheSparsityAndKeepsTheBestEpochWithFinalMasks) {
  const ModulePtr net = testing_support::small_network(1);
  auto pruner = std::make_shared<Pruner>(net, weight_sites(*net));
  auto gradual = std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.8, .end = 0.5});
  auto optimizer = std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.05, .momentum = 0.9});
  Trainer trainer(net, optimizer,
                  {.epochs = 4,
                   .batch_size = 32,
                   .validation_fraction = 0.2,
                   .restore_best = true,
                   .progress = ProgressMode::silent,
                   .callbacks = {gradual}});
  const TrainingResult result = trainer.fit(digits(400));
  EXPECT_GE(result.best_epoch, 2);
  EXPECT_NEAR(pruner->sparsity(), 0.8, 1e-3);
}

/// Goes through a training of so many steps with a new callback, as after a resume, from step `cut` on. Returns the
/// sparsities after each step, from step 0.
std::vector<double> follow(const GradualOptions& options, int64_t steps, int64_t cut) {
  const auto net = share(Sequential(Linear(16, 8, {.bias = false})));
  const auto pruner = std::make_shared<Pruner>(net, weight_sites(*net));
  std::vector<double> sparsities;
  Trainer trainer(net, std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.1}), {.steps = steps});
  auto gradual = std::make_unique<GradualPruning>(pruner, options);
  gradual->on_epoch_begin(trainer, 1);
  sparsities.push_back(pruner->sparsity());
  for (int64_t step = 1; step <= steps; ++step) {
    if (step == cut) gradual = std::make_unique<GradualPruning>(pruner, options);
    if (step == steps / 2 + 1) gradual->on_epoch_begin(trainer, 2);
    gradual->on_step_end(trainer, {.step = step, .steps = steps});
    sparsities.push_back(pruner->sparsity());
  }
  return sparsities;
}

TEST(GradualPruning, EndsOnceInItsStepHoweverShortTheTraining) {
  for (const SparsityCurve curve :
       {SparsityCurve::one_shot, SparsityCurve::linear, SparsityCurve::geometric, SparsityCurve::cubic})
    for (const auto& [begin, end] : std::vector<std::pair<double, double>>{
             {0, 0}, {0, 0.01}, {0.01, 0.02}, {0, 0.5}, {0.5, 0.5}, {0.3, 0.9}, {0.99, 1}, {1, 1}, {0, 1}})
      for (const int64_t steps : {1, 2, 8, 32})
        for (const int64_t every : {0, 1, 5})
          for (const int64_t cut : {int64_t{0}, int64_t{1}, (steps + 1) / 2, steps}) {
            SCOPED_TRACE(fmt::format("{} from {} to {} in {} steps, every {}, resumed at {}", name_of(curve), begin,
                                     end, steps, every, cut));
            const std::vector<double> sparsities =
                follow({.sparsity = 0.75, .curve = curve, .begin = begin, .end = end, .every = every}, steps, cut);
            const int64_t last =
                std::llround((curve == SparsityCurve::one_shot ? begin : end) * static_cast<double>(steps));
            for (int64_t step = 0; step <= steps; ++step) {
              const double sparsity = sparsities[static_cast<size_t>(step)];
              // Near its end the cubic curve is closer to the goal than to the next weight of 128.
              if (step < last && curve == SparsityCurve::cubic)
                ASSERT_LE(sparsity, 0.75) << step;
              else if (step < last)
                ASSERT_LT(sparsity, 0.75) << step;
              else
                ASSERT_EQ(sparsity, 0.75) << step;
            }
          }
}

}  // namespace
}  // namespace espalier
