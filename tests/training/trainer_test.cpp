#include "training/trainer.h"

#include <cmath>
#include <csignal>
#include <limits>

#include <nlohmann/json.hpp>

#include "tests/training/support.h"
#include "training/checkpoint.h"

namespace espalier {
namespace {

using namespace testing_support;

TrainerOptions quiet(TrainerOptions options) {
  options.progress = ProgressMode::silent;
  return options;
}

std::shared_ptr<Sgd> sgd(const ModulePtr& net, double lr = 0.1) {
  return std::make_shared<Sgd>(*net, SgdOptions{.lr = lr, .momentum = 0.9});
}

/// A callback from lambdas.
struct Hooks : Callback {
  std::function<void(Trainer&, const StepRecord&)> gradients, step;
  std::function<void(Trainer&, const EpochRecord&)> epoch;
  void on_gradients(Trainer& t, const StepRecord& r) override {
    if (gradients) gradients(t, r);
  }
  void on_step_end(Trainer& t, const StepRecord& r) override {
    if (step) step(t, r);
  }
  void on_epoch_end(Trainer& t, const EpochRecord& r) override {
    if (epoch) epoch(t, r);
  }
};

TEST(Trainer, LearnsDigits) {
  const ModulePtr net = small_network(1);
  std::vector<std::string> lines;
  Trainer trainer(net, sgd(net),
                  {.epochs = 8,
                   .batch_size = 64,
                   .schedule = parse_schedule("onecycle:0.1,momentum=0.85..0.95"),
                   .clip_norm = 5,
                   .validation_fraction = 0.1,
                   .log = [&](const std::string& line) { lines.push_back(line); }});
  const Dataset data = digits(1 << 20);
  const TrainingResult result = trainer.fit(data);
  EXPECT_EQ(result.stop, StopReason::finished);
  ASSERT_EQ(result.history.size(), 8U);
  EXPECT_EQ(lines.size(), 8U) << "one line for each epoch";
  expect_contains(lines.back(), "epoch 8/8  loss ");
  EXPECT_LT(result.history.back().train_loss, result.history.front().train_loss / 3);
  EXPECT_GT(result.history.back().validation_accuracy.value(), 0.9);
  EXPECT_GT(result.best_epoch, 0);
  EXPECT_EQ(trainer.optimizer().lr(), 0.1) << "the optimiser's own rate comes back";
  EXPECT_EQ(trainer.optimizer().momentum(), 0.9);

  const Evaluation test = trainer.evaluate(digits_test());
  EXPECT_GT(test.accuracy(), 0.88);
  EXPECT_EQ(test.examples(), digits_test().size());
  EXPECT_EQ(test.to_json()["examples"], test.examples());
  EXPECT_TRUE(net->is_training()) << "evaluation leaves the mode as it was";
}

TEST(Trainer, EvaluationDoesNotDependOnTheBatchSize) {
  const ModulePtr net = small_network(1);
  const Dataset data = digits(100);
  const Evaluation one = evaluate(*net, data, {.batch_size = 1000}), two = evaluate(*net, data, {.batch_size = 7});
  EXPECT_EQ(one.confusion.to_json(), two.confusion.to_json());
  EXPECT_NEAR(one.loss, two.loss, 1e-6 * one.loss * std::sqrt(100.0));
  for (const Parameter& p : net->parameters()) EXPECT_FALSE(p.grad().defined());
}

TEST(Trainer, HooksSeeGradientsBeforeClippingAndTheCountsAddUp) {
  const ModulePtr net = small_network(1);
  const auto hooks = std::make_shared<Hooks>();
  int64_t examples = 0, steps = 0;
  double norm = 0;
  hooks->gradients = [&](Trainer& t, const StepRecord&) {
    norm = 0;
    for (const Parameter& p : t.module()->parameters()) norm += sum(square(p.grad())).item();
    norm = std::sqrt(norm);
  };
  hooks->step = [&](Trainer&, const StepRecord& r) {
    ++steps;
    examples += r.examples;
    EXPECT_EQ(r.step, steps);
    EXPECT_NEAR(r.grad_norm.value(), norm, 1e-5 * norm);
    EXPECT_GT(r.loss, 0);
  };
  Trainer trainer(net, sgd(net), quiet({.epochs = 2, .batch_size = 30, .clip_norm = 0.01, .callbacks = {hooks}}));
  const TrainingResult result = trainer.fit(digits(100));
  EXPECT_EQ(steps, 8);
  EXPECT_EQ(result.step, 8);
  EXPECT_EQ(examples, 200);
  for (const Parameter& p : net->parameters()) EXPECT_FALSE(p.grad().defined()) << "gradients are given back";
}

TEST(Trainer, UsesTheGivenLossAndSmoothing) {
  const Dataset data = digits(64);
  const auto first_loss = [&](TrainerOptions options) {
    const ModulePtr net = small_network(1);
    options.epochs = 1;
    options.batch_size = 64;
    return Trainer(net, sgd(net, 0), quiet(options)).fit(data).history[0].train_loss;
  };
  const double plain = first_loss({});
  const double doubled =
      first_loss({.loss = [](const Variable& y, const Batch& batch) { return cross_entropy(y, batch.labels) * 2.0; }});
  EXPECT_NEAR(doubled, 2 * plain, 1e-6 * plain);
  EXPECT_NE(first_loss({.label_smoothing = 0.3}), plain);
}

TEST(Trainer, NanLossStopsNamesTheStepAndKeepsTheCheckpoint) {
  const TemporaryFolder folder;
  const ModulePtr net = small_network(1);
  const auto hooks = std::make_shared<Hooks>();
  NamedTensors good;
  hooks->epoch = [&](Trainer& t, const EpochRecord&) { good = copy_of(state_of(*t.module())); };
  hooks->step = [](Trainer& t, const StepRecord& r) {
    if (r.step != 6) return;
    Tensor weight = t.module()->parameters()[0].data();
    weight.fill_(std::numeric_limits<double>::quiet_NaN());
  };
  Trainer trainer(net, sgd(net),
                  quiet({.epochs = 3, .batch_size = 32, .run_folder = folder.path(), .callbacks = {hooks}}));
  const std::string message = message_of<NumericError>([&] { trainer.fit(digits(128)); });
  for (const char* part : {"the loss became NaN", "epoch 2", "step 7", "batch 3 of 4", "checkpoint.safetensors"})
    expect_contains(message, part);
  expect_identical(load_checkpoint(folder.file("checkpoint.safetensors")).model, good);
  EXPECT_EQ(lines_of(folder.file("metrics.jsonl")).size(), 1U);
  EXPECT_EQ(trainer.optimizer().lr(), 0.1);
}

TEST(Trainer, WeightsThatAreNotFiniteAreNotSaved) {
  const TemporaryFolder folder;
  const ModulePtr net = small_network(1);
  const auto hooks = std::make_shared<Hooks>();
  hooks->epoch = [](Trainer& t, const EpochRecord& r) {
    Tensor weight = t.module()->parameters()[0].data();
    if (r.epoch == 2) weight.fill_(std::numeric_limits<double>::infinity());
  };
  Trainer trainer(net, sgd(net),
                  quiet({.epochs = 3, .batch_size = 32, .run_folder = folder.path(), .callbacks = {hooks}}));
  const std::string message = message_of<NumericError>([&] { trainer.fit(digits(64)); });
  for (const char* part : {"1.weight", "in epoch 2, step 4 (batch 2 of 2"}) expect_contains(message, part);
  const Checkpoint kept = load_checkpoint(folder.file("checkpoint.safetensors"));
  EXPECT_EQ(nlohmann::json::parse(kept.metadata.at("training"))["state"]["epoch"], 1);
}

TEST(Trainer, CtrlCFinishesTheStepSavesAndReturns) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const TemporaryFolder folder;
    const ModulePtr net = small_network(1);
    const auto hooks = std::make_shared<Hooks>();
    hooks->step = [&](Trainer&, const StepRecord& r) {
      if (r.step == 5) raise(signal);
    };
    Trainer trainer(net, sgd(net),
                    quiet({.epochs = 3, .batch_size = 32, .run_folder = folder.path(), .callbacks = {hooks}}));
    struct sigaction before {
    }, after{};
    sigaction(signal, nullptr, &before);
    const TrainingResult result = trainer.fit(digits(128));
    sigaction(signal, nullptr, &after);
    EXPECT_EQ(before.sa_handler, after.sa_handler) << "the handler that was there comes back";
    EXPECT_EQ(result.stop, StopReason::interrupted);
    EXPECT_EQ(result.step, 5);
    const Checkpoint saved = load_checkpoint(folder.file("checkpoint.safetensors"));
    expect_identical(saved.model, state_of(*net));
    const nlohmann::json state = nlohmann::json::parse(saved.metadata.at("training"))["state"];
    EXPECT_EQ(state["step"], 5);
    EXPECT_EQ(state["batch"], 1);
  }
}

