// Compaction against the masked network it came from, and against sizes counted by hand.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/models/zoo.h"
#include "layers/pooling.h"
#include "layers/registry.h"
#include "layers/residual.h"
#include "tests/pruning/structure/structure_testing.h"

namespace espalier {
namespace {

struct ZooCase {
  std::string name;
  Shape input;
};

class CompactZoo : public testing::TestWithParam<ZooCase> {};

TEST_P(CompactZoo, RandomChannels) {
  const auto& [name, input] = GetParam();
  const ModulePtr net = make_model(name);
  randomize(*net, 2);
  const DependencyGraph graph = DependencyGraph::trace(*net, example(input));
  const Units units = random_units(graph, 0.5, 3);
  mask_units(graph, units);
  const int64_t expected = count_left(*net, graph, units);
  const CompactionReport report = compact_and_compare(*net, input);
  EXPECT_EQ(net->num_parameters(), expected);
  EXPECT_LT(report.parameters_after, report.parameters_before / 2);
  EXPECT_TRUE(report.masks_left.empty());
  EXPECT_TRUE(report.added_biases.empty());
  const ModulePtr copy = net->clone();
  EXPECT_EQ(max_difference(output_of(*net, example(input)), output_of(*copy, example(input))), 0);
}

TEST_P(CompactZoo, DeadChannelsThatStillSaySomething) {
  const auto& [name, input] = GetParam();
  const ModulePtr net = make_model(name);
  randomize(*net, 4);
  const DependencyGraph graph = DependencyGraph::trace(*net, example(input));
  const Units units = random_units(graph, 0.7, 5);
  mask_units(graph, units, false);
  // A hidden unit with biases is no constant: its cell moves from step to step.
  const bool moves = name.starts_with("lstm");
  const int64_t expected = moves ? net->num_parameters() : count_left(*net, graph, units);
  compact_and_compare(*net, input);
  EXPECT_EQ(net->num_parameters(), expected);
}

/// Masks of kernels, blocks, input features and rows in turns, each where it fits: what no channel group knows of.
TEST_P(CompactZoo, StructuredPatternsOfSingleWeights) {
  const auto& [name, input] = GetParam();
  const ModulePtr net = make_model(name);
  randomize(*net, 6);
  const std::vector<Pattern> patterns = {Pattern::kernel(), Pattern::channel(1), Pattern::block(2, 2),
                                         Pattern::channel(0)};
  Generator generator(7);
  size_t next = 0;
  for (auto& [parameter_name, parameter] : net->named_parameters()) {
    const Shape& shape = parameter.shape();
    if (shape.rank() < 2) continue;
    Pattern pattern = patterns[next++ % patterns.size()];
    while ((pattern == Pattern::kernel() && shape.rank() != 4) ||
           (pattern == Pattern::block(2, 2) && (shape[0] % 2 != 0 || shape.numel() / shape[0] % 2 != 0)))
      pattern = patterns[next++ % patterns.size()];
    std::vector<bool> units(static_cast<size_t>(mask_layout(shape, pattern).units()));
    for (size_t i = 0; i < units.size(); ++i) units[i] = generator.next_uniform() < 0.5;
    units[0] = true;
    Parameter(parameter).set_mask(Mask::from_units(shape, pattern, units));
  }
  compact_and_compare(*net, input);
}

INSTANTIATE_TEST_SUITE_P(Models, CompactZoo,
                         testing::Values(ZooCase{"lenet300", {3, 1, 28, 28}}, ZooCase{"lenet5", {3, 1, 28, 28}},
                                         ZooCase{"mlp:20,10", {3, 1, 28, 28}}, ZooCase{"resnet20", {2, 3, 16, 16}},
                                         ZooCase{"resnet32", {1, 3, 8, 8}}, ZooCase{"resnet56", {1, 3, 8, 8}},
                                         ZooCase{"vgg16", {1, 3, 32, 32}}, ZooCase{"vgg19", {1, 3, 32, 32}},
                                         ZooCase{"lstm-rows:16", {3, 1, 28, 28}}),
                         [](const auto& zoo_case) {
                           std::string name = zoo_case.param.name;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return c == ':' || c == ',' || c == '-'; }, '_');
                           return name;
                         });

