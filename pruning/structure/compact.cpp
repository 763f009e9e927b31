#include "pruning/structure/compact.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include <nlohmann/json.hpp>

#include "pruning/structure/blocks.h"
#include "pruning/structure/compaction_plan.h"

namespace espalier {

nlohmann::json to_json(const IndexMap& map) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [name, axes] : map) json[name] = axes;
  return json;
}

IndexMap index_map_from_json(const nlohmann::json& json) {
  try {
    return json.get<IndexMap>();
  } catch (const nlohmann::json::exception& error) {
    fail<FileError>("index_map_from_json", "expected for each parameter a list of index lists, one for each axis: {}",
                    error.what());
  }
}

namespace {

/// The indices of an earlier original.
IndexMap composed(const CompactionPlan& plan, const IndexMap& earlier) {
  IndexMap result;
  for (const PlannedParameter& planned : plan.parameters) {
    if (planned.added) continue;
    std::vector<Indices> kept = planned.kept;
    if (const auto before = earlier.find(planned.name); before != earlier.end()) {
      check(before->second.size() == kept.size(), "compact", "the earlier index map has {} axes for '{}', which has {}",
            before->second.size(), planned.name, kept.size());
      for (size_t axis = 0; axis < kept.size(); ++axis)
        for (int64_t& index : kept[axis]) {
          check(index < static_cast<int64_t>(before->second[axis].size()), "compact",
                "the earlier index map has {} indices for axis {} of '{}', which has more; give the map of this "
                "network's last compaction",
                before->second[axis].size(), axis, planned.name);
          index = before->second[axis][static_cast<size_t>(index)];
        }
    } else if (!earlier.empty()) {
      continue;  // it came with the earlier compaction
    }
    result.emplace(planned.name, std::move(kept));
  }
  return result;
}

/// The largest difference of the outputs on random inputs, relative to the largest output.
double difference(Module& before, Module& after, const Tensor& example) {
  const EvalMode eval_before(before), eval_after(after);
  const NoGrad no_grad;
  double error = 0, largest = 0;
  for (const Tensor& probe : probes_like(example, 3)) {
    const Tensor expected = before(Variable(probe)).data(), got = after(Variable(probe)).data();
    check(expected.shape() == got.shape(), "compact", "the compacted network gives {}, the masked one {}", got.shape(),
          expected.shape());
    const double worst = max(abs(got - expected)).item(), scale = max(abs(expected)).item();
    if (std::isnan(worst)) return worst;
    error = std::max(error, worst);
    largest = std::max(largest, scale);
  }
  return largest > 0 ? error / largest : error;
}

/// What the optimiser remembers, made smaller: where it is, and what it becomes.
struct OptimizerChange {
  std::vector<std::pair<Tensor*, Tensor>> slots;
  std::vector<Parameter> leaving;
};

OptimizerChange plan_optimizer(Optimizer& optimizer, const Module& net, const CompactionPlan& plan,
                               const std::unordered_set<std::string>& staying) {
  OptimizerChange change;
  std::unordered_set<const void*> known;
  for (const Parameter& parameter : optimizer.parameters()) known.insert(parameter.id());
  std::unordered_map<std::string, Parameter> parameters;
  for (const auto& [name, parameter] : net.named_parameters()) {
    if (!known.contains(parameter.id())) continue;
    parameters.emplace(name, parameter);
    if (!staying.contains(name)) change.leaving.push_back(parameter);
  }
  for (const PlannedParameter& planned : plan.parameters) {
    const auto parameter = parameters.find(planned.name);
    if (parameter == parameters.end() || !planned.is_smaller(parameter->second.shape())) continue;
    for (const std::string& slot : optimizer.slots())
      if (Tensor* state = optimizer.state(parameter->second, slot))
        change.slots.emplace_back(state, slice_axes(*state, planned.kept).contiguous());
  }
  return change;
}

/// Puts what stands in `copy` where blocks were dropped in their places in `net`.
void replace_blocks(Module& net, const Module& copy, const std::vector<std::string>& names) {
  for (const ResidualBlock& block : residual_blocks(net))
    if (std::find(names.begin(), names.end(), block.name) != names.end())
      block.parent->replace(block.position, module_from_config(copy.find(block.name)->config()));
}

void add_biases(Optimizer& optimizer, const Module& net, const std::vector<std::string>& added) {
  std::unordered_map<std::string, Parameter> parameters;
  std::unordered_set<const void*> known;
  for (const auto& [name, parameter] : net.named_parameters()) parameters.emplace(name, parameter);
  for (const Parameter& parameter : optimizer.parameters()) known.insert(parameter.id());
  for (const std::string& name : added) {
    const std::string weight = name.substr(0, name.size() - std::string("bias").size()) + "weight";
    if (known.contains(parameters.at(weight).id())) optimizer.add(name, parameters.at(name), parameters.at(weight));
  }
}

}  // namespace

