// Sensitivity: how much each site can lose.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pruning/pruner.h"

namespace espalier {

/// One site pruned to a sparsity while all others stay as they are.
struct SensitivityPoint {
  double wanted = 0;    ///< what was asked for
  double sparsity = 0;  ///< of the site, as it came out: units are whole
  double loss = 0;
  std::optional<double> accuracy = {};  ///< of data that asks for a class
};
struct SensitivityCurve {
  std::string site;
  int64_t weights = 0;
  std::vector<SensitivityPoint> points;  ///< in the order of the sparsities, rising
};
struct Sensitivity {
  double loss = 0;  ///< of the network as it is
  std::optional<double> accuracy = {};
  std::vector<SensitivityCurve> curves;

  /// A table: a line for each site, a column for each sparsity, the change of the loss in each cell.
  std::string to_string() const;
  nlohmann::json to_json() const;
};

struct SensitivityOptions {
  std::vector<double> sparsities = {0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98};  ///< rising, in (0,1)
  int64_t batch_size = 256;
};

/// Prunes each site of the pruner on its own, by the pruner's criterion, to each sparsity, and evaluates on `dataset`
/// with the pruner's loss. Afterwards weights and masks are what they were, to the bit. Li et al. 2017, "Pruning
/// filters for efficient ConvNets". Throws without data and on sparsities that don't rise in (0,1).
Sensitivity measure_sensitivity(const Pruner& pruner, const Dataset& dataset, const SensitivityOptions& options = {});

/// The highest sparsity of each site up to which its curve stays within loss + tolerance, between two points of the
/// curve by linear interpolation: for AllocationOptions::sparsity_of. Sites that can lose nothing have 0. Throws when
/// the tolerance is negative.
std::map<std::string, double> sparsities_within(const Sensitivity& sensitivity, double tolerance);

/// The same with the smallest tolerance with which all sites together lose a share `sparsity` of their weights. Throws
/// when the curves don't reach that far, saying how far they do.
std::map<std::string, double> sparsities_for(const Sensitivity& sensitivity, double sparsity);

}  // namespace espalier
