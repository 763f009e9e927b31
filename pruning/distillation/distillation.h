// Distillation: a student that learns from a teacher, as a training step of the Trainer. Pruning callbacks run beside
// it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pruning/distillation/terms.h"
#include "training/trainer.h"

namespace espalier {

struct WeightedTerm {
  double weight = 1;
  DistillationTermPtr term;
};

struct DistillationOptions {
  std::vector<WeightedTerm> terms = {};  ///< added up; default: {{1, knowledge_distillation()}}
  TeacherCache cache = TeacherCache::automatic;
  uint64_t seed = 0;  ///< of the projections' initial values
};

/// Computes a student's training loss from what a teacher says about the same batch. The teacher runs in evaluation
/// mode and without gradients and stays as it is. As a callback of the Trainer it puts projections and cached outputs
/// into checkpoints, so that an interrupted training resumes to the same bits.
class Distillation : public Callback {
 public:
  /// Runs both networks once on `data` (two examples) to check that they fit and to build projections. Draws no numbers
  /// from the default generator. Throws when the networks have different numbers of classes, on unknown layers (naming
  /// the nearest) and on features that do not fit together.
  Distillation(ModulePtr student, ModulePtr teacher, const Dataset& data, const DistillationOptions& options = {});
  /// With a teacher that other Distillations use too; options.cache is the teacher's own then.
  Distillation(ModulePtr student, std::shared_ptr<Teacher> teacher, const Dataset& data,
               const DistillationOptions& options = {});

  /// Forward passes of teacher and student, and the loss.
  TrainingStep step(Module& student, const Batch& batch);
  /// The same with what the teacher said already.
  TrainingStep step(Module& student, const Batch& batch, const NetworkView& teacher);

  /// What has to be trained: the student's parameters and those of projections ("distillation.0.weight").
  NamedParameters parameters() const;
  NamedParameters projections() const;

  const ModulePtr& student() const { return student_; }
  const std::shared_ptr<Teacher>& teacher() const { return teacher_; }
  /// Layers of the teacher that the terms look at.
  const std::vector<std::string>& teacher_layers() const { return teacher_layers_; }

  nlohmann::json config() const override;
  void on_train_begin(Trainer& trainer) override;
  std::vector<std::pair<std::string, Tensor>> state() const override;
  void load_state(const std::vector<std::pair<std::string, Tensor>>& state) override;

 private:
  ModulePtr student_;
  std::shared_ptr<Teacher> teacher_;
  std::vector<WeightedTerm> terms_;
  std::vector<std::string> student_layers_, teacher_layers_;
};

/// The options with the distillation as training step and as callback. Throws when they have a training step already.
TrainerOptions with_distillation(TrainerOptions options, const std::shared_ptr<Distillation>& distillation);

/// Self-distillation: the teacher is a copy of the network as it is now, before it is pruned.
std::shared_ptr<Distillation> self_distillation(const ModulePtr& network, const Dataset& data,
                                                const DistillationOptions& options = {});

/// Makes the optimiser of what is to be trained: a student and the projections of its terms.
using StudentOptimizer = std::function<std::shared_ptr<Optimizer>(NamedParameters)>;

struct FineTunedDistillation {
  TrainingResult teacher, student;
};
/// Trains the teacher with its own Trainer, then the student from it: a teacher that has seen the task first teaches
/// better. `options` are the student's.
FineTunedDistillation fine_tune_and_distill(Trainer& teacher, const ModulePtr& student,
                                            const StudentOptimizer& optimizer, const TrainerOptions& options,
                                            const DistillationOptions& distillation, const Dataset& train,
                                            const Dataset& validation = {});

/// One of several students of one teacher.
struct Student {
  std::shared_ptr<Distillation> distillation;
  std::shared_ptr<Optimizer> optimizer;  ///< of distillation->parameters()
  SchedulePtr schedule = nullptr;        ///< of its learning rate; default: constant
  std::vector<std::shared_ptr<Callback>> callbacks = {};
};

/// Trains several students of one Teacher at once: each batch is made once and the teacher sees it once. Each student
/// ends with the same bits as with a Trainer (and, where terms need features, TeacherCache::never), these options and
/// with_distillation alone. Of the options it takes epochs, steps, batch_size, seed, augmentations, drop_last,
/// prefetch, clip_norm, clip_value, validation_batch_size, handle_signals, device, progress and log, and throws when
/// others are set (run folders, early stopping, ...).
std::vector<TrainingResult> distill_many(const std::vector<Student>& students, const TrainerOptions& options,
                                         const Dataset& train, const Dataset& validation = {});

}  // namespace espalier
