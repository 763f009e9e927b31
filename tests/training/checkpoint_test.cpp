#include "training/checkpoint.h"

#include <csignal>

#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "layers/embedding.h"
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

/// A table of 5 words, a hidden layer, and the table again as the output's weight; the hidden layer is frozen.
ModulePtr tied_network(uint64_t seed) {
  set_seed(seed);
  auto net = share(Sequential(Embedding(5, 3), Linear(3, 3), Linear(3, 5)));
  net->tie({"2.weight", "0.weight"});
  net->find<Linear>("1")->named_parameters().front().second.set_requires_grad(false);
  return net;
}

TEST(Checkpoint, TiesAndFrozenParametersArePartOfTheFile) {
  const TemporaryFolder folder;
  const std::string path = folder.file("tied.safetensors");
  const ModulePtr net = tied_network(1);
  Adam optimizer(*net);
  const Tensor words = Tensor::from<int64_t>({0, 1, 2, 3, 4}, {5});
  cross_entropy((*net)(Variable(words)), words).backward();
  optimizer.step();
  const Tensor expected = (*net)(Variable(words)).data();
  save_checkpoint(path, *net, &optimizer);

  // Other readers see each tensor once, and in the metadata which further name it has.
  const SafetensorsFile file = load_safetensors(path);
  EXPECT_EQ(file.metadata.at("ties"), R"({"2.weight":"0.weight"})");
  EXPECT_EQ(file.metadata.at("frozen"), R"(["1.weight"])");
  for (const auto& [name, tensor] : file.tensors) EXPECT_NE(name, "2.weight");

  const ModulePtr rebuilt = load_model(path);
  EXPECT_EQ(rebuilt->find<Linear>("2")->weight().id(), rebuilt->find<Embedding>("0")->weight().id());
  EXPECT_FALSE(rebuilt->find<Linear>("1")->weight().requires_grad());
  EXPECT_TRUE(rebuilt->find<Linear>("1")->bias().requires_grad());
  EXPECT_TRUE(identical((*rebuilt)(Variable(words)).data(), expected));

  // A network that trains what the file has frozen, and the other way round, becomes the file's.
  const ModulePtr other = tied_network(2);
  Adam other_optimizer(*other);
  Parameter weight = other->find<Linear>("1")->weight(), bias = other->find<Linear>("1")->bias();
  weight.set_requires_grad(true);
  bias.set_requires_grad(false);
  restore(load_checkpoint(path), *other, &other_optimizer);
  EXPECT_FALSE(weight.requires_grad());
  EXPECT_TRUE(bias.requires_grad());
  EXPECT_TRUE(identical((*other)(Variable(words)).data(), expected));

  // One that is not tied does not become tied behind its optimiser's back.
  const ModulePtr untied = share(Sequential(Embedding(5, 3), Linear(3, 3), Linear(3, 5)));
  const NamedTensors before = copy_of(state_of(*untied));
  const std::string message = message_of<FileError>([&] { restore(load_checkpoint(path), *untied); });
  for (const char* part : {"'2.weight' is '0.weight' in the file", "call tie"}) expect_contains(message, part);
  expect_identical(state_of(*untied), before);
}

