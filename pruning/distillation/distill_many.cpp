// One teacher, several students: the loop of the Trainer with one batch and one teacher forward for all of them.
#include <algorithm>
#include <chrono>
#include <list>

#include "pruning/distillation/distillation.h"
#include "training/interrupt.h"
#include "training/step.h"

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

/// What runs beside the others: everything that a Trainer would have for this student alone.
struct Lane {
  Student student;
  Trainer trainer;  // what callbacks get to see
  Training training;
  PhiloxState random;
  std::optional<StopReason> stop = {};

  Lane(const Student& s, const TrainerOptions& options, int64_t batches, const std::string& name)
      : student(s),
        trainer(s.distillation->student(), s.optimizer, options),
        training(trainer, batches, name),
        random{options.seed, kTrainingStream, 0} {}

  /// What this student's code draws comes from its own sequence, as if it were alone.
  template <class F>
  void alone(F&& f) {
    const PhiloxState outside = default_generator().state();
    default_generator().set_state(random);
    f();
    random = default_generator().state();
    default_generator().set_state(outside);
  }

  void begin() {
    alone([&] { training.begin(); });
  }
  void begin_epoch() {
    alone([&] { training.begin_epoch(); });
  }
  void update(const Batch& batch, const NetworkView& teacher) {
    const Clock::time_point started = Clock::now();
    alone([&] {
      training.update(batch, [&](Module& network, const Batch& seen) {
        return student.distillation->step(network, seen, teacher);
      });
    });
    training.state.seconds += std::chrono::duration<double>(Clock::now() - started).count();
    end_if_stopped();
  }
  void finish_epoch(const Dataset& validation) {
    alone([&] {
      const std::optional<EpochRecord> record = training.measure_epoch(validation);
      if (!record) return;
      training.note_best(*record);
      training.close_epoch(*record);
    });
    end_if_stopped();
  }
  void end(StopReason reason) {
    stop = reason;
    alone([&] { training.end(); });
  }
  void end_if_stopped() {
    if (const auto reason = training.stop_reason()) end(*reason);
  }

  TrainingResult result() const {
    const RunState& state = training.state;
    return {.history = state.history, .best_epoch = state.best_epoch, .step = state.step, .stop = *stop};
  }
};

/// A list, since a training can't be moved.
std::list<Lane> make_lanes(const std::vector<Student>& students, const TrainerOptions& options, int64_t batches) {
  std::list<Lane> lanes;
  for (const Student& student : students) {
    check(student.distillation != nullptr && student.optimizer != nullptr, "distill_many",
          "student {} has no distillation or no optimiser", lanes.size());
    check(student.distillation->teacher() == students.front().distillation->teacher(), "distill_many",
          "student {} has another teacher than student 0; build all Distillations with one shared Teacher",
          lanes.size());
    size_t other = 0;
    for (const Lane& lane : lanes) {
      check(lane.student.distillation != student.distillation && lane.student.optimizer != student.optimizer &&
                lane.student.distillation->student() != student.distillation->student(),
            "distill_many", "students {} and {} share a network, an optimiser or a Distillation; give each its own",
            other, lanes.size());
      ++other;
    }
    TrainerOptions own = options;
    own.schedule = student.schedule;
    own.callbacks = student.callbacks;
    own = with_distillation(own, student.distillation);
    lanes.emplace_back(student, own, batches, fmt::format("distill_many, student {}", lanes.size()));
  }
  return lanes;
}

}  // namespace

std::vector<TrainingResult> distill_many(const std::vector<Student>& students, const TrainerOptions& options,
                                         const Dataset& train, const Dataset& validation) {
  check(!students.empty(), "distill_many", "expected at least one student, got none");
  check_options(options);
  const DataLoader loader = training_loader(options, train);
  TrainerOptions whole = options;
  whole.steps = total_steps(options, train);
  std::list<Lane> lanes = make_lanes(students, whole, loader.num_batches());
  Teacher& teacher = *students.front().distillation->teacher();
  std::vector<std::string> layers;
  for (const Student& student : students)
    layers.insert(layers.end(), student.distillation->teacher_layers().begin(),
                  student.distillation->teacher_layers().end());

  const InterruptGuard interrupts(options.handle_signals);
  Progress progress(options.progress, options.log);
  for (Lane& lane : lanes) {
    lane.trainer.module()->to(options.device);
    lane.begin();
  }
  // Students that go on are all at the same step: the first of them says which.
  const auto running = [&] {
    return std::find_if(lanes.begin(), lanes.end(), [](const Lane& lane) { return !lane.stop; });
  };
  for (auto first = running(); first != lanes.end() && !first->training.is_over(); first = running()) {
    const int64_t epoch = first->training.state.epoch;
    progress.begin(fmt::format("epoch {}/{}", epoch + 1, first->training.epochs()), train.size());
    for (Lane& lane : lanes)
      if (!lane.stop) lane.begin_epoch();
    int64_t seen = 0;
    BatchStream stream = loader.batches(epoch);
    for (const Batch& loaded : stream) {
      const Batch batch = to(loaded, options.device);
      const NetworkView view = teacher(batch, layers);
      for (Lane& lane : lanes)
        if (!lane.stop) lane.update(batch, view);
      seen += batch.size();
      progress.update(seen, [&] { return fmt::format("{} students", lanes.size()); });
      first = running();
      if (first == lanes.end() || !first->training.has_batches()) break;
    }
    for (Lane& lane : lanes)
      if (!lane.stop) lane.finish_epoch(validation);
  }
  std::vector<TrainingResult> results;
  for (Lane& lane : lanes) {
    if (!lane.stop) lane.end(StopReason::finished);
    results.push_back(lane.result());
  }
  return results;
}

}  // namespace espalier
