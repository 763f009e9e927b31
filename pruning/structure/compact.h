// Compaction: a masked network becomes a smaller dense one that computes the same function.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pruning/structure/graph.h"
#include "training/optimizer.h"

namespace espalier {

class FieldVisitor;

/// Which indices of the original network a parameter still has: by parameter name, by axis.
using IndexMap = std::map<std::string, std::vector<std::vector<int64_t>>>;
nlohmann::json to_json(const IndexMap& map);
/// Throws FileError on anything else.
IndexMap index_map_from_json(const nlohmann::json& json);

struct CompactOptions {
  /// Trains the network: its momentum and moments are made smaller with the weights, biases that layers gain are added
  /// to it, parameters that leave are forgotten.
  Optimizer* optimizer = nullptr;
  /// How far the outputs of the compacted network may be from the masked one's on random inputs, relative to the
  /// largest output.
  double tolerance = 1e-5;
  bool drop_blocks = true;    ///< replace residual blocks that are masked completely
  bool select_inputs = true;  ///< let a layer read a part of its input where all its weights for the rest are masked
  IndexMap earlier = {};      ///< from the report of an earlier compaction: kept is composed with it
};
/// The tolerance, and what is taken out.
void fields(FieldVisitor& f, CompactOptions& o);

struct CompactedGroup {
  std::string name;
  int64_t before = 0, after = 0;  ///< units
  std::string note;               ///< why masked units stay, if some do
};

/// What could have become smaller by its masks, but not without changing the outputs.
struct KeptWhole {
  std::string name;  ///< a channel group's, or "input of fc1"
  std::string why;   ///< "the outputs would differ by 0.3 of the largest output, ...", "the smaller network fails: ..."
};

struct CompactionReport {
  std::vector<CompactedGroup> groups;
  int64_t parameters_before = 0, parameters_after = 0;
  std::vector<std::string> dropped_blocks;
  std::vector<std::string> added_biases;  ///< "fc1.bias": constants of dead channels went there
  std::vector<KeptWhole> kept_whole;      ///< groups whose masked units all stay
  std::vector<std::string> not_called;    ///< parameters that the network doesn't use, neither in training: left alone
  std::vector<std::string> masks_left;    ///< parameters that are still masked in part
  double error = 0;                       ///< the relative difference of the outputs that was seen
  IndexMap kept;                          ///< of every parameter of the original network that still exists

  /// Columns group, units before, units after, note; and a line of totals.
  std::string to_table() const;
  nlohmann::json to_json() const;
};

/// Makes the network as small as its masks allow, in place; the outputs in evaluation mode stay the same to rounding.
/// Every coupled weight, gradient, mask, buffer and state of the optimiser changes with it, or nothing does.
///
/// A unit of a channel group goes when everything that makes it is masked, so that it is constant, or when everything
/// that reads it is masked. What a constant channel still adds (biases, BatchNorm shifts, through any activation) is
/// measured where it is read and goes into the readers' biases, and where zero-padding makes borders differ into
/// Conv2d's `constant`. Where it is not constant there the unit stays, and the report says why. `example` is an input
/// of the network, batch 1 is enough. Transforms of parameters must have been hardened; those of outputs are compacted
/// as the layers are that they stand behind.
///
/// Where the outputs would differ by more than the tolerance, or the smaller network would not run (a reshape to fixed
/// sizes), the channel group that causes it is found by bisection and stays whole, and the report says which and why.
/// What only training calls, such as an auxiliary head, becomes smaller with the rest.
///
/// Throws what DependencyGraph::trace throws, and NumericError when two runs of the network itself differ; then nothing
/// has changed.
CompactionReport compact(Module& net, const Bundle& example, const CompactOptions& options = {});

}  // namespace espalier
