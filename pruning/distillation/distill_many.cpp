// One teacher, several students: the loop of the Trainer with one batch and one teacher forward for all of them.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "pruning/distillation/distillation.h"
#include "training/clip.h"
#include "training/interrupt.h"

namespace espalier {

namespace {

using Clock = std::chrono::steady_clock;

void check_options(const TrainerOptions& o) {
  const auto refuse = [](bool set, const char* option) {
    check(!set, "distill_many", "the option {} is not for several students; train each with a Trainer of its own",
          option);
  };
  refuse(!o.run_folder.empty() || o.resume, "run_folder");
  refuse(o.patience > 0, "patience");
  refuse(o.restore_best, "restore_best");
  refuse(o.validation_fraction > 0, "validation_fraction (pass a validation set)");
  refuse(o.label_smoothing > 0, "label_smoothing (knowledge_distillation has its own)");
  refuse(o.loss != nullptr || o.training_step != nullptr, "loss");
  refuse(o.schedule != nullptr, "schedule (each Student has its own)");
  refuse(!o.callbacks.empty(), "callbacks (each Student has its own)");
}

void check_finite(double value, const char* what, const StepRecord& record) {
  if (!std::isfinite(value))
    fail<NumericError>(
        "distill_many",
        "{} became NaN or infinite in epoch {}, batch {} (learning rate {:.4g}); lower the learning rate, "
        "warm it up, or set clip_norm",
        what, record.epoch, record.batch, record.lr);
}

/// What runs beside the others: everything that a Trainer would have for this student alone.
struct Lane {
  Student student;
  Trainer trainer;  // what callbacks get to see
  PhiloxState random;
  double base_lr, base_momentum;
  bool was_training;
  Average loss = {};
  int64_t correct = 0;
  double seconds = 0;
  double best_accuracy = 0, best_loss = 0;
  TrainingResult result = {};
  bool stopped = false;

  Lane(const Student& s, const TrainerOptions& options)
      : student(s),
        trainer(s.distillation->student(), s.optimizer, options),
        random{options.seed, kTrainingStream, 0},
        base_lr(s.optimizer->lr()),
        base_momentum(s.optimizer->momentum()),
        was_training(s.distillation->student()->is_training()) {}

  Module& module() const { return *trainer.module(); }
  const std::vector<std::shared_ptr<Callback>>& callbacks() const { return trainer.options().callbacks; }

  /// What this student's code draws comes from its own sequence, as if it were alone.
  template <class F>
  void alone(F&& f) {
    const PhiloxState outside = default_generator().state();
    default_generator().set_state(random);
    f();
    random = default_generator().state();
    default_generator().set_state(outside);
  }

  void step(const Batch& batch, const NetworkView& teacher, StepRecord record, const TrainingPosition& at) {
    const Clock::time_point started = Clock::now();
    Optimizer& optimizer = trainer.optimizer();
    const TrainerOptions& options = trainer.options();
    record.lr = options.schedule->lr(base_lr, at);
    optimizer.set_lr(record.lr);
    if (const auto momentum = options.schedule->momentum(at)) optimizer.set_momentum(*momentum);
    {
      const auto [outputs, objective] = student.distillation->step(module(), batch, teacher);
      record.loss = objective.item();
      check_finite(record.loss, "the loss", record);
      correct += static_cast<int64_t>(sum(argmax(outputs.data(), 1) == batch.labels).item());
      objective.backward();
    }
    for (const auto& callback : callbacks()) callback->on_gradients(trainer, record);
    if (options.clip_value > 0) clip_grad_value(optimizer.parameters(), options.clip_value);
    if (options.clip_norm > 0) {
      record.grad_norm = clip_grad_norm(optimizer.parameters(), options.clip_norm);
      check_finite(*record.grad_norm, "the norm of the gradients", record);
    }
    optimizer.step();
    loss.add(record.loss, batch.size());
    ++result.step;
    for (const auto& callback : callbacks()) callback->on_step_end(trainer, record);
    optimizer.zero_grad();
    seconds += std::chrono::duration<double>(Clock::now() - started).count();
  }

  void finish_epoch(int64_t epoch, const Dataset& validation) {
    const TrainerOptions& options = trainer.options();
    const auto examples = static_cast<double>(std::max<int64_t>(loss.examples(), 1));
    EpochRecord record{.epoch = epoch,
                       .step = result.step,
                       .train_loss = loss.value(),
                       .train_accuracy = static_cast<double>(correct) / examples,
                       .lr = trainer.optimizer().lr(),
                       .images_per_second = seconds > 0 ? examples / seconds : 0,
                       .seconds = seconds};
    if (validation.size() > 0) {
      const Evaluation found =
          evaluate(module(), validation, {.batch_size = options.validation_batch_size, .device = options.device});
      record.validation_loss = found.loss;
      record.validation_accuracy = found.accuracy();
      bool settled = true;
      for (const auto& callback : callbacks()) settled = settled && callback->is_settled(trainer, record);
      const double accuracy = found.accuracy();
      if (settled && (result.best_epoch == 0 || accuracy > best_accuracy ||
                      (accuracy == best_accuracy && found.loss < best_loss))) {
        result.best_epoch = epoch;
        best_accuracy = accuracy;
        best_loss = found.loss;
      }
    }
    options.schedule->observe(record.validation_loss.value_or(record.train_loss));
    for (const auto& callback : callbacks()) callback->on_epoch_end(trainer, record);
    result.history.push_back(record);
    loss.set(0, 0);
    correct = 0;
    seconds = 0;
  }