TEST(Trainer, EarlyStoppingAndTheBestWeights) {
  for (const bool in_folder : {false, true}) {
    const TemporaryFolder folder;
    const ModulePtr net = small_network(1);
    const auto hooks = std::make_shared<Hooks>();
    std::vector<NamedTensors> states;
    hooks->epoch = [&](Trainer& t, const EpochRecord&) {
      states.push_back(copy_of(state_of(*t.module())));
      // From epoch 2 on the rate is 0 and the first layer is turned round: validation gets worse and stays so.
      if (states.size() == 2)
        for (const Parameter& p : t.module()->parameters()) {
          Tensor weight = p.data();
          weight.copy_(-weight);
        }
    };
    Trainer trainer(net, sgd(net),
                    quiet({.epochs = 50,
                           .batch_size = 32,
                           .schedule = multi_step_schedule({.milestones = {2}, .gamma = 1e-30}),
                           .patience = 3,
                           .restore_best = true,
                           .run_folder = in_folder ? folder.path() : "",
                           .callbacks = {hooks}}));
    const TrainingResult result = trainer.fit(digits(256), digits_test());
    EXPECT_EQ(result.stop, StopReason::early_stopping);
    EXPECT_EQ(result.best_epoch, 2);
    EXPECT_EQ(result.history.size(), 5U);
    expect_identical(state_of(*net), states[1]);
    if (in_folder) expect_identical(state_of(*load_model(folder.file("best.safetensors"))), states[1]);
  }
}

