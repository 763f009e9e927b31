// Retraining, lottery tickets and adaptive pruning: rounds of trainings.
#include <cmath>
#include <filesystem>
#include <fstream>

#include "layers/snapshot.h"
#include "pruning/learned/hard_concrete.h"
#include "pruning/learned/learned_masks.h"
#include "pruning/schedules/adaptive.h"
#include "pruning/schedules/gradual.h"
#include "pruning/schedules/lottery.h"
#include "pruning/schedules/surgery.h"
#include "tests/training/support.h"
#include "training/checkpoint.h"

namespace espalier {
namespace {

using namespace testing_support;

/// Notes learning rates; requests a stop at a step of one of the trainings it sees.
struct Watch : Callback {
  void on_train_begin(Trainer& trainer) override {
    ++trainings;
    if (at_begin) at_begin(trainer);
  }
  void on_step_end(Trainer& trainer, const StepRecord& record) override {
    rates.push_back(record.lr);
    if (trainings == stop_training && record.step == stop_step) trainer.request_stop();
  }
  std::function<void(Trainer&)> at_begin;
  int trainings = 0, stop_training = 0;
  int64_t stop_step = 0;
  std::vector<double> rates;
};

TrainingPlan plan(const std::shared_ptr<Watch>& watch, int64_t epochs = 2) {
  return {.optimizer = [](Module& net) { return std::make_shared<Sgd>(net, SgdOptions{.lr = 0.1, .momentum = 0.9}); },
          .options = {.epochs = epochs,
                      .batch_size = 64,
                      .schedule = parse_schedule("cosine"),
                      .seed = 5,
                      .progress = ProgressMode::silent,
                      .callbacks = {watch}}};
}

Dataset training() { return digits(320); }  // five steps an epoch
Dataset validation() { return digits_test().first(100); }

TEST(Snapshot, PutsBackWeightsBuffersAndMasksToTheBit) {
  const ModulePtr net = small_network(1);
  Parameter weight = net->parameters()[0], other = net->parameters()[4];
  const Mask mask = Mask::from_scores(other.shape(), Pattern::channel(1), Tensor::arange(0, 24, 1, DType::f32), 7);
  other.set_mask(mask, GradientFlow::dense);
  const NamedTensors before = values_of(*net);
  const Snapshot snapshot(*net);
  weight.set_mask(Mask::from_scores(weight.shape(), Pattern::channel(0), Tensor::arange(0, 24, 1, DType::f32), 3));
  other.clear_mask();
  net->train();
  (*net)(Variable(randn({8, 64})));  // running statistics
  Tensor values = other.data();
  values.fill_(1);
  snapshot.restore();
  expect_identical(state_of(*net), before);
  EXPECT_FALSE(weight.mask().defined());
  EXPECT_EQ(other.mask(), mask);
  EXPECT_EQ(other.gradient_flow(), GradientFlow::dense);
}

TEST(Retraining, RepeatsTheLastPartOfTheSchedule) {
  auto watch = std::make_shared<Watch>();
  EXPECT_EQ(total_steps(plan(watch, 3).options, training()), 15);
  retrain(small_network(1), plan(watch, 3), training(), {});
  const std::vector<double> whole = watch->rates;
  ASSERT_EQ(whole.size(), 15U);
  for (int64_t first : {5, 8}) {  // an epoch, and inside one
    watch->rates.clear();
    EXPECT_TRUE(retrain(small_network(1), plan(watch, 3), training(), {}, first).finished);
    EXPECT_EQ(watch->rates, std::vector<double>(whole.begin() + first, whole.end()));
  }
  EXPECT_THROW(retrain(small_network(1), plan(watch, 3), training(), {}, 15), ArgumentError);
  EXPECT_THROW(retrain(small_network(1), {}, training(), {}), ArgumentError);
}

TEST(Retraining, FinishedInsideAnEpochStaysFinished) {
  const TemporaryFolder folder;
  auto watch = std::make_shared<Watch>();
  TrainingPlan saved = plan(watch, 3);
  saved.options.run_folder = folder.file("run");
  const ModulePtr first = small_network(1), second = small_network(2);
  retrain(first, saved, training(), {}, 8);
  EXPECT_TRUE(retrain(second, saved, training(), {}, 8).finished);
  EXPECT_EQ(watch->rates.size(), 7U);
  expect_identical(state_of(*second), state_of(*first));
}

TEST(Retraining, KeepsTheBestEpochThoughTheLastIsAPart) {
  // The rate is so high at the end that the best epoch is the first; and so low that it is the last, a part.
  for (const auto& [schedule, best] : {std::pair{"multistep:2,gamma=1000", 1}, {"multistep:2,gamma=0.01", 2}}) {
    const auto watch = std::make_shared<Watch>();
    const ModulePtr net = small_network(1);
    TrainingPlan kept = plan(watch, 3);
    kept.options.schedule = parse_schedule(schedule);
    kept.options.steps = 12;
    kept.options.restore_best = true;
    const Retraining done = retrain(net, kept, training(), validation(), 5);  // five steps and two
    EXPECT_TRUE(done.finished);
    ASSERT_EQ(done.result.history.size(), 2U);
    EXPECT_EQ(done.result.history[1].step, 7);
    EXPECT_EQ(done.result.best_epoch, best) << schedule;
    EXPECT_EQ(evaluate(*net, validation()).accuracy(),
              done.result.history[static_cast<size_t>(best - 1)].validation_accuracy)
        << schedule;
  }
}

TEST(Retraining, MaskSchedulesReachTheirEndInPartsOfEpochs) {
  const auto watch = std::make_shared<Watch>();
  const auto trained_with = [&](const ModulePtr& net, const std::shared_ptr<Callback>& callback) {
    return retrain(net, plan(watch, 3), training(), {}, 8, {callback}).finished;  // seven steps of fifteen
  };
  const ModulePtr net = small_network(1);
  const auto pruner = std::make_shared<Pruner>(net, weight_sites(*net));
  EXPECT_TRUE(trained_with(net, std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.8, .end = 1})));
  EXPECT_NEAR(pruner->sparsity(), 0.8, 1e-3);

