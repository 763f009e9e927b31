// Allocation: from the scores of units to which of them stay, within and across layers.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "pruning/site.h"

namespace espalier {

class EnumNames;

enum class Scope : uint8_t {
  layer,   ///< every site loses the same share; sites that have weights in common lose it together
  global,  ///< the lowest scores of all sites go first
  erk,     ///< densities proportional to (sum of dimensions)/(product of dimensions), Evci et al. 2020
};
/// "layer", "global", "erk".
const char* name_of(Scope scope);
/// The inverse of name_of. Throws ArgumentError, naming the nearest.
Scope parse_scope(const std::string& text);
EnumNames names_of(Scope);

struct AllocationOptions {
  Scope scope = Scope::global;
  /// Sparsity of single sites, set by hand, in place of the common one; names may end in '*'.
  std::map<std::string, double> sparsity_of = {};
  std::vector<std::string> protect = {};  ///< sites that lose nothing; names may end in '*'
  /// Scores divided by the site's mean score before sites are compared: for criteria whose scale differs between
  /// layers.
  bool normalize = false;
  int64_t min_units = 1;  ///< what every site keeps, if it had as many: layers don't collapse. 0: they may
  int64_t round_to = 1;   ///< a site keeps a multiple of this many units, rounded up to at most what it has
  /// Remove as much as the limits allow where they leave less than what is asked for; else that is an error.
  bool as_far_as_possible = false;
};

/// Whether scores can be divided by this mean: it is finite, and above 0.
bool is_scale(double mean);
/// AllocationOptions::normalize: divides a site's scores by the mean size of the candidates', if it is_scale.
void normalize(std::vector<double>& scores, const std::vector<bool>& candidates);

/// Throws unless every name given by hand (protect, sparsity_of) fits a site and has a sparsity in [0,1).
void check_names(const std::vector<Site>& sites, const AllocationOptions& options);

/// Which units of each site stay when `sparsity` of the sites' weights go. `scores`: one for each unit of each site;
/// units that `candidates` rules out (already removed) go first, whatever their score. Of equal scores the higher index
/// goes first. Weights that units of two sites have in common, rows and input features of one layer, count once. Of
/// Scope::layer protected sites have no part; with the other scopes the rest makes up for them. Throws when sparsity is
/// outside [0,1), when a score is NaN, when a name fits no site, and when the limits (protect, min_units) leave less
/// than that to remove, saying what the most is.
std::vector<std::vector<bool>> allocate(const std::vector<Site>& sites, const std::vector<std::vector<double>>& scores,
                                        const std::vector<std::vector<bool>>& candidates, double sparsity,
                                        const AllocationOptions& options = {});

}  // namespace espalier
