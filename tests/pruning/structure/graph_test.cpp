// The dependency graph against groups written down by hand, and what it promises: a masked unit is constant for whoever
// reads it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "autograd/node.h"
#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/models/zoo.h"
#include "layers/norm.h"
#include "layers/pooling.h"
#include "layers/residual.h"
#include "pruning/structure/graph.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

/// A module that is its forward function.
class Custom : public Module {
 public:
  using Forward = std::function<Variable(Custom&, const Variable&)>;
  explicit Custom(Forward forward) : forward_(std::move(forward)) {}
  Variable forward(const Variable& x) override { return forward_(*this, x); }
  std::string type() const override { return "Custom"; }
  nlohmann::json config() const override { return {{"type", type()}}; }
  Custom& with(const std::string& name, ModulePtr child) {
    add_child(name, std::move(child));
    return *this;
  }
  Parameter& parameter(const std::string& name, const Shape& shape) { return add_parameter(name, noise32(shape)); }
  Variable call(const std::string& name, const Variable& x) { return (*find_child(name))(x); }
  static Tensor noise32(const Shape& shape) { return noise(shape, 7, DType::f32); }

 private:
  ModulePtr find_child(const std::string& name) const {
    for (const auto& [own, child] : children())
      if (own == name) return child;
    return nullptr;
  }
  Forward forward_;
};

DependencyGraph trace(Module& net, const Shape& input) {
  return DependencyGraph::trace(net, noise(input, 1, DType::f32));
}
DependencyGraph trace(const ModulePtr& net, const Shape& input) { return trace(*net, input); }

/// "conv1.weight[0] bn.weight[0] conv2.weight[1]": a group's members.
std::string members(const ChannelGroup& group) {
  std::string text;
  for (const GroupMember& m : group.members) text += fmt::format("{}{}[{}]", text.empty() ? "" : " ", m.name, m.axis);
  return text;
}

const GroupMember& member(const ChannelGroup& group, const std::string& name) {
  for (const GroupMember& m : group.members)
    if (m.name == name) return m;
  throw ArgumentError("no member " + name + " in " + members(group));
}

std::vector<int64_t> count_up(int64_t n, int64_t repeat = 1) {
  std::vector<int64_t> units;
  for (int64_t i = 0; i < n * repeat; ++i) units.push_back(i / repeat);
  return units;
}

std::vector<std::string> names(const DependencyGraph& graph) {
  std::vector<std::string> result;
  for (const ChannelGroup& group : graph.groups()) result.push_back(group.name);
  return result;
}

TEST(DependencyGraph, LayersOfAPerceptron) {
  const auto net = share(Sequential(Linear(4, 3), ReLU(), Linear(3, 5, {.bias = false}), Tanh(), Linear(5, 2)));
  const DependencyGraph graph = trace(net, {2, 4});
  EXPECT_EQ(names(graph), (std::vector<std::string>{"input", "0", "2", "4"}));
  EXPECT_EQ(members(graph.groups()[0]), "0.weight[1]");
  EXPECT_EQ(graph.groups()[0].fixed, "input of the network");
  EXPECT_EQ(members(graph.find("0")), "0.weight[0] 0.bias[0] 2.weight[1]");
  EXPECT_EQ(graph.find("0").units, 3);
  EXPECT_EQ(graph.find("0").fixed, "");
  EXPECT_EQ(member(graph.find("0"), "2.weight").roles, kReads);
  EXPECT_EQ(members(graph.find("2")), "2.weight[0] 4.weight[1]");
  EXPECT_EQ(member(graph.find("2"), "4.weight").units, count_up(5));
  EXPECT_EQ(graph.find("4").fixed, "output of the network");
}

