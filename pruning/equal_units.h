// Allocation in linear time, for the sites with the most units: those whose units are single weights, blocks or kernels
// of one weight each, all of one size. Units that exist are bits of words, scores are tensors.
#pragma once

#include <vector>

#include "core/selection.h"
#include "pruning/allocation.h"

namespace espalier {

/// What allocate() checks first: throws unless the sparsity is in [0,1) and the options make sense for these sites.
void check_allocation(const std::vector<Site>& sites, double sparsity, const AllocationOptions& options);

/// Whether allocate_words can take these sites, with these options (no Scope::erk, no sparsities by hand).
bool have_equal_units(const std::vector<Site>& sites, const AllocationOptions& options);

/// What allocate() does: the words of the units that stay. `sites` and options are ones that have_equal_units; of each
/// site the scores, and which units may stay at all.
std::vector<Tensor> allocate_words(const std::vector<Site>& sites, std::vector<Candidates> candidates, double sparsity,
                                   const AllocationOptions& options);

/// A site's units as one bit each, for sites that have_equal_units.
Tensor existing_words(const Site& site);
/// The mask of a site's parameter in which these units exist, on the parameter's device.
Mask mask_of_words(const Site& site, const Tensor& words);
void set_existing_words(const Site& site, const Tensor& words, GradientFlow flow);
/// The scores of a site's units: unit_scores as a tensor.
Tensor score_tensor(const Site& site, const Saliencies& saliencies);

}  // namespace espalier
