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
    make_variational(sequential(run), layers_);
    VariationalPenaltyOptions options = penalty_;
    options.examples = run.train().size();
    return {.callbacks = {std::make_shared<VariationalPenalty>(run.network(), options)}};
  }
  void finish(SeedRun& run, const TrainingParts&) override {
    const SparsityCount count = remove_variational(sequential(run));
    run.say("    {} of {} weights are left", grouped(count.weights - count.masked), grouped(count.weights));
    run.warn_of_collapses(weight_sites(*run.network()), 1);
  }

 private:
  static Sequential& sequential(SeedRun& run) {
    const auto network = std::dynamic_pointer_cast<Sequential>(run.network());
    check(network != nullptr, "variational", "expected a network that is a Sequential, got a {}",
          run.network()->type());
    return *network;
  }

  VariationalPenaltyOptions penalty_;
  VariationalOptions layers_;
};

}  // namespace

StagePtr make_variational_stage() { return std::make_shared<VariationalStage>(); }

}  // namespace espalier
