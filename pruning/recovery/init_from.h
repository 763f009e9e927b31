// Initialising a network from another one's checkpoint: what fits is copied, what was pruned is sliced.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "layers/module.h"
#include "training/checkpoint.h"

namespace espalier {

/// For one axis of a tensor: index i takes what the checkpoint has at from[i]; -1: keeps what the module has.
struct AxisMap {
  int axis = 0;
  std::vector<int64_t> from;
};
/// By full tensor name ("conv1.weight", "bn1.running_mean"), for the axes whose widths differ.
using IndexMaps = std::map<std::string, std::vector<AxisMap>>;

struct InitReport {
  std::vector<std::string> copied, sliced;  ///< tensors of the module
  std::vector<std::string> left;            ///< they keep their values; with the reason
  std::vector<std::string> unused;          ///< tensors of the checkpoint that the module does not have
  /// Four lines: how many, and which.
  std::string to_string() const;
};

/// Copies parameters and buffers of the same name and shape (converting the dtype), gathers those with index maps, and
/// leaves the others alone. A parameter's mask in the checkpoint comes along, as an element mask where it is sliced; a
/// mask that the module has already stays, so that both hold. Throws on a map that names no tensor of both, an axis or
/// an index that does not exist, and a map that does not give the module's shape; then nothing has changed.
InitReport init_from(const Checkpoint& checkpoint, Module& module, const IndexMaps& maps = {});

}  // namespace espalier