TEST(Compact, LeNet5CountedByHand) {
  const ModulePtr net = make_model("lenet5");
  const DependencyGraph graph = DependencyGraph::trace(*net, example({1, 1, 28, 28}));
  Units units;
  const std::vector<size_t> left = {5, 10, 16};
  size_t next = 0;
  for (const ChannelGroup& group : graph.groups()) {
    std::vector<bool>& bits = units.emplace_back(static_cast<size_t>(group.units), true);
    if (group.fixed.empty()) std::fill(bits.begin() + static_cast<int64_t>(left[next++]), bits.end(), false);
  }
  mask_units(graph, units);
  const CompactionReport report = compact_and_compare(*net, {2, 1, 28, 28});
  EXPECT_EQ(net->num_parameters(), (5 * 25 + 5) + (10 * 5 * 25 + 10) + (16 * 10 * 16 + 16) + (10 * 16 + 10));
  EXPECT_EQ(report.parameters_before, 431080);
  EXPECT_EQ(report.kept.at("conv2.weight")[1], Indices({0, 1, 2, 3, 4}));
  EXPECT_EQ(report.kept.at("fc1.weight")[1].size(), 160u);
  EXPECT_NE(report.to_table().find("conv1"), std::string::npos);
  EXPECT_EQ(index_map_from_json(report.to_json()["kept"]), report.kept);
}

TEST(Compact, NothingMaskedChangesNothing) {
  const ModulePtr net = make_model("lenet5");
  const nlohmann::json config = net->config();
  const CompactionReport report = compact(*net, example({1, 1, 28, 28}));
  EXPECT_EQ(net->config(), config);
  EXPECT_EQ(report.parameters_before, report.parameters_after);
  EXPECT_EQ(report.error, 0);
}

// --- constants of dead channels ------------------------------------------------------------------------------------

TEST(CompactConstants, GoIntoTheBiasOfTheReader) {
  // Unit 1 of fc1 is relu(0.5) for every input; fc2 adds 0.5 * its column.
  const auto net = share(Sequential(Linear(2, 2), ReLU(), Linear(2, 1, {.bias = false})));
  Tensor bias = parameter_of(*net, "0.bias").data();
  bias.copy_(Tensor::from<float>({-0.1F, 0.5F}, {2}));
  Tensor weight = parameter_of(*net, "2.weight").data();
  weight.copy_(Tensor::from<float>({2, 3}, {1, 2}));
  mask_axis(*net, "0.weight", 0, {1});
  const CompactionReport report = compact_and_compare(*net, {4, 2});
  EXPECT_EQ(report.added_biases, std::vector<std::string>({"2.bias"}));
  EXPECT_NEAR(parameter_of(*net, "2.bias").data().item(), 1.5, 1e-6);
  EXPECT_EQ(net->num_parameters(), 2 + 1 + 1 + 1);
}

TEST(CompactConstants, UnpaddedConvolutionTakesThemInItsBias) {
  const auto net = share(Sequential(Conv2d(1, 3), Tanh(), Conv2d(3, 2, {.stride = 2})));
  randomize(*net, 1);
  mask_axis(*net, "0.weight", 0, {0, 2});
  compact_and_compare(*net, {2, 1, 9, 8});
  EXPECT_FALSE(net->find<Conv2d>("2")->buffer("constant").defined());
  EXPECT_EQ(net->num_parameters(), 9 + 1 + 2 * 9 + 2);
}

TEST(CompactConstants, PaddedConvolutionIsExactAtItsBorders) {
  const auto net = share(Sequential(Conv2d(1, 3), Sigmoid(), Conv2d(3, 2, {.stride = 2, .padding = {1, 2}}), ReLU(),
                                    Conv2d(2, 2, {.padding = 1, .bias = false})));
  randomize(*net, 1);
  mask_axis(*net, "0.weight", 0, {1});
  compact_and_compare(*net, {2, 1, 9, 8});
  EXPECT_EQ(net->find<Conv2d>("2")->buffer("constant").shape(), Shape({2, 1, 3, 3}));
  EXPECT_EQ(net->num_parameters(), (2 * 9 + 2) + (2 * 2 * 9 + 2) + 2 * 2 * 9);
  // A second time: filter 0 of the conv with the constant goes entirely, constant and all, as nobody reads it.
  mask_axis(*net, "4.weight", 1, {0});
  compact_and_compare(*net, {2, 1, 9, 8});
  EXPECT_EQ(net->find<Conv2d>("2")->buffer("constant").shape(), Shape({1, 1, 3, 3}));
}

