// Topologies that the graph and the compaction once read wrongly, with the right values.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/models/zoo.h"
#include "layers/norm.h"
#include "layers/pooling.h"
#include "layers/registry.h"
#include "pruning/structure/costs.h"
#include "pruning/structure/dead_units.h"
#include "pruning/structure/probes.h"
#include "tests/pruning/structure/structure_testing.h"
#include "tests/pruning/structure/topology/program_network.h"

namespace espalier::topology {
namespace {

ModulePtr program(std::vector<std::pair<std::string, ModulePtr>> layers, std::vector<Step> steps) {
  module_registry().replace("ProgramNetwork", ProgramNetwork::from_config);
  return std::make_shared<ProgramNetwork>(Program{std::move(layers), {}, std::move(steps)});
}

std::string why_fixed(const ModulePtr& net, const std::string& group, const Shape& input) {
  return DependencyGraph::trace(*net, example(input)).find(group).fixed;
}

void set(const Module& net, const std::string& name, const std::vector<float>& values) {
  Tensor data = parameter_of(net, name).data();
  data.copy_(Tensor::from(values, data.shape()));
}

// --- weights that are used in both directions ----------------------------------------------------------------------

/// An embedding that is also the output's weight; between them a Linear whose column 1 is masked.
std::shared_ptr<Sequential> tied_words() {
  auto net = share(Sequential(Embedding(3, 2), Linear(2, 2), ReLU(), Linear(2, 3, {.bias = false})));
  (*net)[3]->share_parameter("weight", parameter_of(*net, "0.weight"));
  set(*net, "0.weight", {-1, 0, -2, 0, 1, 5});
  set(*net, "1.weight", {1, 0, 1, 0});
  set(*net, "1.bias", {0, 0});
  mask_axis(*net, "1.weight", 1, {1});
  return net;
}

TEST(TiedWeights, AnEmbeddingThatIsTheOutputToo) {
  const auto net = tied_words();
  const Tensor word = Tensor::from<int64_t>({2}, {1});
  const std::vector<float> expected = {-1, -2, 6};
  EXPECT_EQ(output_of(*net, word).to_vector<float>(), expected);
  const CompactionReport report = compact(*net, Tensor::from<int64_t>({0, 1}, {2}));
  EXPECT_EQ(output_of(*net, word).to_vector<float>(), expected);
  EXPECT_TRUE(report.kept_whole.empty()) << "the masks themselves say that the column is read";
}

TEST(TiedWeights, AnAxisThatIsMadeAndReadHasBothRoles) {
  const auto net = tied_words();
  const DependencyGraph graph = DependencyGraph::trace(*net, Tensor::from<int64_t>({0, 1}, {2}));
  const ChannelGroup& group = graph.find("0 + 1");
  EXPECT_EQ(group.members[0].name, "0.weight");
  EXPECT_EQ(group.members[0].roles, (ChannelRoles{.produces = true, .reads = true}));
  EXPECT_NE(graph.explain("0 + 1").find("column u of 0.weight (3,2): makes and reads it"), std::string::npos);
  // The channel goes where everything that makes it is masked: column 1 of the table, row 1 of the Linear.
  mask_axis(*net, "0.weight", 1, {1});
  mask_axis(*net, "1.weight", 0, {1});
  compact(*net, Tensor::from<int64_t>({0, 1}, {2}));
  EXPECT_EQ(parameter_of(*net, "0.weight").shape(), Shape({3, 1}));
  EXPECT_EQ(output_of(*net, Tensor::from<int64_t>({2}, {1})).to_vector<float>(), std::vector<float>({-1, -2, 1}));
}

TEST(TiedWeights, AnAutoencoderReadsWhatItMakes) {
  // y = tanh(x W^T) W: hidden unit 1 is made by row 1 alone, and read by it.
  const auto net = program({{"w", share(Linear(3, 2, {.bias = false}))}},
                           {{"layer", {0}, "w"}, {"tanh", {1}}, {"weight backwards", {2}, "w"}});
  mask_axis(*net, "w.weight", 0, {1});
  compact_and_compare(*net, {4, 3});
  EXPECT_EQ(parameter_of(*net, "w.weight").shape(), Shape({1, 3}));
}

TEST(TiedWeights, ProbesAskForEveryWord) {
  const auto net = share(Sequential(Embedding(7, 2), Linear(2, 1)));
  const Tensor example = Tensor::from<int64_t>({1, 1}, {2});
  std::vector<bool> asked(7, false);
  for (const Bundle& probe : probes_like(DependencyGraph::trace(*net, example), example, 1))
    for (const int64_t word : probe.data().to_vector<int64_t>()) asked[static_cast<size_t>(word)] = true;
  EXPECT_EQ(asked, std::vector<bool>(7, true));
}

TEST(TiedWeights, ProbesKeepToTheTableThatEachColumnLooksUp) {
  // Column 0 looks up 6 words, column 1 two kinds: 5 would be no kind.
  const auto net =
      program({{"words", share(Embedding(6, 2))}, {"kinds", share(Embedding(2, 2))}},
              {{"last", {0}}, {"first", {0}}, {"layer", {2}, "words"}, {"layer", {1}, "kinds"}, {"add", {3, 4}}});
  const Tensor example = Tensor::from<int64_t>({4, 1, 3, 0}, {2, 2});
  int64_t largest = 0;
  for (const Bundle& probe : probes_like(DependencyGraph::trace(*net, example), example, 1)) {
    const std::vector<int64_t> ids = probe.data().to_vector<int64_t>();
    largest = std::max({largest, ids[0], ids[2]});
    EXPECT_LT(std::max(ids[1], ids[3]), 2);
  }
  EXPECT_EQ(largest, 5);
}

// --- positions and steps are no channels ---------------------------------------------------------------------------

TEST(Positions, FeaturesThatBecomeTheRowsOfAnImage) {
  const auto net = program({{"fc", share(Linear(5, 16))}, {"conv", share(Conv2d(1, 4))}, {"out", share(Linear(16, 2))}},
                           {{"layer", {0}, "fc"},
                            {"image", {1}, {}, {4, 4}},
                            {"layer", {2}, "conv"},
                            {"flatten", {3}},
                            {"layer", {4}, "out"}});
  EXPECT_EQ(why_fixed(net, "fc", {1, 5}), "split behind an axis of one channel by reshape");
  EXPECT_EQ(channel_sites(DependencyGraph::trace(*net, example({1, 5}))).size(), 1U);  // conv
  mask_axis(*net, "fc.weight", 0, {0, 1, 2, 3});
  mask_axis(*net, "conv.weight", 0, {2});
  compact_and_compare(*net, {3, 5});
  EXPECT_EQ(net->find<Linear>("fc")->out_features(), 16);
  EXPECT_EQ(net->find<Conv2d>("conv")->out_channels(), 3);
}

TEST(Positions, FeaturesThatBecomeTheWidthOfAnImage) {
  const auto net = program({{"fc", share(Linear(5, 6))}, {"conv", share(Conv2d(1, 2, {.kernel = {1, 3}}))}},
                           {{"layer", {0}, "fc"}, {"row", {1}}, {"layer", {2}, "conv"}});
  EXPECT_EQ(why_fixed(net, "fc", {1, 5}), "positions of an image");
}

TEST(Positions, ChannelsThatArePooledOver) {
  // (N,4,6,6) -> (N,6,4,6): the pooling's windows reach over channels.
  const auto net = program({{"conv", share(Conv2d(1, 4, {.kernel = 1}))}, {"pool", share(MaxPool2d({.kernel = 2}))}},
                           {{"layer", {0}, "conv"}, {"permute", {1}, {}, {0, 2, 1, 3}}, {"layer", {2}, "pool"}});
  EXPECT_EQ(why_fixed(net, "conv", {1, 1, 6, 6}), "positions of an image");
}

TEST(Positions, ChannelsThatAreTheStepsOfAnLstm) {
  const auto net =
      program({{"conv", share(Conv2d(1, 4, {.kernel = 1}))}, {"lstm", share(LSTM(9, 3))}},
              {{"layer", {0}, "conv"}, {"positions", {1}}, {"permute", {2}, {}, {1, 0, 2}}, {"layer", {3}, "lstm"}});
  EXPECT_EQ(why_fixed(net, "conv", {1, 1, 3, 3}), "steps of a sequence");
}

TEST(Positions, ADecoderWithOneChannelLeftIsCompactedAgain) {
  const auto net = program({{"fc", share(Linear(5, 32))}, {"conv", share(Conv2d(2, 3))}},
                           {{"layer", {0}, "fc"}, {"image", {1}, {}, {4, 4}}, {"layer", {2}, "conv"}});
  Indices second;
  for (int64_t i = 16; i < 32; ++i) second.push_back(i);
  mask_axis(*net, "fc.weight", 0, second);
  mask_axis(*net, "fc.bias", 0, second);
  compact_and_compare(*net, {3, 5});
  EXPECT_EQ(net->find<Linear>("fc")->out_features(), 16);
  EXPECT_EQ(net->find<Conv2d>("conv")->in_channels(), 1);
  mask_axis(*net, "fc.weight", 0, {0, 5});
  compact_and_compare(*net, {3, 5});
  EXPECT_EQ(net->find<Linear>("fc")->out_features(), 16);
}

// --- one group that can't go ---------------------------------------------------------------------------------------

TEST(KeptWhole, AProductOfTwoTowersBlocksOnlyItself) {
  // Unit 1 of both towers is a bias: a constant other than 0, which the product takes without a weight.
  const auto net = program({{"a", share(Linear(4, 3))},
                            {"b", share(Linear(4, 3))},
                            {"wide", share(Linear(4, 6))},
                            {"out", share(Linear(7, 2))}},
                           {{"layer", {0}, "a"},
                            {"layer", {0}, "b"},
                            {"bilinear", {1, 2}},
                            {"layer", {0}, "wide"},
                            {"cat", {3, 4}, {}, {1}},
                            {"layer", {5}, "out"}});
  set(*net, "a.bias", {0.1F, 0.7F, 0.2F});
  set(*net, "b.bias", {0.3F, 0.9F, 0.1F});
  for (const char* weight : {"a.weight", "b.weight"}) mask_axis(*net, weight, 0, {1});
  for (const char* of_wide : {"wide.weight", "wide.bias"}) mask_axis(*net, of_wide, 0, {0, 4});
  const CompactionReport report = compact_and_compare(*net, {3, 4});
  ASSERT_EQ(report.kept_whole.size(), 1U);
  EXPECT_EQ(report.kept_whole[0].name, "a + b");
  EXPECT_NE(report.kept_whole[0].why.find("the outputs would differ by"), std::string::npos);
  EXPECT_EQ(net->find<Linear>("a")->out_features(), 3);
  EXPECT_EQ(net->find<Linear>("wide")->out_features(), 4);

  // Without the biases the product takes 0, and the unit goes.
  for (const char* bias : {"a.bias", "b.bias"}) mask_axis(*net, bias, 0, {1});
  EXPECT_TRUE(compact_and_compare(*net, {3, 4}).kept_whole.empty());
  EXPECT_EQ(net->find<Linear>("a")->out_features(), 2);
}

TEST(KeptWhole, WhatAProductReadsIsReadThoughEveryWeightForItIsMasked) {
  const auto net = program({{"a", share(Linear(4, 3))}, {"b", share(Linear(3, 2))}},
                           {{"layer", {0}, "a"}, {"bilinear", {1, 1}}, {"layer", {1}, "b"}, {"cat", {2, 3}, {}, {1}}});
  mask_axis(*net, "b.weight", 1, {0, 1});
  EXPECT_TRUE(compact_and_compare(*net, {3, 4}).kept_whole.empty());
  EXPECT_EQ(net->find<Linear>("a")->out_features(), 3);
}

// --- layers that are called twice, weights that are used elsewhere -------------------------------------------------

TEST(SharedLayers, AnInputSelectionDoesNotUntieTheCalls) {
  const auto net = program({{"a", share(Linear(2, 3))}, {"s", share(Linear(3, 3))}, {"fc", share(Linear(3, 2))}},
                           {{"layer", {0}, "a"}, {"layer", {1}, "s"}, {"layer", {2}, "s"}, {"layer", {3}, "fc"}});
  mask_axis(*net, "a.weight", 1, {0, 1});
  mask_axis(*net, "s.weight", 1, {0, 2});
  mask_axis(*net, "fc.weight", 1, {1});
  for (int round = 0; round < 2; ++round) {
    compact_and_compare(*net, {3, 2});
    const DependencyGraph graph = DependencyGraph::trace(*net, example({1, 2}));
    EXPECT_EQ(count_costs(*net, graph, example({1, 2})).parameters, net->num_parameters());
  }
}

TEST(SharedLayers, AWeightThatAnOperationOutsideUsesKeepsItsInputs) {
  // fc reads no input but 1; so does the operation that uses its weight, which knows of no selection.
  const auto net =
      program({{"fc", share(Linear(12, 3))}}, {{"layer", {0}, "fc"}, {"weight outside", {0}, "fc"}, {"add", {1, 2}}});
  Indices all_but_one;
  for (int64_t i = 0; i < 12; ++i)
    if (i != 1) all_but_one.push_back(i);
  mask_axis(*net, "fc.weight", 1, all_but_one);
  compact_and_compare(*net, {3, 12});
  EXPECT_EQ(parameter_of(*net, "fc.weight").shape(), Shape({3, 12}));
}

TEST(SharedLayers, AConstantStaysWhereAWeightOutsideReadsIt) {
  // Unit 1 of a is its bias. fc could take it into its bias, the operation outside has none.
  const auto net = program({{"a", share(Linear(2, 3))}, {"fc", share(Linear(3, 2))}},
                           {{"layer", {0}, "a"}, {"layer", {1}, "fc"}, {"weight outside", {1}, "fc"}, {"add", {2, 3}}});
  randomize(*net, 3);
  mask_axis(*net, "a.weight", 0, {1});
  const CompactionReport report = compact_and_compare(*net, {3, 2});
  EXPECT_EQ(net->find<Linear>("a")->out_features(), 3);
  EXPECT_NE(report.groups[0].note.find("'fc.weight' is used outside its module, too"), std::string::npos);
}

TEST(SharedLayers, ALayerThatIsOnlyAWeightStaysWholeWithItsBias) {
  // Nobody calls fc, and its bias is not used: with fewer rows of the weight it could not be built again.
  const auto net = program({{"fc", share(Linear(4, 5))}, {"out", share(Linear(5, 2))}},
                           {{"weight outside", {0}, "fc"}, {"layer", {1}, "out"}});
  EXPECT_EQ(why_fixed(net, "fc", {1, 4}), "a part of 'fc', which isn't called itself");
  mask_axis(*net, "fc.weight", 0, {1, 2});
  const CompactionReport report = compact_and_compare(*net, {3, 4});
  EXPECT_EQ(report.not_called, std::vector<std::string>({"fc.bias"}));
  load_state(*module_from_config(net->config()), state_of(*net));
}

TEST(SharedLayers, MaskedWeightsAreNotZeroBehindAnExponential) {
  // exp(0) = 1: column 1, masked in the Linear, is read all the same. tanh(0) = 0 isn't.
  for (const auto& [through, why] :
       {std::pair("weight through exp",
                  "'fc.weight' is used through an operation that makes something of masked weights"),
        std::pair("weight through tanh", "")}) {
    const auto net = program({{"a", share(Linear(2, 3))}, {"fc", share(Linear(3, 2, {.bias = false}))}},
                             {{"layer", {0}, "a"}, {through, {1}, "fc"}});
    EXPECT_EQ(why_fixed(net, "a", {1, 2}), why);
    mask_axis(*net, "fc.weight", 1, {1});
    EXPECT_TRUE(compact_and_compare(*net, {3, 2}).kept_whole.empty());
    EXPECT_EQ(net->find<Linear>("a")->out_features(), why[0] == '\0' ? 2 : 3);
  }
}

// --- what only training calls --------------------------------------------------------------------------------------

TEST(TrainingOnly, AnAuxiliaryHeadBecomesSmallerWithItsTrunk) {
  const auto net = program(
      {{"trunk", share(Linear(4, 6))},
       {"bn", share(BatchNorm1d(6))},
       {"head", share(Linear(6, 3))},
       {"auxiliary", share(Linear(6, 2))},
       {"idle", share(Linear(6, 2))}},
      {{"layer", {0}, "trunk"}, {"layer", {1}, "bn"}, {"in training", {2}, "auxiliary"}, {"layer", {2}, "head"}});
  const DependencyGraph graph = DependencyGraph::trace(*net, example({1, 4}));
  EXPECT_EQ(graph.find("trunk").members.back().name, "auxiliary.weight");
  EXPECT_EQ(graph.not_called(), (std::vector<std::string>{"idle.weight", "idle.bias"}));
  EXPECT_EQ(parameter_of(*net, "trunk.weight").grad().defined(), false);
  EXPECT_EQ(net->find<BatchNorm1d>("bn")->named_buffers()[0].second.to_vector<float>(), std::vector<float>(6, 0));

  for (const char* name : {"trunk.weight", "trunk.bias", "bn.weight", "bn.bias"}) mask_axis(*net, name, 0, {1, 4});
  net->train();
  const float before = (*net)(example({5, 4})).data().to_vector<float>()[0];
  const CompactionReport report = compact_and_compare(*net, {1, 4});
  EXPECT_EQ(net->find<Linear>("trunk")->out_features(), 4);
  EXPECT_EQ(net->find<Linear>("auxiliary")->in_features(), 4);
  EXPECT_EQ(report.not_called, (std::vector<std::string>{"idle.weight", "idle.bias"}));
  EXPECT_NE(report.to_table().find("not called with the example, left as they are: idle.weight, idle.bias"),
            std::string::npos);
  EXPECT_NEAR((*net)(example({5, 4})).data().to_vector<float>()[0], before, 1e-5);  // in training mode
}

// --- layers that are masked as a whole -----------------------------------------------------------------------------

TEST(WhollyMasked, AFirstLayerKeepsOneInput) {
  const auto net = share(Sequential(Linear(20, 6), ReLU(), Linear(6, 3)));
  randomize(*net, 4);
  mask_axis(*net, "0.weight", 0, {0, 1, 2, 3, 4, 5});
  compact_and_compare(*net, {3, 20});
  EXPECT_EQ(parameter_of(*net, "0.weight").shape(), Shape({1, 1}));
  const auto conv = share(Sequential(Conv2d(3, 4), ReLU(), Conv2d(4, 2)));
  mask_axis(*conv, "0.weight", 1, {0, 1, 2});
  compact_and_compare(*conv, {1, 3, 8, 8});
  EXPECT_EQ(parameter_of(*conv, "0.weight").shape(), Shape({1, 1, 3, 3}));
}

}  // namespace
}  // namespace espalier::topology