TEST(DependencyGraph, FlattenedImagesGiveEachChannelManyColumns) {
  const auto net = share(Sequential(Conv2d(3, 4, {.kernel = 3}), BatchNorm2d(4), ReLU(), Conv2d(4, 6, {.kernel = 3}),
                                    MaxPool2d(), Flatten(), Linear(24, 10)));
  const DependencyGraph graph = trace(net, {2, 3, 8, 8});
  const ChannelGroup& first = graph.find("0");
  EXPECT_EQ(members(first), "0.weight[0] 0.bias[0] 1.weight[0] 1.bias[0] 3.weight[1]");
  EXPECT_EQ(member(first, "1.weight").roles, kScales);
  const ChannelGroup& second = graph.find("3");
  EXPECT_EQ(members(second), "3.weight[0] 3.bias[0] 6.weight[1]");
  EXPECT_EQ(second.units, 6);
  EXPECT_EQ(member(second, "6.weight").units, count_up(6, 4));  // 2x2 pixels each

  const ModuleChannels& flatten = graph.modules()[5];
  EXPECT_EQ(flatten.name, "5");
  ASSERT_EQ(flatten.inputs.size(), 6U);
  ASSERT_EQ(flatten.outputs.size(), 24U);
  const int group = static_cast<int>(&second - graph.groups().data());
  EXPECT_EQ(flatten.outputs[9].group, group);
  EXPECT_EQ(flatten.outputs[9].unit, 2);
  EXPECT_EQ(graph.modules()[6].inputs[9].unit, 2);
  EXPECT_EQ(graph.modules()[0].inputs[0].group, 0);
}

TEST(DependencyGraph, PixelsBeforeChannelsAreFollowedToo) {
  auto net = share(Custom([](Custom& m, const Variable& x) {
    return m.call("fc", flatten(permute(m.call("conv", x), {0, 2, 3, 1})));  // (N,H,W,C) -> (N,HWC)
  }));
  net->with("conv", share(Conv2d(1, 3, {.kernel = 1}))).with("fc", share(Linear(12, 2)));
  const DependencyGraph graph = trace(*net, {1, 1, 2, 2});
  EXPECT_EQ(member(graph.find("conv"), "fc.weight").units, (std::vector<int64_t>{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}));
}

TEST(DependencyGraph, ResidualSumsTieTheirBranches) {
  // The second block pads 4 channels to 8, two zeros on each side: its channels 2 to 5 are the first stage's.
  Sequential blocks;
  blocks.add("conv", Conv2d(3, 4, {.kernel = 3, .padding = 1, .bias = false}));
  blocks.add("a", BasicBlock(4, 4));
  blocks.add("b", BasicBlock(4, 8, {.stride = 2}));
  blocks.add("c", BasicBlock(8, 6, {.stride = 2, .shortcut = Shortcut::projection}));
  blocks.add("pool", AdaptiveAvgPool2d());
  blocks.add("flatten", Flatten());
  blocks.add("fc", Linear(6, 2));
  const auto net = share(std::move(blocks));
  const DependencyGraph graph = trace(net, {1, 3, 8, 8});
  EXPECT_EQ(names(graph), (std::vector<std::string>{"input", "conv + a.conv2 + b.conv2", "a.conv1", "b.conv1",
                                                    "b.conv2", "c.conv1", "c.conv2 + c.shortcut.conv", "fc"}));
  const ChannelGroup& stream = graph.find("conv + a.conv2 + b.conv2");
  EXPECT_EQ(members(stream),
            "conv.weight[0] a.conv1.weight[1] a.conv2.weight[0] a.bn2.weight[0] a.bn2.bias[0] b.conv1.weight[1] "
            "b.conv2.weight[0] b.bn2.weight[0] b.bn2.bias[0] c.conv1.weight[1] c.shortcut.conv.weight[1]");
  EXPECT_EQ(stream.units, 4);
  EXPECT_EQ(member(stream, "b.conv2.weight").units, (std::vector<int64_t>{-1, -1, 0, 1, 2, 3, -1, -1}));
  EXPECT_EQ(member(graph.find("b.conv2"), "b.conv2.weight").units, (std::vector<int64_t>{0, 1, -1, -1, -1, -1, 2, 3}));
  EXPECT_EQ(graph.find("c.conv2 + c.shortcut.conv").units, 6);
  for (size_t i = 1; i + 1 < graph.groups().size(); ++i) EXPECT_EQ(graph.groups()[i].fixed, "");
}

TEST(DependencyGraph, ASumWithTheInputCanLoseNothing) {
  const auto net = share(Sequential(Residual(share(Conv2d(3, 3, {.kernel = 1}))), Conv2d(3, 2, {.kernel = 1})));
  const DependencyGraph graph = trace(net, {1, 3, 4, 4});
  EXPECT_EQ(graph.find("0.body").fixed, "input of the network");
}

