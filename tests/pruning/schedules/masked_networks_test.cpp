// Every method that prunes while it trains, on a network that an earlier pruning left with masks.
#include <cmath>

#include "layers/linear.h"
#include "pruning/criteria/slimming.h"
#include "pruning/learned/hard_concrete.h"
#include "pruning/learned/learned_masks.h"
#include "pruning/learned/movement.h"
#include "pruning/learned/variational.h"
#include "pruning/schedules/adaptive.h"
#include "pruning/schedules/gradual.h"
#include "pruning/schedules/lottery.h"
#include "pruning/schedules/sparse_training.h"
#include "pruning/schedules/surgery.h"
#include "pruning/structure/graph.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

/// What the earlier pruning removed, and what the method removes now.
enum class Case {
  weights,  ///< half of the single weights; single weights
  rows,     ///< half of the rows; rows
  inside,   ///< half of the single weights; rows, in which some weights are masked
};
enum class Method {
  one_shot,
  linear,
  geometric,
  cubic,
  movement,
  set,
  rigl,
  surgery,
  lottery,
  adaptive,
  learned_top_k,
  learned_threshold,
  gates,
  variational,
};

constexpr int64_t kSteps = 12;  // of five steps an epoch

class MaskedNetwork : public testing::TestWithParam<std::tuple<Case, Method>> {
 protected:
  MaskedNetwork() {
    set_seed(1);
    net_ = share(Sequential(Flatten(), Linear(64, 24), BatchNorm1d(24), ReLU(), Linear(24, 10)));
    const Pattern before = case_of() == Case::rows ? Pattern::channel(0) : Pattern::element();
    now_ = case_of() == Case::weights ? Pattern::element() : Pattern::channel(0);
    // Rows of the output are classes: they stay.
    const std::vector<std::string> protect =
        now_ == Pattern::element() ? std::vector<std::string>{} : std::vector<std::string>{"4.weight"};
    Pruner(net_, weight_sites(*net_, before), {.allocation = {.scope = Scope::layer, .protect = protect}}).prune(0.5);
    sites_ = weight_sites(*net_, now_);
    std::erase_if(sites_, [&](const Site& site) { return names_include(protect, site.name); });
    for (const Site& site : sites_) before_.push_back(mask_of(site));
    sparsity_before_ = count_sparsity(sites_).sparsity();
  }

  static Case case_of() { return std::get<0>(GetParam()); }
  static Method method() { return std::get<1>(GetParam()); }
  static Mask mask_of(const Site& site) { return site.members[0].parameter.mask().as_elements(); }