  void finish(StopReason reason) {
    stopped = true;
    result.stop = reason;
    for (const auto& callback : callbacks()) callback->on_train_end(trainer);
  }

  /// What the schedule and the modes changed.
  void put_back() {
    trainer.optimizer().set_lr(base_lr);
    if (trainer.optimizer().momentum() != base_momentum) trainer.optimizer().set_momentum(base_momentum);
    module().train(was_training);
  }
};

/// All students' settings come back, however the training ends.
class LaneGuard {
 public:
  explicit LaneGuard(std::vector<Lane>& lanes) : lanes_(lanes) {}
  ~LaneGuard() {
    for (Lane& lane : lanes_) lane.put_back();
  }
  LaneGuard(const LaneGuard&) = delete;
  LaneGuard& operator=(const LaneGuard&) = delete;

 private:
  std::vector<Lane>& lanes_;
};

std::vector<Lane> make_lanes(const std::vector<Student>& students, const TrainerOptions& options, int64_t steps) {
  std::vector<Lane> lanes;
  lanes.reserve(students.size());
  for (const Student& student : students) {
    check(student.distillation != nullptr && student.optimizer != nullptr, "distill_many",
          "student {} has no distillation or no optimiser", lanes.size());
    check(student.distillation->teacher() == students.front().distillation->teacher(), "distill_many",
          "student {} has another teacher than student 0; build all Distillations with one shared Teacher",
          lanes.size());
    for (const Lane& other : lanes)
      check(other.student.distillation != student.distillation && other.student.optimizer != student.optimizer &&
                other.student.distillation->student() != student.distillation->student(),
            "distill_many", "students {} and {} share a network, an optimiser or a Distillation; give each its own",
            &other - lanes.data(), lanes.size());
    TrainerOptions own = options;
    own.steps = steps;
    own.schedule = student.schedule;
    own.callbacks = student.callbacks;
    own = with_distillation(own, student.distillation);
    lanes.emplace_back(student, own);
  }
  return lanes;
}

}  // namespace

std::vector<TrainingResult> distill_many(const std::vector<Student>& students, const TrainerOptions& options,
                                         const Dataset& train, const Dataset& validation) {
  check(!students.empty(), "distill_many", "expected at least one student, got none");
  check_options(options);
  const int64_t steps = total_steps(options, train);
  std::vector<Lane> lanes = make_lanes(students, options, steps);
  const LaneGuard settings(lanes);
  Teacher& teacher = *students.front().distillation->teacher();
  std::vector<std::string> layers;
  for (const Student& student : students)
    layers.insert(layers.end(), student.distillation->teacher_layers().begin(),
                  student.distillation->teacher_layers().end());

  const DataLoader loader = training_loader(options, train);
  const InterruptGuard interrupts(options.handle_signals);
  Progress progress(options.progress, options.log);
  for (Lane& lane : lanes) {
    lane.module().to(options.device);
    lane.alone([&] {
      for (const auto& callback : lane.callbacks()) callback->on_train_begin(lane.trainer);
    });
  }
  const auto running = [&] {
    return std::any_of(lanes.begin(), lanes.end(), [](const Lane& lane) { return !lane.stopped; });
  };

  int64_t step = 0;
  const int64_t epochs = (steps + loader.num_batches() - 1) / loader.num_batches();
  for (int64_t epoch = 0; epoch < epochs && running(); ++epoch) {
    progress.begin(fmt::format("epoch {}/{}", epoch + 1, epochs), train.size());
    for (Lane& lane : lanes) {
      if (lane.stopped) continue;
      lane.module().train();
      lane.alone([&] {
        for (const auto& callback : lane.callbacks()) callback->on_epoch_begin(lane.trainer, epoch + 1);
      });
    }
    int64_t number = 0, seen = 0;
    BatchStream stream = loader.batches(epoch);
    for (const Batch& loaded : stream) {
      const Batch batch = to(loaded, options.device);
      const NetworkView view = teacher(batch, layers);
      const TrainingPosition at{
          .step = step++, .total_steps = steps, .epoch = epoch, .steps_per_epoch = loader.num_batches()};
      const StepRecord record{.epoch = epoch + 1,
                              .batch = ++number,
                              .batches = loader.num_batches(),
                              .step = step,
                              .steps = steps,
                              .examples = batch.size()};
      for (Lane& lane : lanes) {
        if (lane.stopped) continue;
        lane.alone([&] { lane.step(batch, view, record, at); });
        if (InterruptGuard::requested() && options.handle_signals)
          lane.finish(StopReason::interrupted);
        else if (lane.trainer.stop_requested())
          lane.finish(StopReason::requested);
      }
      seen += batch.size();
      progress.update(seen, [&] { return fmt::format("{} students", lanes.size()); });
      if (!running() || step == steps) break;
    }
    for (Lane& lane : lanes)
      if (!lane.stopped) lane.alone([&] { lane.finish_epoch(epoch + 1, validation); });
  }
  std::vector<TrainingResult> results;
  for (Lane& lane : lanes) {
    if (!lane.stopped) lane.finish(StopReason::finished);
    results.push_back(std::move(lane.result));
  }
  return results;
}

}  // namespace espalier