TEST(CompactConstants, BorderOfADeadChannelIsNoConstant) {
  // The dead filter of conv 2 still has a constant that differs at the borders: it has to stay, and the report says so.
  const auto net = share(Sequential(Conv2d(1, 2, {.padding = 1}), Conv2d(2, 2, {.padding = 1}), Conv2d(2, 1)));
  randomize(*net, 3);
  mask_axis(*net, "0.weight", 0, {1});
  compact_and_compare(*net, {1, 1, 6, 6});
  mask_axis(*net, "1.weight", 0, {0});
  const CompactionReport report = compact_and_compare(*net, {1, 1, 6, 6});
  EXPECT_EQ(net->find<Conv2d>("1")->out_channels(), 2);
  ASSERT_EQ(report.groups.size(), 2u);
  EXPECT_NE(report.groups[1].note.find("1 masked unit stays: 2 sees values from"), std::string::npos)
      << report.to_table();
}

TEST(CompactConstants, EachFeatureOfAFlattenedChannelHasItsOwn) {
  // Averaging with padding makes a constant channel smaller at the border: constant for each feature all the same.
  const auto net =
      share(Sequential(Conv2d(1, 2), AvgPool2d({.kernel = 3, .stride = 2, .padding = 1}), Flatten(), Linear(18, 2)));
  randomize(*net, 5);
  mask_axis(*net, "0.weight", 0, {1});
  compact_and_compare(*net, {2, 1, 7, 7});
  EXPECT_EQ(net->num_parameters(), 9 + 1 + 2 * 9 + 2);
}

TEST(CompactConstants, ScalesOfBatchNormAlone) {
  // Slimming masks scales only: the filters exist, but their channel is the shift.
  const auto net = share(Sequential(Conv2d(2, 4, {.bias = false}), BatchNorm2d(4), ReLU(), Conv2d(4, 2)));
  randomize(*net, 6);
  mask_axis(*net, "1.weight", 0, {0, 3});
  compact_and_compare(*net, {2, 2, 7, 7});
  EXPECT_EQ(net->num_parameters(), 2 * 2 * 9 + 2 + 2 + 2 * 2 * 9 + 2);
}

TEST(CompactConstants, AMaskedBiasComesBack) {
  const auto net = share(Sequential(Linear(3, 2), Linear(2, 2)));
  randomize(*net, 7);
  mask_axis(*net, "0.weight", 0, {1});
  mask_axis(*net, "1.bias", 0, {0});
  compact_and_compare(*net, {4, 3});
  EXPECT_NE(parameter_of(*net, "1.bias").data().to_vector<float>()[0], 0);
  EXPECT_FALSE(parameter_of(*net, "1.bias").mask().defined());
}

TEST(CompactConstants, LstmTakesThemInItsInputBias) {
  const auto net = share(Sequential(Linear(4, 5), Tanh(), LSTM(5, 3, {.bidirectional = true}), Linear(6, 2)));
  randomize(*net, 8);
  mask_axis(*net, "0.weight", 0, {1, 2});
  compact_and_compare(*net, {6, 2, 4});
  EXPECT_EQ(net->find<LSTM>("2")->input_size(), 3);
  const auto silent = share(Sequential(Linear(4, 5), Tanh(), LSTM(5, 3, {.bias = false}), Linear(3, 2)));
  randomize(*silent, 8);
  mask_axis(*silent, "0.weight", 0, {1});
  const CompactionReport report = compact_and_compare(*silent, {6, 2, 4});
  EXPECT_EQ(silent->find<LSTM>("2")->input_size(), 5);
  EXPECT_NE(report.groups[0].note.find("no bias"), std::string::npos);
}

// --- what nobody reads ---------------------------------------------------------------------------------------------