  const ModulePtr learning = small_network(1), cut = small_network(1), gated = small_network(1);
  const auto masks = std::make_shared<LearnedMasks>(learning, weight_sites(*learning),
                                                    LearnedMaskOptions{.sparsity = 0.8, .end = 1, .harden = 1});
  EXPECT_TRUE(trained_with(learning, masks) && masks->is_hard());
  EXPECT_NEAR(count_sparsity(weight_sites(*learning)).sparsity(), 0.8, 1e-3);
  const auto surgery = std::make_shared<NetworkSurgery>(weight_sites(*cut), SurgeryOptions{.harden = 1});
  EXPECT_TRUE(trained_with(cut, surgery) && surgery->is_hard());
  const auto gates = std::make_shared<HardConcreteGates>(gated, weight_sites(*gated), HardConcreteOptions{.harden = 1});
  EXPECT_TRUE(trained_with(gated, gates) && gates->is_hard());
}

TEST(Retraining, MaskSchedulesReachTheirEndInAFewSteps) {
  // Begin, end and hardening all round to the first step, to the last one, or to both.
  const auto watch = std::make_shared<Watch>();
  for (const int64_t steps : {1, 2, 3})
    for (const double share : {0.01, 0.4, 0.9}) {
      SCOPED_TRACE(fmt::format("{} steps, at {}", steps, share));
      const auto train = [&](const ModulePtr& net, const std::shared_ptr<Callback>& callback) {
        TrainingPlan few = plan(watch);
        few.options.steps = steps;
        return retrain(net, few, training(), {}, 0, {callback}).finished;
      };
      const ModulePtr learning = small_network(1), cut = small_network(1), gated = small_network(1);
      const auto masks = std::make_shared<LearnedMasks>(
          learning, weight_sites(*learning),
          LearnedMaskOptions{.sparsity = 0.8, .begin = share, .end = share, .every = 100, .harden = share + 0.01});
      EXPECT_TRUE(train(learning, masks) && masks->is_hard());
      EXPECT_NEAR(count_sparsity(weight_sites(*learning)).sparsity(), 0.8, 1e-3);
      const auto surgery = std::make_shared<NetworkSurgery>(
          weight_sites(*cut), SurgeryOptions{.gamma = 0, .begin = share, .harden = share + 0.01});
      EXPECT_TRUE(train(cut, surgery) && surgery->is_hard());
      EXPECT_GT(count_sparsity(weight_sites(*cut)).sparsity(), 0.3) << "surgery has a step at least";
      const auto gates =
          std::make_shared<HardConcreteGates>(gated, weight_sites(*gated), HardConcreteOptions{.harden = share});
      EXPECT_TRUE(train(gated, gates) && gates->is_hard());
    }
}

