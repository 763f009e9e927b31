// Reconstruction: the weights that a layer has left are fitted to what it put out before it was pruned.
#pragma once

#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "layers/module.h"

namespace espalier {

class FieldVisitor;

struct ReconstructOptions {
  int64_t batch_size = 128;
  int64_t batches = 8;     ///< at most; drawn in an order that depends on the seed
  int64_t positions = 10;  ///< of each image, drawn at random; where a map has fewer, all of them
  double ridge = 1e-6;     ///< pull towards the present weights, as a share of the inputs' mean square
  bool bias = true;        ///< fit the bias too, where the layer has one
  uint64_t seed = 0;
};
/// All but the seed.
void fields(FieldVisitor& f, ReconstructOptions& o);

/// What became of one layer. Errors are mean squares over the sampled outputs, before and after.
struct Reconstruction {
  std::string layer;
  int64_t samples = 0;  ///< rows of the equations
  double before = 0, after = 0;
};

/// Fits the remaining weights (and the bias) of a Linear or Conv2d so that on the data its outputs, computed from the
/// inputs that the pruned network gives it, come as near as they can to the outputs of the same layer in `dense`: for
/// each output the least-squares solution on the inputs that its mask leaves, in double, with a ridge around the
/// present weights. The sampled error never grows; masked weights stay 0; outputs without any weight or bias stay as
/// they are. He, Zhang & Sun 2017, "Channel pruning for accelerating very deep neural networks", the step of
/// reconstruction; Luo et al. 2017, "ThiNet". Both networks run in evaluation mode and keep their modes
/// and gradients. Throws on an unknown layer, another type of layer, and networks whose layers have different shapes.
Reconstruction reconstruct_layer(Module& pruned, const std::string& layer, Module& dense, const Dataset& data,
                                 const ReconstructOptions& options = {});

/// reconstruct_layer for every Linear and Conv2d with a masked weight, and for those that have lost an input, as a
/// masked channel is (over a batch it varies in `dense` and is constant here), in the order of the forward pass: each
/// is fitted to the inputs that the repaired layers before it give.
std::vector<Reconstruction> reconstruct(Module& pruned, Module& dense, const Dataset& data,
                                        const ReconstructOptions& options = {});

}  // namespace espalier
