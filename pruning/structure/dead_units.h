// Which units of a masked network do nothing: they are constant, or nobody reads them. What compaction removes and what
// the effective costs leave out.
#pragma once

#include <string>
#include <vector>

#include "pruning/structure/graph.h"

namespace espalier {

/// What the channels were worth that a weight reads and that are constant and go: it adds weight * value from then on.
struct ReadConstants {
  std::string module;
  ModulePtr layer;
  ChannelReader reader;
  std::vector<double> values;  ///< one for each channel that could be read; 0 where nothing is to be added
};

struct DeadUnits {
  std::vector<std::vector<bool>> removed;  ///< by group of the graph, by unit
  std::vector<std::string> notes;          ///< by group: why masked units stay; "" where none does
  std::vector<ReadConstants> constants;    ///< of the weights that read any that are not 0

  /// Whether index i of that kind of reference goes.
  bool goes(const ChannelRef& ref) const {
    return ref.group >= 0 && removed[static_cast<size_t>(ref.group)][static_cast<size_t>(ref.unit)];
  }
};

/// Reads the masks of the graph's parameters, and runs the network in evaluation mode on random inputs like `example`
/// to see what constant channels are worth where they are read (an auxiliary head's in training mode).
/// A unit is constant when all weights that make it are masked, or read constant units only, or when the weights that
/// scale it are masked. It goes if every layer that still reads it sees one value for every input and position; a
/// constant hidden unit of an LSTM must be 0. A unit is unused when every weight that reads it is masked or belongs to
/// a unit that goes; what multiplies it with other data reads it always. At least one unit of every group stays.
/// `whole`: groups that lose nothing, by position; empty: none of them.
DeadUnits find_dead_units(Module& net, const DependencyGraph& graph, const Bundle& example,
                          const std::vector<bool>& whole = {});

/// Where each index of a parameter's axis 0 and 1 belongs in the graph. Of a parameter of one axis the second is one
/// index that belongs nowhere.
struct AxisRefs {
  std::vector<ChannelRef> rows, columns;
};
AxisRefs axis_refs(const DependencyGraph& graph, const Parameter& parameter);

}  // namespace espalier
