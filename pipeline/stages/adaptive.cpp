// [[stage]] type = "adaptive": prune and retrain as long as the validation loss allows.
#include "pruning/schedules/adaptive.h"

#include "pipeline/search_stage.h"
#include "pipeline/stages.h"
#include "pipeline/units.h"

namespace espalier {

namespace {

class AdaptiveStage : public SearchStage {
 public:
  bool rehearse(SeedRun& run) override {
    rehearse_lesson(run);
    ScoredUnitOptions units = units_;
    const CriterionPtr asked_for = make_criterion(units.criterion);
    if (asked_for->needs_data()) units.criterion = {.name = "magnitude"};
    const auto pruner = make_pruner(run.network(), units, {.data = run.train(), .seed = run.seed()}, run.example());
    asked_for->check_fits(*run.network(), pruner->sites());
    asked_for->check_state(pruner->input());
    pruner->prune(options_.smallest_step);
    return false;
  }

  void run(SeedRun& run) override {
    const ModulePtr teacher = find_teacher(run);
    const auto pruner = make_pruner(run.network(), units_, {.data = run.train(), .seed = run.seed()}, run.example());
    AdaptiveOptions options = options_;
    options.training = plan(run, teacher);
    options.folder = rounds_folder(run);
    const AdaptiveResult result = prune_adaptively(*pruner, run.train(), run.validation(), options);
    for (const AdaptiveRound& round : result.rounds)
      run.say("    round {}: {:.2f} % masked, validation loss {:.4f} (it was {:.4f}): {}", round.round,
              100 * round.sparsity, round.validation_loss, result.start_loss,
              round.accepted ? "accepted" : "taken back");
    if (!result.finished) return;
    run.say("    the search ended: {}", result.end);
    run.say_what_is_left(pruner->sites(), units_.min_units);
  }

 protected:
  void own_fields(FieldVisitor& f) override {
    espalier::fields(f, units_);
    espalier::fields(f, options_);
  }
  void settle_own(const Recipe& recipe) override {
    espalier::settle(units_);
    refuse_watcher(units_.criterion, "an adaptive stage prunes before it trains, take another");
    if (!(options_.smallest_step <= options_.step))
      refuse("expected 0 < smallest_step <= step < 1, got {} and {}", options_.smallest_step, options_.step);
    if (recipe.validation == 0)
      refuse("the validation loss decides in an adaptive stage; expected validation above 0 in the recipe");
  }
  std::string describe_own() const override {
    return fmt::format(": {} by {} until the validation loss rises by {:g}", noun(units_.pattern),
                       units_.criterion.name, options_.tolerance);
  }

 private:
  ScoredUnitOptions units_;
  AdaptiveOptions options_;
};

}  // namespace

StagePtr make_adaptive_stage() { return std::make_shared<AdaptiveStage>(); }

}  // namespace espalier
