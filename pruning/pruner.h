// Pruner: ties a network's sites, a criterion and an allocation together.
#pragma once

#include "core/selection.h"
#include "pruning/allocation.h"
#include "pruning/criteria/criterion.h"
#include "pruning/removals.h"

namespace espalier {

struct PrunerOptions {
  CriterionPtr criterion = magnitude_criterion();
  AllocationOptions allocation = {};
  GradientFlow flow = GradientFlow::masked;
  /// Whether removed units may come back when their score is high enough again; else what is removed stays removed.
  bool regrow = false;
  Dataset data = {};  ///< labelled examples, for criteria that need data
  LossFunction loss = {};
  int64_t batch_size = 128;
  int64_t batches = 8;
  uint64_t seed = 0;
};

/// Masks a network step by step.
class Pruner {
 public:
  /// Throws when there is no site, and when the criterion has nothing to say about such units.
  Pruner(ModulePtr module, std::vector<Site> sites, PrunerOptions options = {});

  /// Scores all units and masks the least worthy until `sparsity` of the sites' weights went with their units. With
  /// less than what went already it does nothing, unless regrow is set. Sparsities set by hand
  /// (AllocationOptions::sparsity_of) count `share` of their value: schedules reach them step by step too.
  void prune(double sparsity, double share = 1);
  /// The same by scores that were taken already: for tries at several sparsities.
  void prune_by(const std::vector<std::vector<double>>& scores, double sparsity, double share = 1);
  /// Makes exactly these units of each site exist, for what chooses by more than a sparsity; the record gets what went
  /// by these scores. `asked`: what takes the sparsity's place there, a share of a cost.
  void keep(const std::vector<std::vector<bool>>& exists, const std::vector<std::vector<double>>& scores, double asked);
  /// The same without a record, of sites that are_pieces_of_weights: one bit for each unit.
  void keep(const std::vector<Tensor>& words);
  /// Of the sites' weights.
  double sparsity() const { return count_sparsity(sites_).sparsity(); }
  /// The same without single weights that are masked inside of units that exist: what prune goes by.
  double removed_share() const;

  /// From now on the record gets every unit that goes, with its score. It must be one of this Pruner's sites. A record
  /// without has_units() isn't attached.
  void record_to(std::shared_ptr<RemovalRecord> record);
  /// The record, if there is one, is of prunings to a budget: RemovalRecord::set_budget.
  void describe_record(const std::string& budget, bool per_cost);
  bool has_record() const { return record_ != nullptr; }
  /// The record as the masks are now; null when none is attached.
  std::shared_ptr<const RemovalRecord> record() const;
  /// Takes back RemovalRecord::state(), if there is a record: a training goes on.
  void load_record(const NamedTensors& state);

  /// Scores of all units, as prune sees them.
  std::vector<std::vector<double>> scores() const;
  /// The same with the units that may stay, for sites that are_pieces_of_weights.
  std::vector<Candidates> candidates() const;
  /// The bits of the units of such a site that may stay: those that exist; all with regrow.
  Tensor candidate_words(const Site& site) const;

  const ModulePtr& module() const { return module_; }
  const std::vector<Site>& sites() const { return sites_; }
  const PrunerOptions& options() const { return options_; }
  /// What its criterion gets to look at.
  CriterionInput input() const;

 private:
  std::vector<std::vector<bool>> existing() const;
  bool has_to_remove(double sparsity) const;
  void remove(const std::vector<std::vector<double>>& scores, double sparsity, double share);

  ModulePtr module_;
  std::vector<Site> sites_;
  PrunerOptions options_;
  std::shared_ptr<RemovalRecord> record_;
};

}  // namespace espalier