CompactionReport compact(Module& net, const Tensor& example, const CompactOptions& options) {
  check(options.tolerance >= 0, "compact", "expected a tolerance of at least 0, got {}", options.tolerance);
  CompactionReport report;
  report.parameters_before = net.num_parameters();

  // Everything happens to a copy first.
  const ModulePtr copy = net.clone();
  if (options.drop_blocks) report.dropped_blocks = drop_blocks(*copy, example);
  const DependencyGraph graph = DependencyGraph::trace(*copy, example);
  const DeadUnits dead = find_dead_units(*copy, graph, example);
  const CompactionPlan plan = plan_compaction(*copy, graph, dead, options.select_inputs);
  for (size_t i = 0; i < graph.groups().size(); ++i) {
    const ChannelGroup& group = graph.groups()[i];
    const auto removed = std::count(dead.removed[i].begin(), dead.removed[i].end(), true);
    if (!group.fixed.empty() && dead.notes[i].empty()) continue;
    report.groups.push_back({group.name, group.units, group.units - removed, dead.notes[i]});
  }
  report.kept = composed(plan, options.earlier);
  apply(plan, *copy);
  report.error = difference(net, *copy, example);
  if (!(report.error <= options.tolerance))
    fail<NumericError>("compact",
                       "the compacted network's outputs differ from the masked one's by {:.3g} of the largest output, "
                       "the tolerance is {:.3g}; nothing was changed. Does a parameter have a transform, or a module a "
                       "state that keep_channels does not adapt?",
                       report.error, options.tolerance);

  std::unordered_set<std::string> staying;
  for (const auto& [name, parameter] : copy->named_parameters()) {
    staying.insert(name);
    if (parameter.mask().defined()) report.masks_left.push_back(name);
  }
  for (const PlannedParameter& planned : plan.parameters)
    if (planned.added) report.added_biases.push_back(planned.name);
  OptimizerChange change;
  if (options.optimizer != nullptr) change = plan_optimizer(*options.optimizer, net, plan, staying);

  // It worked on the copy, so it works here.
  replace_blocks(net, *copy, report.dropped_blocks);
  apply(plan, net);
  for (auto& [state, smaller] : change.slots) *state = std::move(smaller);
  for (const Parameter& parameter : change.leaving) options.optimizer->remove(parameter);
  if (options.optimizer != nullptr) add_biases(*options.optimizer, net, report.added_biases);
  report.parameters_after = net.num_parameters();
  return report;
}

std::string CompactionReport::to_table() const {
  size_t width = 5;
  for (const CompactedGroup& group : groups) width = std::max(width, group.name.size());
  width = std::min<size_t>(width, 48);
  std::string text = fmt::format("{:<{}}  {:>8}  {:>8}  {}\n", "group", width, "before", "after", "note");
  for (const CompactedGroup& group : groups) {
    const std::string name = group.name.size() <= width ? group.name : group.name.substr(0, width - 3) + "...";
    text += fmt::format("{:<{}}  {:>8}  {:>8}  {}", name, width, group.before, group.after, group.note);
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  text +=
      fmt::format("parameters {} -> {} ({:.2f}x smaller)\n", parameters_before, parameters_after,
                  static_cast<double>(parameters_before) / static_cast<double>(std::max<int64_t>(parameters_after, 1)));
  if (!dropped_blocks.empty()) text += fmt::format("dropped blocks: {}\n", fmt::join(dropped_blocks, ", "));
  if (!added_biases.empty()) text += fmt::format("new biases: {}\n", fmt::join(added_biases, ", "));
  if (!masks_left.empty()) text += fmt::format("still masked in part: {}\n", fmt::join(masks_left, ", "));
  return text + fmt::format("outputs differ by {:.2g} of the largest\n", error);
}

nlohmann::json CompactionReport::to_json() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const CompactedGroup& group : groups)
    rows.push_back({{"group", group.name}, {"before", group.before}, {"after", group.after}, {"note", group.note}});
  return {{"groups", std::move(rows)},
          {"parameters_before", parameters_before},
          {"parameters_after", parameters_after},
          {"dropped_blocks", dropped_blocks},
          {"added_biases", added_biases},
          {"masks_left", masks_left},
          {"error", error},
          {"kept", espalier::to_json(kept)}};
}

}  // namespace espalier