TEST(Checkpoint, HoldsTransforms) {
  const TemporaryFolder folder;
  const std::string path = folder.file("transforms.safetensors");
  const auto network = [](double deviation) {
    set_seed(1);
    const ModulePtr net = share(Sequential(Linear(3, 2), ReLU()));
    net->parameters()[0].add_transform(std::make_shared<GaussianNoise>(NoiseOptions{.deviation = deviation}));
    net->parameters()[0].add_transform(std::make_shared<BatchNorm1d>(3));  // any module that keeps the shape
    net->find("1")->set_output_transform(std::make_shared<BatchNorm1d>(2));
    return net;
  };
  const ModulePtr net = network(0.5);
  (*net)(randn({8, 3}));  // other statistics than at the start
  save_checkpoint(path, *net);
  const SafetensorsFile file = load_safetensors(path);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : file.tensors) names.push_back(name);
  for (const char* name : {"transforms/0/weight:1.running_mean", "1.output_transform.running_mean"})
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;

  net->eval();
  const Tensor x = randn({4, 3});
  const ModulePtr loaded = load_model(path);
  EXPECT_TRUE(identical((*loaded)(Variable(x)).data(), (*net)(Variable(x)).data()));

  // Transforms of the file's configuration stay, and get its state; others are replaced.
  const ModulePtr same = network(0.5), other = network(0.1), plain = share(Sequential(Linear(3, 2), ReLU()));
  const ModulePtr kept = same->parameters()[0].transforms()[1], replaced = other->parameters()[0].transforms()[1];
  for (const ModulePtr& each : {same, other, plain}) {
    restore(load_checkpoint(path), *each);
    each->eval();
    EXPECT_TRUE(identical((*each)(Variable(x)).data(), (*net)(Variable(x)).data()));
  }
  EXPECT_EQ(same->parameters()[0].transforms()[1], kept);
  EXPECT_NE(other->parameters()[0].transforms()[1], replaced);

  // A file without any takes them off; one that does not fit changes nothing.
  const ModulePtr larger = share(Sequential(Linear(3, 3), ReLU()));
  larger->parameters()[0].add_transform(std::make_shared<GaussianNoise>());
  EXPECT_THROW(restore(load_checkpoint(path), *larger), FileError);
  EXPECT_EQ(larger->parameters()[0].transforms().size(), 1U);
  EXPECT_EQ(larger->find("1")->output_transform(), nullptr);
  save_checkpoint(path, *share(Sequential(Linear(3, 2), ReLU())));
  restore(load_checkpoint(path), *same);
  EXPECT_TRUE(same->parameters()[0].transforms().empty());
  EXPECT_EQ(same->find("1")->output_transform(), nullptr);
}

TEST(Checkpoint, TransformsThatMakeNoSenseAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder.file("bad.safetensors");
  const ModulePtr net = share(Sequential(Linear(3, 2), ReLU()));
  const auto refused = [&](const std::string& transforms) {
    save_safetensors(path, state_of(*net), {{"model", net->config().dump()}, {"transforms", transforms}});
    return message_of<FileError>([&] { load_model(path); });
  };
  const std::string none = R"({"layers":{"type":"Sequential","layers":[]},"ties":[]})";
  const auto of = [&](const std::string& name, const std::string& module) {
    return fmt::format(R"({{"layers":{{"type":"Sequential","layers":[{{"name":"{}","module":{}}}]}},"ties":[]}})", name,
                       module);
  };
  expect_contains(refused("3"), "bad.safetensors");
  expect_contains(refused(R"({"parameters":)" + of("9/weight:0", R"({"type":"ReLU"})") + R"(,"outputs":)" + none + "}"),
                  "9/weight");
  expect_contains(refused(R"({"parameters":)" + of("0/weight:0", R"({"type":"Gate"})") + R"(,"outputs":)" + none + "}"),
                  "'Gate'");
  expect_contains(refused(R"({"parameters":)" + none + R"(,"outputs":)" + of("/7", R"({"type":"ReLU"})") + "}"), "'7'");
  const std::string huge = R"({"type":"Linear","in_features":1048576,"out_features":1048576})";
  expect_contains(refused(R"({"parameters":)" + of("0/weight:0", huge) + R"(,"outputs":)" + none + "}"), "bytes");
}

TEST(Checkpoint, FilesThatDoNotSayWhatIsFrozenLeaveItAsItIs) {
  const TemporaryFolder folder;
  const std::string path = folder.file("old.safetensors");
  const ModulePtr net = tied_network(1), other = tied_network(2);
  save_safetensors(path, state_of(*net), {{"model", net->config().dump()}});  // as it was written once
  restore(load_checkpoint(path), *other);
  EXPECT_FALSE(other->find<Linear>("1")->weight().requires_grad());
  expect_identical(state_of(*other), state_of(*net));
}

