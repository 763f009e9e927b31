// [[stage]] type = "variational": weights learn how much noise they bear, and those that bear any amount go.
#include "pruning/learned/variational.h"

#include "core/text.h"
#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/training_stage.h"

namespace espalier {

namespace {

class VariationalStage : public TrainingStage {
 public:
  /// Its masks are only known when it ends.
  bool rehearse(SeedRun& run) override {
    rehearse_lesson(run);
    parts(run);
    return false;
  }

 protected:
  void own_fields(FieldVisitor& f) override {
    espalier::fields(f, penalty_);
    espalier::fields(f, layers_);
  }
  bool may_keep_best() const override { return false; }
  TrainingParts parts(SeedRun& run) override {
    make_variational(*run.network(), layers_);
    VariationalPenaltyOptions options = penalty_;
    options.examples = run.train().size();
    return {.callbacks = {std::make_shared<VariationalPenalty>(run.network(), options)}};
  }
  void finish(SeedRun& run, const TrainingParts&) override {
    const SparsityCount count = remove_variational(*run.network());
    run.say("    {} of {} weights are left", grouped(count.weights - count.masked), grouped(count.weights));
    run.warn_of_collapses(weight_sites(*run.network()), 1);
  }

 private:
  VariationalPenaltyOptions penalty_;
  VariationalOptions layers_;
};

}  // namespace

StagePtr make_variational_stage() { return std::make_shared<VariationalStage>(); }

}  // namespace espalier
