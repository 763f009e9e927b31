// Effective costs against hand counts, and against what compaction leaves.
#include "pruning/structure/costs.h"

#include <nlohmann/json.hpp>

#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/models/zoo.h"
#include "layers/summary.h"
#include "pruning/structure/blocks.h"
#include "pruning/structure/compact.h"
#include "tests/pruning/structure/structure_testing.h"

namespace espalier {
namespace {

Costs costs_of(Module& net, const Tensor& example) {
  return count_costs(net, DependencyGraph::trace(net, example), example);
}

TEST(Costs, OfAPerceptronByHand) {
  Sequential net(Linear(4, 3), ReLU(), Linear(3, 2));
  const auto parameters = net.parameters();
  const Tensor x = noise({1, 4}, 1, DType::f32);
  Costs costs = costs_of(net, x);
  EXPECT_EQ(costs.parameters, 4 * 3 + 3 + 3 * 2 + 2);
  EXPECT_EQ(costs.remaining_parameters, costs.parameters);
  EXPECT_EQ(costs.macs, 12 + 6);
  EXPECT_EQ(costs.bytes, 4 * 23);

  // Unit 1 goes with its bias; two more single weights of unit 0.
  Parameter weight = parameters[0], bias = parameters[1];
  std::vector<bool> bits(12, true);
  for (const size_t gone : {0, 1, 4, 5, 6, 7}) bits[gone] = false;
  weight.set_mask(Mask::from_units({3, 4}, Pattern::element(), bits));
  bias.set_mask(Mask::from_units({3}, Pattern::element(), {true, false, true}));
  costs = costs_of(net, x);
  EXPECT_EQ(costs.remaining_parameters, (2 + 4) + 2 + 2 * 2 + 2);
  EXPECT_EQ(costs.remaining_macs, 6 + 4);
  EXPECT_EQ(costs.layers[1].remaining_parameters, 4 + 2);
  EXPECT_EQ(costs.remaining_bytes, 4 * 14);
  EXPECT_DOUBLE_EQ(costs.compression(), 23.0 / 14);
  EXPECT_DOUBLE_EQ(costs.theoretical_speedup(), 18.0 / 10);
  EXPECT_NE(costs.to_table().find("total"), std::string::npos);
  EXPECT_EQ(costs.to_json()["remaining_macs"], 10);
}

TEST(Costs, AConstantUnitWithoutAReaderBiasCostsOne) {
  Sequential net(Linear(4, 3), Linear(3, 2, {.bias = false}));
  randomize(net, 2);
  Parameter weight = net.parameters()[0];
  weight.set_mask(Mask::from_units({3, 4}, Pattern::channel(0), {true, false, true}));
  EXPECT_EQ(costs_of(net, noise({1, 4}, 1, DType::f32)).remaining_parameters, 8 + 2 + 4 + 2);
}

class CostsOfZoo : public testing::TestWithParam<std::pair<std::string, Shape>> {};

TEST_P(CostsOfZoo, AreTheSummaryOfTheCompactedNetwork) {
  const auto& [name, input] = GetParam();
  for (const bool all : {true, false}) {
    if (!all && name.starts_with("lstm")) continue;
    const ModulePtr net = make_model(name);
    randomize(*net, 3);
    const Tensor x = noise(input, 4, DType::f32);
    const DependencyGraph graph = DependencyGraph::trace(*net, x);
    const ModelSummary dense = summarize(*net, input);
    mask_units(graph, random_units(graph, 0.5, 5), all);
    const Costs costs = count_costs(*net, graph, x);
    EXPECT_EQ(costs.parameters, dense.parameters);
    EXPECT_EQ(costs.macs, dense.macs);
    compact(*net, x);
    const ModelSummary small = summarize(*net, input);
    EXPECT_EQ(costs.remaining_parameters, small.parameters);
    EXPECT_EQ(costs.remaining_macs, small.macs);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CostsOfZoo,
                         testing::Values(std::pair<std::string, Shape>{"lenet300", {1, 1, 28, 28}},
                                         std::pair<std::string, Shape>{"lenet5", {1, 1, 28, 28}},
                                         std::pair<std::string, Shape>{"resnet20", {1, 3, 8, 8}},
                                         std::pair<std::string, Shape>{"vgg16", {1, 3, 32, 32}},
                                         std::pair<std::string, Shape>{"lstm-rows:12", {1, 1, 28, 28}}));

TEST(Costs, OfAStackedLstm) {
  const auto net = share(Sequential(LSTM(5, 8, {.num_layers = 2, .bidirectional = true}), Linear(16, 3)));
  const Tensor x = noise({6, 1, 5}, 6, DType::f32);
  const DependencyGraph graph = DependencyGraph::trace(*net, x);
  mask_units(graph, random_units(graph, 0.5, 7));
  const Costs costs = count_costs(*net, graph, x);
  compact(*net, x);
  EXPECT_EQ(costs.remaining_parameters, net->num_parameters());
  EXPECT_EQ(costs.remaining_macs, summarize(*net, {6, 1, 5}).macs);
}

TEST(Costs, OfAMaskedBlockAreNothing) {
  const ModulePtr net = make_model("resnet20");
  mask_block(net->find("stage1.1"));
  const Tensor x = noise({1, 3, 8, 8}, 8, DType::f32);
  const Costs costs = costs_of(*net, x);
  const CompactionReport report = compact(*net, x);
  EXPECT_EQ(report.dropped_blocks, std::vector<std::string>({"stage1.1"}));
  EXPECT_EQ(costs.remaining_parameters, net->num_parameters());
  EXPECT_EQ(costs.remaining_macs, summarize(*net, {1, 3, 8, 8}).macs);
}

}  // namespace
}  // namespace espalier
