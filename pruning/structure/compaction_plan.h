// What a compaction will change, all of it computed before anything is touched. Not for others.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pruning/structure/dead_units.h"

namespace espalier {

using Indices = std::vector<int64_t>;

/// A parameter's tensors after the compaction.
struct PlannedParameter {
  std::string name;
  std::vector<Indices> kept;  ///< by axis, indices before
  std::string weight = {};    ///< of a bias that does not exist yet: the weight beside it; else ""
  Tensor value;
  Mask mask;  ///< undefined: none
  GradientFlow flow = GradientFlow::masked;

  bool is_new() const { return !weight.empty(); }
  bool is_smaller(const Shape& before) const;
};

struct PlannedModule {
  std::string name;
  bool changes_channels = false;
  Indices inputs, outputs;                                   ///< channels kept, for Module::keep_channels
  std::optional<Indices> selection;                          ///< what it then reads of its input
  std::vector<std::pair<std::string, Tensor>> buffers = {};  ///< that become other tensors, by name
};

struct CompactionPlan {
  std::vector<PlannedParameter> parameters;
  std::vector<PlannedModule> modules;
};

/// Which modules may read a part of their input only.
using MaySelect = std::function<bool(const std::string& module)>;

/// Computed from `net`, whose graph that is; changes nothing.
CompactionPlan plan_compaction(Module& net, const DependencyGraph& graph, const DeadUnits& dead,
                               const MaySelect& may_select);

/// Who is who in a network, by full name.
struct NetworkIndex {
  explicit NetworkIndex(const Module& net);

  /// The module that holds, or may hold, a parameter of that full name, and its name there. Throws when there is none.
  std::pair<ModulePtr, std::string> owner(const std::string& parameter) const;

  std::map<std::string, Parameter> parameters;
  std::map<std::string, ModulePtr> modules;
};

/// Carries it out on the network that it was computed from, or on a copy of that. Gradients follow.
void apply(const CompactionPlan& plan, const NetworkIndex& net);

/// x with only these indices of each axis.
Tensor slice_axes(Tensor x, const std::vector<Indices>& kept);

/// Whether reading `kept` channels of the input through a selection saves more than the copy costs: dropping `dropped`
/// saves that many multiply-accumulates, `per_channel` each, where each kept channel costs `copies` elements moved.
bool selection_pays(int64_t kept, int64_t dropped, int64_t per_channel, int64_t copies);

}  // namespace espalier
