// [[stage]] type = "sparse-training": sparse from the first step, with connections that move.
#include "pruning/schedules/sparse_training.h"

#include "pipeline/stages.h"
#include "pipeline/unit_stage.h"

namespace espalier {

namespace {

class SparseTrainingStage : public UnitStage<SparseTrainingOptions> {
 public:
  SparseTrainingStage() : UnitStage(/*free_pattern=*/true) {}

 protected:
  void settle_own(const Recipe& recipe) override {
    UnitStage::settle_own(recipe);
    if (options_.allocation.scope == Scope::global)
      refuse("random masks have no scores to compare between layers; expected scope = \"erk\" or \"layer\"");
  }
  std::string describe_own() const override {
    return fmt::format(" with {:.4g} % of the weights missing, {} growth", 100 * options_.sparsity,
                       name_of(options_.growth));
  }
  TrainingParts parts(SeedRun& run) override {
    const std::vector<Site> sites = all_sites(run);
    SparseTrainingOptions options = options_;
    options.allocation.protect = units_.protect;
    options.allocation.min_units = units_.min_units;
    options.seed = run.seed();
    return parts_of(sites, std::make_shared<SparseTraining>(sites, options));
  }
};

}  // namespace

StagePtr make_sparse_training_stage() { return std::make_shared<SparseTrainingStage>(); }

}  // namespace espalier
