// Learning-rate schedules: functions of how far the training is; only Plateau remembers anything.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/fields.h"
#include "core/registry.h"

namespace espalier {

/// Where a training stands before a step.
struct TrainingPosition {
  int64_t step = 0;  ///< updates done since the start
  int64_t total_steps = 1;
  int64_t epoch = 0;  ///< complete epochs since the start
  int64_t steps_per_epoch = 1;
};

class Schedule;
using SchedulePtr = std::shared_ptr<Schedule>;

/// Base of the schedules. One object belongs to one training.
class Schedule {
 public:
  virtual ~Schedule() = default;
  /// The name that the registry knows it by: "cosine".
  virtual std::string name() const = 0;
  /// Its options, for text and recipes: core/fields.h.
  virtual void fields(FieldVisitor&) {}
  /// The learning rate of the next step; `base` is the optimiser's own.
  virtual double lr(double base, const TrainingPosition& at) const = 0;
  /// The momentum of the next step, where the schedule varies it.
  virtual std::optional<double> momentum(const TrainingPosition&) const { return std::nullopt; }
  /// Called at the end of each epoch with the validation loss (the training loss without validation).
  virtual void observe(double /*loss*/) {}
  /// The schedule after it, "warmup:5+cosine". Throws where there is none, the default.
  virtual void lead_to(SchedulePtr after);
  /// Text that parse_schedule turns into this schedule.
  virtual std::string text();
  /// Whether the rates depend on how long the training will be: then it can't be made longer on the way.
  virtual bool follows_length() const { return true; }
  /// What it remembers between epochs; saved in checkpoints.
  virtual nlohmann::json state() const;
  virtual void load_state(const nlohmann::json& state);
};

struct StepOptions {
  int64_t every = 30;  ///< epochs
  double gamma = 0.1;
};
struct MultiStepOptions {
  std::vector<int64_t> milestones = {};  ///< epochs, increasing
  double gamma = 0.1;
};
struct CosineOptions {
  double final_factor = 0;  ///< lr at the end, as a factor of the base
};
struct OneCycleOptions {
  std::optional<double> max = {};                               ///< peak learning rate; default: the optimiser's
  double start = 0.3;                                           ///< fraction of the steps in which the rate rises
  double div = 25;                                              ///< first rate = max / div
  double final_div = 1e4;                                       ///< last rate = max / div / final_div
  std::optional<double> momentum_low = {}, momentum_high = {};  ///< both or none; high at the ends, low at the peak
};
struct PlateauOptions {
  double gamma = 0.1;
  int64_t patience = 10;    ///< epochs without improvement that are tolerated
  double threshold = 1e-4;  ///< an improvement is loss < best * (1 - threshold)
  int64_t cooldown = 0;     ///< epochs after a reduction in which nothing is counted
  double min_lr = 0;
};
struct WarmupOptions {
  double epochs = 0;
  int64_t steps = 0;        ///< if set, instead of epochs
  double start_factor = 0;  ///< of the rate it leads to
};

void fields(FieldVisitor& f, StepOptions& o);
void fields(FieldVisitor& f, MultiStepOptions& o);
void fields(FieldVisitor& f, CosineOptions& o);
void fields(FieldVisitor& f, OneCycleOptions& o);
void fields(FieldVisitor& f, PlateauOptions& o);
void fields(FieldVisitor& f, WarmupOptions& o);

SchedulePtr constant_schedule();
/// lr * gamma^(epoch / every).
SchedulePtr step_schedule(StepOptions options = {});
/// lr * gamma^(milestones reached).
SchedulePtr multi_step_schedule(MultiStepOptions options);
/// Half a cosine from lr to lr * final_factor over all steps (Loshchilov & Hutter 2017, equation 5, without restarts).
SchedulePtr cosine_schedule(CosineOptions options = {});
/// Cosine up to `max`, then cosine down, by step, as PyTorch's OneCycleLR (Smith & Topin 2019, in two phases).
SchedulePtr one_cycle_schedule(OneCycleOptions options = {});
/// As PyTorch's ReduceLROnPlateau, mode "min", relative threshold.
SchedulePtr plateau_schedule(PlateauOptions options = {});
/// A linear rise over the first W steps from start_factor to 1 (not reached: step i of W has
/// start_factor + (1 - start_factor)*(i+1)/(W+1)), then `after` on the remaining steps. Epochs, as step and multi-step
/// schedules count them, are counted from the start of the training.
SchedulePtr warmup_schedule(WarmupOptions options, SchedulePtr after);

/// The schedules by name: add() your own before you name it.
Registry<SchedulePtr()>& schedule_registry();

/// "constant", "step:30,0.1", "multistep:80,120,gamma=0.1", "cosine", "cosine:0.01", "onecycle:0.1",
/// "onecycle:max=0.1,start=0.3,momentum=0.85..0.95", "plateau:patience=5", "warmup:5+cosine",
/// "warmup:steps=500+step:30". Options are positional, in the order of their list, or name=value; NAME=LOW..HIGH gives
/// NAME_low and NAME_high. Throws on anything else.
SchedulePtr parse_schedule(const std::string& text);

}  // namespace espalier
