// RemovalRecord: why units went. What a Pruner saw each time it removed some: score, criterion, rank, and the lowest
// score that stayed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "pruning/allocation.h"

namespace espalier {

/// One unit that was removed.
struct Removal {
  int64_t unit = 0;
  int64_t event = 0;       ///< which pruning removed it, from 1; the tries of a search count
  double sparsity = 0;     ///< what that pruning was asked for; with a budget the share of the cost that was to go
  double score = 0;        ///< the unit's, then; with is_per_cost() its score per cost
  int64_t rank = 0;        ///< its place among the units that went with it, from 1, the lowest score first
  int64_t candidates = 0;  ///< units that existed then and were compared with it
  double spared = 0;       ///< the lowest score of those that stayed; infinite if none did
};

/// Keeps, of each unit that a Pruner removed and that did not come back, when it went and with which score. Units are
/// compared over all sites with Scope::global, within their site with the others. Above kMostUnits units (single
/// weights; channels, rows and hidden units are fewer) nothing is recorded: a pruning must cost no more than a training
/// step.
class RemovalRecord {
 public:
  static constexpr int64_t kMostUnits = int64_t{1} << 14;

  RemovalRecord() = default;
  RemovalRecord(std::string criterion, Scope scope, const std::vector<Site>& sites);

  /// A pruning to `sparsity`: for each site the units' scores, which existed before it, and which exist now. Leaves no
  /// trace when nothing went and nothing came back.
  void add(double sparsity, const std::vector<std::vector<double>>& scores,
           const std::vector<std::vector<bool>>& existed, const std::vector<std::vector<bool>>& exists);

  /// Forgets the removal of units that exist: for masks that were set back by others, as searches do.
  void forget(const std::vector<std::vector<bool>>& exists);

  const std::string& criterion() const { return criterion_; }
  Scope scope() const { return scope_; }
  /// Of prunings to a budget: what of the network was to fall ("macs"), and whether units were compared by score per
  /// cost, which the scores then are.
  void set_budget(std::string budget, bool per_cost);
  /// "" for prunings to a sparsity.
  const std::string& budget() const { return budget_; }
  bool is_per_cost() const { return per_cost_; }
  const std::vector<std::string>& sites() const { return names_; }
  int64_t units(size_t site) const { return units_[site]; }
  /// Whether there is an entry for each unit; else nothing is recorded.
  bool has_units() const { return !event_.empty(); }
  int64_t prunings() const { return static_cast<int64_t>(sparsity_.size()); }

  /// The units that went from a site, in the order in which they went, the lowest score first. Empty without
  /// has_units().
  std::vector<Removal> removed(size_t site) const;

  /// What has to be saved for a training that is interrupted, and taken back into a record of the same sites.
  NamedTensors state() const;
  /// Throws FileError when the tensors are not those of a record of these sites.
  void load_state(const NamedTensors& tensors);

  /// As safetensors: SITE.event i32 and SITE.score f32, one for each unit (event 0: it exists), and of the P prunings
  /// "sparsity" f64 (P), "candidates" i64 (P, sites), "spared" f64 (P, sites).
  void save(const std::string& path) const;
  /// Throws FileError for a file that is not such a record.
  static RemovalRecord load(const std::string& path);

 private:
  /// Sums or minima over the sites that a unit of `site` is compared with.
  int64_t candidates_of(int64_t event, size_t site) const;
  double spared_of(int64_t event, size_t site) const;

  std::string criterion_;
  Scope scope_ = Scope::global;
  std::string budget_;
  bool per_cost_ = false;
  std::vector<std::string> names_;
  std::vector<int64_t> units_;
  std::vector<std::vector<int32_t>> event_;  ///< [site][unit]
  std::vector<std::vector<float>> score_;    ///< [site][unit]
  std::vector<double> sparsity_;             ///< of each pruning
  std::vector<int64_t> candidates_;          ///< (P, sites), row by row
  std::vector<double> spared_;               ///< (P, sites), row by row
};

}  // namespace espalier