TEST(Trainer, MetricsAreOneJsonObjectForEachEpoch) {
  const TemporaryFolder folder;
  const ModulePtr net = small_network(1);
  Trainer trainer(net, sgd(net),
                  quiet({.epochs = 2, .batch_size = 32, .validation_fraction = 0.25, .run_folder = folder.path()}));
  const TrainingResult result = trainer.fit(digits(128));
  const std::vector<std::string> lines = lines_of(folder.file("metrics.jsonl"));
  ASSERT_EQ(lines.size(), 2U);
  const nlohmann::json last = nlohmann::json::parse(lines[1]);
  EXPECT_EQ(last["epoch"], 2);
  EXPECT_EQ(last["step"], result.step);
  for (const char* key : {"train_loss", "train_acc", "val_loss", "val_acc", "lr", "images_per_second", "seconds"})
    EXPECT_TRUE(last[key].is_number()) << key;
  EXPECT_GT(last["peak_bytes"], 0);
  EXPECT_EQ(last["val_acc"], result.history[1].validation_accuracy.value());
  const nlohmann::json data =
      nlohmann::json::parse(load_checkpoint(folder.file("best.safetensors")).metadata.at("data"));
  EXPECT_EQ(data["name"], "digits");
  EXPECT_EQ(data["shape"], (nlohmann::json{1, 8, 8}));
}