TEST(DependencyGraph, ConcatenationPutsChannelsSideBySide) {
  auto net = share(Custom([](Custom& m, const Variable& x) {
    Variable y = m.call("a", x);
    y = cat({y, m.call("b", y)}, 1);
    y = cat({y, m.call("c", y)}, 1);
    return m.call("head", y);
  }));
  net->with("a", share(Conv2d(1, 2, {.kernel = 1})))
      .with("b", share(Conv2d(2, 3, {.kernel = 1})))
      .with("c", share(Conv2d(5, 4, {.kernel = 1})))
      .with("head", share(Conv2d(9, 1, {.kernel = 1})));
  const DependencyGraph graph = trace(*net, {1, 1, 3, 3});
  EXPECT_EQ(members(graph.find("a")), "a.weight[0] a.bias[0] b.weight[1] c.weight[1] head.weight[1]");
  EXPECT_EQ(member(graph.find("b"), "c.weight").units, (std::vector<int64_t>{-1, -1, 0, 1, 2}));
  EXPECT_EQ(member(graph.find("b"), "head.weight").units, (std::vector<int64_t>{-1, -1, 0, 1, 2, -1, -1, -1, -1}));
  EXPECT_EQ(member(graph.find("c"), "head.weight").units, (std::vector<int64_t>{-1, -1, -1, -1, -1, 0, 1, 2, 3}));
}

TEST(DependencyGraph, DepthwiseFiltersGoWithTheirInput) {
  const auto net = share(Sequential(Conv2d(1, 4, {.kernel = 1, .bias = false}),
                                    Conv2d(4, 8, {.kernel = 3, .groups = 4}), Conv2d(8, 2, {.kernel = 1})));
  const DependencyGraph graph = trace(net, {1, 1, 5, 5});
  const ChannelGroup& group = graph.find("0 + 1");
  EXPECT_EQ(members(group), "0.weight[0] 1.weight[0] 1.bias[0] 2.weight[1]");
  EXPECT_EQ(group.units, 4);
  EXPECT_EQ(member(group, "1.weight").units, count_up(4, 2));
  EXPECT_EQ(member(group, "2.weight").units, count_up(4, 2));
}

