// [[stage]] type = "l0": every unit has a random gate, and open gates cost something.
#include "pipeline/stages.h"
#include "pipeline/unit_stage.h"
#include "pruning/learned/hard_concrete.h"

namespace espalier {

namespace {

class L0Stage : public UnitStage<HardConcreteOptions> {
 public:
  L0Stage() : UnitStage(/*free_pattern=*/true) {}

 protected:
  std::string describe_own() const override {
    return fmt::format(" gates on {}, lambda {:g}", noun(units_.pattern), options_.lambda);
  }
  TrainingParts parts(SeedRun& run) override {
    const std::vector<Site> sites = free_sites(run);
    HardConcreteOptions options = options_;
    options.examples = run.train().size();
    options.min_units = units_.min_units;
    options.seed = run.seed();
    const auto gates = std::make_shared<HardConcreteGates>(run.network(), sites, options);
    return parts_of(sites, gates, gates->log_alphas());
  }
};

}  // namespace

StagePtr make_l0_stage() { return std::make_shared<L0Stage>(); }

}  // namespace espalier
