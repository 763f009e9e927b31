#include "autograd/axes.h"

#include <algorithm>

#include <fmt/ranges.h>

namespace espalier {

std::vector<int> AxisIndices::make(int64_t count, bool of_parameter) {
  std::vector<int> made;
  for (int64_t i = 0; i < count; ++i) {
    made.push_back(static_cast<int>(parent_.size()));
    parent_.push_back(made.back());
    reason_.push_back(0);
    of_parameter_.push_back(of_parameter);
    without_weight_.push_back(false);
  }
  return made;
}

int AxisIndices::find(int index) const {
  while (parent_[static_cast<size_t>(index)] != index) {
    int& parent = parent_[static_cast<size_t>(index)];
    parent = parent_[static_cast<size_t>(parent)];
    index = parent;
  }
  return index;
}

void AxisIndices::unite(int a, int b) {
  const int left = find(a), right = find(b);
  if (left == right) return;
  // The older one stays the root: which it is doesn't depend on the order of hash tables or addresses.
  const auto [root, child] = std::minmax({static_cast<size_t>(left), static_cast<size_t>(right)});
  parent_[child] = static_cast<int>(root);
  if (reason_[root] == 0 || (reason_[child] != 0 && reason_[child] < reason_[root])) reason_[root] = reason_[child];
  if (of_parameter_[child]) of_parameter_[root] = true;
  if (without_weight_[child]) without_weight_[root] = true;
}

void AxisIndices::unite(const std::vector<int>& a, const std::vector<int>& b) {
  check(a.size() == b.size(), "DependencyGraph", "axes of {} and {} indices can't be tied one to one", a.size(),
        b.size());
  for (size_t i = 0; i < a.size(); ++i) unite(a[i], b[i]);
}

void AxisIndices::fix(const std::vector<int>& indices, const std::string& reason) {
  const auto known = std::find(reasons_.begin(), reasons_.end(), reason);
  const int position = static_cast<int>(known - reasons_.begin());
  if (known == reasons_.end()) reasons_.push_back(reason);
  for (int index : indices) {
    int& own = reason_[static_cast<size_t>(find(index))];
    if (own == 0) own = position;
  }
}

void AxisIndices::read_without_weight(const std::vector<int>& indices) {
  for (const int index : indices) without_weight_[static_cast<size_t>(find(index))] = true;
}

const std::string& AxisIndices::fixed(int index) const {
  return reasons_[static_cast<size_t>(reason_[static_cast<size_t>(find(index))])];
}

TracedAxis AxisTrace::fresh(int64_t size, const std::string& fixed) {
  TracedAxis axis{indices.make(size)};
  if (!fixed.empty()) fix(axis, fixed);
  return axis;
}

void AxisTrace::declare(const TracedAxis& axis, ChannelRoles roles, int64_t gates, bool recurrent) {
  for (const TracedAxis::Source& source : axis.sources) {
    TracedParameter& parameter = parameters[static_cast<size_t>(source.parameter)];
    ParameterAxis& own = parameter.axes[static_cast<size_t>(source.axis)];
    if (!source.keeps_zeros)
      indices.fix(own.indices, fmt::format("'{}' is used through an operation that makes something of masked weights",
                                           parameter.name));
    if (source.axis > 1)
      indices.fix(own.indices, fmt::format("no mask has units along axis {} of '{}'", source.axis, parameter.name));
    own.roles = own.roles | roles;
    if (own.first_use < 0) {
      own.first_use = uses++;
      own.gates = gates;
      own.recurrent = recurrent;
      continue;
    }
    if (own.gates != gates || own.recurrent != recurrent)
      indices.fix(own.indices, fmt::format("'{}' serves an LSTM and another operation", parameter.name));
  }
}

TracedTensor::Kind AxisCall::kind() const {
  TracedTensor::Kind result = TracedTensor::Kind::constant;
  for (const TracedTensor& input : inputs) result = std::max(result, input.kind);
  return result;
}

namespace axes {
using Kind = TracedTensor::Kind;

TracedTensor broadcast(const AxisCall& c, const std::vector<TracedTensor>& operands, const Shape& shape,
                       ChannelRoles parameters) {
  TracedTensor y{.kind = Kind::constant, .axes = {}};
  for (const TracedTensor& operand : operands) y.kind = std::max(y.kind, operand.kind);
  for (int a = 0; a < shape.rank(); ++a) {
    TracedAxis axis;
    for (const TracedTensor& operand : operands) {
      const int own = a - (shape.rank() - operand.rank());
      // A tensor that is no parameter is remade or resized by the module that holds it.
      if (operand.kind == Kind::constant || own < 0) continue;
      const TracedAxis& x = operand.axis(own);
      if (x.size() != shape[a]) {
        if (operand.kind == Kind::data) c.trace.fix(x, "one channel for all of another tensor's in " + c.name());
        continue;
      }
      if (axis.indices.empty())
        axis.indices = x.indices;
      else
        c.trace.unite(axis, x);
      if (y.kind == Kind::parameter)
        axis.sources.insert(axis.sources.end(), x.sources.begin(), x.sources.end());
      else if (operand.kind == Kind::parameter && (shape[a] > 1 || operand.rank() == 1))
        c.trace.declare(x, parameters);
    }
    if (axis.indices.empty()) axis = c.trace.fresh(shape[a]);
    y.axes.push_back(std::move(axis));
  }
  return y;
}

std::vector<TracedTensor> elementwise(const AxisCall& c) { return {broadcast(c, c.inputs, c.shape(), kProduces)}; }

std::vector<TracedTensor> scaling(const AxisCall& c) { return {broadcast(c, c.inputs, c.shape(), kScales)}; }

std::vector<TracedTensor> stay_whole(const AxisCall& c) {
  const std::string reason = fmt::format("used by '{}', which has no rule for single channels", c.name());
  for (const TracedTensor& input : c.inputs)
    if (input.kind != Kind::constant)
      for (const TracedAxis& axis : input.axes) c.trace.fix(axis, reason);
  std::vector<TracedTensor> outputs;
  for (int i = 0; i < c.node.num_outputs(); ++i) {
    TracedTensor& y = outputs.emplace_back(TracedTensor{.kind = c.kind(), .axes = {}});
    for (const int64_t size : c.node.output_shape(i))
      y.axes.push_back(c.trace.fresh(size, c.kind() == Kind::constant ? "" : reason));
  }
  return outputs;
}

void use_as_data(AxisTrace& trace, const TracedTensor& x, int axis) {
  if (x.kind == Kind::parameter) trace.declare(x.axis(axis), kProduces);
}

}  // namespace axes

namespace {

/// Whether what an operation makes of a weight is 0 wherever the weight is masked.
bool keeps_zeros(const AxisCall& c) {
  const auto is_zero = [](const TracedTensor& x) {
    return x.kind == TracedTensor::Kind::parameter &&
           std::all_of(x.axes.begin(), x.axes.end(), [](const TracedAxis& axis) {
             return std::all_of(axis.sources.begin(), axis.sources.end(), [](const auto& s) { return s.keeps_zeros; });
           });
  };
  const auto is_whole_zero = [&](const TracedTensor& x) {  // not repeated along an axis
    return is_zero(x) && x.rank() == c.shape().rank() &&
           std::equal(x.axes.begin(), x.axes.end(), c.shape().begin(),
                      [](const TracedAxis& axis, int64_t size) { return axis.size() == size; });
  };
  switch (c.node.kind().zeros) {
    case Zeros::of_all: return std::all_of(c.inputs.begin(), c.inputs.end(), is_zero);
    case Zeros::of_sum: return c.inputs.size() == 2 && std::all_of(c.inputs.begin(), c.inputs.end(), is_whole_zero);
    case Zeros::of_any: return std::any_of(c.inputs.begin(), c.inputs.end(), is_zero);
    case Zeros::of_first: return is_zero(c.in(0));
    case Zeros::none: return false;
  }
  return false;
}

}  // namespace

std::vector<TracedTensor> follow_axes(AxisTrace& trace, const Node& node, const std::vector<TracedTensor>& inputs) {
  if (node.kind().axes == nullptr)
    fail(
        "DependencyGraph",
        "no rule says which channels belong together before and after the operation '{}' ({} -> {}); give record() one "
        "(autograd/axes.h), build the module from other operations, or prune single weights (weight_sites), which "
        "needs "
        "no graph",
        node.operation(), fmt::join(node.input_shapes(), ", "), node.output_shape(0));
  const AxisCall call{trace, node, inputs};
  std::vector<TracedTensor> outputs = node.kind().axes(call);
  for (TracedTensor& output : outputs) {
    if (output.kind != TracedTensor::Kind::parameter) continue;
    const bool zeros = keeps_zeros(call);
    for (TracedAxis& axis : output.axes)
      for (TracedAxis::Source& source : axis.sources) source.keeps_zeros = zeros;
  }
  check(static_cast<int>(outputs.size()) == node.num_outputs(), "DependencyGraph",
        "the rule of '{}' gives axes for {} outputs of {}", node.operation(), outputs.size(), node.num_outputs());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Shape& shape = node.output_shape(static_cast<int>(i));
    bool fits = outputs[i].rank() == shape.rank();
    for (int a = 0; fits && a < shape.rank(); ++a) fits = outputs[i].axis(a).size() == shape[a];
    check(fits, "DependencyGraph", "the rule of '{}' doesn't fit its output {}", node.operation(), shape);
  }
  return outputs;
}

}  // namespace espalier
