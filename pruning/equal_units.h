// Allocation in linear time, for the sites with the most units: those whose units are single weights, blocks or kernels
// of one parameter each. Units that exist are bits of words, scores are tensors; both stay on the network's device.
#pragma once

#include <vector>

#include "core/selection.h"
#include "pruning/allocation.h"

namespace espalier {

/// What allocate() checks first: throws unless the sparsity is in [0,1) and the options make sense for these sites.
void check_allocation(const std::vector<Site>& sites, double sparsity, const AllocationOptions& options);

/// Whether a site is of single weights, blocks, kernels or n of m of one parameter.
bool is_of_pieces(const Site& site);
/// Whether each site is of single weights, blocks, kernels or n of m of one parameter, which no other site has.
bool are_pieces_of_weights(const std::vector<Site>& sites);
/// Whether allocate_words can take these sites, with these options (no Scope::erk, no sparsities by hand).
bool have_equal_units(const std::vector<Site>& sites, const AllocationOptions& options);

/// What allocate() does: the words of the units that stay. `sites` and options are ones that have_equal_units; of each
/// site the scores, and which units may stay at all.
std::vector<Tensor> allocate_words(const std::vector<Site>& sites, std::vector<Candidates> candidates, double sparsity,
                                   const AllocationOptions& options);

/// The words of the units that stay when the lowest go, as few as cost at least `cost` together or as many as protect
/// and min_units allow. Scope::global: the lowest of all sites; units that cost nothing stay. Scope::layer: the same
/// share of every site. sites: are_pieces_of_weights; candidates: with the costs of their units and, in `ranks`, what
/// scores are divided by beside normalize. Throws when a score is NaN.
std::vector<Tensor> cut_words(const std::vector<Site>& sites, std::vector<Candidates> candidates, double cost,
                              const AllocationOptions& options);

/// Units as one bit each, with their scores, and back.
Tensor words_of_units(const std::vector<bool>& exists);
Candidates candidates_of(const std::vector<double>& scores, const std::vector<bool>& exists);
std::vector<bool> units_of_words(const Site& site, const Tensor& words);

/// A site's units as one bit each: of are_pieces_of_weights on the parameter's device, of others on the CPU.
Tensor existing_words(const Site& site);
/// The mask of a site's parameter in which these units exist, on the parameter's device.
Mask mask_of_words(const Site& site, const Tensor& words);
void set_existing_words(const Site& site, const Tensor& words, GradientFlow flow);
/// unit_scores as a tensor: of are_pieces_of_weights on the saliencies' device, of others on the CPU.
Tensor score_tensor(const Site& site, const Saliencies& saliencies);

}  // namespace espalier