TEST(LotteryTicket, RewindsToTheInitialWeightsWithAFreshOptimizer) {
  auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  const NamedTensors initial = values_of(*net);
  int seen = 0;
  watch->at_begin = [&](Trainer& trainer) {
    ++seen;
    EXPECT_TRUE(trainer.optimizer().state_dict().tensors.empty());
    const std::vector<std::pair<std::string, Parameter>> parameters = net->named_parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& p = parameters[i].second;
      const Tensor& start = initial[i].second;
      EXPECT_TRUE(identical(p.data(), p.mask().defined() ? p.mask().apply(start) : start)) << initial[i].first;
    }
  };
  const LotteryResult result = find_lottery_ticket(net, weight_sites(*net), training(), validation(), digits_test(),
                                                   {.training = plan(watch), .rounds = 2});
  EXPECT_EQ(seen, 3);
  ASSERT_EQ(result.rounds.size(), 3U);
  // 1536 weights lose 20 %, 240 of the output layer 10 %, twice: 1536 -> 1229 -> 983, 240 -> 216 -> 194.
  EXPECT_EQ(result.rounds[0].sparsity, 0);
  EXPECT_NEAR(result.rounds[1].sparsity, 1 - (1229.0 + 216) / 1776, 1e-9);
  EXPECT_NEAR(result.rounds[2].sparsity, 1 - (983.0 + 194) / 1776, 1e-9);
  for (const LotteryRound& round : result.rounds) {
    EXPECT_GT(round.test_accuracy.value(), 0.4);
    EXPECT_TRUE(round.validation_loss.has_value());
  }
}

TEST(LotteryTicket, GlobalScopeAndRewindingToALaterStep) {
  auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  find_lottery_ticket(net, weight_sites(*net), training(), {}, {},
                      {.training = plan(watch), .rounds = 1, .scope = Scope::global, .rewind_step = 3});
  EXPECT_EQ(watch->rates.size(), 10U + 7U);
  EXPECT_NEAR(count_sparsity(weight_sites(*net)).sparsity(), 0.2, 1e-3);
}

TEST(LotteryTicket, GoesOnWhereItWasStopped) {
  const TemporaryFolder folder;
  const auto search = [&](const std::string& name, uint64_t seed, int stop_training, int64_t stop_step,
                          NamedTensors* state, int64_t rewind) {
    auto watch = std::make_shared<Watch>();
    watch->stop_training = stop_training;
    watch->stop_step = stop_step;
    const ModulePtr net = small_network(seed);
    const LotteryResult result =
        find_lottery_ticket(net, weight_sites(*net), training(), validation(), {},
                            {.training = plan(watch), .rounds = 2, .rewind_step = rewind, .folder = folder.file(name)});
    if (state != nullptr) *state = values_of(*net);
    return result;
  };
  for (int64_t rewind : {0, 3}) {
    const std::string suffix = std::to_string(rewind);
    NamedTensors straight, resumed;
    const LotteryResult whole = search("straight" + suffix, 1, 0, 0, &straight, rewind);
    EXPECT_FALSE(search("stopped" + suffix, 1, 1, 4, nullptr, rewind).finished);  // in the dense training
    EXPECT_FALSE(search("stopped" + suffix, 7, 2, 2, nullptr, rewind).finished);  // in round 1
    const LotteryResult rest = search("stopped" + suffix, 8, 0, 0, &resumed, rewind);
    EXPECT_TRUE(rest.finished);
    expect_identical(resumed, straight);
    ASSERT_EQ(rest.rounds.size(), whole.rounds.size());
    for (size_t i = 0; i < rest.rounds.size(); ++i) {
      EXPECT_EQ(rest.rounds[i].sparsity, whole.rounds[i].sparsity);
      EXPECT_EQ(rest.rounds[i].validation_loss, whole.rounds[i].validation_loss);
    }
  }
  expect_contains(message_of<FileError>([&] { search("straight0", 1, 0, 0, nullptr, 1); }), "rewind_step");
}

