// A training that was stopped, or that crashed, and goes on ends with the same bits as one that ran through.
#include <nlohmann/json.hpp>

#include "tests/training/support.h"
#include "training/checkpoint.h"

namespace espalier {
namespace {

using namespace testing_support;

constexpr int64_t kEpochs = 4;

struct Crash : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Ends the training at a step or after an epoch, by request or by an exception.
class End : public Callback {
 public:
  End(int64_t step, int64_t epoch, bool crash) : step_(step), epoch_(epoch), crash_(crash) {}
  void on_step_end(Trainer& trainer, const StepRecord& record) override {
    if (record.step == step_) end(trainer);
  }
  void on_epoch_end(Trainer& trainer, const EpochRecord& record) override {
    if (record.epoch == epoch_) end(trainer);
  }

 private:
  void end(Trainer& trainer) const {
    if (crash_) throw Crash("power cut");
    trainer.request_stop();
  }
  int64_t step_, epoch_;
  bool crash_;
};

struct Setting {
  std::string optimizer, schedule;
  int64_t steps = 0;
};

TrainingResult train(const std::string& folder, const Setting& setting, uint64_t network_seed, TrainerOptions options,
                     NamedTensors* final_state = nullptr) {
  const ModulePtr net = small_network(network_seed);
  OptimizerOptions settings{.lr = setting.optimizer == "sgd" ? 0.05 : 0.005};
  if (setting.optimizer == "sgd" || setting.optimizer == "rmsprop") settings.momentum = 0.9;
  const std::shared_ptr<Optimizer> optimizer = make_optimizer(setting.optimizer, no_decay_groups(*net, 1e-4), settings);
  options.epochs = kEpochs;
  options.steps = setting.steps;
  options.batch_size = 48;  // does not divide the data
  options.schedule = parse_schedule(setting.schedule);
  options.seed = 11;
  options.augmentations = {RandomCrop{.padding = 1}, Cutout{.size = 2}};
  options.validation_fraction = 0.2;
  options.clip_norm = 1;
  options.label_smoothing = 0.1;
  options.run_folder = folder;
  options.progress = ProgressMode::silent;
  Trainer trainer(net, optimizer, options);
  const TrainingResult result = trainer.fit(digits(300));
  if (final_state != nullptr) {
    *final_state = copy_of(state_of(*net));
    for (const auto& [name, tensor] : optimizer->state_dict().tensors) final_state->emplace_back(name, tensor.clone());
  }
  return result;
}

/// The lines of metrics.jsonl without what depends on the clock or on the allocator's history.
std::vector<nlohmann::json> metrics_of(const std::string& folder) {
  std::vector<nlohmann::json> all;
  for (const std::string& line : lines_of(folder + "/metrics.jsonl")) {
    all.push_back(nlohmann::json::parse(line));
    for (const char* key : {"seconds", "images_per_second", "peak_bytes"}) all.back().erase(key);
  }
  return all;
}

/// The checkpoint's position and random state, without times.
nlohmann::json training_of(const std::string& folder) {
  nlohmann::json training =
      nlohmann::json::parse(load_checkpoint(folder + "/checkpoint.safetensors").metadata.at("training"));
  training["state"].erase("history");
  return training;
}

class Resume : public testing::TestWithParam<Setting> {};

TEST_P(Resume, EqualsUninterrupted) {
  const TemporaryFolder folder;
  NamedTensors straight;
  train(folder.file("straight"), GetParam(), 1, {}, &straight);
  const auto metrics = metrics_of(folder.file("straight"));
  ASSERT_EQ(metrics.size(), static_cast<size_t>(kEpochs));

  struct Case {
    const char* name;
    int64_t step, epoch;
    bool crash;
    int64_t checkpoint_every;
  };
  // 240 training images: five steps in an epoch.
  const int64_t last = GetParam().steps > 0 ? GetParam().steps : 5 * kEpochs;
  for (const Case& c :
       {Case{"epoch border", 0, 2, false, 0}, Case{"inside an epoch", 7, 0, false, 0},
        Case{"last step of an epoch", 10, 0, false, 0}, Case{"first step", 1, 0, false, 0},
        Case{"last step of the training", last, 0, false, 0}, Case{"crash after a periodic checkpoint", 14, 0, true, 3},
        Case{"crash after an epoch, before its checkpoint", 0, 3, true, 0},
        Case{"crash before the first checkpoint", 2, 0, true, 0}}) {
    SCOPED_TRACE(c.name);
    const std::string run = folder.file(c.name);
    const TrainerOptions first{.checkpoint_every = c.checkpoint_every,
                               .callbacks = {std::make_shared<End>(c.step, c.epoch, c.crash)}};
    if (c.crash) {
      EXPECT_THROW(train(run, GetParam(), 1, first), Crash);
    } else {
      EXPECT_EQ(train(run, GetParam(), 1, first).stop, StopReason::requested);
    }
    // Another fresh network and another place of the random numbers: all that counts is in the folder. Only where
    // nothing was saved does the network have to be the same.
    const bool saved = std::filesystem::exists(run + "/checkpoint.safetensors");
    NamedTensors resumed;
    const TrainingResult result = train(run, GetParam(), saved ? 99 : 1, {.resume = true}, &resumed);
    EXPECT_EQ(result.stop, StopReason::finished);
    EXPECT_EQ(result.history.size(), static_cast<size_t>(kEpochs));
    expect_identical(resumed, straight);
    EXPECT_EQ(metrics_of(run), metrics);
    EXPECT_EQ(training_of(run), training_of(folder.file("straight")));
    expect_identical(load_checkpoint(run + "/best.safetensors").model,
                     load_checkpoint(folder.file("straight/best.safetensors")).model);
  }
}

INSTANTIATE_TEST_SUITE_P(Settings, Resume,
                         testing::Values(Setting{"sgd", "warmup:1+cosine", 18}, Setting{"adamw", "onecycle:0.01"},
                                         Setting{"rmsprop", "plateau:gamma=0.5,patience=0,threshold=0.5"}),
                         [](const auto& setting) { return setting.param.optimizer; });

TEST(ResumeFiles, LinesAfterTheCheckpointAreDropped) {
  const TemporaryFolder folder;
  const Setting setting{"sgd", "constant"};
  train(folder.path(), setting, 1, {.callbacks = {std::make_shared<End>(7, 0, false)}});
  std::ofstream(folder.file("metrics.jsonl"), std::ios::app) << "{\"epoch\": 2}\n{\"epo";
  train(folder.path(), setting, 2, {.resume = true});
  const auto metrics = metrics_of(folder.path());
  ASSERT_EQ(metrics.size(), static_cast<size_t>(kEpochs));
  for (size_t i = 0; i < metrics.size(); ++i) EXPECT_EQ(metrics[i]["epoch"], i + 1);
}

TEST(ResumeFiles, AFinishedRunStaysAsItIs) {
  const TemporaryFolder folder;
  NamedTensors first, second;
  train(folder.path(), {"adam", "constant"}, 1, {}, &first);
  const TrainingResult result = train(folder.path(), {"adam", "constant"}, 2, {.resume = true}, &second);
  EXPECT_EQ(result.history.size(), static_cast<size_t>(kEpochs));
  expect_identical(first, second);
}

TEST(ResumeFiles, ANetworkWithoutARunIsExplained) {
  const TemporaryFolder folder;
  save_checkpoint(folder.file("checkpoint.safetensors"), *small_network(1));
  expect_contains(message_of<FileError>([&] {
                    train(folder.path(), {"sgd", "constant"}, 1, {.resume = true});
                  }),
                  "not a run");
}

}  // namespace
}  // namespace espalier
