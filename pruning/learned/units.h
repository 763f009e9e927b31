// What masks and gates that are trained have in common: values of units laid on weights, and gradients that pass
// through a mask.
#pragma once

#include <vector>

#include "pruning/site.h"

namespace espalier {

/// z (units of the pattern) on every weight of its unit: `weight`'s shape. Weights of a recurrent pattern, which belong
/// to two units, get the product. First derivatives only.
Variable spread_over_units(const Variable& z, const Shape& weight, const Pattern& pattern);

/// The values of a site's units (S) for the units of one of its members; 1 for units outside the site.
Variable values_of_member(const Variable& values, const SiteMember& member);

/// The mask of a member when exactly these units of the site exist; units outside the site do.
Mask member_mask(const SiteMember& member, const std::vector<bool>& exists);

/// weight where the mask's weights exist, else 0. Its gradient goes to the weight as if there were no mask (dense), or
/// only where weights exist (masked); and to `scores` (units of the member's site; or undefined) as the sum over each
/// unit of g*w, also for units that don't exist: the straight-through estimator of Bengio et al. 2013, for scores of
/// Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?", section 3. First derivatives only.
Variable straight_through(const Variable& weight, const Variable& scores, const SiteMember& member, const Mask& mask,
                          GradientFlow flow);

/// The leaf, through the parameter's own mask: what a transform starts from, so that weights masked before stay dead.
Variable masked_leaf(const Parameter& parameter, const Variable& leaf);

/// u8, eight bits a byte, lowest first: for checkpoints.
Tensor pack_bits(const std::vector<bool>& bits);
/// The inverse. Throws when there are not `count` bits.
std::vector<bool> unpack_bits(const Tensor& bytes, size_t count);

}  // namespace espalier