TEST(LotteryTicket, NothingOfAnotherSearchIsTakenForItsOwn) {
  const TemporaryFolder folder;
  const auto search = [&](const std::string& name, double lr, NamedTensors* state = nullptr) {
    TrainingPlan training_plan = plan(std::make_shared<Watch>());
    training_plan.optimizer = [lr](Module& net) { return std::make_shared<Sgd>(net, SgdOptions{.lr = lr}); };
    const ModulePtr net = small_network(1);
    find_lottery_ticket(net, weight_sites(*net), training(), {}, {},
                        {.training = training_plan, .rounds = 1, .folder = folder.file(name)});
    if (state != nullptr) *state = values_of(*net);
  };
  NamedTensors alone, among;
  search("alone", 0.1, &alone);
  // Initial weights without an identity: whose they are nobody knows.
  std::filesystem::create_directories(folder.file("among/round-40"));
  save_checkpoint(folder.file("among/rewind.safetensors"), *small_network(9));
  search("among", 0.1, &among);
  expect_identical(among, alone);
  EXPECT_FALSE(std::filesystem::exists(folder.file("among/round-40"))) << "of a longer search";
  expect_contains(message_of<FileError>([&] { search("alone", 0.2); }), "training.optimizer.lr: was 0.1, is 0.2");
}

/// Half of the single weights masked, and no whole row: what rounds of channels have to remove is unaffected.
ModulePtr with_single_weights_masked() {
  const ModulePtr net = small_network(1);
  Pruner(net, weight_sites(*net), {.allocation = {.scope = Scope::layer}}).prune(0.5);
  return net;
}

int64_t units_left(const Site& site) {
  const std::vector<bool> exists = existing_units(site);
  return std::count(exists.begin(), exists.end(), true);
}

TEST(LotteryTicket, WeightsMaskedInsideOfUnitsAreNoUnits) {
  for (const Scope scope : {Scope::layer, Scope::global}) {
    auto watch = std::make_shared<Watch>();
    const ModulePtr net = with_single_weights_masked();
    const std::vector<Site> sites = {weight_sites(*net, Pattern::channel(0)).front()};
    const int64_t before = units_left(sites[0]);
    find_lottery_ticket(net, sites, training(), {}, {},
                        {.training = plan(watch, 1), .rounds = 1, .rate = 0.25, .scope = scope, .output_rate = 1});
    EXPECT_EQ(units_left(sites[0]), before - std::llround(0.25 * static_cast<double>(before))) << name_of(scope);
  }
}

TEST(LotteryTicket, SitesThatARateDoesNotTouchAreNamed) {
  // 24 rows and 10: 2 % of either are less than half of one, 6 % of 24 are one.
  const TemporaryFolder folder;
  auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  const LotteryOptions options{.training = plan(watch, 1),
                               .rounds = 1,
                               .rate = 0.02,
                               .output_rate = 1,
                               .rate_of = {{"1.weight", 0.06}},
                               .folder = folder.path()};
  for (int again = 0; again < 2; ++again) {  // from the list too
    const LotteryResult result =
        find_lottery_ticket(net, weight_sites(*net, Pattern::channel(0)), training(), {}, {}, options);
    EXPECT_TRUE(result.rounds[0].untouched.empty());
    EXPECT_EQ(result.rounds[1].untouched, std::vector<std::string>{"5.weight"});
  }
}

