// Layers of a user's own, with own parameters: they are traced, masked, trained and compacted as the library's are.
#include "tests/pruning/own_layers.h"
#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/linear.h"
#include "layers/pooling.h"
#include "tests/pruning/structure/structure_testing.h"
#include "training/checkpoint.h"
#include "training/optimizer.h"

namespace espalier {
namespace {

ModulePtr gated_network() {
  register_own_layers();
  return share(Sequential(Conv2d(2, 6, {.kernel = 3, .padding = 1}), ReLU(), SqueezeExcite(6, 4), ChannelMix(6, 5),
                          ReLU(), Conv2d(5, 4, {.kernel = 3, .padding = 1}), AdaptiveAvgPool2d(), Flatten(),
                          Linear(4, 3)));
}

TEST(OwnLayers, AreTracedByTheirOperations) {
  const ModulePtr net = gated_network();
  const DependencyGraph graph = DependencyGraph::trace(*net, example({1, 2, 5, 5}));
  // What is multiplied with the gates is one group with what makes the gates.
  const ChannelGroup& gated = graph.find("0 + 2");
  EXPECT_EQ(gated.units, 6);
  EXPECT_TRUE(gated.fixed.empty());
  const auto role_of = [](const ChannelGroup& group, const std::string& name) {
    for (const GroupMember& member : group.members)
      if (member.name == name) return std::pair(member.axis, member.roles);
    throw ArgumentError("no member " + name);
  };
  EXPECT_EQ(role_of(gated, "2.squeeze"), std::pair(1, kReads));
  EXPECT_EQ(role_of(gated, "2.expand"), std::pair(0, kProduces));
  EXPECT_EQ(role_of(gated, "3.mixing"), std::pair(1, kReads));
  const ChannelGroup& hidden = graph.find("2");
  EXPECT_EQ(hidden.units, 4);
  EXPECT_EQ(role_of(hidden, "2.squeeze"), std::pair(0, kProduces));
  EXPECT_EQ(role_of(hidden, "2.expand"), std::pair(1, kReads));
}

/// Channel 0 of the first layer is 0.5 everywhere, gate 0 is sigmoid(0) = 0.5.
TEST(OwnLayers, ConstantsFoldIntoTheirBiases) {
  register_own_layers();
  const auto net = share(Sequential(Conv2d(1, 2, {.kernel = 1}), ReLU(), SqueezeExcite(2, 2), ChannelMix(2, 1)));
  const auto set = [&](const std::string& name, const std::vector<float>& values) {
    Parameter parameter = parameter_of(*net, name);
    parameter.set_data(Tensor::from(values, parameter.shape()));
  };
  set("0.weight", {1, 1});
  set("0.bias", {0.5F, 0});
  set("2.squeeze", {2, 3, 4, 5});
  set("2.squeeze_bias", {0.25F, 0.75F});
  set("2.expand", {1, 1, 6, 7});
  set("2.expand_bias", {0, -20});
  set("3.mixing", {10, 20});
  set("3.offset", {1});
  mask_axis(*net, "0.weight", 0, {0});
  mask_axis(*net, "2.expand", 0, {0});
  mask_axis(*net, "2.squeeze", 0, {1});  // the hidden unit 1 is relu(0.75) for every image
  const CompactionReport report = compact_and_compare(*net, {2, 1, 3, 3});
  EXPECT_TRUE(report.kept_whole.empty());
  EXPECT_EQ(parameter_of(*net, "2.squeeze").shape(), Shape({1, 1}));
  EXPECT_EQ(parameter_of(*net, "2.squeeze").data().item(), 3);
  EXPECT_EQ(parameter_of(*net, "2.squeeze_bias").data().item(), 0.25 + 2 * 0.5);
  EXPECT_EQ(parameter_of(*net, "2.expand").data().item(), 6);
  EXPECT_EQ(parameter_of(*net, "2.expand_bias").data().item(), -20 + 7 * 0.75);
  EXPECT_EQ(parameter_of(*net, "3.mixing").data().item(), 20);
  EXPECT_EQ(parameter_of(*net, "3.offset").data().item(), 1 + 10 * 0.5 * 0.5);
}

TEST(OwnLayers, BehindALayerAreCompactedWithIt) {
  register_own_layers();
  set_seed(4);
  const auto net = share(Sequential(Conv2d(2, 6, {.kernel = 3}), ReLU(), Conv2d(6, 3, {.kernel = 1})));
  net->find("0")->set_output_transform(std::make_shared<ChannelGate>(6));
  const DependencyGraph graph = DependencyGraph::trace(*net, example({1, 2, 5, 5}));
  EXPECT_EQ(graph.find("0").members.size(), 4U);  // weight, bias, gate, the next weight
  mask_axis(*net, "0.weight", 0, {1, 4});
  mask_axis(*net, "0.output_transform.gate", 0, {2});
  const CompactionReport report = compact_and_compare(*net, {2, 2, 5, 5});
  EXPECT_TRUE(report.kept_whole.empty()) << report.to_table();
  EXPECT_EQ(parameter_of(*net, "0.output_transform.gate").shape(), Shape{3});
  EXPECT_EQ(parameter_of(*net, "0.weight").shape(), Shape({3, 2, 3, 3}));
}

TEST(OwnLayers, InFrontOfAParameterHaveToBeHardenedFirst) {
  register_own_layers();
  const auto net = share(Sequential(Conv2d(1, 2, {.kernel = 1}), Conv2d(2, 1, {.kernel = 1})));
  Parameter weight = parameter_of(*net, "1.weight");
  weight.add_transform(std::make_shared<ChannelGate>(2));
  mask_axis(*net, "0.weight", 0, {1});
  const Tensor x = example({1, 1, 2, 2}), before = output_of(*net, x);
  expect_error([&] { compact(*net, x); }, {"[compact]", "1.weight", "ChannelGate", "fold_transforms"});
  weight.fold_transforms();
  EXPECT_TRUE(identical(output_of(*net, x), before));
  compact_and_compare(*net, {1, 1, 2, 2});
  EXPECT_EQ(parameter_of(*net, "1.weight").shape(), Shape({1, 1, 1, 1}));
}

TEST(OwnLayers, PruneTrainCompactSaveLoad) {
  const ModulePtr net = gated_network();
  randomize(*net, 3);
  const Tensor x = example({4, 2, 5, 5});
  Sgd optimizer(*net, {.lr = 0.05, .momentum = 0.9});
  const auto step = [&] {
    optimizer.zero_grad();
    sum(square((*net)(x))).backward();
    optimizer.step();
  };
  step();
  const DependencyGraph graph = DependencyGraph::trace(*net, x);
  mask_units(graph, random_units(graph, 0.5, 5), /*all=*/false);
  step();
  step();
  const int64_t before = net->num_parameters();
  const CompactionReport report = compact_and_compare(*net, {4, 2, 5, 5}, {.optimizer = &optimizer});
  EXPECT_TRUE(report.kept_whole.empty()) << report.to_table();
  EXPECT_TRUE(report.masks_left.empty());
  for (const CompactedGroup& group : report.groups) EXPECT_EQ(group.note, "") << group.name;
  EXPECT_LT(net->num_parameters(), before / 2);
  step();  // the momentum followed

  const std::string file = testing::TempDir() + "own_layers.safetensors";
  save_checkpoint(file, *net);
  EXPECT_TRUE(identical(output_of(*load_model(file), x), output_of(*net, x)));
}

}  // namespace
}  // namespace espalier
