#include "pruning/structure/axis_rules.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "pruning/structure/axis_call.h"

namespace espalier {

namespace axis_rules {
namespace {

/// Equal axes are one; an axis of size 1 is repeated. Also for one operand.
Tensors elementwise(const Call& c) {
  const Shape& shape = c.shape();
  TracedTensor y{.kind = c.kind(), .axes = {}};
  const bool scaling = c.name() == "mul" || c.name() == "div";
  for (int a = 0; a < shape.rank(); ++a) {
    TracedAxis axis;
    for (const TracedTensor& input : c.inputs) {
      const int own = a - (shape.rank() - input.rank());
      // A tensor that is no parameter is remade or resized by the module that holds it.
      if (input.kind == Kind::constant || own < 0) continue;
      const TracedAxis& x = input.axes[static_cast<size_t>(own)];
      if (x.size() != shape[a]) {
        if (input.kind == Kind::data) c.trace.fix(x, "one channel for all of another tensor's in " + c.name());
        continue;
      }
      if (axis.indices.empty())
        axis.indices = x.indices;
      else
        c.trace.unite(axis, x);
      if (y.kind == Kind::parameter)
        axis.sources.insert(axis.sources.end(), x.sources.begin(), x.sources.end());
      else if (input.kind == Kind::parameter && (shape[a] > 1 || input.rank() == 1))
        c.trace.declare(x, scaling ? kScales : kProduces);
    }
    if (axis.indices.empty()) axis = c.trace.fresh(shape[a]);
    y.axes.push_back(std::move(axis));
  }
  return {y};
}

/// a (...,M,K) b (...,K,N): K is tied.
Tensors matmul(const Call& c) {
  const TracedTensor &a = c.in(0), &b = c.in(1);
  const TracedAxis &a_k = a.axes.back(), &b_k = b.axes[static_cast<size_t>(std::max(b.rank() - 2, 0))];
  if (c.has(0) && c.has(1)) {
    c.trace.unite(a_k, b_k);
    if (a.kind == Kind::data && b.kind == Kind::data) c.trace.indices.read_without_weight(a_k.indices);
  } else {
    c.trace.fix(c.has(0) ? a_k : b_k, "multiplied by a matrix that is no parameter");
  }
  if (a.kind == Kind::parameter) {
    c.trace.declare(a_k, kReads);
    if (b.kind == Kind::data && a.rank() > 1) c.trace.declare(a.axes[a.axes.size() - 2], kProduces);
  }
  if (b.kind == Kind::parameter) {
    c.trace.declare(b_k, a.kind == Kind::parameter ? kProduces : kReads);
    if (a.kind == Kind::data && b.rank() > 1) c.trace.declare(b.axes.back(), kProduces);
  }
  const Shape& shape = c.shape();
  const int free_axes = (a.rank() > 1) + (b.rank() > 1), batch_axes = shape.rank() - free_axes;
  TracedTensor y{.kind = c.kind(), .axes = {}};
  for (int axis = 0; axis < batch_axes; ++axis) {
    TracedAxis batch;
    for (const TracedTensor* input : {&a, &b}) {
      const int own = axis - (batch_axes - (input->rank() - 2));
      if (input->kind == Kind::constant || own < 0 || own >= input->rank() - 2) continue;
      const TracedAxis& x = input->axes[static_cast<size_t>(own)];
      if (x.size() != shape[axis]) {
        c.trace.fix(x, "one matrix for all of another tensor's in matmul");
      } else if (batch.indices.empty()) {
        batch = as_data(x);
      } else {
        c.trace.unite(batch, x);
      }
    }
    y.axes.push_back(batch.indices.empty() ? c.trace.fresh(shape[axis]) : batch);
  }
  const auto add = [&](const TracedAxis& axis) { y.axes.push_back(y.kind == Kind::data ? as_data(axis) : axis); };
  if (a.rank() > 1) add(a.axes[a.axes.size() - 2]);
  if (b.rank() > 1) add(b.axes.back());
  return {y};
}

/// x (N,C,H,W), weight (F,C/groups,KH,KW), bias (F).
Tensors conv2d(const Call& c) {
  const TracedTensor &x = c.in(0), &w = c.in(1);
  const TracedAxis &in = x.axes[1], &filters = w.axes[0], &columns = w.axes[1];
  const int64_t groups = c.attribute(0), outputs_each = filters.size() / groups;
  AxisIndices& indices = c.trace.indices;
  use_as_data(c, x, 1);
  for (const size_t axis : {size_t{2}, size_t{3}}) c.trace.fix(x.axes[axis], kPositions);
  const bool depthwise = groups > 1 && columns.size() == 1;
  if (!depthwise) c.trace.declare(columns, kReads);
  c.trace.declare(filters, depthwise ? kProduces | kScales : kProduces);
  if (!c.has(1)) c.trace.fix(filters, "filtered by a kernel that is no parameter");
  if (depthwise) {
    for (int64_t f = 0; f < filters.size(); ++f)
      indices.unite(in.indices[static_cast<size_t>(f / outputs_each)], filters.indices[static_cast<size_t>(f)]);
  } else {
    if (!c.has(1)) c.trace.fix(columns, "filtered by a kernel that is no parameter");
    // All groups are slices of one rectangular weight: each loses the same channels.
    for (int64_t channel = 0; channel < in.size(); ++channel)
      indices.unite(in.indices[static_cast<size_t>(channel)],
                    columns.indices[static_cast<size_t>(channel % columns.size())]);
    for (int64_t f = outputs_each; f < filters.size(); ++f)
      indices.unite(filters.indices[static_cast<size_t>(f)], filters.indices[static_cast<size_t>(f % outputs_each)]);
  }
  if (c.has(2)) {
    c.trace.unite(filters, c.in(2).axes[0]);
    c.trace.declare(c.in(2).axes[0], kProduces);
  }
  const Shape& shape = c.shape();
  return {{.kind = Kind::data,
           .axes = {as_data(x.axes[0]), as_data(filters), c.trace.fresh(shape[2], kPositions),
                    c.trace.fresh(shape[3], kPositions)}}};
}

/// One direction: x (T,B,I), h0, c0 (B,H), w_ih (4H,I), w_hh (4H,H), biases (4H) -> output (T,B,H), h, c (B,H).
Tensors lstm(const Call& c) {
  constexpr int64_t kGates = 4;
  AxisIndices& indices = c.trace.indices;
  const TracedTensor &x = c.in(0), &w_ih = c.in(3), &w_hh = c.in(4);
  const TracedAxis hidden = c.trace.fresh(w_hh.axes[1].size());
  const auto tie_rows = [&](const TracedTensor& weight, bool recurrent) {
    const std::vector<int>& rows = weight.axes[0].indices;
    for (size_t row = 0; row < rows.size(); ++row)
      indices.unite(rows[row], hidden.indices[row % hidden.indices.size()]);
    c.trace.declare(weight.axes[0], kProduces, kGates, recurrent);
  };
  use_as_data(c, x, 2);
  c.trace.fix(x.axes[0], kSteps);
  c.trace.unite(x.axes[2], w_ih.axes[1]);
  c.trace.declare(w_ih.axes[1], kReads);
  tie_rows(w_ih, false);
  tie_rows(w_hh, true);
  c.trace.unite(w_hh.axes[1], hidden);
  c.trace.declare(w_hh.axes[1], kReads, 1, true);
  for (const size_t bias : {size_t{5}, size_t{6}})
    if (c.has(bias)) tie_rows(c.in(bias), false);
  for (const size_t state : {size_t{1}, size_t{2}}) {
    if (!c.has(state)) continue;
    c.trace.unite(c.in(state).axes[1], hidden);
    use_as_data(c, c.in(state), 1);
  }
  const TracedAxis steps = as_data(x.axes[0]), batch = as_data(x.axes[1]);
  return {{.axes = {steps, batch, hidden}}, {.axes = {batch, hidden}}, {.axes = {batch, hidden}}};
}

/// x (N,C) or (N,C,H,W), weight and bias (C).
Tensors batch_norm(const Call& c) {
  TracedTensor y{.kind = Kind::data, .axes = {}};
  for (size_t a = 0; a < c.in(0).axes.size(); ++a) {
    y.axes.push_back(as_data(c.in(0).axes[a]));
    // In training all axes but the channels'. The tape of layer_norm has its examples there.
    if (a != 1) c.trace.fix(y.axes[a], "normalised over, by mean and variance");
  }
  use_as_data(c, c.in(0), 1);
  for (const auto& [operand, roles] : {std::pair(size_t{1}, kScales), std::pair(size_t{2}, kShifts)}) {
    if (!c.has(operand)) continue;
    c.trace.unite(y.axes[1], c.in(operand).axes[0]);
    c.trace.declare(c.in(operand).axes[0], roles);
  }
  return {y};
}

Tensors pool2d(const Call& c) {
  const TracedTensor& x = c.in(0);
  for (const size_t axis : {size_t{2}, size_t{3}}) c.trace.fix(x.axes[axis], kPositions);
  return {{.kind = x.kind,
           .axes = {x.axes[0], x.axes[1], c.trace.fresh(c.shape()[2], kPositions),
                    c.trace.fresh(c.shape()[3], kPositions)}}};
}

Tensors softmax(const Call& c) {
  c.trace.fix(c.in(0).axes.back(), "normalised over, by softmax");
  return {c.in(0)};
}

Tensors reduction(const Call& c) {
  const TracedTensor& x = c.in(0);
  const Attributes& reduced = c.node.attributes();
  const bool keep_axes = c.shape().rank() == x.rank();
  TracedTensor y{.kind = x.kind, .axes = {}};
  for (int a = 0; a < x.rank(); ++a) {
    const TracedAxis& axis = x.axes[static_cast<size_t>(a)];
    if (std::find(reduced.begin(), reduced.end(), a) == reduced.end()) {
      y.axes.push_back(axis);
      continue;
    }
    c.trace.fix(axis, fmt::format("reduced by {}", c.name()));
    if (keep_axes) y.axes.push_back(c.trace.fresh(1));
  }
  return {y};
}

/// Whether what an operation makes of a weight is 0 wherever the weight is masked.
bool keeps_zeros(const Call& c) {
  const auto is_zero = [](const TracedTensor& x) {
    return x.kind == Kind::parameter && std::all_of(x.axes.begin(), x.axes.end(), [](const TracedAxis& axis) {
             return std::all_of(axis.sources.begin(), axis.sources.end(), [](const auto& s) { return s.keeps_zeros; });
           });
  };
  const auto is_whole_zero = [&](const TracedTensor& x) {  // not repeated along an axis
    return is_zero(x) && x.rank() == c.shape().rank() &&
           std::equal(x.axes.begin(), x.axes.end(), c.shape().begin(),
                      [](const TracedAxis& axis, int64_t size) { return axis.size() == size; });
  };
  static const std::unordered_set<std::string_view> kSums = {"add", "sub"}, kProducts = {"mul", "matmul"},
                                                    kOthers = {"exp",     "log",         "cos",   "sigmoid",
                                                               "pow",     "softplus",    "clamp", "where",
                                                               "softmax", "log_softmax", "div"};
  const std::string name = c.name();
  if (kProducts.contains(name)) return std::any_of(c.inputs.begin(), c.inputs.end(), is_zero);
  if (kSums.contains(name)) return c.inputs.size() == 2 && std::all_of(c.inputs.begin(), c.inputs.end(), is_whole_zero);
  if (name == "div" && c.inputs.size() == 2) return is_zero(c.in(0));
  return !kOthers.contains(name) && std::all_of(c.inputs.begin(), c.inputs.end(), is_zero);
}

using Rule = Tensors (*)(const Call&);

const std::unordered_map<std::string_view, Rule>& rules() {
  static const std::unordered_map<std::string_view, Rule> kRules = [] {
    std::unordered_map<std::string_view, Rule> all = {
        {"matmul", matmul},
        {"conv2d", conv2d},
        {"lstm", lstm},
        {"batch_norm", batch_norm},
        {"softmax", softmax},
        {"batch_norm_eval", batch_norm},
        {"sum", reduction},
        {"log_softmax", softmax},
        {"max", reduction},
        {"min", reduction},
        {"max_pool2d", pool2d},
        {"avg_pool2d", pool2d},
        {"reshape", reshape},
        {"adaptive_avg_pool2d", pool2d},
        {"flatten", reshape},
        {"permute", permute},
        {"transpose", transpose},
        {"slice", slice},
        {"squeeze", squeeze},
        {"unsqueeze", unsqueeze},
        {"expand", expand},
        {"cat", cat},
        {"pad", pad},
        {"index_select", index_select},
        {"gather", gather},
    };
    for (const char* name : {"add", "sub",  "mul",   "div",      "neg",   "abs",   "square",     "sqrt",
                             "exp", "log",  "log1p", "sin",      "cos",   "tanh",  "erf",        "sigmoid",
                             "pow", "relu", "to",    "softplus", "clamp", "where", "apply_mask", "mask_gradient"})
      all.emplace(name, elementwise);
    return all;
  }();
  return kRules;
}

}  // namespace
}  // namespace axis_rules

std::vector<TracedTensor> follow_axes(AxisTrace& trace, const Node& node, const std::vector<TracedTensor>& inputs) {
  using namespace axis_rules;
  const auto rule = rules().find(node.operation());
  if (rule == rules().end()) {
    std::string shapes;
    for (const Shape& shape : node.input_shapes()) shapes += (shapes.empty() ? "" : ", ") + shape.to_string();
    fail("DependencyGraph",
         "no rule says which channels belong together before and after the operation '{}' ({} -> {}); build the module "
         "from other operations, or prune single weights (weight_sites), which needs no graph",
         node.operation(), shapes, node.output_shape(0));
  }
  const Call call{trace, node, inputs};
  Tensors outputs = rule->second(call);
  for (TracedTensor& output : outputs) {
    if (output.kind != TracedTensor::Kind::parameter) continue;
    const bool zeros = keeps_zeros(call);
    for (TracedAxis& axis : output.axes)
      for (TracedAxis::Source& source : axis.sources) source.keeps_zeros = zeros;
  }
  for (size_t i = 0; i < outputs.size(); ++i)
    for (int a = 0; a < outputs[i].rank(); ++a)
      check(outputs[i].rank() == node.output_shape(static_cast<int>(i)).rank() &&
                outputs[i].axes[static_cast<size_t>(a)].size() == node.output_shape(static_cast<int>(i))[a],
            "DependencyGraph", "the rule of '{}' doesn't fit its output {}", node.operation(),
            node.output_shape(static_cast<int>(i)));
  return outputs;
}

}  // namespace espalier