TEST(AdaptivePruning, WeightsMaskedInsideOfUnitsAreNoUnits) {
  auto watch = std::make_shared<Watch>();
  const ModulePtr net = with_single_weights_masked();
  Pruner pruner(net, {weight_sites(*net, Pattern::channel(0)).front()});
  const int64_t before = units_left(pruner.sites()[0]);
  prune_adaptively(pruner, training(), validation(),
                   {.training = plan(watch, 1), .step = 0.25, .tolerance = 1000, .rounds = 1});
  EXPECT_EQ(units_left(pruner.sites()[0]), before - std::llround(0.25 * static_cast<double>(before)));
}

TEST(LotteryTicket, BadInput) {
  auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  const auto sites = weight_sites(*net);
  const auto search = [&](LotteryOptions options) {
    options.training = plan(watch);
    find_lottery_ticket(net, sites, training(), {}, {}, options);
  };
  EXPECT_THROW(search({.rate = 1}), ArgumentError);
  EXPECT_THROW(search({.scope = Scope::erk}), ArgumentError);
  EXPECT_THROW(search({.rewind_step = 10}), ArgumentError);
  expect_contains(message_of<ArgumentError>([&] { search({.rate_of = {{"1.wieght", 0.1}}}); }), "1.weight");
}

TEST(AdaptivePruning, StaysWithinTheToleranceAndHalvesTheStep) {
  auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  retrain(net, plan(watch, 6), training(), {});
  Pruner pruner(net, weight_sites(*net));
  const AdaptiveResult result =
      prune_adaptively(pruner, training(), validation(),
                       {.training = plan(watch), .retrain = 0.5, .step = 0.8, .smallest_step = 0.2, .tolerance = 0.1});
  EXPECT_TRUE(result.finished);
  ASSERT_FALSE(result.rounds.empty());
  double step = 0.8, sparsity = 0, loss = result.start_loss;
  for (const AdaptiveRound& round : result.rounds) {
    EXPECT_DOUBLE_EQ(round.step, step);
    EXPECT_NEAR(round.sparsity, 1 - (1 - sparsity) * (1 - step), 1e-3);
    EXPECT_EQ(round.accepted, round.validation_loss <= result.start_loss + 0.1);
    if (round.accepted) {
      sparsity = round.sparsity;
      loss = round.validation_loss;
    } else {
      step /= 2;
    }
  }
  EXPECT_LT(step, 0.2);
  expect_contains(result.end, "below the smallest");
  EXPECT_EQ(result.sparsity, sparsity);
  EXPECT_EQ(pruner.sparsity(), sparsity);
  EXPECT_EQ(evaluate(*net, validation()).loss, loss) << "rejected rounds are taken back";
}

TEST(AdaptivePruning, GoesOnWhereItWasStopped) {
  const TemporaryFolder folder;
  const auto search = [&](const std::string& name, uint64_t seed, int stop_training, NamedTensors* state) {
    auto watch = std::make_shared<Watch>();
    watch->stop_training = stop_training;
    watch->stop_step = 3;
    const ModulePtr net = small_network(seed);
    Pruner pruner(net, weight_sites(*net));
    AdaptiveOptions options{.training = plan(watch), .retrain = 0.7, .tolerance = 0.01, .rounds = 3};
    options.folder = folder.file(name);
    const AdaptiveResult result = prune_adaptively(pruner, training(), validation(), options);
    if (state != nullptr) *state = values_of(*net);
    return result;
  };
  NamedTensors straight, resumed;
  const AdaptiveResult whole = search("straight", 1, 0, &straight);
  EXPECT_FALSE(search("stopped", 1, 1, nullptr).finished);
  EXPECT_FALSE(search("stopped", 7, 2, nullptr).finished);
  const AdaptiveResult rest = search("stopped", 8, 0, &resumed);
  expect_identical(resumed, straight);
  ASSERT_EQ(rest.rounds.size(), whole.rounds.size());
  for (size_t i = 0; i < rest.rounds.size(); ++i)
    EXPECT_EQ(rest.rounds[i].validation_loss, whole.rounds[i].validation_loss);
  EXPECT_EQ(rest.start_loss, whole.start_loss);
}

