// [[stage]] type = "surgery": weights are cut and spliced back.
#include "pruning/schedules/surgery.h"

#include "pipeline/stages.h"
#include "pipeline/unit_stage.h"

namespace espalier {

namespace {

class SurgeryStage : public UnitStage<SurgeryOptions> {
 public:
  SurgeryStage() : UnitStage(/*free_pattern=*/true) {}

 protected:
  TrainingParts parts(SeedRun& run) override {
    const std::vector<Site> sites = free_sites(run);
    SurgeryOptions options = options_;
    options.min_units = units_.min_units;
    options.seed = run.seed();
    return parts_of(sites, std::make_shared<NetworkSurgery>(sites, options));
  }
};

}  // namespace

StagePtr make_surgery_stage() { return std::make_shared<SurgeryStage>(); }

}  // namespace espalier
