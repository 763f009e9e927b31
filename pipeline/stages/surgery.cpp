// [[stage]] type = "surgery": weights are cut and spliced back.
#include "pruning/schedules/surgery.h"

#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/training_stage.h"
#include "pipeline/units.h"

namespace espalier {

namespace {

class SurgeryStage : public TrainingStage {
 protected:
  void own_fields(FieldVisitor& f) override {
    espalier::fields(f, options_);
    espalier::fields(f, units_);
  }
  void settle_own(const Recipe&) override {
    check_free_pattern(units_.pattern);
    if (options_.low > options_.high) refuse("expected low <= high, got {} and {}", options_.low, options_.high);
    if (options_.begin >= options_.harden)
      refuse("expected begin < harden, got {} and {}", options_.begin, options_.harden);
  }
  TrainingParts parts(SeedRun& run) override {
    const std::vector<Site> sites = unprotected_sites(*run.network(), run.example(), units_.pattern, units_.protect);
    SurgeryOptions options = options_;
    options.min_units = units_.min_units;
    options.seed = run.seed();
    return {
        .callbacks = {std::make_shared<NetworkSurgery>(sites, options)}, .sites = sites, .min_units = units_.min_units};
  }

 private:
  SurgeryOptions options_;
  UnitOptions units_{.free_pattern = true};
};

}  // namespace

StagePtr make_surgery_stage() { return std::make_shared<SurgeryStage>(); }

}  // namespace espalier
