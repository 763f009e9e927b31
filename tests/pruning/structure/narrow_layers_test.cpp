// Layers that read a part of their input, keep a part of their channels, or have sizes of their own: what compaction
// leaves behind.
#include <nlohmann/json.hpp>

#include "layers/containers.h"
#include "layers/linear.h"
#include "layers/models/lstm_rows.h"
#include "layers/residual.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

using Indices = std::vector<int64_t>;

Tensor taken(const Tensor& x, int axis, const Indices& indices) {
  return index_select(x, axis, Tensor::from(indices, {static_cast<int64_t>(indices.size())}));
}

/// config() rebuilds the module, a clone gives the same bits, and every parameter gets a gradient.
void expect_complete(Module& module, const Shape& input) {
  module.eval();
  const Variable x(noise(input, 5, module.parameters().empty() ? DType::f32 : module.parameters()[0].data().dtype()));
  const Tensor y = module(x).data();
  const ModulePtr copy = module.clone();
  EXPECT_EQ(max_difference((*copy)(x).data(), y), 0);
  EXPECT_EQ(copy->config(), module.config());
  const ModulePtr rebuilt = module_from_config(module.config());
  for (const Parameter& parameter : rebuilt->parameters())
    if (parameter.data().dtype() != y.dtype()) rebuilt->to(y.dtype());
  load_state(*rebuilt, state_of(module));
  rebuilt->eval();
  EXPECT_EQ(max_difference((*rebuilt)(x).data(), y), 0);
  if (module.parameters().empty()) return;
  sum(square(module(x))).backward();
  for (const auto& [name, parameter] : module.named_parameters()) EXPECT_TRUE(parameter.grad().defined()) << name;
}

/// As compaction leaves it: the weight has a column for each of these inputs.
Linear narrow_linear(int64_t in_features, int64_t out_features, const Indices& inputs) {
  Linear layer(static_cast<int64_t>(inputs.size()), out_features);
  layer.select_inputs(in_features, inputs);
  return layer;
}
Conv2d narrow_conv2d(int64_t in_channels, int64_t out_channels, const Indices& inputs, const Conv2dOptions& options) {
  Conv2d layer(static_cast<int64_t>(inputs.size()), out_channels, options);
  layer.select_inputs(in_channels, inputs);
  return layer;
}

Indices inputs_of(const Module& layer) { return layer.channels().readers.at(0).inputs; }

TEST(NarrowLinear, ReadsItsInputsOnly) {
  Linear layer = narrow_linear(6, 3, {1, 4});
  layer.to(DType::f64);
  EXPECT_EQ(layer.in_features(), 6);
  EXPECT_EQ(layer.weight().shape(), Shape({3, 2}));
  const Tensor x = noise({5, 6}, 1);
  const Tensor expected =
      linear(Variable(taken(x, 1, {1, 4})), layer.weight().variable(), layer.bias().variable()).data();
  EXPECT_LT(max_difference(layer(Variable(x)).data(), expected), 1e-15);
  EXPECT_EQ(layer.macs({5, 6}, {5, 3}), 5 * 3 * 2);
  expect_complete(layer, {5, 6});
  expect_complete(layer, {2, 4, 6});
}

TEST(NarrowLinear, Errors) {
  expect_error([] { narrow_linear(4, 2, {2, 1}); }, {"increasing", "from 0 to 3"});
  expect_error([] { narrow_linear(4, 2, {2, 4}); }, {"from 0 to 3", "got 4"});
  expect_error(
      [] {
        module_from_config({{"type", "Linear"}, {"in_features", 4}, {"out_features", 1}, {"inputs", {-1}}});
      },
      {"got -1"});
  Linear layer = narrow_linear(4, 2, {0, 3});
  expect_error([&] { layer(Variable(Tensor::zeros({1, 2}))); }, {"(...,4)"});
}

TEST(NarrowLinear, GradientsReachTheInputsThatAreRead) {
  Linear layer = narrow_linear(4, 2, {0, 3});
  layer.to(DType::f64);
  EXPECT_TRUE(
      gradcheck([&](const Variables& v) { return Variables{layer(v[0])}; }, {Variable(noise({3, 4}, 2), true)}));
}