TEST(CompactUnused, UnitsWhoseReadersAreMasked) {
  const auto net = share(Sequential(Linear(4, 6), ReLU(), Linear(6, 5), ReLU(), Linear(5, 2)));
  mask_axis(*net, "2.weight", 1, {0, 5});  // nobody reads units 0 and 5
  mask_axis(*net, "4.weight", 1, {1});     // nor unit 1 of the next layer
  Parameter between = parameter_of(*net, "2.weight");
  std::vector<bool> bits = between.mask().as_elements().units();
  for (size_t row = 0; row < 5; ++row)
    if (row != 1) bits[row * 6 + 3] = false;  // unit 3 is read by that unit only
  between.set_mask(Mask::from_units(between.shape(), Pattern::element(), bits));
  compact_and_compare(*net, {3, 4});
  EXPECT_EQ(net->num_parameters(), (3 * 4 + 3) + (4 * 3 + 4) + (2 * 4 + 2));
}

TEST(CompactUnused, SingleWeights) {
  // With few weights left many neurons have no input or no reader.
  const ModulePtr net = make_model("lenet300");
  randomize(*net, 9);
  uint64_t seed = 10;
  for (Parameter& parameter : net->parameters()) {
    if (parameter.shape().rank() < 2) continue;
    Generator generator(seed++);
    const Tensor scores = rand(parameter.shape(), generator);
    parameter.set_mask(Mask::from_scores(parameter.shape(), Pattern::element(), scores.reshape({scores.numel()}),
                                         parameter.numel() / 150));
  }
  int64_t weights = 0;
  for (const Parameter& parameter : net->parameters())
    if (parameter.mask().defined()) weights += parameter.mask().count_elements();
  const CompactionReport report = compact_and_compare(*net, {4, 1, 28, 28});
  int64_t weights_after = 0;
  for (const Parameter& parameter : net->parameters())
    if (parameter.shape().rank() == 2)
      weights_after += parameter.mask().defined() ? parameter.mask().count_elements() : parameter.numel();
  EXPECT_LT(report.parameters_after, report.parameters_before / 2);
  EXPECT_LE(weights_after, weights);
  EXPECT_FALSE(report.masks_left.empty());
}

TEST(CompactUnused, OneUnitOfALayerStays) {
  const auto net = share(Sequential(Linear(4, 3), ReLU(), Linear(3, 2)));
  mask_axis(*net, "0.weight", 0, {0, 1, 2});
  mask_axis(*net, "0.bias", 0, {0, 1, 2});
  const CompactionReport report = compact_and_compare(*net, {3, 4});
  EXPECT_EQ(net->find<Linear>("0")->out_features(), 1);
  EXPECT_NE(report.groups[0].note.find("no layer may become empty"), std::string::npos);
}

// --- inputs --------------------------------------------------------------------------------------------------------

TEST(CompactInputs, PixelsThatNobodyReads) {
  const ModulePtr net = make_model("lenet300");
  randomize(*net, 11);
  Indices border;
  for (int64_t i = 0; i < 784; ++i)
    if (i / 28 < 4 || i / 28 >= 24 || i % 28 < 4 || i % 28 >= 24) border.push_back(i);
  mask_axis(*net, "fc1.weight", 1, border);
  mask_axis(*net, "fc1.weight", 0, {0, 7});
  mask_axis(*net, "fc1.bias", 0, {0, 7});
  const CompactionReport report = compact_and_compare(*net, {3, 1, 28, 28});
  const auto fc1 = net->find<Linear>("fc1");
  EXPECT_EQ(fc1->weight().shape(), Shape({298, 400}));
  EXPECT_EQ(fc1->in_features(), 784);
  EXPECT_EQ(inputs_read(*fc1).front(), 4 * 28 + 4);
  EXPECT_EQ(report.kept.at("fc1.weight")[1], inputs_read(*fc1));
  EXPECT_FALSE(fc1->weight().mask().defined());

  // Again, with the selection in place: six more pixels go.
  mask_axis(*net, "fc1.weight", 1, {0, 1, 2, 3, 4, 399});
  const CompactionReport again = compact_and_compare(*net, {3, 1, 28, 28}, {.earlier = report.kept});
  EXPECT_EQ(fc1->weight().size(1), 394);
  EXPECT_EQ(inputs_read(*fc1), again.kept.at("fc1.weight")[1]);
  EXPECT_EQ(inputs_read(*fc1).front(), 4 * 28 + 9);
}

