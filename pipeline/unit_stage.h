// What stages have in common whose training chooses the masks of units: the options of a method, and which units.
#pragma once

#include "pipeline/seed_run.h"
#include "pipeline/training_stage.h"
#include "pipeline/units.h"

namespace espalier {

template <class Options>
class UnitStage : public TrainingStage {
 protected:
  /// `free_pattern`: units come and go one by one, which n of m doesn't allow.
  explicit UnitStage(bool free_pattern) : units_{.free_pattern = free_pattern} {}

  void own_fields(FieldVisitor& f) override {
    visit_fields(f, options_);
    visit_fields(f, units_);
  }
  void settle_own(const Recipe&) override {
    if (units_.free_pattern)
      check_free_pattern(units_.pattern);
    else
      check_pattern(units_.pattern);
  }
  /// The callback that chooses these sites' masks, and what the optimiser trains for it.
  TrainingParts parts_of(const std::vector<Site>& sites, std::shared_ptr<Callback> callback,
                         const NamedParameters& parameters = {}) const {
    return {
        .callbacks = {std::move(callback)}, .parameters = parameters, .sites = sites, .min_units = units_.min_units};
  }
  std::vector<Site> all_sites(SeedRun& run) const {
    return sites_of(*run.network(), run.example(), units_.pattern, units_.protect);
  }
  /// For methods that know no protected sites: those that nobody protects.
  std::vector<Site> free_sites(SeedRun& run) const {
    return unprotected_sites(*run.network(), run.example(), units_.pattern, units_.protect);
  }

  Options options_;
  UnitOptions units_;
};

}  // namespace espalier