  /// Checks after every step that nothing that was removed is back, and that what is masked is 0.
  struct Watch : Callback {
    explicit Watch(std::function<void()> f) : check(std::move(f)) {}
    void on_step_end(Trainer&, const StepRecord&) override { check(); }
    std::function<void()> check;
  };
  void expect_masked() const {
    for (size_t i = 0; i < sites_.size(); ++i) {
      const Parameter& p = sites_[i].members[0].parameter;
      ASSERT_TRUE(identical(p.mask().apply(p.data()), p.data())) << sites_[i].name;
      ASSERT_TRUE(may_grow_ || mask_of(sites_[i]).is_subset_of(before_[i])) << sites_[i].name;
    }
  }
  TrainingPlan plan(std::vector<std::shared_ptr<Callback>> callbacks, NamedParameters others = {}) {
    callbacks.push_back(std::make_shared<Watch>([this] { expect_masked(); }));
    return {.optimizer =
                [others](Module& net) {
                  NamedParameters all = net.named_parameters();
                  all.insert(all.end(), others.begin(), others.end());
                  return std::make_shared<Sgd>(all, SgdOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
                },
            .options = {.steps = kSteps, .batch_size = 64, .progress = ProgressMode::silent, .callbacks = callbacks}};
  }
  TrainingResult train(std::vector<std::shared_ptr<Callback>> callbacks, NamedParameters others = {}) {
    return retrain(net_, plan(std::move(callbacks), std::move(others)), digits(320), {}).result;
  }
  double sparsity() const { return count_sparsity(sites_).sparsity(); }
  /// The weights of the units that exist, and of all units.
  double share_of_units() const { return 1 - Pruner(net_, sites_).removed_share(); }

  void gradual(SparsityCurve curve, const std::shared_ptr<MovementCriterion>& movement = nullptr);
  void sparse_training(Growth growth);
  void surgery();
  void lottery();
  void adaptive();
  void learned(Selection selection);
  void gates();
  void variational();

  std::shared_ptr<Sequential> net_;
  Pattern now_ = Pattern::element();
  std::vector<Site> sites_;
  std::vector<Mask> before_;
  double sparsity_before_ = 0;
  bool may_grow_ = false;
};

/// The share of all weights that units hold rises to 0.8, and nothing goes before the curve passes what is gone.
void MaskedNetwork::gradual(SparsityCurve curve, const std::shared_ptr<MovementCriterion>& movement) {
  PrunerOptions options{.allocation = {.scope = Scope::layer}};
  std::vector<std::shared_ptr<Callback>> callbacks;
  if (movement) {
    options.criterion = movement;
    callbacks.push_back(movement);
  }
  const auto pruner = std::make_shared<Pruner>(net_, sites_, options);
  const double removed_before = pruner->removed_share();
  callbacks.push_back(std::make_shared<GradualPruning>(
      pruner, GradualOptions{.sparsity = 0.75, .curve = curve, .begin = 0.2, .end = 0.7, .every = 1}));
  std::vector<double> removed;
  callbacks.push_back(std::make_shared<Watch>([&] { removed.push_back(pruner->removed_share()); }));
  train(callbacks);
  ASSERT_EQ(removed.size(), static_cast<size_t>(kSteps));
  EXPECT_EQ(removed[0], removed_before);
  EXPECT_TRUE(std::is_sorted(removed.begin(), removed.end()));
  EXPECT_NEAR(removed.back(), 0.75, 1e-3);
}

void MaskedNetwork::sparse_training(Growth growth) {
  const SparseTrainingOptions options{
      .growth = growth, .sparsity = 0.75, .allocation = {.scope = Scope::layer}, .fraction = 1, .every = 1};
  if (case_of() == Case::inside) {
    expect_contains(message_of<ArgumentError>([&] { SparseTraining(sites_, options); }), "can't grow");
    return;
  }
  may_grow_ = true;
  const auto moving = std::make_shared<SparseTraining>(sites_, options);
  std::vector<double> sparsities;
  train({moving, std::make_shared<Watch>([&] { sparsities.push_back(moving->sparsity()); })});
  // The number of units never changes, though units grow where the earlier pruning removed some.
  EXPECT_NEAR(sparsities[0], 0.75, 1e-3);
  for (const double sparsity : sparsities) EXPECT_EQ(sparsity, sparsities[0]);
  bool grew = false;
  for (size_t i = 0; i < sites_.size(); ++i) grew = grew || !mask_of(sites_[i]).is_subset_of(before_[i]);
  // A removed row makes a constant 0, on which ReLU's gradient is 0: rows that were just dropped have larger ones.
  EXPECT_EQ(grew, case_of() == Case::weights || growth == Growth::random);
}

void MaskedNetwork::surgery() {
  const auto surgery =
      std::make_shared<NetworkSurgery>(sites_, SurgeryOptions{.c = 0, .low = 1, .high = 1, .gamma = 1e9});
  EXPECT_DOUBLE_EQ(surgery->sparsity(), sparsity_before_);
  train({surgery});
  EXPECT_TRUE(surgery->is_hard());
  // In its one update, in the first step, about half of what exists lies below the mean of what exists.
  EXPECT_GT(sparsity(), sparsity_before_ + 0.15);
  EXPECT_LT(sparsity(), sparsity_before_ + 0.4);
}

void MaskedNetwork::lottery() {
  const double units = share_of_units();
  find_lottery_ticket(net_, sites_, digits(320), {}, {},
                      {.training = plan({}), .rounds = 1, .rate = 0.25, .output_rate = 1});
  EXPECT_NEAR(share_of_units(), 0.75 * units, 1e-3) << "a quarter of what was left";
}

void MaskedNetwork::adaptive() {
  const double units = share_of_units();
  Pruner pruner(net_, sites_, {.allocation = {.scope = Scope::layer}});
  const AdaptiveResult result =
      prune_adaptively(pruner, digits(320), digits_test().first(50),
                       {.training = plan({}), .retrain = 0.5, .step = 0.25, .tolerance = 1000, .rounds = 1});
  EXPECT_EQ(result.rounds.size(), 1U);
  EXPECT_NEAR(share_of_units(), 0.75 * units, 1e-3);
}

void MaskedNetwork::learned(Selection selection) {
  const auto masks = std::make_shared<LearnedMasks>(net_, sites_,
                                                    LearnedMaskOptions{.selection = selection,
                                                                       .initial = InitialScores::zero,
                                                                       .sparsity = 0.75,
                                                                       .allocation = {.scope = Scope::layer},
                                                                       .threshold = 0.0,
                                                                       .penalty = 1});
  EXPECT_DOUBLE_EQ(masks->sparsity(), sparsity_before_) << "as the forward pass sees them";
  train({masks}, masks->scores());
  EXPECT_TRUE(masks->is_hard());
  if (selection == Selection::top_k)
    EXPECT_NEAR(1 - share_of_units(), 0.75, 1e-3);
  else
    EXPECT_GT(sparsity(), sparsity_before_) << "the penalty pushed scores below the threshold";
}

void MaskedNetwork::gates() {
  const auto gates = std::make_shared<HardConcreteGates>(net_, sites_, HardConcreteOptions{.lambda = 1});
  EXPECT_DOUBLE_EQ(gates->sparsity(), sparsity_before_);
  // Every gate is open with nearly the same probability, and only weights that exist count.
  double all = 0, exist = 0;
  for (const Site& site : sites_) {
    all += static_cast<double>(site.members[0].parameter.numel());
    exist += static_cast<double>(mask_of(site).count());
  }
  const double probability = 1 / (1 + std::exp(-std::log(9) + 2.0 / 3 * std::log(0.1 / 1.1)));
  EXPECT_NEAR(gates->expected_weights() / exist, probability, 0.01);
  EXPECT_LT(exist, 0.6 * all);
  train({gates}, gates->log_alphas());
  EXPECT_TRUE(gates->is_hard());
  EXPECT_GE(sparsity(), sparsity_before_);
}

void MaskedNetwork::variational() {
  make_variational(*net_, {.initial_log_sigma2 = -4, .threshold = 1});
  train({std::make_shared<VariationalPenalty>(net_)});
  const SparsityCount count = remove_variational(*net_);
  expect_masked();
  EXPECT_GT(sparsity(), sparsity_before_);
  EXPECT_GT(count.masked, 0);
}

TEST_P(MaskedNetwork, KeepsWhatWasRemovedAndDoesItsPart) {
  switch (method()) {
    case Method::one_shot: return gradual(SparsityCurve::one_shot);
    case Method::linear: return gradual(SparsityCurve::linear);
    case Method::geometric: return gradual(SparsityCurve::geometric);
    case Method::cubic: return gradual(SparsityCurve::cubic);
    case Method::movement:
      return gradual(SparsityCurve::cubic, std::make_shared<MovementCriterion>(net_->parameters()));
    case Method::set: return sparse_training(Growth::random);
    case Method::rigl: return sparse_training(Growth::gradient);
    case Method::surgery: return surgery();
    case Method::lottery: return lottery();
    case Method::adaptive: return adaptive();
    case Method::learned_top_k: return learned(Selection::top_k);
    case Method::learned_threshold: return learned(Selection::threshold);
    case Method::gates: return gates();
    case Method::variational: return variational();
  }
}

std::string name_of_case(const testing::TestParamInfo<std::tuple<Case, Method>>& instance) {
  constexpr const char* kCases[] = {"Weights", "Rows", "Inside"};
  constexpr const char* kMethods[] = {
      "OneShot", "Linear",  "Geometric", "Cubic",       "Movement",         "Set",   "RigL",
      "Surgery", "Lottery", "Adaptive",  "LearnedTopK", "LearnedThreshold", "Gates", "Variational"};
  return std::string(kCases[static_cast<size_t>(std::get<0>(instance.param))]) +
         kMethods[static_cast<size_t>(std::get<1>(instance.param))];
}

INSTANTIATE_TEST_SUITE_P(Methods, MaskedNetwork,
                         testing::Combine(testing::Values(Case::weights, Case::rows, Case::inside),
                                          testing::Values(Method::one_shot, Method::linear, Method::geometric,
                                                          Method::cubic, Method::movement, Method::set, Method::rigl,
                                                          Method::surgery, Method::lottery, Method::adaptive,
                                                          Method::learned_top_k, Method::learned_threshold,
                                                          Method::gates, Method::variational)),
                         name_of_case);

TEST(SlimmingOnAMaskedNetwork, ScalesOfRemovedChannelsStayZeroAndCountNothing) {
  const ModulePtr net = share(Sequential(Flatten(), Linear(64, 24), BatchNorm1d(24), ReLU(), Linear(24, 10)));
  const auto sites = channel_sites(DependencyGraph::trace(*net, Tensor::zeros({1, 1, 8, 8})));
  Pruner(net, sites, {.allocation = {.scope = Scope::layer}}).prune(0.5);
  const auto slimming = std::make_shared<SlimmingPenalty>(SlimmingOptions{.strength = 1e-2});
  EXPECT_NEAR(slimming->penalty(*net), 1e-2 * 12, 1e-9) << "twelve scales of 1 are left";
  Trainer(net, std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.1, .momentum = 0.9}),
          {.steps = kSteps, .batch_size = 64, .progress = ProgressMode::silent, .callbacks = {slimming}})
      .fit(digits(320));
  const Parameter scale = net->find<BatchNorm1d>("2")->weight();
  EXPECT_EQ(scale.mask().count(), 12);
  const std::vector<float> values = scale.data().to_vector<float>();
  EXPECT_EQ(std::count(values.begin(), values.end(), 0.0F), 12);
}

}  // namespace
}  // namespace espalier
