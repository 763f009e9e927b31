// Repairs that need no gradient: running statistics measured anew, and means put back that masking has moved.
#pragma once

#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "layers/module.h"

namespace espalier {

class FieldVisitor;

struct RecalibrateOptions {
  int64_t batch_size = 128;
  int64_t batches =
      32;  ///< at most, full ones only where there are several; drawn in an order that depends on the seed
  uint64_t seed = 0;
};
/// All but the seed.
void fields(FieldVisitor& f, RecalibrateOptions& o);

/// Measures the running statistics of every BatchNorm anew: they are reset, and become the plain average of the mean
/// and of the unbiased variance over the batches. The BatchNorms run in training mode, everything else in evaluation
/// mode: dropout does nothing. Weights, momenta and modes stay as they are. Returns the number of BatchNorms; without
/// one nothing happens. Li et al. 2020, "EagleEye", adaptive batch normalisation.
int64_t recalibrate_batch_norm(Module& module, const Dataset& data, const RecalibrateOptions& options = {});

struct CompensateOptions {
  int64_t batch_size = 128;
  int64_t batches = 8;  ///< at most; drawn in an order that depends on the seed
  uint64_t seed = 0;
};
/// All but the seed.
void fields(FieldVisitor& f, CompensateOptions& o);

/// What became of one layer.
struct Compensation {
  std::string layer;
  std::string target;            ///< "fc1.bias", "bn1.bias", or why nothing was done
  double largest_shift = 0;      ///< of a channel's mean output, in absolute value, before
  double largest_remaining = 0;  ///< the same afterwards
};

/// For every Linear and Conv2d with a masked weight, and those that have lost an input, as a masked channel is (over a
/// batch it varies in `dense` and is constant here), in the order of the forward pass: measures on the data how far
/// each output's mean is from the mean in `dense`, and adds the difference to the layer's bias; of a layer without
/// bias, to the shift of the BatchNorm that takes its output (scaled as that scales, so that running statistics stay).
/// Masked biases and outputs of which no weight is left stay 0. Both networks run in evaluation mode. Bias correction
/// as in Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", with measured
/// means. Throws on networks whose layers have different shapes.
std::vector<Compensation> compensate_bias(Module& pruned, Module& dense, const Dataset& data,
                                          const CompensateOptions& options = {});

}  // namespace espalier