TEST(AdaptivePruning, NothingOfAnotherSearchIsTakenForItsOwn) {
  const TemporaryFolder folder;
  const auto search = [&](const std::string& name, AllocationOptions allocation) {
    const ModulePtr net = small_network(1);
    Pruner pruner(net, weight_sites(*net), {.allocation = std::move(allocation)});
    AdaptiveOptions options{.training = plan(std::make_shared<Watch>()), .retrain = 0.5, .rounds = 1};
    options.folder = folder.file(name);
    prune_adaptively(pruner, training(), validation(), options);
    return values_of(*net);
  };
  const NamedTensors straight = search("straight", {.scope = Scope::layer});
  search("other", {.scope = Scope::global});
  expect_contains(message_of<FileError>([&] { search("other", {.scope = Scope::layer}); }),
                  "pruner.allocation.scope: was ");
  expect_contains(message_of<FileError>([&] { search("other", {.min_units = 2}); }),
                  "pruner.allocation.min_units: was 1, is 2");
  // Without the list of rounds there is no search to go on with: its trainings are another's.
  std::filesystem::remove(folder.file("other/rounds.json"));
  std::ofstream(folder.file("other/round-notes")) << "a user's own";
  std::ofstream(folder.file("other/round-40.safetensors")) << "of a longer search";
  expect_identical(search("other", {.scope = Scope::layer}), straight);
  EXPECT_TRUE(std::filesystem::exists(folder.file("other/round-notes")));
  EXPECT_FALSE(std::filesystem::exists(folder.file("other/round-40.safetensors")));
}

TEST(AdaptivePruning, EndsWhenAStepRemovesNoUnit) {
  // 6 % of 24 units are one, to the nearest, of 9 units too (0.54), and of 8 less than half of one (0.48).
  const auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  Pruner pruner(net, {weight_sites(*net, Pattern::channel(0)).front()});
  const AdaptiveOptions options{.training = plan(watch, 1), .retrain = 0.2, .step = 0.06, .tolerance = 1000};
  const AdaptiveResult result = prune_adaptively(pruner, training(), validation(), options);
  EXPECT_TRUE(result.finished);
  EXPECT_EQ(units_left(pruner.sites()[0]), 8);
  EXPECT_EQ(result.rounds.size(), 16U);
  EXPECT_EQ(watch->trainings, 16) << "nothing is trained that was not pruned";
  expect_contains(result.end, "less than half a unit");
}

TEST(AdaptivePruning, EndsWhereNothingMayBeRemoved) {
  const auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  Pruner pruner(net, {weight_sites(*net, Pattern::channel(0)).front()}, {.allocation = {.min_units = 12}});
  const AdaptiveResult result = prune_adaptively(
      pruner, training(), validation(), {.training = plan(watch, 1), .retrain = 0.2, .step = 0.5, .tolerance = 1000});
  EXPECT_EQ(result.rounds.size(), 1U);
  EXPECT_EQ(units_left(pruner.sites()[0]), 12);
  expect_contains(result.end, "out of reach");
}

TEST(AdaptivePruning, NeedsValidation) {
  auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  Pruner pruner(net, weight_sites(*net));
  expect_contains(
      message_of<ArgumentError>([&] { prune_adaptively(pruner, training(), {}, {.training = plan(watch)}); }),
      "validation");
  EXPECT_THROW(prune_adaptively(pruner, training(), validation(), {.training = plan(watch), .step = 0}), ArgumentError);
}

}  // namespace
}  // namespace espalier
