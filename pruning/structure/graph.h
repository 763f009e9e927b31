// The dependency graph: which channels of which layers have to go together. Made from the tape of one forward pass.
#pragma once

#include <string>
#include <vector>

#include "pruning/site.h"

namespace espalier {

/// What an axis of a parameter is to a channel.
enum class ChannelRole : uint8_t {
  produces,  ///< its rows compute the channel: conv2d weight axis 0 and bias, linear, lstm, embedding axis 1
  scales,    ///< one value a channel: BatchNorm weight and bias
  reads,     ///< its columns take the channel as input: conv2d and linear weight axis 1, lstm w_ih axis 1
};

/// The slices of one parameter that belong to a group's units.
struct GroupMember {
  std::string name;  ///< "conv1.weight"
  Parameter parameter;
  int axis = 0;
  int64_t gates = 1;       ///< 4 for the stacked rows of an LSTM
  bool recurrent = false;  ///< w_hh: a unit is its gates' rows and its column
  ChannelRole role = ChannelRole::produces;
  /// For each index of the axis (of one gate) the group's unit, or -1 when it belongs to another group.
  std::vector<int64_t> units;
};

/// Units that exist in all members or in none: the channels of layers joined by residual sums, BatchNorms, the columns
/// of everything that reads them.
struct ChannelGroup {
  std::string name;  ///< the producers' layers: "conv1", "stage1.0.conv2 + stage1.1.conv2"
  int64_t units = 0;
  std::vector<GroupMember> members;
  std::string fixed;  ///< why no unit may go ("output of the network"); empty: they may
};

/// Index i of a module's channel axis is unit `unit` of group `group`; -1: of none.
struct ChannelRef {
  int group = -1;
  int64_t unit = -1;
};

/// The channels that a module without children takes and gives: axis 1 of (N,C) and (N,C,H,W), the last axis of what
/// Linear, LSTM and LayerNorm take and give (and of other sequences). One for each call, in their order.
struct ModuleChannels {
  std::string name;
  ModulePtr module;
  std::vector<ChannelRef> inputs, outputs;
  Shape input, output;
};

/// Coupled channels of a network. It refers to the network's parameters, whose values and masks may change; after a
/// compaction trace again.
class DependencyGraph {
 public:
  /// Runs `example` (one input of the network, batch 1 is enough) through the network in evaluation mode and follows
  /// the tape. Throws, naming it, on an operation whose axis map is not known. As in Fang et al. 2023, "DepGraph",
  /// but for single indices of axes, and without a table of layer types: from operations.
  static DependencyGraph trace(Module& module, const Tensor& example);

  /// Every group with a parameter in it, in the order of the forward pass.
  const std::vector<ChannelGroup>& groups() const { return groups_; }
  const std::vector<ModuleChannels>& modules() const { return modules_; }
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
};

/// One site for every group whose units may go. Producers and scales are masked (channel patterns; recurrent for w_hh);
/// readers count in the scores and go at compaction.
std::vector<Site> channel_sites(const DependencyGraph& graph);

/// One site for each weight that reads the network's input or a flattened feature map: its input features, one by one
/// (Pattern::channel(1)), for pruning inputs beyond whole channels. Names as the parameters'.
std::vector<Site> input_feature_sites(const Module& module, const std::vector<std::string>& weights);

}  // namespace espalier
