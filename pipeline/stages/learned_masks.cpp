// [[stage]] type = "learned-masks": a score for every unit is trained with the weights.
#include "pruning/learned/learned_masks.h"

#include "pipeline/stages.h"
#include "pipeline/unit_stage.h"

namespace espalier {

namespace {

class LearnedMasksStage : public UnitStage<LearnedMaskOptions> {
 public:
  LearnedMasksStage() : UnitStage(/*free_pattern=*/false) {}

 protected:
  void settle_own(const Recipe& recipe) override {
    UnitStage::settle_own(recipe);
    if (options_.selection == Selection::threshold && least_sparsity(units_.pattern) > 0)
      refuse(
          "a threshold judges units one by one, so that the pattern \"{}\" can't be kept; expected selection = "
          "\"top-k\"",
          units_.pattern);
  }
  std::string describe_own() const override {
    return options_.selection == Selection::top_k
               ? fmt::format(" without {:.4g} % of the {}", 100 * options_.sparsity, noun(units_.pattern))
               : "";
  }
  TrainingParts parts(SeedRun& run) override {
    const std::vector<Site> sites = all_sites(run);
    LearnedMaskOptions options = options_;
    options.allocation.protect = units_.protect;
    options.allocation.min_units = units_.min_units;
    const auto masks = std::make_shared<LearnedMasks>(run.network(), sites, options);
    return parts_of(sites, masks, masks->scores());
  }
};

}  // namespace

StagePtr make_learned_masks_stage() { return std::make_shared<LearnedMasksStage>(); }

}  // namespace espalier
