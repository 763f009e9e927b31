// What stages that train have in common: the keys of a training, a teacher, and how the Trainer is set up.
#pragma once

#include "pipeline/stage.h"
#include "pruning/distillation/distillation.h"
#include "pruning/schedules/retraining.h"
#include "pruning/site.h"

namespace espalier {

/// A [[stage.term]]: what a student learns from a teacher besides its answers.
struct TermOptions {
  std::string type;              ///< one of term_types()
  std::string student, teacher;  ///< layers; "" the networks' outputs (relational-... only)
  double weight = 1;
};
void fields(FieldVisitor& f, TermOptions& o);

/// Terms by name, made of the names of two layers. A program adds its own.
Registry<DistillationTermPtr(const std::string& student, const std::string& teacher)>& term_registry();

/// Learning from another network while a stage trains.
struct TeacherOptions {
  /// "start" (the network before this stage), the name of an earlier stage, a model file or run.
  std::string teacher = "start";
  KnowledgeDistillationOptions distillation = {};
  TeacherCache cache = TeacherCache::automatic;
  std::vector<TermOptions> terms = {};
};

/// What a stage does to masks and weights while its network trains.
struct TrainingParts {
  std::vector<std::shared_ptr<Callback>> callbacks = {};
  NamedParameters parameters = {};  ///< scores and gates, for the optimiser
  std::vector<Site> sites = {};     ///< whose masks the training chooses; none: masks stay what they are
  int64_t min_units = 1;            ///< what each of them keeps at least
};

class TrainingStage : public Stage {
 public:
  TrainingStage() { flags_.checkpoint_every = 0; }
  void fields(FieldVisitor& f) final;
  void settle(const Recipe& recipe) final;
  std::string describe() const final;
  bool rehearse(SeedRun& run) override;
  void run(SeedRun& run) override;
  const TeacherOptions* teacher() const override { return teacher_ ? &*teacher_ : nullptr; }
  std::string settings(const SeedRun& run) const override;

  const TrainSettings& training() const { return training_; }
  /// Has epochs.
  bool trains() const { return training_.epochs > 0; }

 protected:
  // What a kind of stage adds.
  virtual void own_fields(FieldVisitor&) {}
  virtual void settle_own(const Recipe& /*recipe*/) {}
  /// " 90 % of the weights by magnitude".
  virtual std::string describe_own() const { return ""; }
  /// What leads over to "3 epochs".
  virtual const char* before_epochs() const { return ","; }
  /// Whether it does nothing without epochs.
  virtual bool has_to_train() const { return true; }
  /// Whether the best epoch is one to keep: not where masks are only final at the end.
  virtual bool may_keep_best() const { return true; }
  virtual bool has_teacher_always() const { return false; }
  /// Whether it trains many times, from the start each time.
  virtual bool trains_anew() const { return false; }
  /// What goes on beside the training; may change the network (layers that hold noise).
  virtual TrainingParts parts(SeedRun&) { return {}; }
  /// After a training that wasn't stopped.
  virtual void finish(SeedRun&, const TrainingParts&);

  /// The training itself. `more`: callbacks that follow those of parts().
  void fit(SeedRun& run, const ModulePtr& teacher, const std::vector<std::shared_ptr<Callback>>& more = {});
  /// The same as a plan, for what trains many times.
  TrainingPlan plan(SeedRun& run, const ModulePtr& teacher) const;
  ModulePtr find_teacher(SeedRun& run) const;
  /// What a rehearsal learns of the teacher: layers that don't compare, and a loss that is no number, show before hours
  /// of training. For stages whose rehearse() is their own.
  void rehearse_lesson(SeedRun& run) { rehearse_lesson(run, find_teacher(run)); }
  void rehearse_lesson(SeedRun& run, const ModulePtr& teacher);
  /// How it trains, as the file of its network says it; "" without epochs.
  std::string settings_text(const SeedRun& run) const;
  /// epochs = 0, known before the training is settled.
  bool asks_for_no_epochs() const { return flags_.epochs == 0; }

 private:
  /// `others`: gets what is trained along.
  TrainerOptions trainer_options_of(SeedRun& run, const ModulePtr& teacher, NamedParameters& others) const;

  TrainFlags flags_;  ///< what was given
  std::optional<std::string> teacher_name_, keep_;
  std::optional<double> temperature_, alpha_;
  std::optional<TeacherCache> cache_;
  std::vector<TermOptions> terms_;
  std::optional<TeacherOptions> teacher_;
  TrainSettings training_{};
  bool keep_best_ = true;  ///< the best epoch by validation after the schedule's end, if there is validation data
};

/// The options that all stages that train have in common.
std::vector<FieldDescription> describe_training();

}  // namespace espalier
