#include "pruning/schedules/retraining.h"

#include <nlohmann/json.hpp>

namespace espalier {

namespace {

/// A schedule from its step `skip` on.
class LaterPart : public Schedule {
 public:
  LaterPart(SchedulePtr whole, int64_t skip, int64_t total) : whole_(std::move(whole)), skip_(skip), total_(total) {}
  double lr(double base, const TrainingPosition& at) const override { return whole_->lr(base, shifted(at)); }
  std::optional<double> momentum(const TrainingPosition& at) const override { return whole_->momentum(shifted(at)); }
  void observe(double loss) override { whole_->observe(loss); }
  std::string name() const override { return "later part"; }
  std::string text() override { return fmt::format("{} from step {} of {}", whole_->text(), skip_, total_); }
  nlohmann::json state() const override { return whole_->state(); }
  void load_state(const nlohmann::json& state) override { whole_->load_state(state); }

 private:
  TrainingPosition shifted(const TrainingPosition& at) const {
    const int64_t step = at.step + skip_, epoch = std::max<int64_t>(at.steps_per_epoch, 1);
    return {.step = step, .total_steps = total_, .epoch = step / epoch, .steps_per_epoch = at.steps_per_epoch};
  }
  SchedulePtr whole_;
  int64_t skip_, total_;
};

}  // namespace

TrainValidation training_data(const TrainingPlan& plan, const Dataset& train, const Dataset& validation) {
  if (validation.size() == 0 && plan.options.validation_fraction > 0)
    return split_validation(train, plan.options.validation_fraction, plan.options.seed);
  return {train, validation};
}

nlohmann::json identity_of(const TrainingPlan& plan, const ModulePtr& network, const TrainValidation& data) {
  TrainerOptions options = plan.options;
  options.resume = false;
  return Trainer(network, plan.optimizer(*network), options).identity(data);
}

Retraining retrain(const ModulePtr& network, const TrainingPlan& plan, const Dataset& train, const Dataset& validation,
                   int64_t first, const std::vector<std::shared_ptr<Callback>>& callbacks) {
  check(plan.optimizer != nullptr, "retrain", "the plan has no optimizer; set TrainingPlan::optimizer");
  const TrainValidation data = training_data(plan, train, validation);
  const int64_t total = total_steps(plan.options, data.train);
  check(0 <= first && first < std::max<int64_t>(total, 1), "retrain",
        "expected a first step in [0,{}), the training's steps, got {}", total, first);
  TrainerOptions options = plan.options;
  options.validation_fraction = 0;
  options.resume = !options.run_folder.empty();
  options.overwrite = false;
  SchedulePtr schedule = options.schedule ? parse_schedule(options.schedule->text()) : constant_schedule();
  options.schedule = first == 0 ? schedule : std::make_shared<LaterPart>(schedule, first, total);
  options.steps = total - first;
  options.callbacks.insert(options.callbacks.end(), callbacks.begin(), callbacks.end());

  Trainer trainer(network, plan.optimizer(*network), options);
  Retraining done{.result = trainer.fit(data.train, data.validation)};
  const StopReason reason = done.result.stop;
  done.finished = reason == StopReason::finished || reason == StopReason::early_stopping;
  return done;
}

}  // namespace espalier