TEST(DependencyGraph, GroupedConvolutionsLoseTheSameInEachGroup) {
  const auto net = share(
      Sequential(Conv2d(1, 6, {.kernel = 1}), Conv2d(6, 4, {.kernel = 3, .groups = 2}), Conv2d(4, 2, {.kernel = 1})));
  const DependencyGraph graph = trace(net, {1, 1, 5, 5});
  EXPECT_EQ(graph.find("0").units, 3);
  EXPECT_EQ(member(graph.find("0"), "0.weight").units, (std::vector<int64_t>{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(member(graph.find("0"), "1.weight").units, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(graph.find("1").units, 2);
  EXPECT_EQ(member(graph.find("1"), "1.weight").units, (std::vector<int64_t>{0, 1, 0, 1}));
  EXPECT_EQ(member(graph.find("1"), "2.weight").units, (std::vector<int64_t>{0, 1, 0, 1}));
}

TEST(DependencyGraph, HiddenUnitsOfAStackedBidirectionalLstm) {
  auto net = share(Custom([](Custom& m, const Variable& x) { return m.call("fc", m.call("lstm", x)); }));
  net->with("lstm", share(LSTM(5, 3, {.num_layers = 2, .bidirectional = true}))).with("fc", share(Linear(6, 2)));
  const DependencyGraph graph = trace(*net, {4, 2, 5});
  EXPECT_EQ(names(graph),
            (std::vector<std::string>{"input", "lstm", "lstm.l0_reverse", "lstm.l1", "lstm.l1_reverse", "fc"}));
  const ChannelGroup& backward = graph.find("lstm.l0_reverse");
  EXPECT_EQ(members(backward),
            "lstm.weight_ih_l0_reverse[0] lstm.weight_hh_l0_reverse[0] lstm.bias_ih_l0_reverse[0] "
            "lstm.bias_hh_l0_reverse[0] lstm.weight_ih_l1[1] lstm.weight_ih_l1_reverse[1]");
  EXPECT_EQ(backward.units, 3);
  EXPECT_EQ(member(backward, "lstm.weight_ih_l0_reverse").gates, 4);
  EXPECT_EQ(member(backward, "lstm.weight_ih_l0_reverse").units, count_up(3));
  EXPECT_TRUE(member(backward, "lstm.weight_hh_l0_reverse").recurrent);
  EXPECT_EQ(member(backward, "lstm.weight_ih_l1").units, (std::vector<int64_t>{-1, -1, -1, 0, 1, 2}));
  EXPECT_EQ(member(graph.find("lstm.l1"), "fc.weight").units, (std::vector<int64_t>{0, 1, 2, -1, -1, -1}));
  EXPECT_EQ(graph.modules()[0].outputs[4].unit, 1);

  const std::vector<Site> sites = channel_sites(graph);
  ASSERT_EQ(sites.size(), 4U);
  EXPECT_EQ(sites[0].members[0].pattern, Pattern::channel(0, 4));
  EXPECT_EQ(sites[0].members[1].pattern, Pattern::recurrent());
  EXPECT_EQ(sites[0].members[4].pattern, Pattern::channel(1));
  EXPECT_FALSE(sites[0].members[4].masked);
  std::vector<bool> exists(3, true);
  exists[1] = false;
  set_existing_units(sites[0], exists);
  EXPECT_EQ(existing_units(sites[0]), exists);
}

TEST(DependencyGraph, AnLstmWrittenStepByStepHasTheGroupsOfTheFusedOne) {
  auto net = share(Custom([](Custom& m, const Variable& x) {
    constexpr int64_t kHidden = 3;
    Variable h = Tensor::zeros({x.size(1), kHidden}), c = h;
    for (int64_t t = 0; t < x.size(0); ++t) {
      const Variable gates = m.call("ih", select(x, 0, t)) + m.call("hh", h);
      const auto gate = [&](int64_t k) { return slice(gates, 1, k * kHidden, (k + 1) * kHidden); };
      c = sigmoid(gate(1)) * c + sigmoid(gate(0)) * tanh(gate(2));
      h = sigmoid(gate(3)) * tanh(c);
    }
    return m.call("fc", h);
  }));
  net->with("ih", share(Linear(2, 12))).with("hh", share(Linear(3, 12))).with("fc", share(Linear(3, 2)));
  const DependencyGraph graph = trace(*net, {2, 1, 2});
  const ChannelGroup& group = graph.find("ih + hh");
  EXPECT_EQ(group.units, 3);
  const std::vector<int64_t> rows = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
  EXPECT_EQ(member(group, "ih.weight").units, rows);
  EXPECT_EQ(member(group, "hh.bias").units, rows);
  EXPECT_EQ(member(group, "fc.weight").units, count_up(3));
}

TEST(DependencyGraph, ALayerUsedTwiceJoinsBothUses) {
  const ModulePtr shared = share(Linear(4, 4));
  Sequential layers;
  layers.add(Linear(2, 4)).add(shared).add(ReLU()).add(shared).add(Linear(4, 2));
  const auto net = share(std::move(layers));
  const DependencyGraph graph = trace(net, {1, 2});
  EXPECT_EQ(names(graph), (std::vector<std::string>{"input", "0 + 1", "4"}));
  EXPECT_EQ(members(graph.find("0 + 1")), "0.weight[0] 0.bias[0] 1.weight[1] 1.weight[0] 1.bias[0] 4.weight[1]");
  EXPECT_EQ(graph.modules().size(), 5U);  // each call
}

TEST(DependencyGraph, NormalisationOverAnAxisKeepsItWhole) {
  const auto net = share(Sequential(Linear(4, 6), LayerNorm(6), ReLU(), Linear(6, 5), Softmax(), Linear(5, 2)));
  const DependencyGraph graph = trace(net, {3, 4});
  EXPECT_EQ(graph.find("0").fixed, "normalised over, by mean and variance");
  EXPECT_EQ(members(graph.find("0")), "0.weight[0] 0.bias[0] 1.weight[0] 1.bias[0] 3.weight[1]");
  EXPECT_EQ(graph.find("3").fixed, "normalised over, by softmax");
  EXPECT_TRUE(channel_sites(graph).empty());
}

TEST(DependencyGraph, AttentionTiesQueriesToKeysAndHeadsStayTogether) {
  auto net = share(Custom([](Custom& m, const Variable& x) {
    const auto heads = [&](const std::string& name) {  // (N,T,2*3) -> (N,2,T,3)
      return permute(reshape(m.call(name, x), {x.size(0), x.size(1), 2, 3}), {0, 2, 1, 3});
    };
    const Variable queries = heads("q"), keys = heads("k");
    const Variable scores = matmul(queries, transpose(keys, 2, 3));
    const Variable mixed = matmul(softmax(scores), heads("v"));
    return m.call("out", reshape(permute(mixed, {0, 2, 1, 3}), x.shape()));
  }));
  for (const char* name : {"q", "k", "v", "out"}) net->with(name, share(Linear(6, 6)));
  const DependencyGraph graph = trace(*net, {2, 5, 6});
  const ChannelGroup& group = graph.find("q + k + v");
  EXPECT_EQ(group.units, 2);  // a head
  EXPECT_EQ(group.fixed, "");
  EXPECT_EQ(member(group, "q.weight").units, count_up(2, 3));
  EXPECT_EQ(member(group, "out.weight").units, count_up(2, 3));
}

TEST(DependencyGraph, EmbeddingsMakeTheirColumns) {
  auto net = share(Custom([](Custom& m, const Variable& ids) {
    const Variable words = m.call("words", ids), places = m.call("places", ids);
    return m.call("fc", m.call("lstm", words + places));
  }));
  net->with("words", share(Embedding(7, 4)))
      .with("places", share(Embedding(9, 4)))
      .with("lstm", share(LSTM(4, 3)))
      .with("fc", share(Linear(3, 2)));
  const DependencyGraph graph = DependencyGraph::trace(*net, Tensor::from<int64_t>({0, 3, 6, 1, 1, 2}, {3, 2}));
  const ChannelGroup& group = graph.find("words + places");
  EXPECT_EQ(members(group), "words.weight[1] places.weight[1] lstm.weight_ih_l0[1]");
  EXPECT_EQ(group.units, 4);
  EXPECT_EQ(group.fixed, "");
  EXPECT_EQ(names(graph), (std::vector<std::string>{"words + places", "lstm", "fc"}));
}

TEST(DependencyGraph, MasksTransformsAndFrozenLayersDontHideParameters) {
  const auto net = share(Sequential(Linear(4, 3), Linear(3, 3), Linear(3, 2)));
  std::vector<Parameter> p = net->parameters();
  p[0].set_mask(Mask::from_units({3, 4}, Pattern::channel(0), {true, false, true}));
  p[2].add_transform(share(Custom([](Custom&, const Variable& leaf) { return leaf * sigmoid(leaf * 3.0); })));
  p[4].set_requires_grad(false);
  const NoGrad no_grad;
  const DependencyGraph graph = trace(net, {1, 4});
  EXPECT_EQ(names(graph), (std::vector<std::string>{"input", "0", "1", "2"}));
  EXPECT_EQ(members(graph.find("1")), "1.weight[0] 1.bias[0] 2.weight[1]");
  EXPECT_FALSE(p[4].requires_grad());
  EXPECT_FALSE(grad_enabled());
  EXPECT_TRUE(net->is_training());
}

TEST(DependencyGraph, ChosenChannelsAreFollowed) {
  auto net = share(Custom([](Custom& m, const Variable& x) {
    return m.call("b", index_select(m.call("a", x), 1, Tensor::from<int64_t>({3, 0, 2}, {3})));
  }));
  net->with("a", share(Linear(2, 4))).with("b", share(Linear(3, 1)));
  const DependencyGraph graph = trace(*net, {1, 2});
  EXPECT_EQ(member(graph.find("a"), "b.weight").units, (std::vector<int64_t>{2, 0, 1}));
  EXPECT_EQ(member(graph.find("a#2"), "a.weight").units, (std::vector<int64_t>{-1, 0, -1, -1}));  // read by nobody
}

TEST(DependencyGraph, EveryModelOfTheZooHasChannelsThatCanGo) {
  for (const std::string& listed : model_names()) {
    const std::string name = listed == "mlp:SIZES" ? "mlp:8,6" : listed;
    SCOPED_TRACE(name);
    const Shape image = model_image(name);
    const ModulePtr net = make_model(name);
    const DependencyGraph graph = trace(net, {1, image[0], image[1], image[2]});
    int64_t free = 0, gone = 0;
    for (const ChannelGroup& group : graph.groups()) {
      if (group.fixed.empty()) ++free;
      if (!group.fixed.empty()) gone += group.fixed != "input of the network" && group.fixed != "output of the network";
    }
    EXPECT_EQ(gone, 0);
    EXPECT_GE(free, 1);
    EXPECT_EQ(static_cast<int64_t>(channel_sites(graph).size()), free);
    // Every weight makes channels of some group and reads those of another.
    for (const auto& [parameter, value] : net->named_parameters())
      for (int axis = 0; axis < std::min(value.shape().rank(), 2); ++axis) {
        bool found = axis == 1 && parameter.find("weight_hh") != std::string::npos;  // its column goes with its rows
        for (const ChannelGroup& group : graph.groups())
          for (const GroupMember& m : group.members) found |= m.name == parameter && m.axis == axis;
        EXPECT_TRUE(found) << parameter << " axis " << axis;
      }
  }
}

/// Masks a third of every site's units and checks that what Linear and Conv2d take of them doesn't depend on the image.
void expect_masked_units_constant(const ModulePtr& net, const Shape& input, int64_t at_least) {
  Generator generator(4);
  for (auto& [parameter_name, parameter] : net->named_parameters())  // shifts that aren't 0
    if (parameter.shape().rank() == 1) parameter.set_data(randn(parameter.shape(), generator));
  const DependencyGraph graph = trace(net, input);
  std::vector<std::vector<bool>> exists;  // by group
  const std::vector<Site> sites = channel_sites(graph);
  size_t site = 0;
  for (const ChannelGroup& group : graph.groups()) {
    std::vector<bool>& units = exists.emplace_back(static_cast<size_t>(group.units), true);
    if (!group.fixed.empty()) continue;
    for (size_t u = 0; u < units.size(); u += 3) units[u] = false;
    set_existing_units(sites.at(site++), units);
  }
  std::map<std::string, Tensor> seen;
  std::map<const Module*, std::string> places;
  for (const auto& [place, module] : net->named_modules()) places[module.get()] = place;
  const ForwardObserver observer(
      [&](Module& module, const Variable& in, const Variable&) { seen[places[&module]] = in.data(); });
  const NoGrad no_grad;
  net->eval();
  (*net)(noise(input, 11, DType::f32));
  const std::map<std::string, Tensor> first = std::exchange(seen, {});
  (*net)(noise(input, 12, DType::f32) * 3.0);
  int64_t checked = 0, varying = 0;
  for (const ModuleChannels& module : graph.modules()) {
    if (module.module->type() != "Linear" && module.module->type() != "Conv2d") continue;
    for (size_t i = 0; i < module.inputs.size(); ++i) {
      const ChannelRef& ref = module.inputs[i];
      ASSERT_GE(ref.group, 0) << module.name;
      const auto channel = static_cast<int64_t>(i);
      const Tensor a = first.at(module.name).slice(1, channel, channel + 1).contiguous();
      const Tensor b = seen.at(module.name).slice(1, channel, channel + 1).contiguous();
      const bool constant = max(a).item() == min(a).item() && max_difference(a, b) == 0;
      if (exists[static_cast<size_t>(ref.group)][static_cast<size_t>(ref.unit)]) {
        varying += !constant;
      } else {
        ++checked;
        EXPECT_TRUE(constant) << module.name << " channel " << i;
      }
    }
  }
  EXPECT_GE(checked, at_least);
  EXPECT_GT(varying, checked / 2);
}

TEST(DependencyGraph, MaskedUnitsAreConstantForTheirReaders) {
  set_seed(3);
  expect_masked_units_constant(make_model("lenet5"), {2, 1, 28, 28}, 400);
  expect_masked_units_constant(make_model("resnet20", {.height = 16}), {2, 3, 16, 16}, 100);
  expect_masked_units_constant(
      share(Sequential(Conv2d(2, 8, {.kernel = 3}), Tanh(), Conv2d(8, 12, {.kernel = 3, .groups = 2}), BatchNorm2d(12),
                       ReLU(), Conv2d(12, 24, {.kernel = 3, .groups = 12}), GELU(),
                       Residual(share(Conv2d(24, 24, {.kernel = 1}))), Flatten(), Linear(216, 4))),
      {2, 2, 9, 9}, 60);
}

TEST(DependencyGraph, AnOperationWithoutARuleIsNamed) {
  auto net = share(Custom([](Custom& m, const Variable& x) {
    const Variable y = m.call("fc", x);
    return record("swirl", y.data(), {y}, [](const BackwardContext& c) -> Variables { return {c.grad()}; });
  }));
  net->with("fc", share(Linear(3, 4)));
  expect_error([&] { trace(*net, {2, 3}); }, {"[DependencyGraph]", "'swirl'", "(2,4)", "weight_sites"});
  EXPECT_TRUE(net->is_training());
  expect_error([&] { DependencyGraph::trace(*net, Tensor()); }, {"[DependencyGraph]", "example"});
  const auto constant = share(Custom([](Custom&, const Variable&) { return Variable(Tensor::ones({1})); }));
  expect_error([&] { trace(*constant, {2, 3}); }, {"neither on a parameter nor on the input"});
}

TEST(DependencyGraph, GroupsInWordsAndPictures) {
  auto net = share(Custom([](Custom& m, const Variable& x) {
    const Variable features = m.call("fc", flatten(relu(m.call("conv \"a\"", x))));
    return m.call("out", select(m.call("lstm", unsqueeze(features, 0)), 0, 0));
  }));
  net->with("conv \"a\"", share(Conv2d(1, 2, {.kernel = 3})))
      .with("fc", share(Linear(8, 3)))
      .with("lstm", share(LSTM(3, 4)))
      .with("out", share(Linear(4, 2)));
  const DependencyGraph graph = trace(*net, {1, 1, 4, 4});
  EXPECT_EQ(graph.explain("conv \"a\""),
            "conv \"a\": 2 units, each of which can go.\n"
            "unit u is\n"
            "  filter u of conv \"a\".weight (2,1,3,3): makes it\n"
            "  value u of conv \"a\".bias (2): makes it\n"
            "  columns 4u to 4u+3 of fc.weight (3,8): reads it\n");
  const std::string lstm = graph.explain("lstm");
  EXPECT_NE(lstm.find("rows u, u+4, u+8, u+12 of lstm.weight_ih_l0"), std::string::npos) << lstm;
  EXPECT_NE(lstm.find("rows u, u+4, u+8, u+12 and column u of lstm.weight_hh_l0"), std::string::npos) << lstm;
  expect_error([&] { graph.find("lstn"); }, {"'lstn'", "did you mean 'lstm'"});

  EXPECT_EQ(graph.to_table(),
            "units  members  group\n"
            "    1        1  input  (stays whole: input of the network)\n"
            "    2        3  conv \"a\"\n"
            "    3        3  fc\n"
            "    4        5  lstm\n"
            "    2        2  out  (stays whole: output of the network)\n");
  const std::string dot = graph.to_dot();
  EXPECT_TRUE(dot.starts_with("digraph \"channels\" {\n")) << dot;
  EXPECT_NE(dot.find("\"conv \\\"a\\\"\" -> \"fc\" [label=\"2\""), std::string::npos) << dot;
  EXPECT_NE(dot.find("\"input\" -> \"conv \\\"a\\\"\""), std::string::npos) << dot;
  EXPECT_EQ(std::count(dot.begin(), dot.end(), '{'), std::count(dot.begin(), dot.end(), '}'));
}

TEST(InputFeatures, OneSiteForEachNamedWeight) {
  const auto net = share(Sequential(Conv2d(2, 3, {.kernel = 3}), Flatten(), Linear(12, 2)));
  const std::vector<Site> sites = input_feature_sites(*net, {"2.weight"});
  ASSERT_EQ(sites.size(), 1U);
  EXPECT_EQ(sites[0].name, "2.weight");
  EXPECT_EQ(sites[0].units, 12);
  EXPECT_EQ(sites[0].members[0].pattern, Pattern::channel(1));
  expect_error([&] { input_feature_sites(*net, {"2.weigth"}); }, {"'2.weigth'", "did you mean '2.weight'"});
  expect_error([&] { input_feature_sites(*net, {"0.bias"}); }, {"'0.bias'", "two axes"});
}

}  // namespace
}  // namespace espalier