TEST(CompactInputs, FeaturesOfChannelsThatStay) {
  const ModulePtr net = make_model("lenet5");
  Indices gone;
  for (int64_t i = 0; i < 800; i += 2) gone.push_back(i);
  mask_axis(*net, "fc1.weight", 1, gone);
  mask_axis(*net, "conv2.weight", 0, {0, 49});
  mask_axis(*net, "conv2.bias", 0, {0, 49});
  compact_and_compare(*net, {2, 1, 28, 28});
  const auto fc1 = net->find<Linear>("fc1");
  EXPECT_EQ(fc1->in_features(), 48 * 16);
  EXPECT_EQ(fc1->weight().shape(), Shape({500, 48 * 8}));
  EXPECT_EQ(inputs_read(*fc1)[0], 1);
}

TEST(CompactInputs, ConvolutionReadsSomeChannels) {
  const auto net = share(Sequential(Conv2d(1, 16), ReLU(), Residual(share(Conv2d(16, 16, {.padding = 1}))), Flatten(),
                                    Linear(16 * 36, 3)));
  mask_axis(*net, "2.body.weight", 1, {0, 1, 2, 3, 12});
  compact_and_compare(*net, {2, 1, 8, 8});
  EXPECT_EQ(inputs_read(*net->find("2.body")).size(), 11u);
  const auto whole = share(Sequential(Linear(8, 2)));
  mask_axis(*whole, "0.weight", 1, {3});
  compact_and_compare(*whole, {2, 8});
  EXPECT_TRUE(inputs_read(*whole->find("0")).empty()) << "a copy of seven features to save two products";
  mask_axis(*net, "2.body.weight", 1, {0});
  const nlohmann::json config = net->config();
  compact(*net, example({2, 1, 8, 8}), {.select_inputs = false});
  EXPECT_EQ(net->config(), config);
}

// --- other structures ----------------------------------------------------------------------------------------------

TEST(CompactStructure, StackedBidirectionalLstm) {
  const auto net = share(Sequential(LSTM(5, 8, {.num_layers = 2, .bidirectional = true, .batch_first = true}),
                                    Linear(16, 6), Tanh(), LSTM(6, 4), Linear(4, 3)));
  randomize(*net, 12);
  const DependencyGraph graph = DependencyGraph::trace(*net, example({2, 7, 5}));
  const Units units = random_units(graph, 0.5, 13);
  mask_units(graph, units);
  const int64_t expected = count_left(*net, graph, units);
  compact_and_compare(*net, {2, 7, 5});
  EXPECT_EQ(net->num_parameters(), expected);
  const Indices sizes = net->find<LSTM>("0")->hidden_sizes();
  EXPECT_LT(*std::max_element(sizes.begin(), sizes.end()), 8);
  const ModulePtr rebuilt = module_from_config(net->config());
  load_state(*rebuilt, state_of(*net));
  EXPECT_EQ(max_difference(output_of(*rebuilt, example({2, 7, 5})), output_of(*net, example({2, 7, 5}))), 0);
}

TEST(CompactStructure, HiddenUnitsWithBiasesMoveAndStay) {
  const auto net = share(Sequential(LSTM(3, 4), Linear(4, 2)));
  randomize(*net, 14);
  const DependencyGraph graph = DependencyGraph::trace(*net, example({5, 2, 3}));
  Units units;
  for (const ChannelGroup& group : graph.groups()) units.emplace_back(static_cast<size_t>(group.units), true);
  for (size_t i = 0; i < units.size(); ++i)
    if (graph.groups()[i].fixed.empty()) units[i][2] = false;
  mask_units(graph, units, false);  // not the biases
  compact_and_compare(*net, {5, 2, 3});
  EXPECT_EQ(net->find<LSTM>("0")->hidden_size(), 4);
  mask_units(graph, units);
  compact_and_compare(*net, {5, 2, 3});
  EXPECT_EQ(net->find<LSTM>("0")->hidden_size(), 3);
}

