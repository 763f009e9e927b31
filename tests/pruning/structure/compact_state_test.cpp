// What moves along with a compaction, masks, gradients, optimisers, index maps, and what happens when one fails.
#include <filesystem>

#include <nlohmann/json.hpp>

#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/linear.h"
#include "layers/models/zoo.h"
#include "layers/registry.h"
#include "layers/residual.h"
#include "tests/pruning/structure/structure_testing.h"
#include "training/checkpoint.h"

namespace espalier {
namespace {

TEST(CompactState, MasksKeepTheirPatternWhereItFits) {
  const auto net = share(Sequential(Linear(8, 8), ReLU(), Linear(8, 6)));
  mask_axis(*net, "0.weight", 0, {0, 1, 2, 3});
  mask_axis(*net, "0.bias", 0, {0, 1, 2, 3});
  Parameter second = parameter_of(*net, "2.weight");
  std::vector<bool> blocks(12, true);  // 3 x 4 blocks of 2x2; the first two of each row lie in columns that go
  blocks[3] = blocks[6] = false;
  second.set_mask(Mask::from_units(second.shape(), Pattern::block(2, 2), blocks));
  CompactionReport report = compact_and_compare(*net, {2, 8});
  EXPECT_EQ(report.masks_left, std::vector<std::string>({"2.weight"}));
  EXPECT_EQ(second.mask().pattern(), Pattern::block(2, 2));
  EXPECT_EQ(second.mask().units(), std::vector<bool>({true, false, false, true, true, true}));

  mask_axis(*net, "0.weight", 0, {1});  // three columns: no blocks of two any more
  mask_axis(*net, "0.bias", 0, {1});
  compact_and_compare(*net, {2, 8});
  EXPECT_EQ(second.shape(), Shape({6, 3}));
  EXPECT_EQ(second.mask().pattern(), Pattern::element());
  EXPECT_EQ(second.mask().count_elements(), 18 - 4 - 2);
}

TEST(CompactState, ACompactedTiedNetworkComesBackFromItsFile) {
  const auto net = share(Sequential(Linear(4, 4), ReLU(), Linear(4, 6), ReLU(), Linear(6, 4), ReLU(), Linear(4, 4)));
  net->tie({"6.weight", "0.weight"});
  mask_axis(*net, "2.weight", 0, {1, 4});
  mask_axis(*net, "2.bias", 0, {1, 4});
  compact_and_compare(*net, {2, 4});
  EXPECT_EQ(net->find<Linear>("2")->out_features(), 4);
  const std::string path = (std::filesystem::temp_directory_path() / "espalier-compact-tied.safetensors").string();
  save_checkpoint(path, *net);
  const ModulePtr loaded = load_model(path);
  std::filesystem::remove(path);
  EXPECT_EQ(loaded->ties(), net->ties());
  const Variable x = rand({3, 4});
  EXPECT_TRUE(identical((*loaded)(x).data(), (*net)(x).data()));
}

TEST(CompactState, GradientsFollow) {
  const auto net = share(Sequential(Linear(3, 4), ReLU(), Linear(4, 2)));
  mask_axis(*net, "0.weight", 0, {1});
  mask_axis(*net, "0.bias", 0, {1});
  sum(square((*net)(example({5, 3})))).backward();
  const Parameter weight = parameter_of(*net, "2.weight");
  const Tensor before = weight.grad().clone();
  const void* id = weight.id();
  compact(*net, example({5, 3}));
  EXPECT_EQ(weight.id(), id);
  EXPECT_EQ(max_difference(weight.grad(), index_select(before, 1, Tensor::from<int64_t>({0, 2, 3}, {3}))), 0);
}

TEST(CompactState, TrainingGoesOnAsIfMasked) {
  for (const char* name : {"sgd", "adam", "rmsprop"}) {
    default_generator() = Generator(21);
    const auto masked =
        share(Sequential(Conv2d(1, 6, {.padding = 1}), ReLU(), Flatten(), Linear(6 * 36, 8), Tanh(), Linear(8, 3)));
    const DependencyGraph graph = DependencyGraph::trace(*masked, example({1, 1, 6, 6}));
    mask_units(graph, random_units(graph, 0.5, 22));
    const ModulePtr small = masked->clone();
    const OptimizerOptions options{.lr = 0.01, .momentum = 0.9};
    const auto of_masked = make_optimizer(name, *masked, options), of_small = make_optimizer(name, *small, options);
    const Tensor x = example({4, 1, 6, 6}, 23), labels = Tensor::from<int64_t>({0, 1, 2, 0}, {4});
    const auto step = [&](Module& net, Optimizer& optimizer) {
      optimizer.zero_grad();
      cross_entropy(net(Variable(x)), labels).backward();
      optimizer.step();
    };
    for (int i = 0; i < 3; ++i) {
      step(*masked, *of_masked);
      step(*small, *of_small);
    }
    compact(*small, x, {.optimizer = of_small.get()});
    EXPECT_LT(small->num_parameters(), masked->num_parameters());
    for (const Parameter& parameter : small->parameters())
      for (const std::string& slot : of_small->slots())
        EXPECT_EQ(of_small->state(parameter, slot)->shape(), parameter.shape());
    for (int i = 0; i < 3; ++i) {
      step(*masked, *of_masked);
      step(*small, *of_small);
    }
    EXPECT_LT(relative_difference(output_of(*masked, x), output_of(*small, x)), 1e-5) << name;
  }
}

TEST(CompactState, NewBiasesAreTrainedAndDroppedBlocksForgotten) {
  const auto net = share(Sequential(Linear(3, 4), Residual(share(Linear(4, 4))), Linear(4, 2, {.bias = false})));
  Sgd optimizer(*net, {.lr = 0.1, .momentum = 0.9});
  const Tensor x = example({5, 3});
  const auto step = [&] {
    optimizer.zero_grad();
    sum(square((*net)(x))).backward();
    optimizer.step();
  };
  step();
  mask_axis(*net, "0.weight", 0, {1});
  for (const char* name : {"1.body.weight", "1.body.bias"}) mask_axis(*net, name, 0, {0, 1, 2, 3});
  Tensor bias = parameter_of(*net, "0.bias").data();
  bias.copy_(Tensor::from<float>({0.1F, 0.7F, 0.2F, 0.3F}, {4}));
  const CompactionReport report = compact(*net, x, {.optimizer = &optimizer});
  EXPECT_EQ(report.dropped_blocks, std::vector<std::string>({"1"}));
  EXPECT_EQ(report.added_biases, std::vector<std::string>({"2.bias"}));
  EXPECT_EQ(optimizer.parameters().size(), 4u);
  const float before = parameter_of(*net, "2.bias").data().to_vector<float>()[0];
  step();
  EXPECT_NE(parameter_of(*net, "2.bias").data().to_vector<float>()[0], before);
}

TEST(CompactState, CheckpointOfACompactedNetwork) {
  const std::string path = testing::TempDir() + "compacted.safetensors";
  const ModulePtr net = make_model("resnet20");
  randomize(*net, 24);
  const Shape input{2, 3, 8, 8};
  const DependencyGraph graph = DependencyGraph::trace(*net, example(input));
  mask_units(graph, random_units(graph, 0.6, 25), false);
  compact(*net, example(input));
  Sgd optimizer(*net, {.lr = 0.1, .momentum = 0.9});
  net->train();
  sum(square((*net)(example(input)))).backward();
  optimizer.step();
  save_checkpoint(path, *net, &optimizer);
  const Checkpoint checkpoint = load_checkpoint(path);
  const ModulePtr loaded = load_model(checkpoint);
  EXPECT_EQ(max_difference(output_of(*loaded, example(input)), output_of(*net, example(input))), 0);
  Sgd restored(*loaded, {.lr = 0.1, .momentum = 0.9});
  restore(checkpoint, *loaded, &restored);
  EXPECT_EQ(restored.state_dict().tensors.size(), optimizer.state_dict().tensors.size());
  std::filesystem::remove(path);
}

TEST(CompactState, TheIndexMapsOfTwoCompactionsCompose) {
  const ModulePtr net = make_model("lenet5");
  const NamedTensors original = state_of(*net->clone());
  IndexMap map;
  for (const uint64_t seed : {26, 27}) {
    const DependencyGraph graph = DependencyGraph::trace(*net, example({1, 1, 28, 28}));
    mask_units(graph, random_units(graph, 0.6, seed));
    map = index_map_from_json(to_json(compact_and_compare(*net, {1, 1, 28, 28}, {.earlier = map}).kept));
  }
  for (const auto& [name, before] : original) {
    Tensor expected = before;
    for (size_t axis = 0; axis < map.at(name).size(); ++axis) {
      const Indices& kept = map.at(name)[axis];
      expected =
          index_select(expected, static_cast<int>(axis), Tensor::from(kept, {static_cast<int64_t>(kept.size())}));
    }
    EXPECT_EQ(max_difference(parameter_of(*net, name).data(), expected), 0) << name;
  }
  EXPECT_THROW(index_map_from_json(nlohmann::json::parse(R"({"a": 3})")), FileError);
}

// --- failure changes nothing ---------------------------------------------------------------------------------------

/// x times the number of its channels: the function changes with the width.
class TimesWidth : public Module {
 public:
  Variable forward(const Variable& x) override { return x * static_cast<double>(x.size(1)); }
  std::string type() const override { return "TimesWidth"; }
  nlohmann::json config() const override { return {{"type", type()}}; }
};

/// Adds a vector that is neither parameter nor buffer; keep_channels adapts it if it is told to.
class Offset : public Module {
 public:
  explicit Offset(Tensor offset, bool adapts) : offset_(std::move(offset)), adapts_(adapts) {}
  Variable forward(const Variable& x) override { return x + Variable(offset_); }
  std::string type() const override { return "Offset"; }
  nlohmann::json config() const override {
    return {{"type", type()}, {"offset", offset_.to_vector<float>()}, {"adapts", adapts_}};
  }
  void keep_channels(const Indices& inputs, const Indices&) override {
    if (adapts_) offset_ = index_select(offset_, 0, Tensor::from(inputs, {static_cast<int64_t>(inputs.size())}));
  }

