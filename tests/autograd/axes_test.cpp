// Every operation that the library records says what it does with axes, and says it of the right shapes.
#include "autograd/axes.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "tests/autograd/testing.h"
#include "tests/op_cases.h"

namespace espalier {
namespace {

using testing::expect_contains;
using testing::leaf;
using testing::message_of;

/// The operations behind variables, in the order in which they ran.
std::vector<const Node*> operations_behind(const Variables& variables) {
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> nodes;
  const auto add = [&](const Node* node) {
    if (node && seen.insert(node).second) nodes.push_back(node);
  };
  for (const Variable& variable : variables) add(variable.node().get());
  for (size_t i = 0; i < nodes.size(); ++i)
    for (const Node::Edge& edge : nodes[i]->edges()) add(edge.node.get());
  std::sort(nodes.begin(), nodes.end(), [](const Node* a, const Node* b) { return a->id() < b->id(); });
  return nodes;
}

/// Follows a tape whose leaves are all data.
void follow(const std::vector<const Node*>& nodes) {
  AxisTrace trace;
  std::unordered_map<const Node*, std::vector<TracedTensor>> traced;
  for (const Node* node : nodes) {
    std::vector<TracedTensor> inputs;
    for (size_t i = 0; i < node->edges().size(); ++i) {
      const Node::Edge& edge = node->edges()[i];
      if (edge.node) {
        inputs.push_back(traced.at(edge.node.get())[static_cast<size_t>(edge.output)]);
        continue;
      }
      TracedTensor& x = inputs.emplace_back();
      if (!edge.leaf.defined()) x.kind = TracedTensor::Kind::constant;
      for (const int64_t size : node->input_shapes()[i]) x.axes.push_back(trace.fresh(size));
    }
    traced[node] = follow_axes(trace, *node, inputs);
  }
}

TEST(Axes, NoOperationOfTheTableLacksARule) {
  for (const op_cases::OpCase& op_case : op_cases::all()) {
    SCOPED_TRACE(op_case.name);
    const Variables inputs = op_cases::make_inputs(op_case, DType::f64);
    const Variables outputs = op_case.run(inputs);
    const Variables gradients =
        grad(outputs, inputs,
             {.create_graph = true, .allow_unused = true, .grad_outputs = op_cases::make_output_gradients(outputs)});
    Variables all = outputs;
    for (const Variable& gradient : gradients)
      if (gradient.defined()) all.push_back(gradient);
    for (const Node* node : operations_behind(all)) EXPECT_NE(node->kind().axes, nullptr) << node->operation();

    const std::vector<const Node*> forward = operations_behind(outputs);
    const bool is_empty = std::any_of(forward.begin(), forward.end(),
                                      [](const Node* node) { return node->output_shape(0).numel() == 0; });
    if (is_empty) continue;
    EXPECT_NO_THROW(follow(forward));
  }
}

TEST(Axes, OperandsThatAreBroadcastShareTheirEqualAxes) {
  AxisTrace trace;
  const Variable y = leaf({1, 2, 3, 4, 5, 6}, {2, 3}) + leaf({1, 2, 3});
  const TracedTensor a{.axes = {trace.fresh(2), trace.fresh(3)}}, b{.axes = {trace.fresh(3)}};
  const TracedTensor sum = follow_axes(trace, *y.node(), {a, b})[0];
  EXPECT_EQ(sum.axis(0).indices, a.axis(0).indices);
  EXPECT_EQ(trace.indices.find(a.axis(1).indices[2]), trace.indices.find(b.axis(0).indices[2]));
  EXPECT_NE(trace.indices.find(a.axis(1).indices[1]), trace.indices.find(b.axis(0).indices[2]));
}

TEST(Axes, OfALinearLayerItsRowsMakeChannelsAndItsColumnsReadThem) {
  AxisTrace trace;
  const auto parameter = [&](const char* name, const Shape& shape) {
    TracedParameter traced{name, {}};
    TracedTensor tensor{.kind = TracedTensor::Kind::parameter, .axes = {}};
    for (int a = 0; a < shape.rank(); ++a) {
      const std::vector<int> indices = trace.indices.make(shape[a], true);
      traced.axes.push_back({.indices = indices, .roles = {}});
      tensor.axes.push_back({indices, {{static_cast<int>(trace.parameters.size()), a}}});
    }
    trace.parameters.push_back(traced);
    return tensor;
  };
  const Variable y =
      linear(leaf(std::vector<double>(12, 1), {2, 2, 3}), leaf(std::vector<double>(12, 1), {4, 3}), leaf({1, 2, 3, 4}));
  EXPECT_STREQ(y.node()->operation(), "linear");
  const TracedTensor x{.axes = {trace.fresh(2), trace.fresh(2), trace.fresh(3)}};
  const TracedTensor weight = parameter("weight", {4, 3}), bias = parameter("bias", {4});
  const TracedTensor out = follow_axes(trace, *y.node(), {x, weight, bias})[0];
  EXPECT_EQ(trace.parameters[0].axes[0].roles, kProduces);
  EXPECT_EQ(trace.parameters[0].axes[1].roles, kReads);
  EXPECT_EQ(trace.parameters[1].axes[0].roles, kProduces);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(trace.indices.find(out.axis(2).indices[i]), trace.indices.find(weight.axis(0).indices[i]));
    EXPECT_EQ(trace.indices.find(out.axis(2).indices[i]), trace.indices.find(bias.axis(0).indices[i]));
  }
  EXPECT_EQ(trace.indices.find(x.axis(2).indices[1]), trace.indices.find(weight.axis(1).indices[1]));
}

std::vector<TracedTensor> too_short(const AxisCall& c) { return {{.axes = {c.trace.fresh(1)}}}; }

TEST(Axes, ARuleThatIsMissingOrWrongIsNamed) {
  AxisTrace trace;
  const auto follow_one = [&](const Operation& operation, Attributes attributes = {}) {
    const Variable x = leaf({1, 2});
    const Variable y = record(operation, x.data(), {x}, nullptr, SaveOutputs::no, std::move(attributes));
    follow_axes(trace, *y.node(), {{.axes = {trace.fresh(2)}}});
  };
  expect_contains(message_of([&] { follow_one("swirl"); }), {"[DependencyGraph]", "'swirl'", "(2)", "autograd/axes.h"});
  expect_contains(message_of([&] { follow_one({"swirl", too_short}); }), {"rule of 'swirl'", "(2)"});
  expect_contains(message_of([&] {
                    follow_one({"swirl",
                                [](const AxisCall& c) {
                                  c.node.attributes<int>();
                                  return std::vector<TracedTensor>{c.in(0)};
                                }},
                               std::string("no number"));
                  }),
                  {"[swirl]", "attributes"});
  EXPECT_NO_THROW(follow_one({"swirl", axes::elementwise}));
  EXPECT_EQ(trace.indices.fixed(0), "");
}

TEST(Axes, WhatStaysWholeSaysWhy) {
  AxisTrace trace;
  const Variable x = leaf({1, 2});
  const Variable y = record({"swirl", axes::stay_whole}, x.data(), {x}, nullptr);
  const TracedTensor in{.axes = {trace.fresh(2)}}, out = follow_axes(trace, *y.node(), {in})[0];
  EXPECT_EQ(trace.indices.fixed(in.axis(0).indices[0]), "used by 'swirl', which has no rule for single channels");
  EXPECT_EQ(trace.indices.fixed(out.axis(0).indices[1]), trace.indices.fixed(in.axis(0).indices[0]));
}

}  // namespace
}  // namespace espalier
