// What a masked network costs: the weights that exist where compaction would leave them, and their
// multiply-accumulates.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pruning/structure/graph.h"

namespace espalier {

struct LayerCosts {
  std::string name, type;
  int64_t parameters = 0, remaining_parameters = 0;  ///< of this layer itself; a shared one counts where it comes first
  int64_t macs = 0, remaining_macs = 0;
};

struct Costs {
  std::vector<LayerCosts> layers;  ///< those with parameters or MACs, in the order of execution
  int64_t parameters = 0;          ///< all, biases and normalisation included
  int64_t remaining_parameters = 0;
  int64_t macs = 0;  ///< multiply-accumulates for one example-like input; FLOPs are twice that
  int64_t remaining_macs = 0;
  int64_t bytes = 0, remaining_bytes = 0;  ///< of the parameters as dense tensors; without indices of sparse ones

  /// parameters / remaining_parameters.
  double compression() const;
  /// macs / remaining_macs: the speed-up if time followed MACs.
  double theoretical_speedup() const;
  /// Columns layer, type, parameters, remaining, MACs, remaining, and a line of totals.
  std::string to_table() const;
  nlohmann::json to_json() const;
};

/// Counts the weights that exist, in rows and columns whose units compaction would keep, and the biases it would add.
/// With structured masks that is what summarize() counts after compact() (which keeps one unit of a layer that is
/// masked as a whole, where this counts none of its weights); with masks of single weights it is what a sparse kernel
/// computes. `graph` is that of the network, `example` an input: batch 1 to count as papers do.
Costs count_costs(Module& net, const DependencyGraph& graph, const Bundle& example);

}  // namespace espalier
