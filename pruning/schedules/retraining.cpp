#include "pruning/schedules/retraining.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "training/checkpoint.h"

namespace espalier {

namespace {

/// A schedule from its step `skip` on.
class LaterPart : public Schedule {
 public:
  LaterPart(SchedulePtr whole, int64_t skip, int64_t total) : whole_(std::move(whole)), skip_(skip), total_(total) {}
  double lr(double base, const TrainingPosition& at) const override { return whole_->lr(base, shifted(at)); }
  std::optional<double> momentum(const TrainingPosition& at) const override { return whole_->momentum(shifted(at)); }
  void observe(double loss) override { whole_->observe(loss); }
  std::string text() const override { return fmt::format("{} from step {} of {}", whole_->text(), skip_, total_); }
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

/// Ends a training after so many steps.
class StopAfter : public Callback {
 public:
  explicit StopAfter(int64_t steps) : steps_(steps) {}
  void on_train_begin(Trainer&) override { reached_ = false; }
  void on_step_end(Trainer& trainer, const StepRecord& record) override {
    if (record.step < steps_) return;
    reached_ = true;
    trainer.request_stop();
  }
  bool reached() const { return reached_; }

 private:
  int64_t steps_;
  bool reached_ = false;
};

/// Updates that the run in a folder has done; 0 without one.
int64_t steps_done(const std::string& folder) {
  const std::string path = folder + "/checkpoint.safetensors";
  if (folder.empty() || !std::filesystem::exists(path)) return 0;
  const Checkpoint checkpoint = load_checkpoint(path);
  const auto training = checkpoint.metadata.find("training");
  if (training == checkpoint.metadata.end()) return 0;
  const nlohmann::json json = nlohmann::json::parse(training->second, nullptr, false);
  return json.is_discarded() ? 0 : json.value(nlohmann::json::json_pointer("/state/step"), int64_t{0});
}

int64_t steps_per_epoch(const TrainingPlan& plan, const Dataset& train) {
  const int64_t batch = plan.options.batch_size;
  return (train.size() + (plan.options.drop_last ? 0 : batch - 1)) / batch;
}

}  // namespace

TrainValidation training_data(const TrainingPlan& plan, const Dataset& train, const Dataset& validation) {
  if (validation.size() == 0 && plan.options.validation_fraction > 0)
    return split_validation(train, plan.options.validation_fraction, plan.options.seed);
  return {train, validation};
}

int64_t total_steps(const TrainingPlan& plan, const Dataset& train) {
  return plan.options.epochs * steps_per_epoch(plan, training_data(plan, train, {}).train);
}

Retraining retrain(const ModulePtr& network, const TrainingPlan& plan, const Dataset& train, const Dataset& validation,
                   int64_t first, const std::vector<std::shared_ptr<Callback>>& callbacks) {
  check(plan.optimizer != nullptr, "retrain", "the plan has no optimizer; set TrainingPlan::optimizer");
  const TrainValidation data = training_data(plan, train, validation);
  const int64_t epoch = steps_per_epoch(plan, data.train), total = plan.options.epochs * epoch;
  check(0 <= first && first < std::max<int64_t>(total, 1), "retrain",
        "expected a first step in [0,{}), the training's steps, got {}", total, first);
  TrainerOptions options = plan.options;
  options.validation_fraction = 0;
  options.resume = !options.run_folder.empty();
  options.overwrite = false;
  SchedulePtr schedule = options.schedule ? parse_schedule(options.schedule->text()) : constant_schedule();
  const int64_t steps = total - first;
  options.schedule = first == 0 ? schedule : std::make_shared<LaterPart>(schedule, first, total);
  options.epochs = (steps + epoch - 1) / epoch;
  options.callbacks.insert(options.callbacks.end(), callbacks.begin(), callbacks.end());
  std::shared_ptr<StopAfter> stop;
  if (steps % epoch != 0) {
    // The Trainer would make one step more before it asks whether to stop.
    if (steps_done(options.run_folder) >= steps) {
      restore(load_checkpoint(options.run_folder + "/checkpoint.safetensors"), *network);
      return {.result = {.history = {}, .step = steps, .stop = StopReason::requested}, .finished = true};
    }
    options.callbacks.push_back(stop = std::make_shared<StopAfter>(steps));
  }

  Trainer trainer(network, plan.optimizer(*network), options);
  Retraining done{.result = trainer.fit(data.train, data.validation)};
  const StopReason reason = done.result.stop;
  done.finished = reason == StopReason::finished || reason == StopReason::early_stopping ||
                  (stop != nullptr && stop->reached() && reason == StopReason::requested);
  return done;
}

}  // namespace espalier
