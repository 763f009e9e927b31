// Regrowth: weights that were removed come back where the dense gradient says that they would be used.
#pragma once

#include "pruning/site.h"
#include "training/evaluate.h"

namespace espalier {

struct DenseGradientOptions {
  LossFunction loss = {};  ///< default: cross-entropy
  int64_t batch_size = 128;
  int64_t batches = 1;  ///< at most; drawn in an order that depends on the seed
  uint64_t seed = 0;
};

/// The gradient of the loss with respect to every weight of the sites' members, the masked ones too, as a mean over the
/// examples of the batches, in evaluation mode. Weights, gradients, masks and modes stay as they are.
Saliencies dense_gradients(Module& module, const std::vector<Site>& sites, const Dataset& data,
                           const DenseGradientOptions& options = {});

struct RegrowOptions {
  GradientFlow flow = GradientFlow::masked;  ///< of the new masks
};

/// Brings back the `count` removed units, of all sites together, whose weights have the largest sum of |gradient| (of
/// equal ones the first), all of them when there are fewer. Their weights start at 0, so that the network computes the
/// same until the next step. Returns for each site how many came back. Evci et al. 2020, "Rigging the lottery" (RigL),
/// step "grow". Throws on a negative count and on gradients that are NaN.
std::vector<int64_t> regrow(const std::vector<Site>& sites, const Saliencies& gradients, int64_t count,
                            const RegrowOptions& options = {});
/// The same for a share of all the removed units, in [0,1].
std::vector<int64_t> regrow_share(const std::vector<Site>& sites, const Saliencies& gradients, double share,
                                  const RegrowOptions& options = {});
/// The same for one site.
int64_t regrow(const Site& site, const Saliencies& gradients, int64_t count, const RegrowOptions& options = {});

}  // namespace espalier
