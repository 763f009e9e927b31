#include "training/checkpoint.h"

#include <csignal>

#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

/// While alive, no file of this process grows beyond `bytes`: what a full disk looks like to a writer.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) : before_signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, before_signal_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

 private:
  rlimit before_{};
  void (*before_signal_)(int);
};

/// Gives the optimiser a state.
void one_step(Module& net, Optimizer& optimizer) {
  const Tensor images = rand({8, 1, 8, 8});
  cross_entropy(net(images), Tensor::from<int64_t>({0, 1, 2, 3, 4, 5, 6, 7}, {8})).backward();
  optimizer.step();
  optimizer.zero_grad();
}

TEST(Checkpoint, RebuildsTheNetworkAndTheOptimiser) {
  const TemporaryFolder folder;
  const ModulePtr net = small_network(1), other = small_network(2);
  Adam optimizer(*net, {.lr = 0.01}), other_optimizer(*other, {.lr = 0.5});
  one_step(*net, optimizer);
  save_checkpoint(folder.file("c.safetensors"), *net, &optimizer, {{"note", "kept"}});

  const Checkpoint checkpoint = load_checkpoint(folder.file("c.safetensors"));
  EXPECT_EQ(checkpoint.metadata.at("note"), "kept");
  const PhiloxState random = default_generator().state();
  const ModulePtr rebuilt = load_model(checkpoint);
  EXPECT_EQ(default_generator().state(), random) << "loading draws no random numbers";
  EXPECT_FALSE(rebuilt->is_training());
  EXPECT_EQ(rebuilt->config(), net->config());
  expect_identical(state_of(*rebuilt), state_of(*net));

  restore(checkpoint, *other, &other_optimizer);
  expect_identical(state_of(*other), state_of(*net));
  expect_identical(other_optimizer.state_dict().tensors, optimizer.state_dict().tensors);
  EXPECT_EQ(other_optimizer.state_dict().scalars, optimizer.state_dict().scalars);
  // The names are those the format promises.
  const SafetensorsFile file = load_safetensors(folder.file("c.safetensors"));
  std::vector<std::string> names;
  for (const auto& [name, tensor] : file.tensors) names.push_back(name);
  for (const char* name : {"1.weight", "2.running_mean", "optimizer/m/1.weight", "optimizer/v/5.bias"})
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
}

TEST(Checkpoint, ListsAllThatDoesNotFitAndChangesNothing) {
  const TemporaryFolder folder;
  const ModulePtr net = small_network(1);
  Sgd optimizer(*net, {.lr = 0.1, .momentum = 0.9});
  one_step(*net, optimizer);
  NamedTensors tensors = state_of(*net);
  std::erase_if(tensors, [](const auto& entry) { return entry.first == "1.bias" || entry.first == "2.running_var"; });
  for (auto& [name, tensor] : tensors)
    if (name == "5.weight") tensor = Tensor::zeros({10, 7});
  tensors.emplace_back("6.weight", Tensor::zeros({2, 2}));
  tensors.emplace_back("optimizer/velocity/9.weight", Tensor::zeros({3}));
  const std::string path = folder.file("bad.safetensors");
  save_safetensors(
      path, tensors,
      {{"model", net->config().dump()}, {"optimizer", R"({"type":"sgd","scalars":{"steps/1.weight":1}})"}});

  const NamedTensors before = copy_of(state_of(*net));
  const std::string message = message_of<FileError>([&] { restore(load_checkpoint(path), *net, &optimizer); });
  for (const char* part : {"bad.safetensors", "1.bias", "2.running_var", "5.weight", "(10,7)", "(10,24)", "6.weight",
                           "velocity/9.weight", "velocity/1.weight"})
    expect_contains(message, part);
  expect_identical(state_of(*net), before);
  expect_contains(message_of<FileError>([&] { load_model(path); }), "6.weight");

  // A network that fits is not changed when the optimiser's state does not.
  save_checkpoint(path, *small_network(2), &optimizer);
  Adam adam(*net);
  expect_contains(message_of<FileError>([&] { restore(load_checkpoint(path), *net, &adam); }), "'adam'");
  expect_identical(state_of(*net), before);
}

TEST(Checkpoint, CutShortAtAnyPlace) {
  const TemporaryFolder folder;
  const ModulePtr net = small_network(1);
  const std::string path = folder.file("c.safetensors");
  save_checkpoint(path, *net);
  const std::string whole = read_file(path);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{8}, size_t{200}, whole.size() / 2, whole.size() - 1}) {
    std::ofstream(path, std::ios::binary) << whole.substr(0, size);
    expect_contains(message_of<FileError>([&] { load_model(path); }), path);
  }
}

TEST(Checkpoint, ForeignFilesAreExplained) {
  const TemporaryFolder folder;
  const std::string path = folder.file("weights.safetensors");
  save_safetensors(path, {{"x", Tensor::zeros({2})}});
  expect_contains(message_of<FileError>([&] { load_model(path); }), "no 'model' entry");
  save_safetensors(path, {{"x", Tensor::zeros({2})}}, {{"model", "{not json"}});
  expect_contains(message_of<FileError>([&] { load_model(path); }), "configuration");
  save_safetensors(path, {{"x", Tensor::zeros({2})}}, {{"model", R"({"type":"Lineer"})"}});
  expect_contains(message_of<FileError>([&] { load_model(path); }), "Linear");
  save_safetensors(path, {{"x", Tensor::zeros({2})}}, {{"optimizer", "[]"}});
  expect_contains(message_of<FileError>([&] { load_checkpoint(path); }), "optimizer");
  expect_contains(message_of<FileError>([&] { load_checkpoint(folder.file("absent")); }), folder.file("absent"));
}

TEST(Checkpoint, AFullDiskLeavesTheOldFile) {
  const TemporaryFolder folder;
  const std::string path = folder.file("c.safetensors");
  const ModulePtr net = small_network(1), changed = small_network(2);
  save_checkpoint(path, *net);
  const std::string old = read_file(path);
  {
    const SmallDisk disk(4096);
    EXPECT_THROW(save_checkpoint(path, *changed), FileError);
  }
  EXPECT_EQ(read_file(path), old);
  const auto entries = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 1) << "no temporary file stays behind";
  save_checkpoint(path, *changed);
  expect_identical(state_of(*load_model(path)), state_of(*changed));
}

TEST(Checkpoint, AFullDiskWhileTrainingLeavesTheLastCheckpoint) {
  class FillDisk : public Callback {
   public:
    void on_epoch_begin(Trainer&, int64_t epoch) override {
      if (epoch == 2) disk_ = std::make_unique<SmallDisk>(4096);
    }

   private:
    std::unique_ptr<SmallDisk> disk_;
  };
  const TemporaryFolder folder;
  const ModulePtr net = small_network(1);
  {
    Trainer trainer(net, std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.1}),
                    {.epochs = 3,
                     .batch_size = 32,
                     .run_folder = folder.file("run"),
                     .progress = ProgressMode::silent,
                     .callbacks = {std::make_shared<FillDisk>()}});
    EXPECT_THROW(trainer.fit(digits(128)), FileError);
  }
  const Checkpoint kept = load_checkpoint(folder.file("run/checkpoint.safetensors"));
  EXPECT_EQ(nlohmann::json::parse(kept.metadata.at("training"))["state"]["epoch"], 1);
}

}  // namespace
}  // namespace espalier
