// What masks and gates that are trained have in common: values of units laid on weights, and gradients that pass
// through a mask.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pruning/learned/transforms.h"

namespace espalier {

/// z (units of the pattern) on every weight of its unit: `weight`'s shape. Weights of a recurrent pattern, which belong
/// to two units, get the product. First derivatives only.
Variable spread_over_units(const Variable& z, const Shape& weight, const Pattern& pattern);

/// The values of a site's units (S) for the units of one of its members; 1 for units outside the site.
Variable values_of_member(const Variable& values, const MemberUnits& member);

/// Throws when a parameter would be masked by two of the sites.
void check_disjoint(const char* operation, const std::vector<Site>& sites);

/// The masks when exactly these units of each site exist, by site and member; undefined where a member is not masked.
/// Single weights that are masked inside of units stay masked.
std::vector<std::vector<Mask>> member_masks(const std::vector<Site>& sites,
                                            const std::vector<std::vector<bool>>& exists);
/// Lets transforms show the masks of member_masks. The parameters' own masks come last, so that what they take off need
/// not be in these.
void show_masks(const MemberTransforms<StraightThroughMask>& transforms, const std::vector<Site>& sites,
                const std::vector<std::vector<Mask>>& masks, const std::vector<std::vector<bool>>& exists);
/// The weights of such masks, and how many of them are masked.
SparsityCount count_masked(const std::vector<std::vector<Mask>>& masks);

/// weight where the mask's weights exist, else 0. Its gradient goes to the weight as if there were no mask (dense), or
/// only where weights exist (masked); and to `scores` (units of the member's site; or undefined) as the sum over each
/// unit of g*w, also for units that don't exist: the straight-through estimator of Bengio et al. 2013, for scores of
/// Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?". First derivatives only.
Variable straight_through(const Variable& weight, const Variable& scores, const MemberUnits& member, const Mask& mask,
                          GradientFlow flow);

/// The tensor of that name in what a callback saved. Throws FileError.
Tensor find_state(const char* operation, const std::vector<std::pair<std::string, Tensor>>& state,
                  const std::string& name);

/// u8, eight bits a byte, lowest first: for checkpoints.
Tensor pack_bits(const std::vector<bool>& bits);
/// The inverse. Throws when there are not `count` bits.
std::vector<bool> unpack_bits(const Tensor& bytes, size_t count);

}  // namespace espalier
