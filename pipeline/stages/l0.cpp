// [[stage]] type = "l0": every unit has a random gate, and open gates cost something.
#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/training_stage.h"
#include "pipeline/units.h"
#include "pruning/learned/hard_concrete.h"

namespace espalier {

namespace {

class L0Stage : public TrainingStage {
 protected:
  void own_fields(FieldVisitor& f) override {
    espalier::fields(f, options_);
    espalier::fields(f, units_);
  }
  void settle_own(const Recipe&) override { check_free_pattern(units_.pattern); }
  std::string describe_own() const override {
    return fmt::format(" gates on {}, lambda {:g}", noun(units_.pattern), options_.lambda);
  }
  TrainingParts parts(SeedRun& run) override {
    const std::vector<Site> sites = unprotected_sites(*run.network(), run.example(), units_.pattern, units_.protect);
    HardConcreteOptions options = options_;
    options.examples = run.train().size();
    options.min_units = units_.min_units;
    options.seed = run.seed();
    const auto gates = std::make_shared<HardConcreteGates>(run.network(), sites, options);
    return {.callbacks = {gates}, .parameters = gates->log_alphas(), .sites = sites, .min_units = units_.min_units};
  }

 private:
  HardConcreteOptions options_;
  UnitOptions units_{.free_pattern = true};
};

}  // namespace

StagePtr make_l0_stage() { return std::make_shared<L0Stage>(); }

}  // namespace espalier
