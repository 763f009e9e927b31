#include "pruning/structure/compact.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "core/fields.h"
#include "core/json.h"
#include "pruning/structure/blocks.h"
#include "pruning/structure/compaction_plan.h"
#include "pruning/structure/probes.h"
#include "pruning/structure/training_run.h"

namespace espalier {

nlohmann::json to_json(const IndexMap& map) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [name, axes] : map) json[name] = axes;
  return json;
}

IndexMap index_map_from_json(const nlohmann::json& json) {
  try {
    for (const nlohmann::json& axes : json)
      for (const nlohmann::json& kept : axes) whole_numbers(kept);
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
    if (planned.is_new()) continue;
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
double difference(Module& before, Module& after, const std::vector<Bundle>& probes) {
  const EvalMode eval_before(before), eval_after(after);
  const NoGrad no_grad;
  double error = 0, largest = 0;
  for (const Bundle& probe : probes) {
    const Bundle wanted = before.call(probe), outputs = after.call(probe);
    check(wanted.size() == outputs.size(), "compact", "the compacted network has {} outputs, the masked one {}",
          outputs.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      const Tensor expected = wanted[i].data(), got = outputs[i].data();
      check(expected.shape() == got.shape(), "compact", "the compacted network gives {}, the masked one {}",
            got.shape(), expected.shape());
      const double worst = max(abs(got - expected)).item(), scale = max(abs(expected)).item();
      if (std::isnan(worst)) return worst;
      error = std::max(error, worst);
      largest = std::max(largest, scale);
    }
  }
  return largest > 0 ? error / largest : error;
}

/// One way to make a network smaller, and whether that is right.
struct Attempt {
  DeadUnits dead;
  CompactionPlan plan;
  ModulePtr smaller = nullptr;  ///< a copy of the network that the plan was carried out on
  double error = 0;
  std::string problem;  ///< "" when the outputs stay the same
};

/// Finds out how much of a compaction leaves the outputs as they are. What a compaction changes are channel groups, and
/// inputs that a layer doesn't read any more.
class Search {
 public:
  Search(Module& original, Module& base, const DependencyGraph& graph, const Bundle& example,
         const CompactOptions& options)
      : original_(original),
        base_(base),
        graph_(graph),
        example_(example),
        options_(options),
        probes_(probes_like(graph, example, 3)) {}

  /// All of it, or all but the smallest parts that can't go.
  Attempt run();
  const std::vector<KeptWhole>& kept_whole() const { return kept_whole_; }

 private:
  using Changes = std::vector<std::string>;

  /// Makes only these changes; nullptr: all.
  Attempt attempt(const Changes* only) const;
  std::string problem_of(Module& smaller, double& error) const;
  Changes changes_of(const Attempt& attempt) const;
  void accept(Changes part);
  bool fits(const Changes& part, Attempt& result) const;
  static std::string input_of(const std::string& module) { return "input of " + module; }

  Module &original_, &base_;
  const DependencyGraph& graph_;
  const Bundle& example_;
  const CompactOptions& options_;
  std::vector<Bundle> probes_;
  Changes accepted_;
  std::vector<KeptWhole> kept_whole_;
};

Attempt Search::attempt(const Changes* only) const {
  const auto may = [&](const std::string& change) {
    return only == nullptr || std::find(only->begin(), only->end(), change) != only->end();
  };
  std::vector<bool> whole;
  for (const ChannelGroup& group : graph_.groups()) whole.push_back(!may(group.name));
  Attempt attempt{.dead = find_dead_units(base_, graph_, example_, whole), .plan = {}, .problem = {}};
  try {
    attempt.plan = plan_compaction(base_, graph_, attempt.dead, [&](const std::string& module) {
      return options_.select_inputs && may(input_of(module));
    });
    attempt.smaller = base_.clone();
    espalier::apply(attempt.plan, NetworkIndex(*attempt.smaller));
    attempt.problem = problem_of(*attempt.smaller, attempt.error);
  } catch (const Error& error) {
    attempt.problem = fmt::format("the smaller network fails: {}", error.what());
  }
  return attempt;
}

/// Why a smaller network isn't what it should be, or "".
std::string Search::problem_of(Module& smaller, double& error) const {
  error = difference(original_, smaller, probes_);
  if (std::isnan(error)) return "the outputs for random inputs are not finite";
  if (!(error <= options_.tolerance))
    return fmt::format("the outputs would differ by {:.3g} of the largest output, the tolerance is {:.3g}", error,
                       options_.tolerance);
  if (graph_.has_training_only()) {
    const TrainingRun training(smaller);
    const NoGrad no_grad;
    smaller.call(graph_.training_input(example_));
  }
  return "";
}

Search::Changes Search::changes_of(const Attempt& attempt) const {
  Changes changes;
  for (size_t i = 0; i < graph_.groups().size(); ++i)
    if (std::find(attempt.dead.removed[i].begin(), attempt.dead.removed[i].end(), true) !=
        attempt.dead.removed[i].end())
      changes.push_back(graph_.groups()[i].name);
  for (const ModuleChannels& call : graph_.modules())
    if (const std::string input = input_of(call.name);
        options_.select_inputs && std::find(changes.begin(), changes.end(), input) == changes.end())
      changes.push_back(input);
  return changes;
}

Attempt Search::run() {
  Attempt everything = attempt(nullptr);
  if (everything.problem.empty()) return everything;
  const Changes none;
  if (const Attempt nothing = attempt(&none); !nothing.problem.empty())
    fail<NumericError>("compact", "{}; nothing was changed. Has the network a state that changes with each input?",
                       nothing.problem);
  accept(changes_of(everything));
  Attempt result = attempt(&accepted_);
  check(result.problem.empty(), "compact", "{}; nothing was changed", result.problem);
  return result;
}

/// Whether these changes can be made beside those that are accepted.
bool Search::fits(const Changes& part, Attempt& result) const {
  Changes together = accepted_;
  together.insert(together.end(), part.begin(), part.end());
  result = attempt(&together);
  return result.problem.empty();
}

/// Accepts what of `part` can go, by bisection.
void Search::accept(Changes part) {
  if (part.empty()) return;
  Attempt result;
  if (fits(part, result)) {
    accepted_.insert(accepted_.end(), part.begin(), part.end());
    return;
  }
  if (part.size() == 1) {
    kept_whole_.push_back({part[0], result.problem});
    return;
  }
  const auto middle = part.begin() + static_cast<std::ptrdiff_t>(part.size() / 2);
  accept({part.begin(), middle});
  accept({middle, part.end()});
}

/// What the optimiser remembers, made smaller: where it is, and what it becomes.
struct OptimizerChange {
  std::vector<std::pair<Tensor*, Tensor>> slots;
  std::vector<Parameter> leaving;
};

OptimizerChange plan_optimizer(Optimizer& optimizer, const NetworkIndex& net, const CompactionPlan& plan,
                               const NetworkIndex& smaller) {
  OptimizerChange change;
  std::unordered_set<const void*> trained;
  for (const Parameter& parameter : optimizer.parameters()) trained.insert(parameter.id());
  for (const auto& [name, parameter] : net.parameters)
    if (trained.contains(parameter.id()) && !smaller.parameters.contains(name)) change.leaving.push_back(parameter);
  for (const PlannedParameter& planned : plan.parameters) {
    if (planned.is_new()) continue;
    const Parameter& parameter = net.parameters.at(planned.name);
    if (!trained.contains(parameter.id()) || !planned.is_smaller(parameter.shape())) continue;
    for (const std::string& slot : optimizer.slots())
      if (Tensor* state = optimizer.state(parameter, slot))
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

/// Lets an optimiser that trains a weight train the bias too that it has gained.
void add_biases(Optimizer& optimizer, const NetworkIndex& net, const CompactionPlan& plan) {
  std::unordered_set<const void*> trained;
  for (const Parameter& parameter : optimizer.parameters()) trained.insert(parameter.id());
  for (const PlannedParameter& planned : plan.parameters) {
    if (!planned.is_new()) continue;
    const Parameter& weight = net.parameters.at(planned.weight);
    if (!trained.contains(weight.id())) continue;
    const auto [module, name] = net.owner(planned.name);
    optimizer.add(planned.name, module->parameter(name), weight);
  }
}

}  // namespace

void fields(FieldVisitor& f, CompactOptions& o) {
  f.unless_default("tolerance", o.tolerance, at_least(0), "Largest relative difference of the outputs");
  f.unless_default("drop_blocks", o.drop_blocks, "Residual blocks that are masked completely go");
  f.unless_default("select_inputs", o.select_inputs,
                   "Layers read a part of their input where all weights for the rest are masked");
}

CompactionReport compact(Module& net, const Bundle& example, const CompactOptions& options) {
  check(options.tolerance >= 0, "compact", "expected a tolerance of at least 0, got {}", options.tolerance);
  for (const auto& [name, parameter] : net.named_parameters())
    check(parameter.transforms().empty(), "compact",
          "expected parameters without transforms, but '{}' has a {}; harden it first (Parameter::fold_transforms, or "
          "what gave it)",
          name, parameter.transforms().empty() ? "" : parameter.transforms()[0]->type());
  CompactionReport report;
  report.parameters_before = net.num_parameters();

  // Everything happens to a copy first.
  const ModulePtr copy = net.clone();
  if (options.drop_blocks) report.dropped_blocks = drop_blocks(*copy, example);
  const DependencyGraph graph = DependencyGraph::trace(*copy, example);
  Search search(net, *copy, graph, example, options);
  const auto [dead, plan, smaller, error, problem] = search.run();
  report.error = error;
  report.kept_whole = search.kept_whole();
  report.not_called = graph.not_called();
  for (size_t i = 0; i < graph.groups().size(); ++i) {
    const ChannelGroup& group = graph.groups()[i];
    const auto removed = std::count(dead.removed[i].begin(), dead.removed[i].end(), true);
    if (!group.fixed.empty() && dead.notes[i].empty()) continue;
    report.groups.push_back({group.name, group.units, group.units - removed, dead.notes[i]});
  }
  report.kept = composed(plan, options.earlier);
  for (const auto& [name, parameter] : smaller->named_parameters())
    if (parameter.mask().defined()) report.masks_left.push_back(name);
  for (const PlannedParameter& planned : plan.parameters)
    if (planned.is_new()) report.added_biases.push_back(planned.name);
  OptimizerChange change;
  if (options.optimizer != nullptr)
    change = plan_optimizer(*options.optimizer, NetworkIndex(net), plan, NetworkIndex(*smaller));

  // It worked on a copy, so it works here.
  replace_blocks(net, *smaller, report.dropped_blocks);
  const NetworkIndex index(net);
  apply(plan, index);
  for (auto& [state, less] : change.slots) *state = std::move(less);
  for (const Parameter& parameter : change.leaving) options.optimizer->remove(parameter);
  if (options.optimizer != nullptr) add_biases(*options.optimizer, index, plan);
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
  for (const KeptWhole& kept_one : kept_whole)
    text += fmt::format("stays whole: {}: {}\n", kept_one.name, kept_one.why);
  if (!not_called.empty())
    text += fmt::format("not called with the example, left as they are: {}\n", fmt::join(not_called, ", "));
  if (!masks_left.empty()) text += fmt::format("still masked in part: {}\n", fmt::join(masks_left, ", "));
  return text + fmt::format("outputs differ by {:.2g} of the largest\n", error);
}

nlohmann::json CompactionReport::to_json() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const CompactedGroup& group : groups)
    rows.push_back({{"group", group.name}, {"before", group.before}, {"after", group.after}, {"note", group.note}});
  nlohmann::json whole = nlohmann::json::array();
  for (const KeptWhole& kept_one : kept_whole) whole.push_back({{"name", kept_one.name}, {"why", kept_one.why}});
  return {{"groups", std::move(rows)},
          {"parameters_before", parameters_before},
          {"parameters_after", parameters_after},
          {"dropped_blocks", dropped_blocks},
          {"added_biases", added_biases},
          {"masks_left", masks_left},
          {"kept_whole", std::move(whole)},
          {"not_called", not_called},
          {"error", error},
          {"kept", espalier::to_json(kept)}};
}

}  // namespace espalier
