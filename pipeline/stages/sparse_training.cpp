// [[stage]] type = "sparse-training": sparse from the first step, with connections that move.
#include "pruning/schedules/sparse_training.h"

#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/training_stage.h"
#include "pipeline/units.h"

namespace espalier {

namespace {

class SparseTrainingStage : public TrainingStage {
 protected:
  void own_fields(FieldVisitor& f) override {
    espalier::fields(f, options_);
    espalier::fields(f, units_);
  }
  void settle_own(const Recipe&) override {
    check_free_pattern(units_.pattern);
    if (options_.allocation.scope == Scope::global)
      refuse("random masks have no scores to compare between layers; expected scope = \"erk\" or \"layer\"");
  }
  std::string describe_own() const override {
    return fmt::format(" with {:.4g} % of the weights missing, {} growth", 100 * options_.sparsity,
                       name_of(options_.growth));
  }
  TrainingParts parts(SeedRun& run) override {
    const std::vector<Site> sites = sites_of(*run.network(), run.example(), units_.pattern, units_.protect);
    SparseTrainingOptions options = options_;
    options.allocation.protect = units_.protect;
    options.allocation.min_units = units_.min_units;
    options.seed = run.seed();
    return {
        .callbacks = {std::make_shared<SparseTraining>(sites, options)}, .sites = sites, .min_units = units_.min_units};
  }

 private:
  SparseTrainingOptions options_;
  UnitOptions units_{.free_pattern = true};
};

}  // namespace

StagePtr make_sparse_training_stage() { return std::make_shared<SparseTrainingStage>(); }

}  // namespace espalier