 private:
  Tensor offset_;
  bool adapts_;
};

class CompactFailure : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    module_registry().replace("TimesWidth", [](const nlohmann::json&) { return std::make_shared<TimesWidth>(); });
    module_registry().replace("Offset", [](const nlohmann::json& config) {
      const auto values = config["offset"].get<std::vector<float>>();
      return std::make_shared<Offset>(Tensor::from(values, {static_cast<int64_t>(values.size())}), config["adapts"]);
    });
  }

  /// compact keeps the only group whole and says why, and the network and its optimiser are as they were, bit for bit.
  static void expect_unchanged(const ModulePtr& middle, const std::string& why) {
    const auto net = share(Sequential(Linear(3, 6), ModulePtr(middle), BatchNorm1d(6), Linear(6, 2)));
    Sgd optimizer(*net, {.lr = 0.1, .momentum = 0.9});
    const Tensor x = example({5, 3});
    sum(square((*net)(x))).backward();
    optimizer.step();
    mask_axis(*net, "0.weight", 0, {1, 4});
    mask_axis(*net, "2.weight", 0, {1, 4});
    mask_axis(*net, "2.bias", 0, {1, 4});
    const ModulePtr before = net->clone();
    const OptimizerState state = optimizer.state_dict();
    std::vector<Tensor> slots;
    for (const auto& [name, tensor] : state.tensors) slots.push_back(tensor.clone());
    const CompactionReport report = compact(*net, x, {.optimizer = &optimizer});
    ASSERT_EQ(report.kept_whole.size(), 1U);
    EXPECT_EQ(report.kept_whole[0].name, "0");
    EXPECT_NE(report.kept_whole[0].why.find(why), std::string::npos) << report.kept_whole[0].why;
    EXPECT_NE(report.to_table().find("stays whole: 0: " + report.kept_whole[0].why), std::string::npos);
    EXPECT_EQ(report.to_json()["kept_whole"][0]["why"], report.kept_whole[0].why);
    EXPECT_EQ(net->config(), before->config());
    const NamedTensors now = state_of(*net), then = state_of(*before);
    ASSERT_EQ(now.size(), then.size());
    for (size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(identical(now[i].second, then[i].second)) << now[i].first;
    const auto masks_now = net->parameters(), masks_then = before->parameters();
    for (size_t i = 0; i < masks_now.size(); ++i) {
      ASSERT_EQ(masks_now[i].mask().defined(), masks_then[i].mask().defined());
      if (masks_now[i].mask().defined()) {
        EXPECT_TRUE(masks_now[i].mask() == masks_then[i].mask());
      }
      EXPECT_TRUE(masks_now[i].grad().defined());
    }
    const OptimizerState after = optimizer.state_dict();
    for (size_t i = 0; i < slots.size(); ++i) EXPECT_TRUE(identical(after.tensors[i].second, slots[i]));
  }
};

TEST_F(CompactFailure, AFunctionThatDependsOnTheWidth) {
  expect_unchanged(std::make_shared<TimesWidth>(), "the outputs would differ by 0.");
}

TEST_F(CompactFailure, AModuleThatDoesNotFollow) {
  expect_unchanged(std::make_shared<Offset>(example({6}, 30), false), "(6)");
}

TEST_F(CompactFailure, AToleranceThatRoundingExceeds) {
  const ModulePtr net = make_model("lenet5");
  randomize(*net, 28);
  const Tensor x = example({2, 1, 28, 28});
  const DependencyGraph graph = DependencyGraph::trace(*net, x);
  mask_units(graph, random_units(graph, 0.5, 29), false);
  const Tensor before = output_of(*net, x);
  const CompactionReport report = compact(*net, x, {.tolerance = 0});
  EXPECT_FALSE(report.kept_whole.empty());
  EXPECT_TRUE(identical(before, output_of(*net, x)));
}

TEST_F(CompactFailure, ANegativeTolerance) {
  const ModulePtr net = make_model("lenet5");
  EXPECT_THROW(compact(*net, example({1, 1, 28, 28}), {.tolerance = -1}), ArgumentError);
}

TEST_F(CompactFailure, AModuleOfOnesOwnThatFollows) {
  const auto net = share(
      Sequential(Linear(3, 6), ModulePtr(std::make_shared<Offset>(example({6}, 31), true)), ReLU(), Linear(6, 2)));
  mask_axis(*net, "0.weight", 0, {1, 4});
  mask_axis(*net, "0.bias", 0, {1, 4});
  compact_and_compare(*net, {4, 3});
  EXPECT_EQ(net->find<Linear>("3")->in_features(), 4);
}

}  // namespace
}  // namespace espalier
