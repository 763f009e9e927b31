// [[stage]] type = "train": the network learns on, as it is masked.
#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/training_stage.h"
#include "pruning/criteria/slimming.h"

namespace espalier {

namespace {

class TrainStage : public TrainingStage {
 public:
  void begin(SeedRun& run) override {
    if (include_validation_) run.include_validation();
  }
  bool is_baseline() const override { return true; }
  bool includes_validation() const override { return include_validation_; }

 protected:
  void own_fields(FieldVisitor& f) override {
    f.unless_default("slimming", slimming_, at_least(0), "Strength of the penalty on BatchNorm scales");
    f.unless_default("include_validation", include_validation_,
                     "Learn on the validation images too, which from then on choose nothing");
  }
  bool has_to_train() const override { return slimming_ > 0; }
  TrainingParts parts(SeedRun& run) override {
    if (slimming_ == 0) return {};
    const auto penalty = std::make_shared<SlimmingPenalty>(SlimmingOptions{.strength = slimming_});
    penalty->check_fits(*run.network());
    return {.callbacks = {penalty}};
  }

 private:
  double slimming_ = 0;
  bool include_validation_ = false;
};

}  // namespace

StagePtr make_train_stage() { return std::make_shared<TrainStage>(); }

}  // namespace espalier
