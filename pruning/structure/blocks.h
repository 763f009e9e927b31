// Residual blocks as units: how much each is worth, masking one as a whole, and taking out those that do nothing.
#pragma once

#include <string>
#include <vector>

#include "datasets/data_loader.h"
#include "layers/containers.h"
#include "training/evaluate.h"

namespace espalier {

/// A block with a skip connection, such as BasicBlock or Residual, in a Sequential whose input comes back unchanged
/// when its body gives 0 (through a ReLU where the block ends in one): no shortcut of its own.
struct ResidualBlock {
  std::string name;  ///< "stage1.2"
  ModulePtr module;
  std::shared_ptr<Sequential> parent;
  size_t position = 0;  ///< in the parent
};

/// All of them, in the order of the forward pass.
std::vector<ResidualBlock> residual_blocks(Module& net);

/// The block's parameters without those of its shortcut. Throws when the module has no skip connection.
std::vector<std::pair<std::string, Parameter>> body_parameters(const Module& block);

/// Masks every parameter of the block's body, so that the body gives 0 (if its last layer has no other constant).
void mask_block(const ModulePtr& block, GradientFlow flow = GradientFlow::masked);
/// Whether the body has parameters, and all of them are masked completely.
bool is_masked_block(const Module& block);

struct BlockImportance {
  std::string name;
  double loss = 0;      ///< of the network without the block
  double increase = 0;  ///< over the loss of the whole network: what the block is worth
};

struct BlockImportanceOptions {
  LossFunction loss = {};  ///< default: cross-entropy
  int64_t batch_size = 256;
  int64_t batches = 0;  ///< at most, from the start of the data; 0: all
};

/// The loss when each block in turn is bypassed, in evaluation mode. Leaves the network as it was. Layer-wise
/// ablation: Veit, Wilber & Belongie 2016, "Residual networks behave like ensembles of relatively shallow networks",
/// deleting individual layers.
std::vector<BlockImportance> block_importances(Module& net, const Dataset& data,
                                               const BlockImportanceOptions& options = {});

/// Masks `drop` of the blocks that aren't masked yet: those of the least increase, of equal ones the first. Without any
/// `importances` the first blocks, to try what can be done. Returns those of the masked ones. Throws when there are
/// fewer.
std::vector<BlockImportance> mask_least_important_blocks(Module& net, int64_t drop,
                                                         std::vector<BlockImportance> importances);

/// Replaces every masked block by an Identity, or by a ReLU where the block ends in one and its input has been seen
/// below 0; a block whose body gives something other than 0 stays. Looks at the network on `example`, in evaluation
/// mode. Returns the names of those replaced.
std::vector<std::string> drop_blocks(Module& net, const Bundle& example);

}  // namespace espalier