TEST(NarrowLinear, KeepChannelsMovesTheSelection) {
  Linear layer = narrow_linear(6, 3, {1, 4, 5});
  layer.keep_channels({0, 4, 5}, {0, 1, 2});  // feature 1 went: of the weight's columns 1 and 2 stay
  EXPECT_EQ(inputs_of(layer), Indices({1, 2}));
  EXPECT_EQ(layer.in_features(), 3);
  Parameter weight = layer.weight();
  weight.set_data(taken(weight.data(), 1, {1, 2}));
  expect_complete(layer, {2, 3});
  layer.keep_channels({1, 2}, {0, 1, 2});  // all that is left is read
  EXPECT_TRUE(inputs_of(layer).empty());
  EXPECT_EQ(layer.in_features(), 2);
  expect_error([&] { layer.keep_channels({}, {0}); }, {"at least one"});
}

TEST(NarrowLinear, GainsABias) {
  Sequential net(Linear(3, 2, {.bias = false}));
  net.to(DType::f64);
  auto layer = net.find<Linear>("0");
  EXPECT_FALSE(layer->parameter("bias").defined());
  layer->define_parameter("bias", Tensor::zeros({2}, DType::f64));
  expect_error([&] { layer->define_parameter("bias", Tensor::zeros({2}, DType::f64)); }, {"has 'bias' already"});
  expect_error([&] { layer->parameter("biass"); }, {"no parameter 'biass'", "did you mean 'bias'"});
  EXPECT_EQ(net.named_parameters()[1].first, "0.bias");
  EXPECT_EQ(max_difference(layer->bias().data(), Tensor::zeros({2}, DType::f64)), 0);
  expect_complete(net, {4, 3});
}

TEST(NarrowConv2d, ReadsItsInputsOnly) {
  Conv2d layer = narrow_conv2d(5, 3, {0, 3, 4}, {.stride = 2, .padding = 1});
  layer.to(DType::f64);
  const Tensor x = noise({2, 5, 6, 7}, 1);
  const Tensor expected = conv2d(Variable(taken(x, 1, {0, 3, 4})), layer.weight().variable(), layer.bias().variable(),
                                 {.stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1})
                              .data();
  EXPECT_LT(max_difference(layer(Variable(x)).data(), expected), 1e-14);
  EXPECT_EQ(layer.in_channels(), 5);
  EXPECT_EQ(layer.macs({2, 5, 6, 7}, expected.shape()), expected.numel() * 3 * 9);
  expect_complete(layer, {2, 5, 6, 7});
  expect_error([] { narrow_conv2d(4, 4, {0, 1}, {.groups = 2}); }, {"one group"});
}

TEST(NarrowConv2d, ConstantIsExactAtTheBorders) {
  // A channel of 2.5 everywhere goes; its taps times 2.5 stay as the constant.
  Conv2d whole(3, 4, {.stride = 2, .padding = {1, 2}, .dilation = {1, 2}});
  whole.to(DType::f64);
  Tensor x = noise({2, 3, 7, 8}, 3);
  Tensor channel = x.slice(1, 1, 2);
  channel.fill_(2.5);
  const Tensor expected = whole(Variable(x)).data();

  Conv2d layer(2, 4, {.stride = 2, .padding = {1, 2}, .dilation = {1, 2}});
  layer.to(DType::f64);
  Parameter weight = layer.weight(), bias = layer.bias();
  weight.set_data(taken(whole.weight().data(), 1, {0, 2}));
  bias.set_data(whole.bias().data());
  EXPECT_TRUE(layer.named_buffers().empty());
  layer.set_buffer("constant", whole.weight().data().slice(1, 1, 2) * 2.5);
  const Tensor narrow = taken(x, 1, {0, 2});
  EXPECT_LT(max_difference(layer(Variable(narrow)).data(), expected), 1e-13);
  EXPECT_EQ(layer.named_buffers().size(), 1u);
  EXPECT_EQ(layer.config()["constant"], true);
  expect_complete(layer, narrow.shape());

  layer.keep_channels({0, 1}, {1, 3});
  weight.set_data(taken(weight.data(), 0, {1, 3}));
  bias.set_data(taken(bias.data(), 0, {1, 3}));
  EXPECT_LT(max_difference(layer(Variable(narrow)).data(), taken(expected, 1, {1, 3})), 1e-13);
  expect_complete(layer, narrow.shape());
}

