// Site: units that are scored, kept and removed one by one, whatever they are made of: the weights of a layer, its
// blocks or kernels, or channels that several layers share (structure/graph.h makes those).
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "core/mask.h"
#include "layers/module.h"

namespace espalier {

/// What a site's units are in one parameter.
struct SiteMember {
  Parameter parameter;
  Pattern pattern;
  /// For each unit of the pattern the unit of the site that it belongs to, or -1. Empty: the same number.
  std::vector<int64_t> site_units = {};
  /// Removing a unit masks these weights. False for the weights that read a removed channel: they count in scores, and
  /// go when the network is compacted.
  bool masked = true;

  int64_t site_unit(int64_t unit) const { return site_units.empty() ? unit : site_units[static_cast<size_t>(unit)]; }
};

struct Site {
  std::string name;  ///< "conv1.weight", or the layers of a group of channels: "conv1 -> conv2"
  int64_t units = 0;
  std::vector<SiteMember> members;
};

/// Whether a name given by hand, which may end in '*', means this one.
bool fits_name(const std::string& pattern, const std::string& name);
/// Whether any of them does.
bool names_include(const std::vector<std::string>& patterns, const std::string& name);
/// Throws unless every name given by hand means a site, naming the nearest.
void check_names(const char* operation, const std::vector<Site>& sites, const std::vector<std::string>& names);
/// Throws on n-of-m patterns, for what treats units one by one, in the way that `why` says.
void check_no_n_of_m(const char* operation, const std::vector<Site>& sites, const char* why);

/// The units of one parameter. Throws when the pattern does not fit it.
Site site_of(const std::string& name, const Parameter& parameter, const Pattern& pattern);

/// One site for every weight: parameters of two axes or more. A pattern that cannot fit a weight by its kind leaves
/// that weight alone (kernel: only weights of four axes; recurrent: only LSTM's weight_hh). Throws when a pattern fits
/// no weight, and when its sizes don't divide one, unless `protect` names that one (names may end in '*'): then its
/// units are its single weights, for allocate to leave them all.
std::vector<Site> weight_sites(const Module& module, const Pattern& pattern = Pattern::element(),
                               const std::vector<std::string>& protect = {});

/// Saliencies of weights by Parameter::id(), in the parameters' shapes.
using Saliencies = std::unordered_map<const void*, Tensor>;

/// Sums over the weights of each unit, in all members. A parameter without an entry counts 0.
std::vector<double> unit_scores(const Site& site, const Saliencies& saliencies);

/// Number of weights that removing a unit masks; those of w_hh's recurrent units that cross count for both.
std::vector<int64_t> unit_weights(const Site& site);

/// The same, of the weights that exist now.
std::vector<int64_t> existing_unit_weights(const Site& site);

/// Which units exist now: all but those of which a masked member has lost every weight.
std::vector<bool> existing_units(const Site& site);

/// The mask of a member when exactly these units of the site exist. Units of the pattern that don't belong to the site
/// are what `others` says (one bit each; empty: they exist).
Mask member_mask(const SiteMember& member, const std::vector<bool>& exists, std::vector<bool> others = {});

/// Makes exactly these units exist: sets the masks of the masked members. A member whose mask has another pattern keeps
/// what that has removed (the two masks are joined to an element mask); bits of the same pattern outside the site stay.
void set_existing_units(const Site& site, const std::vector<bool>& exists, GradientFlow flow = GradientFlow::masked);

/// The `count` units of `among` with the highest scores, in no order; of equal scores the lower index.
std::vector<size_t> highest(std::vector<size_t> among, const std::vector<double>& scores, size_t count);

/// Brings units back until `least` of the candidates exist, or all when there are fewer: those of the highest scores.
/// For masks that thresholds choose, so that no layer collapses.
void keep_at_least(std::vector<bool>& exists, const std::vector<bool>& candidates, const std::vector<double>& scores,
                   int64_t least);

/// What pruning has left of a site that has next to nothing left.
struct Collapse {
  std::string site;
  int64_t units = 0, units_left = 0;
  int64_t weights = 0, weights_left = 0;  ///< of the masked members
  std::string to_string() const;          ///< "conv2.weight: 1 of 500 units, 0.20 % of its weights"
};
/// The sites that lost units and have at most `least` of them left, those that lost more than 90 % of their channels,
/// rows or hidden units, and those that lost more than 99 % of their weights: what follows such a layer sees next to
/// nothing of the input.
std::vector<Collapse> find_collapses(const std::vector<Site>& sites, int64_t least = 1);

/// Weights of all sites and how many of them are masked; sparsity() is their ratio. Shared parameters count once.
struct SparsityCount {
  int64_t weights = 0, masked = 0;
  double sparsity() const { return weights == 0 ? 0 : static_cast<double>(masked) / static_cast<double>(weights); }
};
SparsityCount count_sparsity(const std::vector<Site>& sites);

}  // namespace espalier