TEST(Checkpoint, AModuleOfTwoContainersStaysOne) {
  const TemporaryFolder folder;
  const std::string path = folder.file("shared.safetensors");
  set_seed(1);
  const ModulePtr norm = share(BatchNorm1d(4));
  const ModulePtr net = share(Sequential(Sequential(Linear(4, 4), norm), Sequential(Linear(4, 4), norm), norm));
  (*net)(rand({8, 4}));
  save_checkpoint(path, *net);
  EXPECT_EQ(load_safetensors(path).metadata.at("ties"), R"({"1.1":"0.1","2":"0.1"})");
  const ModulePtr rebuilt = load_model(path), copy = net->clone();
  for (const ModulePtr& each : {rebuilt, copy}) {
    expect_identical(state_of(*each), state_of(*net));
    EXPECT_EQ(each->ties(), net->ties());
    each->train();  // both uses write the same running statistics
  }
  const Tensor x = rand({8, 4});
  (*net)(x), (*rebuilt)(x), (*copy)(x);
  expect_identical(state_of(*rebuilt), state_of(*net));
  expect_identical(state_of(*copy), state_of(*net));
}

TEST(Checkpoint, TiesThatMakeNoSenseAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder.file("tied.safetensors");
  const ModulePtr net = share(Sequential(Sequential(Linear(4, 4), ReLU()), Linear(4, 3)));
  const auto refused = [&](const std::string& ties) {
    save_safetensors(path, state_of(*net), {{"model", net->config().dump()}, {"ties", ties}});
    return message_of<FileError>([&] { load_model(path); });
  };
  expect_contains(refused(R"({"1.weight":"0.0.weight"})"), "(4,4)");
  expect_contains(refused(R"({"1.weight":"0.2.weight"})"), "no parameter '0.2.weight'");
  expect_contains(refused(R"({"3.weight":"0.0.weight"})"), "'3.weight'");
  expect_contains(refused(R"({"1":"0.0"})"), "same options");
  expect_contains(refused(R"({"0.0":"0"})"), "same options");
  expect_contains(refused(R"({"":""})"), "no parameter ''");
  expect_contains(refused(R"(["1"])"), "ties");
  save_safetensors(path, state_of(*net), {{"model", net->config().dump()}, {"frozen", R"(["5.weight"])"}});
  expect_contains(message_of<FileError>([&] { load_model(path); }), "'5.weight' is frozen");
  const ModulePtr nested = share(Sequential(Sequential(Sequential())));
  EXPECT_THROW(nested->tie({"0.0", "0"}), ArgumentError);
}

TEST(Checkpoint, AMaskOfSomethingElseThanAParameterIsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder.file("masked.safetensors");
  const ModulePtr net = small_network(1);
  NamedTensors tensors = state_of(*net);
  tensors.emplace_back("2.running_mean.mask", Tensor::full({3}, 255, DType::u8));
  save_safetensors(path, tensors,
                   {{"model", net->config().dump()},
                    {"masks", R"({"2.running_mean":{"shape":[24],"pattern":"element","flow":"masked"}})"}});
  const NamedTensors before = copy_of(state_of(*net));
  expect_contains(message_of<FileError>([&] { restore(load_checkpoint(path), *net); }), "'2.running_mean' is masked");
  expect_identical(state_of(*net), before);
}

TEST(Checkpoint, AMaskOfAShapeThatIsNoWholeNumberIsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder.file("masked.safetensors");
  for (const char* size : {"16.5", "16.0", "\"16\"", "null"}) {
    save_safetensors(
        path, {{"weight", Tensor::ones({16})}, {"weight.mask", Tensor::full({2}, 255, DType::u8)}},
        {{"masks", fmt::format(R"({{"weight":{{"shape":[{}],"pattern":"element","flow":"masked"}}}})", size)}});
    expect_contains(message_of<FileError>([&] { load_checkpoint(path); }),
                    fmt::format("expected whole numbers, found {}", size));
  }
}