TEST(CompactStructure, DepthwiseAndGroupedConvolutions) {
  const auto net =
      share(Sequential(Conv2d(3, 8, {.bias = false}), BatchNorm2d(8), ReLU(), Conv2d(8, 8, {.padding = 1, .groups = 8}),
                       BatchNorm2d(8), ReLU(), Conv2d(8, 12, {.kernel = 1}), ReLU(), Conv2d(12, 6, {.groups = 2}),
                       AdaptiveAvgPool2d(), Flatten(), Linear(6, 4)));
  randomize(*net, 15);
  const Shape input{2, 3, 10, 10};
  const DependencyGraph graph = DependencyGraph::trace(*net, example(input));
  const Units units = random_units(graph, 0.5, 16);
  mask_units(graph, units);
  const int64_t expected = count_left(*net, graph, units);
  compact_and_compare(*net, input);
  EXPECT_EQ(net->num_parameters(), expected);
  const auto depthwise = net->find<Conv2d>("3");
  EXPECT_EQ(depthwise->options().groups, depthwise->out_channels());
  EXPECT_LT(depthwise->out_channels(), 8);
  EXPECT_EQ(net->find<Conv2d>("8")->options().groups, 2);
}

/// cat(a(x), b(x)) along the channels.
class Fork : public Module {
 public:
  Fork(ModulePtr a, ModulePtr b) : a_(add_child("a", std::move(a))), b_(add_child("b", std::move(b))) {}
  Variable forward(const Variable& x) override { return cat({(*a_)(x), (*b_)(x)}, 1); }
  std::string type() const override { return "Fork"; }
  nlohmann::json config() const override { return {{"type", type()}, {"a", a_->config()}, {"b", b_->config()}}; }

 private:
  ModulePtr a_, b_;
};

TEST(CompactStructure, Concatenation) {
  module_registry().replace("Fork", [](const nlohmann::json& config) {
    return std::make_shared<Fork>(module_from_config(config["a"]), module_from_config(config["b"]));
  });
  const auto net =
      share(Sequential(ModulePtr(std::make_shared<Fork>(share(Conv2d(2, 5)), share(Sequential(Conv2d(2, 7), ReLU())))),
                       BatchNorm2d(12), ReLU(), Conv2d(12, 4, {.padding = 1})));
  randomize(*net, 17);
  for (const bool all : {false, true}) {
    const ModulePtr copy = net->clone();
    const DependencyGraph graph = DependencyGraph::trace(*copy, example({1, 2, 6, 6}));
    const Units units = random_units(graph, 0.6, 18);
    mask_units(graph, units, all);
    const int64_t expected = count_left(*copy, graph, units);
    compact_and_compare(*copy, {2, 2, 6, 6});
    EXPECT_EQ(copy->num_parameters(), expected);
  }
}

TEST(CompactStructure, BothKindsOfShortcut) {
  for (const Shortcut shortcut : {Shortcut::pad, Shortcut::projection}) {
    const auto net = share(Sequential(Conv2d(1, 4, {.padding = 1}), BatchNorm2d(4), ReLU(),
                                      BasicBlock(4, 8, {.stride = 2, .shortcut = shortcut}), BasicBlock(8, 8),
                                      AdaptiveAvgPool2d(), Flatten(), Linear(8, 3)));
    randomize(*net, 19);
    for (const bool all : {true, false}) {
      const ModulePtr copy = net->clone();
      const DependencyGraph graph = DependencyGraph::trace(*copy, example({1, 1, 8, 8}));
      const Units units = random_units(graph, 0.6, 20);
      mask_units(graph, units, all);
      int64_t expected = count_left(*copy, graph, units);
      const CompactionReport report = compact_and_compare(*copy, {2, 1, 8, 8});
      // The projection is not padded: what dead channels shift goes into a bias that it did not have.
      const bool gains = shortcut == Shortcut::projection && !all;
      EXPECT_EQ(report.added_biases,
                gains ? std::vector<std::string>({"3.shortcut.conv.bias"}) : std::vector<std::string>());
      if (gains) expected += copy->find<Conv2d>("3.shortcut.conv")->out_channels();
      EXPECT_EQ(copy->num_parameters(), expected);
      EXPECT_EQ(copy->clone()->num_parameters(), expected);
    }
  }
}

}  // namespace
}  // namespace espalier
