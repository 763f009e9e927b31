// The dependency graph: which channels of which layers have to go together. Made from the tape of one forward pass.
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "autograd/axes.h"
#include "pruning/site.h"

namespace espalier {

/// The slices of one parameter that belong to a group's units.
struct GroupMember {
  std::string name;  ///< "conv1.weight"
  Parameter parameter;
  int axis = 0;
  int64_t gates = 1;       ///< 4 for the stacked rows of an LSTM
  bool recurrent = false;  ///< w_hh: a unit is its gates' rows and its column
  ChannelRoles roles;
  /// For each index of the axis (of one gate) the group's unit, or -1 when it belongs to another group.
  std::vector<int64_t> units;
};

/// Units that exist in all members or in none: the channels of layers joined by residual sums, BatchNorms, the columns
/// of everything that reads them.
struct ChannelGroup {
  std::string name;  ///< the producers' layers: "conv1", "stage1.0.conv2 + stage1.1.conv2"
  int64_t units = 0;
  std::vector<GroupMember> members;
  std::string fixed;                 ///< why no unit may go ("output of the network"); empty: they may
  bool read_without_weight = false;  ///< by a product with other data: masks of weights don't say whether it is read
};

/// Index i of a module's channel axis is unit `unit` of group `group`; -1: of none.
struct ChannelRef {
  int group = -1;
  int64_t unit = -1;
};

/// The channels that a module without children takes and gives, where its account (layers/channels.h) says they are.
/// One for each call, in their order.
struct ModuleChannels {
  std::string name;
  ModulePtr module;
  std::vector<ChannelRef> inputs, outputs;
  Shape input, output;
  bool in_training_only = false;  ///< not called in evaluation mode: an auxiliary head
};

/// Coupled channels of a network. It refers to the network's parameters, whose values and masks may change; after a
/// compaction trace again.
class DependencyGraph {
 public:
  /// Runs `example` (what goes into the network once, batch 1 is enough) through the network in evaluation mode and
  /// follows the tape. When that leaves parameters out, those of an auxiliary head, it follows the tape of training
  /// mode too; running statistics and random numbers stay as they were. Throws, naming it, on an operation whose axis
  /// map is not known. As in Fang et al. 2023, "DepGraph", but for single indices of axes, and without a table of layer
  /// types: from operations.
  static DependencyGraph trace(Module& module, const Bundle& example);

  /// Every group with a parameter in it, in the order of the forward pass.
  const std::vector<ChannelGroup>& groups() const { return groups_; }
  const std::vector<ModuleChannels>& modules() const { return modules_; }
  const std::vector<Lookup>& lookups() const { return lookups_; }
  /// Parameters that the network used in neither mode: nothing is known of their channels.
  const std::vector<std::string>& not_called() const { return not_called_; }
  /// Whether operations use the parameter that belong to none of the modules which hold it.
  bool is_used_outside(const Parameter& parameter) const { return used_outside_.contains(parameter.id()); }
  /// Whether some modules are called in training mode only.
  bool has_training_only() const;
  /// What the training mode was traced with: the input, or, where one example is too few for a BatchNorm, the input
  /// twice.
  Bundle training_input(const Bundle& input) const;
  /// The group of that name. Throws, naming the nearest.
  const ChannelGroup& find(const std::string& name) const;

  /// A line for each group: units, number of members, name, and why it stays whole if it does.
  std::string to_table() const;
  /// Every member of a group: what a unit of it is, in words ("unit u: row u of conv1.weight, ...").
  std::string explain(const std::string& group) const;
  /// Graphviz: layers as boxes, groups as colours, an edge for what reads what.
  std::string to_dot() const;

 private:
  std::vector<ChannelGroup> groups_;
  std::vector<ModuleChannels> modules_;
  std::vector<Lookup> lookups_;
  std::vector<std::string> not_called_;
  std::unordered_set<const void*> used_outside_;
  int training_copies_ = 1;
};

/// One site for every group whose units may go. Producers and scales are masked (channel patterns; recurrent for w_hh);
/// readers count in the scores and go at compaction.
std::vector<Site> channel_sites(const DependencyGraph& graph);

/// One site for each weight that reads the network's input or a flattened feature map: its input features, one by one
/// (Pattern::channel(1)), for pruning inputs beyond whole channels. Names as the parameters'.
std::vector<Site> input_feature_sites(const Module& module, const std::vector<std::string>& weights);

}  // namespace espalier
