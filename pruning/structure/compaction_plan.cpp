#include "pruning/structure/compaction_plan.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "layers/conv.h"
#include "layers/linear.h"
#include "layers/lstm.h"

namespace espalier {

bool PlannedParameter::is_smaller(const Shape& before) const {
  for (int axis = 0; axis < before.rank(); ++axis)
    if (static_cast<int64_t>(kept[static_cast<size_t>(axis)].size()) != before[axis]) return true;
  return false;
}

Tensor slice_axes(Tensor x, const std::vector<Indices>& kept) {
  for (size_t axis = 0; axis < kept.size(); ++axis) {
    const auto size = static_cast<int64_t>(kept[axis].size());
    if (size == x.size(static_cast<int>(axis))) continue;
    x = index_select(x, static_cast<int>(axis), Tensor::from(kept[axis], {size}).to(x.device()));
  }
  return x;
}

bool selection_pays(int64_t kept, int64_t dropped, int64_t per_channel, int64_t copies) {
  constexpr int64_t kMacsPerCopy = 4;  // that a core does while it moves one element
  return dropped * per_channel > kMacsPerCopy * kept * copies;
}

namespace {

Indices everything(int64_t size) {
  Indices all(static_cast<size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// The mask of the indices kept: of the same pattern where that still describes it, else of single weights; undefined
/// when nothing is masked.
Mask slice_mask(const Mask& mask, const std::vector<Indices>& kept) {
  if (!mask.defined()) return {};
  const Tensor exists = slice_axes(mask.to(Device::cpu()).expand(DType::f32), kept);
  const std::vector<float> weights = exists.to_vector<float>();
  if (std::all_of(weights.begin(), weights.end(), [](float w) { return w != 0; })) return {};
  const auto from = [&](const Pattern& pattern) {
    const std::vector<double> counts = Mask::sum_over_units(exists, pattern).to_vector<double>();
    std::vector<bool> units;
    for (const double count : counts) units.push_back(count > 0);
    return Mask::from_units(exists.shape(), pattern, units);
  };
  if (mask.pattern() != Pattern::element()) {
    try {
      const Mask same = from(mask.pattern());
      if (same.expand(DType::f32).to_vector<float>() == weights) return same.to(mask.device());
    } catch (const ArgumentError&) {
      // The pattern does not divide the new shape.
    }
  }
  return from(Pattern::element()).to(mask.device());
}

class Planner {
 public:
  Planner(Module& net, const DependencyGraph& graph, const DeadUnits& dead, const MaySelect& may_select);
  CompactionPlan take() { return std::move(plan_); }

 private:
  void slice_parameters(const Module& net);
  void slice_values();
  void plan_modules();
  void plan_selection(PlannedModule& planned, const ModuleChannels& call);
  void fold(const InputConstants& constants);
  void fold(const InputConstants& constants, const Linear& layer);
  void fold(const InputConstants& constants, const Conv2d& layer);
  void fold(const InputConstants& constants, const LSTM& layer);
  void add_to_bias(const InputConstants& constants, const Parameter& weight, const Parameter& bias, const Tensor& what);

  Indices kept(const std::vector<ChannelRef>& refs) const;
  PlannedParameter& planned(const Parameter& parameter) { return plan_.parameters[places_.at(parameter.id())]; }
  PlannedModule& planned(const std::string& module);

  const DependencyGraph& graph_;
  const DeadUnits& dead_;
  const MaySelect& may_select_;
  CompactionPlan plan_;
  std::unordered_map<const void*, size_t> places_;      // parameter -> position in plan_.parameters
  std::unordered_map<const void*, int> uses_;           // parameter -> modules that hold it
  std::unordered_map<const void*, Parameter> sources_;  // parameter id -> before
};

Planner::Planner(Module& net, const DependencyGraph& graph, const DeadUnits& dead, const MaySelect& may_select)
    : graph_(graph), dead_(dead), may_select_(may_select) {
  for (const auto& [name, module] : net.named_modules()) {
    if (!module->children().empty()) continue;
    for (const Parameter& parameter : module->parameters()) ++uses_[parameter.id()];
  }
  net.named_parameters();  // full names again
  slice_parameters(net);
  plan_modules();
  slice_values();  // once the columns that are selected are known
  for (const InputConstants& constants : dead.constants) fold(constants);
}

Indices Planner::kept(const std::vector<ChannelRef>& refs) const {
  Indices result;
  for (size_t i = 0; i < refs.size(); ++i)
    if (!dead_.goes(refs[i])) result.push_back(static_cast<int64_t>(i));
  return result;
}

void Planner::slice_parameters(const Module& net) {
  for (const auto& [name, parameter] : net.named_parameters()) {
    const AxisRefs refs = axis_refs(graph_, parameter);
    PlannedParameter planned{.name = name, .kept = {}, .value = {}, .mask = {}};
    for (int axis = 0; axis < parameter.shape().rank(); ++axis)
      planned.kept.push_back(axis == 0   ? kept(refs.rows)
                             : axis == 1 ? kept(refs.columns)
                                         : everything(parameter.size(axis)));
    places_[parameter.id()] = plan_.parameters.size();
    sources_[parameter.id()] = parameter;
    plan_.parameters.push_back(std::move(planned));
  }
}

PlannedModule& Planner::planned(const std::string& module) {
  const auto found =
      std::find_if(plan_.modules.begin(), plan_.modules.end(), [&](const auto& m) { return m.name == module; });
  if (found != plan_.modules.end()) return *found;
  plan_.modules.push_back({.name = module, .inputs = {}, .outputs = {}, .selection = {}, .constant = {}});
  return plan_.modules.back();
}

void Planner::plan_modules() {
  std::unordered_map<const Module*, PlannedModule> seen;
  for (const ModuleChannels& call : graph_.modules()) {
    PlannedModule plan{
        .name = call.name, .inputs = kept(call.inputs), .outputs = kept(call.outputs), .selection = {}, .constant = {}};
    plan.changes_channels = plan.inputs.size() < call.inputs.size() || plan.outputs.size() < call.outputs.size();
    if (const auto before = seen.find(call.module.get()); before != seen.end()) {
      const bool agrees = before->second.inputs == plan.inputs && before->second.outputs == plan.outputs;
      check(agrees || (call.module->parameters().empty() && call.module->named_buffers().empty()), "compact",
            "{} '{}' is called several times and would have to keep other channels each time; use one module for each "
            "call",
            call.module->type(), call.name);
      continue;
    }
    plan_selection(plan, call);
    seen.emplace(call.module.get(), plan);
    if (plan.changes_channels || plan.selection) plan_.modules.push_back(std::move(plan));
  }
}

void Planner::slice_values() {
  for (auto& [id, place] : places_) {
    PlannedParameter& planned = plan_.parameters[place];
    const Parameter& source = sources_.at(id);
    planned.value = slice_axes(source.data(), planned.kept).contiguous();
    if (planned.value.storage() == source.data().storage()) planned.value = planned.value.clone();
    planned.mask = slice_mask(source.mask(), planned.kept);
    if (planned.mask.defined()) planned.flow = source.gradient_flow();
  }
}

/// Columns that no weight of a row that stays reads are left out, at least one stays.
void Planner::plan_selection(PlannedModule& plan, const ModuleChannels& call) {
  const auto* linear = dynamic_cast<const Linear*>(call.module.get());
  const auto* conv = dynamic_cast<const Conv2d*>(call.module.get());
  if (linear == nullptr && (conv == nullptr || conv->options().groups != 1)) return;
  if (!may_select_(call.name)) return;
  const Parameter& weight = linear != nullptr ? linear->weight() : conv->weight();
  const Indices& selected = linear != nullptr ? linear->inputs() : conv->inputs();
  if (!weight.mask().defined() || uses_[weight.id()] > 1 || graph_.is_used_outside(weight)) return;
  PlannedParameter& planned = this->planned(weight);

  const Tensor exists = slice_axes(weight.mask().to(Device::cpu()).expand(DType::f32), planned.kept);
  Axes others = {0};
  for (int axis = 2; axis < exists.rank(); ++axis) others.push_back(axis);
  const std::vector<float> alive = max(exists, others).to_vector<float>();
  Indices columns, features;  // of the weight before; of the input before
  for (size_t i = 0; i < alive.size(); ++i) {
    if (alive[i] == 0) continue;
    const int64_t column = planned.kept[1][i];
    columns.push_back(column);
    features.push_back(selected.empty() ? column : selected[static_cast<size_t>(column)]);
  }
  if (columns.empty()) {  // of a weight that is masked as a whole
    columns.push_back(planned.kept[1][0]);
    features.push_back(selected.empty() ? columns[0] : selected[static_cast<size_t>(columns[0])]);
  }
  const auto all = static_cast<int64_t>(alive.size()), kept = static_cast<int64_t>(columns.size());
  if (kept == all) return;
  const int64_t rows = exists.size(0);
  const int64_t positions = conv != nullptr ? call.output[2] * call.output[3] * weight.size(2) * weight.size(3) : 1;
  const int64_t copies = conv != nullptr ? call.input[2] * call.input[3] : 1;
  if (selected.empty() && !selection_pays(kept, all - kept, rows * positions, copies)) return;
  planned.kept[1] = columns;
  plan.selection.emplace();
  for (const int64_t feature : features)
    plan.selection->push_back(std::lower_bound(plan.inputs.begin(), plan.inputs.end(), feature) - plan.inputs.begin());
}

void Planner::fold(const InputConstants& constants) {
  if (const auto* linear = dynamic_cast<const Linear*>(constants.layer.get())) fold(constants, *linear);
  if (const auto* conv = dynamic_cast<const Conv2d*>(constants.layer.get())) fold(constants, *conv);
  if (const auto* lstm = dynamic_cast<const LSTM*>(constants.layer.get())) fold(constants, *lstm);
}

/// Adds `what`, one value for each row before, to the bias after.
void Planner::add_to_bias(const InputConstants& constants, const Parameter& weight, const Parameter& bias,
                          const Tensor& what) {
  const Indices& rows = planned(weight).kept[0];
  const Tensor sum = slice_axes(what, {rows});
  const std::vector<double> values = sum.to_vector<double>();
  if (std::all_of(values.begin(), values.end(), [](double value) { return value == 0; })) return;
  if (!bias.defined()) {
    planned(constants.module).adds_bias = true;
    const std::string name = constants.module.empty() ? "bias" : constants.module + ".bias";
    plan_.parameters.push_back(
        {.name = name, .kept = {rows}, .added = true, .value = sum.to(weight.data().dtype()), .mask = {}});
    return;
  }
  PlannedParameter& target = planned(bias);
  target.value = (target.value.to(DType::f64) + sum).to(bias.data().dtype());
  if (!target.mask.defined()) return;
  std::vector<bool> exists = target.mask.as_elements().units();  // a masked bias that now has something to say
  for (size_t i = 0; i < exists.size(); ++i) exists[i] = exists[i] || values[i] != 0;
  const bool dense = std::all_of(exists.begin(), exists.end(), [](bool e) { return e; });
  target.mask = dense ? Mask() : Mask::from_units(target.mask.shape(), Pattern::element(), exists);
}

void Planner::fold(const InputConstants& constants, const Linear& layer) {
  const std::vector<double>& all = constants.values;
  std::vector<double> values;
  for (int64_t column = 0; column < layer.weight().size(1); ++column)
    values.push_back(
        all[static_cast<size_t>(layer.inputs().empty() ? column : layer.inputs()[static_cast<size_t>(column)])]);
  const Tensor x = Tensor::from(values, {static_cast<int64_t>(values.size())}).to(layer.weight().data().device());
  add_to_bias(constants, layer.weight(), layer.bias(), matmul(layer.weight().data().to(DType::f64), x));
}

void Planner::fold(const InputConstants& constants, const Conv2d& layer) {
  // (out,1,KH,KW): what each tap adds, sum over the group's columns of weight * value.
  const Tensor weight = layer.weight().data().to(DType::f64);
  const int64_t rows = weight.size(0), columns = weight.size(1), each = rows / layer.options().groups;
  std::vector<double> values;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t channel =
          layer.inputs().empty() ? row / each * columns + column : layer.inputs()[static_cast<size_t>(column)];
      values.push_back(constants.values[static_cast<size_t>(channel)]);
    }
  const Tensor x = Tensor::from(values, {rows, columns, 1, 1}).to(weight.device());
  const Tensor taps = sum(weight * x, {1}, true);
  const Size2d padding = layer.options().padding;
  if (padding.h == 0 && padding.w == 0) {
    add_to_bias(constants, layer.weight(), layer.bias(), sum(taps, {1, 2, 3}));
    return;
  }
  if (max(abs(taps)).item() == 0) return;
  Tensor total = taps;
  if (layer.constant().defined()) total = total + layer.constant().to(DType::f64);
  planned(constants.module).constant =
      slice_axes(total, {planned(layer.weight()).kept[0]}).to(layer.weight().data().dtype()).contiguous();
}

void Planner::fold(const InputConstants& constants, const LSTM& layer) {
  const Tensor x = Tensor::from(constants.values, {static_cast<int64_t>(constants.values.size())});
  const auto parameters = layer.named_parameters();
  const auto find = [&](const std::string& name) {
    return std::find_if(parameters.begin(), parameters.end(), [&](const auto& p) { return p.first == name; })->second;
  };
  for (const char* direction : {"", "_reverse"}) {
    if (direction[0] != '\0' && !layer.options().bidirectional) continue;
    const Parameter weight = find(std::string("weight_ih_l0") + direction);
    add_to_bias(constants, weight, find(std::string("bias_ih_l0") + direction),
                matmul(weight.data().to(DType::f64), x.to(weight.data().device())));
  }
}

}  // namespace

CompactionPlan plan_compaction(Module& net, const DependencyGraph& graph, const DeadUnits& dead,
                               const MaySelect& may_select) {
  return Planner(net, graph, dead, may_select).take();
}

void apply(const CompactionPlan& plan, Module& net) {
  for (const PlannedModule& planned : plan.modules) {
    const ModulePtr module = net.find(planned.name);
    auto* linear = dynamic_cast<Linear*>(module.get());
    auto* conv = dynamic_cast<Conv2d*>(module.get());
    if (planned.changes_channels) module->keep_channels(planned.inputs, planned.outputs);
    if (planned.selection) {
      const auto inputs = static_cast<int64_t>(planned.inputs.size());
      Indices selection = *planned.selection;
      if (static_cast<int64_t>(selection.size()) == inputs) selection.clear();
      if (conv != nullptr) conv->set_inputs(inputs, std::move(selection));
      if (linear != nullptr) linear->set_inputs(inputs, std::move(selection));
    }
    if (planned.adds_bias && conv != nullptr) conv->add_bias();
    if (planned.adds_bias && linear != nullptr) linear->add_bias();
  }
  std::unordered_map<std::string, Parameter> parameters;
  for (const auto& [name, parameter] : net.named_parameters()) parameters.emplace(name, parameter);
  for (const PlannedParameter& planned : plan.parameters) {
    Parameter parameter = parameters.at(planned.name);
    const Tensor gradient = planned.added ? Tensor() : parameter.grad();
    parameter.clear_mask();
    parameter.set_data(planned.value);
    if (gradient.defined()) {
      Variable variable = parameter.variable();
      variable.set_grad(slice_axes(gradient, planned.kept));
    }
    if (planned.mask.defined()) parameter.set_mask(planned.mask, planned.flow);
  }
  for (const PlannedModule& planned : plan.modules)  // once the weights have their new shapes
    if (planned.constant.defined()) net.find<Conv2d>(planned.name)->set_constant(planned.constant);
}

}  // namespace espalier
