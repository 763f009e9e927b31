// [[stage]] type = "learned-masks": a score for every unit is trained with the weights.
#include "pruning/learned/learned_masks.h"

#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/training_stage.h"
#include "pipeline/units.h"

namespace espalier {

namespace {

class LearnedMasksStage : public TrainingStage {
 protected:
  void own_fields(FieldVisitor& f) override {
    espalier::fields(f, options_);
    espalier::fields(f, units_);
  }
  void settle_own(const Recipe&) override {
    const LearnedMaskOptions& o = options_;
    if (!(o.begin <= o.end && o.end <= o.harden))
      refuse("expected 0 <= begin <= end <= harden <= 1, got {}, {} and {}", o.begin, o.end, o.harden);
    check_pattern(units_.pattern);
    if (o.selection == Selection::threshold && least_sparsity(units_.pattern) > 0)
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
    const std::vector<Site> sites = sites_of(*run.network(), run.example(), units_.pattern, units_.protect);
    LearnedMaskOptions options = options_;
    options.allocation.protect = units_.protect;
    options.allocation.min_units = units_.min_units;
    const auto masks = std::make_shared<LearnedMasks>(run.network(), sites, options);
    return {.callbacks = {masks}, .parameters = masks->scores(), .sites = sites, .min_units = units_.min_units};
  }

 private:
  LearnedMaskOptions options_;
  UnitOptions units_;
};

}  // namespace

StagePtr make_learned_masks_stage() { return std::make_shared<LearnedMasksStage>(); }

}  // namespace espalier