TEST(Trainer, EndsInsideAnEpochAfterTheStepsAskedFor) {
  struct Watch : Callback {
    void on_train_begin(Trainer& trainer) override { at_begin = trainer.total_steps(); }
    void on_step_end(Trainer&, const StepRecord& record) override {
      EXPECT_EQ(record.steps, 10);
      EXPECT_EQ(record.batches, 7);
      rates.push_back(record.lr);
    }
    void on_epoch_end(Trainer&, const EpochRecord& record) override { epochs.push_back(record.step); }
    int64_t at_begin = 0;
    std::vector<double> rates;
    std::vector<int64_t> epochs;
  };
  const auto watch = std::make_shared<Watch>();
  const ModulePtr net = small_network(1);
  Trainer trainer(net, sgd(net),
                  quiet({.epochs = 99,
                         .steps = 10,
                         .batch_size = 32,
                         .schedule = parse_schedule("onecycle:max=1,start=0.1,div=1,final=10"),
                         .restore_best = true,
                         .callbacks = {watch}}));
  const TrainingResult result = trainer.fit(digits(200), digits_test());
  EXPECT_EQ(result.stop, StopReason::finished);
  EXPECT_EQ(result.step, 10);
  EXPECT_EQ(watch->at_begin, 10);
  EXPECT_EQ(watch->epochs, (std::vector<int64_t>{7, 10}));
  ASSERT_EQ(watch->rates.size(), 10U);
  EXPECT_DOUBLE_EQ(watch->rates[0], 1);
  EXPECT_DOUBLE_EQ(watch->rates[9], 0.1) << "the schedule ends with the last step";
  ASSERT_EQ(result.history.size(), 2U);
  const double best = std::max(*result.history[0].validation_accuracy, *result.history[1].validation_accuracy);
  EXPECT_EQ(trainer.evaluate(digits_test()).accuracy(), best);
}

TEST(Trainer, AFolderWithARunIsNotOverwrittenByAccident) {
  const TemporaryFolder folder;
  const Dataset data = digits(64);
  const auto train = [&](TrainerOptions options) {
    const ModulePtr net = small_network(1);
    options.epochs = 1;
    options.batch_size = 32;
    options.run_folder = folder.path();
    Trainer(net, sgd(net), quiet(options)).fit(data);
  };
  train({});
  const std::string first = read_file(folder.file("checkpoint.safetensors"));
  expect_contains(message_of<FileError>([&] { train({}); }), "holds a run already");
  EXPECT_EQ(read_file(folder.file("checkpoint.safetensors")), first);
  train({.seed = 5, .overwrite = true});
  EXPECT_NE(read_file(folder.file("checkpoint.safetensors")), first);
  expect_contains(message_of<FileError>([&] { train({.seed = 6, .resume = true}); }), "seed: was 5, is 6");
  std::ofstream(folder.file("file")) << "x";
  const ModulePtr net = small_network(1);
  expect_contains(message_of<FileError>([&] {
                    Trainer(net, sgd(net), quiet({.batch_size = 32, .run_folder = folder.file("file")})).fit(data);
                  }),
                  "run folder");
}

TEST(Trainer, BadOptionsAreExplained) {
  const ModulePtr net = small_network(1);
  const auto make = [&](TrainerOptions options) { return Trainer(net, sgd(net), quiet(std::move(options))); };
  EXPECT_THROW(make({.epochs = 0}), ArgumentError);
  EXPECT_THROW(make({.steps = -1}), ArgumentError);
  EXPECT_THROW(make({.batch_size = 0}), ArgumentError);
  EXPECT_THROW(make({.label_smoothing = 1}), ArgumentError);
  EXPECT_THROW(make({.validation_fraction = 1}), ArgumentError);
  EXPECT_THROW(make({.resume = true}), ArgumentError);
  EXPECT_THROW(Trainer(nullptr, nullptr), ArgumentError);
  expect_contains(message_of<ArgumentError>([&] { make({.patience = 2}).fit(digits(256)); }), "validation_fraction");
  // A batch larger than the data names both.
  const std::string message = message_of<ArgumentError>([&] { make({.batch_size = 65}).fit(digits(64)); });
  expect_contains(message, "65");
  expect_contains(message, "64");
}

TEST(Trainer, MemoryDoesNotGrow) {
  const ModulePtr net = small_network(1);
  const auto hooks = std::make_shared<Hooks>();
  uint64_t calls = 0;
  size_t current = 0;
  hooks->step = [&](Trainer&, const StepRecord& r) {
    const MemoryStats stats = memory_stats();
    if (r.step == 20) calls = stats.system_calls, current = stats.current;
    if (r.step > 20) {
      EXPECT_EQ(stats.system_calls, calls) << "step " << r.step;
      EXPECT_EQ(stats.current, current) << "step " << r.step;
    }
  };
  Trainer trainer(net, sgd(net),
                  quiet({.epochs = 40, .batch_size = 32, .prefetch = 0, .clip_norm = 1, .callbacks = {hooks}}));
  trainer.fit(digits(160));
}

}  // namespace
}  // namespace espalier
