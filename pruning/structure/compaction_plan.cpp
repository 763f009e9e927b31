#include "pruning/structure/compaction_plan.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

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
  void fold(const ReadConstants& constants);
  void add_to_bias(const ReadConstants& constants, const Tensor& what);
  void add_to_border(const ReadConstants& constants, const Tensor& taps);

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
  for (const ReadConstants& constants : dead.constants) fold(constants);
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
  plan_.modules.push_back({.name = module, .inputs = {}, .outputs = {}, .selection = {}});
  return plan_.modules.back();
}

void Planner::plan_modules() {
  std::unordered_map<const Module*, PlannedModule> seen;
  for (const ModuleChannels& call : graph_.modules()) {
    PlannedModule plan{.name = call.name, .inputs = kept(call.inputs), .outputs = kept(call.outputs), .selection = {}};
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
  const ChannelAccount account = call.module->channels();
  if (!account.selects_inputs || !may_select_(call.name)) return;
  const ChannelReader& reader = account.readers[0];
  const Parameter& weight = call.module->parameter(reader.weight);
  const Indices& selected = reader.inputs;
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
  const int64_t positions = reader.window ? call.output[2] * call.output[3] * weight.size(2) * weight.size(3) : 1;
  const int64_t copies = reader.window ? call.input[2] * call.input[3] : 1;
  if (selected.empty() && !selection_pays(kept, all - kept, rows * positions, copies)) return;
  planned.kept[1] = columns;
  plan.selection.emplace();
  for (const int64_t feature : features)
    plan.selection->push_back(std::lower_bound(plan.inputs.begin(), plan.inputs.end(), feature) - plan.inputs.begin());
}

/// What a reader adds for constants of its input, one value for each channel: (rows), of a convolution (rows,1,KH,KW),
/// each tap by itself. In double.
Tensor added_by(const ChannelReader& reader, const Tensor& reading_weight, const std::vector<double>& constants) {
  const Tensor weight = reading_weight.to(DType::f64);
  const int64_t rows = weight.size(0), columns = weight.size(1);
  const auto value = [&](int64_t channel, int64_t column) {
    return constants[static_cast<size_t>(reader.inputs.empty() ? channel : reader.inputs[static_cast<size_t>(column)])];
  };
  std::vector<double> values;
  if (!reader.window) {
    for (int64_t column = 0; column < columns; ++column) values.push_back(value(column, column));
    return matmul(weight, Tensor::from(values, {columns}).to(weight.device()));
  }
  const int64_t rows_each = rows / reader.window->groups;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column)
      values.push_back(value(row / rows_each * columns + column, column));
  return sum(weight * Tensor::from(values, {rows, columns, 1, 1}).to(weight.device()), {1}, true);
}

void Planner::fold(const ReadConstants& constants) {
  const ChannelReader& reader = constants.reader;
  const Tensor added = added_by(reader, constants.layer->parameter(reader.weight).data(), constants.values);
  if (reader.is_padded())
    add_to_border(constants, added);
  else
    add_to_bias(constants, added.rank() == 1 ? added : sum(added, {1, 2, 3}));
}

bool is_zero(const Tensor& x) { return max(abs(x)).item() == 0; }

/// Adds `what`, one value for each row before, to the bias after.
void Planner::add_to_bias(const ReadConstants& constants, const Tensor& what) {
  const ChannelReader& reader = constants.reader;
  const Parameter &weight = constants.layer->parameter(reader.weight), &bias = constants.layer->parameter(reader.bias);
  const Indices& rows = planned(weight).kept[0];
  const Tensor sum = slice_axes(what, {rows});
  if (is_zero(sum)) return;
  if (!bias.defined()) {
    plan_.parameters.push_back({.name = (constants.module.empty() ? "" : constants.module + ".") + reader.bias,
                                .kept = {rows},
                                .weight = weight.name(),
                                .value = sum.to(weight.data().dtype()),
                                .mask = {}});
    return;
  }
  PlannedParameter& target = planned(bias);
  target.value = (target.value.to(DType::f64) + sum).to(bias.data().dtype());
  if (!target.mask.defined()) return;
  const std::vector<double> values = sum.to_vector<double>();
  std::vector<bool> exists = target.mask.as_elements().units();  // a masked bias that now has something to say
  for (size_t i = 0; i < exists.size(); ++i) exists[i] = exists[i] || values[i] != 0;
  const bool dense = std::all_of(exists.begin(), exists.end(), [](bool e) { return e; });
  target.mask = dense ? Mask() : Mask::from_units(target.mask.shape(), Pattern::element(), exists);
}

/// Adds `taps` (rows,1,KH,KW) to what a padded convolution adds where its window lies on the image.
void Planner::add_to_border(const ReadConstants& constants, const Tensor& taps) {
  const ChannelReader& reader = constants.reader;
  const Parameter& weight = constants.layer->parameter(reader.weight);
  const Tensor& before = constants.layer->buffer(reader.border);
  const std::vector<Indices> rows = {planned(weight).kept[0]};
  if (is_zero(slice_axes(taps, rows))) return;
  const Tensor total = before.defined() ? taps + before.to(DType::f64) : taps;
  planned(constants.module)
      .buffers.emplace_back(reader.border, slice_axes(total, rows).to(weight.data().dtype()).contiguous());
}

}  // namespace

CompactionPlan plan_compaction(Module& net, const DependencyGraph& graph, const DeadUnits& dead,
                               const MaySelect& may_select) {
  return Planner(net, graph, dead, may_select).take();
}

NetworkIndex::NetworkIndex(const Module& net) {
  for (const auto& [name, parameter] : net.named_parameters()) parameters.emplace(name, parameter);
  for (const auto& [name, module] : net.named_modules()) modules.emplace(name, module);
}

std::pair<ModulePtr, std::string> NetworkIndex::owner(const std::string& parameter) const {
  const size_t dot = parameter.rfind('.');
  const std::string module = dot == std::string::npos ? "" : parameter.substr(0, dot);
  const auto found = modules.find(module);
  check(found != modules.end(), "compact", "no module '{}' could hold '{}'", module, parameter);
  return {found->second, dot == std::string::npos ? parameter : parameter.substr(dot + 1)};
}

void apply(const CompactionPlan& plan, const NetworkIndex& net) {
  for (const PlannedModule& planned : plan.modules) {
    Module& module = *net.modules.at(planned.name);
    if (planned.changes_channels) module.keep_channels(planned.inputs, planned.outputs);
    if (planned.selection) {
      const bool is_all = planned.selection->size() == planned.inputs.size();
      module.select_inputs(static_cast<int64_t>(planned.inputs.size()), is_all ? Indices() : *planned.selection);
    }
    for (const auto& [name, value] : planned.buffers) module.set_buffer(name, value);
  }
  for (const PlannedParameter& planned : plan.parameters) {
    if (planned.is_new()) {
      const auto [module, name] = net.owner(planned.name);
      module->define_parameter(name, planned.value);
      continue;
    }
    Parameter parameter = net.parameters.at(planned.name);
    const Tensor gradient = parameter.grad();
    parameter.clear_mask();
    parameter.set_data(planned.value);
    if (gradient.defined()) {
      Variable variable = parameter.variable();
      variable.set_grad(slice_axes(gradient, planned.kept));
    }
    if (planned.mask.defined()) parameter.set_mask(planned.mask, planned.flow);
  }
}

}  // namespace espalier