TEST(NarrowConv2d, GroupsGo) {
  for (const int64_t groups : {4, 2}) {
    Conv2d whole(4, 8, {.padding = 1, .groups = groups});
    whole.to(DType::f64);
    const Tensor x = noise({1, 4, 5, 5}, 4), expected = whole(Variable(x)).data();
    const Indices inputs = groups == 4 ? Indices{0, 2} : Indices{2, 3};
    const Indices outputs = groups == 4 ? Indices{0, 1, 4, 5} : Indices{4, 5, 6, 7};
    Parameter weight = whole.weight(), bias = whole.bias();
    expect_error([&] { Conv2d(4, 4, {.groups = 2}).keep_channels({0, 1, 2}, {0, 1, 2, 3}); }, {"as many in each"});
    whole.keep_channels(inputs, outputs);
    weight.set_data(taken(weight.data(), 0, outputs));
    bias.set_data(taken(bias.data(), 0, outputs));
    EXPECT_EQ(whole.options().groups, groups == 4 ? 2 : 1);
    EXPECT_LT(max_difference(whole(Variable(taken(x, 1, inputs))).data(), taken(expected, 1, outputs)), 1e-14);
    expect_complete(whole, {1, 2, 5, 5});
  }
}

TEST(NarrowConv2d, EachGroupLosesAsMany) {
  Conv2d whole(6, 4, {.groups = 2});
  whole.to(DType::f64);
  Tensor x = noise({1, 6, 4, 4}, 4);
  for (const int64_t dead : {1, 4}) x.slice(1, dead, dead + 1).fill_(0);
  const Tensor expected = whole(Variable(x)).data();
  whole.keep_channels({0, 2, 3, 5}, {0, 1, 2, 3});
  Parameter weight = whole.weight();
  weight.set_data(taken(weight.data(), 1, {0, 2}));
  EXPECT_EQ(whole.options().groups, 2);
  EXPECT_LT(max_difference(whole(Variable(taken(x, 1, {0, 2, 3, 5}))).data(), expected), 1e-14);
  expect_complete(whole, {1, 4, 4, 4});
}

TEST(NarrowBatchNorm, StatisticsFollow) {
  BatchNorm2d layer(4);
  layer.to(DType::f64);
  layer(Variable(noise({3, 4, 2, 2}, 6) * 3.0 + 1.0));
  layer.eval();
  const Tensor x = noise({3, 4, 2, 2}, 7), expected = layer(Variable(x)).data();
  layer.keep_channels({1, 3}, {1, 3});
  for (Parameter parameter : layer.parameters()) parameter.set_data(taken(parameter.data(), 0, {1, 3}));
  EXPECT_LT(max_difference(layer(Variable(taken(x, 1, {1, 3}))).data(), taken(expected, 1, {1, 3})), 1e-15);
  expect_complete(layer, {3, 2, 2, 2});
  expect_error([&] { layer.keep_channels({0}, {1}); }, {"one list of channels"});
}

TEST(NarrowPadShortcut, AnyPositions) {
  PadShortcut layer(2, 5, {.stride = 1, .positions = {0, 3}});
  const Tensor x = noise({2, 2, 3, 3}, 8), y = layer(Variable(x)).data();
  EXPECT_EQ(max_difference(taken(y, 1, {0, 3}), x), 0);
  EXPECT_EQ(max_difference(taken(y, 1, {1, 2, 4}), Tensor::zeros({2, 3, 3, 3}, DType::f64)), 0);
  expect_complete(layer, {2, 2, 3, 3});
  expect_error([] { PadShortcut(2, 5, {.positions = {1}}); }, {"each of 2", "got 1"});
  expect_error([] { PadShortcut(2, 5, {.positions = {1, 5}}); }, {"from 0 to 4"});
}

TEST(NarrowPadShortcut, KeepChannels) {
  PadShortcut layer(4, 8, {.stride = 2});  // inputs land on 2, 3, 4, 5
  const Tensor x = noise({1, 4, 4, 4}, 9), y = layer(Variable(x)).data();
  expect_error([&] { layer.keep_channels({0, 1}, {0, 1, 2}); }, {"input channel 1 stays", "output channel 3"});
  layer.keep_channels({1, 3}, {0, 3, 5, 6, 7});
  EXPECT_EQ(layer.positions(), Indices({1, 2}));
  EXPECT_FALSE(layer.config().contains("positions"));  // the middle again
  layer.keep_channels({0, 1}, {1, 2, 3, 4});
  EXPECT_EQ(layer.positions(), Indices({0, 1}));
  EXPECT_TRUE(layer.config().contains("positions"));
  EXPECT_EQ(max_difference(layer(Variable(taken(x, 1, {1, 3}))).data(), taken(y, 1, {3, 5, 6, 7})), 0);
}