TEST(Checkpoint, SmallFilesThatClaimMuchTakeNoMemory) {
  const TemporaryFolder folder;
  const std::string path = folder.file("claims.safetensors");
  const auto refused = [&](const NamedTensors& tensors, const std::map<std::string, std::string>& metadata) {
    save_safetensors(path, tensors, metadata);
    reset_peak_memory();
    const size_t before = memory_stats().peak;
    const std::string message = message_of<FileError>([&] { load_model(path); });
    EXPECT_LT(memory_stats().peak - before, size_t{1} << 20) << message;
    return message;
  };
  // One bit says that none of 2^30 weights exists.
  const NamedTensors masked = {{"weight", Tensor::zeros({0})}, {"weight.mask", Tensor::zeros({1}, DType::u8)}};
  std::string message =
      refused(masked, {{"masks", R"({"weight":{"shape":[1,1073741824],"pattern":"channel 0","flow":"masked"}})"}});
  for (const char* part : {"(1,1073741824)", "4294967296 bytes", "1 bytes of tensors"}) expect_contains(message, part);
  refused(masked, {{"masks", R"({"weight":{"shape":[4611686018427387904,4611686018427387904],"pattern":"channel 0",
                                            "flow":"masked"}})"}});
  refused(masked, {{"masks", R"({"weight":{"shape":[-2,-3],"pattern":"channel 0","flow":"masked"}})"}});
  // A configuration that its tensors don't fill.
  const NamedTensors small = {{"weight", Tensor::zeros({4, 4})}, {"bias", Tensor::zeros({4})}};
  for (const char* config : {R"({"type":"Linear","in_features":40000,"out_features":40000})",
                             R"({"type":"Embedding","count":40000,"dim":40000})", R"({"model":"mlp:1000000,1000000"})"})
    expect_contains(refused(small, {{"model", config}}), "its tensors hold 80 bytes");
  // Further uses of a tensor take as much again while the network is built, but no more than the file could mean.
  nlohmann::json layers = nlohmann::json::array(), ties = nlohmann::json::object();
  for (int i = 0; i < 100; ++i) {
    layers.push_back({{"type", "Linear"}, {"in_features", 2000}, {"out_features", 2000}, {"bias", false}});
    if (i > 0) ties[fmt::format("{}.weight", i)] = "0.weight";
  }
  save_safetensors(path, {{"0.weight", Tensor::zeros({0})}, {"0.weight.mask", Tensor::zeros({250}, DType::u8)}},
                   {{"model", nlohmann::json{{"type", "Sequential"}, {"layers", layers}}.dump()},
                    {"ties", ties.dump()},
                    {"masks", R"({"0.weight":{"shape":[2000,2000],"pattern":"channel 0","flow":"masked"}})"}});
  expect_contains(message_of<FileError>([&] { load_model(path); }), "its tensors hold 250 bytes");
}

TEST(Checkpoint, NestingOfMetadataIsBounded) {
  const TemporaryFolder folder;
  const std::string path = folder.file("deep.safetensors");
  std::string arrays, modules = R"({"type":"ReLU"})";
  for (int i = 0; i < 75'000; ++i) arrays += "[";
  const std::string deep = R"({"type":"Linear","in_features":)" + arrays + std::string(75'000, ']') + "}";
  for (const char* entry : {"model", "masks", "optimizer", "ties", "frozen"}) {
    save_safetensors(path, {{"x", Tensor::zeros({2})}}, {{entry, deep}});
    const std::string message = message_of<FileError>([&] { load_model(path); });
    if (std::string(entry) != "model") expect_contains(message, entry);
    expect_contains(message, "at most 256 deep");
  }
  for (int i = 0; i < 100; ++i) modules = R"({"type":"Sequential","layers":[)" + modules + "]}";
  save_safetensors(path, {{"x", Tensor::zeros({2})}}, {{"model", modules}});
  expect_contains(message_of<FileError>([&] { load_model(path); }), "nested more than 64 deep");
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