TEST(NarrowLstm, LayersAndDirectionsOfOneSizeEach) {
  LSTM lstm(3, 9, {.num_layers = 2, .bidirectional = true, .batch_first = true, .hidden_sizes = {4, 2, 3, 5}});
  lstm.to(DType::f64);
  EXPECT_EQ(lstm.hidden_sizes(), Indices({4, 2, 3, 5}));
  const auto parameters = lstm.named_parameters();
  const auto shape_of = [&](const std::string& name) {
    for (const auto& [own, parameter] : parameters)
      if (own == name) return parameter.shape();
    return Shape{};
  };
  EXPECT_EQ(shape_of("weight_ih_l0_reverse"), Shape({8, 3}));
  EXPECT_EQ(shape_of("weight_ih_l1"), Shape({12, 6}));
  EXPECT_EQ(shape_of("weight_hh_l1_reverse"), Shape({20, 5}));

  const Variable x(noise({2, 4, 3}, 10));
  const LstmResult result = lstm(x, LstmInputs{});
  EXPECT_EQ(result.output.shape(), Shape({2, 4, 8}));
  EXPECT_FALSE(result.h.defined());
  ASSERT_EQ(result.last_h.size(), 4u);
  EXPECT_EQ(result.last_c[3].shape(), Shape({2, 5}));
  EXPECT_EQ(max_difference(result.last_h[2].data(), result.output.data().select(1, 3).slice(1, 0, 3)), 0);
  expect_error([&] { lstm(x, LstmInputs{.h0 = Tensor::zeros({4, 2, 4}, DType::f64)}); }, {"h0", "4, 2, 3, 5"});
  expect_error([] { LSTM(3, 4, {.num_layers = 2, .hidden_sizes = {4}}); }, {"each of 2", "got 1"});
  expect_complete(lstm, {2, 4, 3});
}

TEST(NarrowLstm, EqualSizesKeepTheStackedStates) {
  LSTM lstm(3, 4, {.num_layers = 2});
  const LstmResult result = lstm(Variable(noise({5, 2, 3}, 11, DType::f32)), LstmInputs{});
  EXPECT_EQ(result.h.shape(), Shape({2, 2, 4}));
  EXPECT_EQ(max_difference(result.h.data().select(0, 1), result.last_h[1].data()), 0);
  EXPECT_FALSE(lstm.config().contains("hidden_sizes"));
}

TEST(NarrowLstmRows, ConfigRebuilds) {
  const nlohmann::json config = {{"type", "LstmRows"},     {"row_size", 6},         {"classes", 3},
                                 {"hidden_size", 4},       {"num_layers", 2},       {"dropout", 0.0},
                                 {"hidden_sizes", {4, 7}}, {"fc_inputs", {1, 2, 6}}};
  const ModulePtr net = module_from_config(config);
  EXPECT_EQ(net->config(), config);
  EXPECT_EQ(net->find<Linear>("fc")->weight().shape(), Shape({3, 3}));
  expect_complete(*net, {2, 1, 5, 6});
}

TEST(NarrowBasicBlock, ConfigRebuildsItsParts) {
  BasicBlock block(4, 6, {.stride = 2, .width = 3});
  EXPECT_FALSE(block.config().contains("parts"));
  block.conv2()->set_buffer("constant", noise({6, 1, 3, 3}, 12, DType::f32));
  block.conv2()->define_parameter("bias", Tensor::zeros({6}));
  block.shortcut()->keep_channels({0, 1, 2, 3}, {1, 2, 3, 4, 5});
  block.conv2()->keep_channels({0, 1, 2}, {1, 2, 3, 4, 5});
  block.bn2()->keep_channels({1, 2, 3, 4, 5}, {1, 2, 3, 4, 5});
  for (Parameter parameter :
       {block.conv2()->weight(), block.conv2()->bias(), block.bn2()->weight(), block.bn2()->bias()})
    parameter.set_data(taken(parameter.data(), 0, {1, 2, 3, 4, 5}));
  EXPECT_TRUE(block.config().contains("parts"));
  expect_complete(block, {2, 4, 6, 6});
  expect_error(
      [] {
        module_from_config({{"type", "BasicBlock"},
                            {"in_channels", 2},
                            {"out_channels", 2},
                            {"parts", {{"conv1", {{"type", "ReLU"}}}}}});
      },
      {"conv1", "ReLU"});
}

TEST(NarrowBasicBlock, ProjectionWithASelection) {
  BasicBlock block(4, 4, {.stride = 2, .shortcut = Shortcut::projection});
  block.shortcut()->find<Conv2d>("conv")->select_inputs(4, {0, 2});
  Parameter weight = block.shortcut()->find<Conv2d>("conv")->weight();
  weight.set_data(taken(weight.data(), 1, {0, 2}));
  EXPECT_TRUE(block.config().contains("parts"));
  expect_complete(block, {2, 4, 6, 6});
}

}  // namespace
}  // namespace espalier
