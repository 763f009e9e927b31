#include "pipeline/training_stage.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "pipeline/data.h"
#include "pipeline/recipe.h"
#include "pipeline/seed_run.h"
#include "training/interrupt.h"

namespace espalier {

namespace {

void check_term(const TermOptions& term) {
  const std::vector<std::string> known = term_registry().names();
  if (!term_registry().contains(term.type))
    refuse("expected a term with type = {}, got \"{}\"{}", fmt::join(known, ", "), term.type,
           did_you_mean(term.type, known));
  const bool needs_layers = term.type == "hint" || term.type == "attention";
  if (term.student.empty() != term.teacher.empty() || (term.student.empty() && needs_layers))
    refuse("a term of type {} compares two layers: expected student = \"fc1\", teacher = \"fc1\"{}, got \"{}\", \"{}\"",
           term.type, needs_layers ? "" : ", or neither for the outputs", term.student, term.teacher);
}

}  // namespace

void fields(FieldVisitor& f, TermOptions& o) {
  f("type", o.type, "hint, attention, relational-distance or relational-angle");
  f.unless_default("student", o.student, "Layer of the student");
  f.unless_default("teacher", o.teacher, "Layer of the teacher");
  f("weight", o.weight, at_least(0), "Of the term in the loss");
  f.judge([&] { check_term(o); });
}

Registry<DistillationTermPtr(const std::string&, const std::string&)>& term_registry() {
  using Names = const std::string&;
  static Registry<DistillationTermPtr(Names, Names)> terms(
      "term", {{"hint", [](Names student, Names teacher) { return hint(student, teacher); }},
               {"attention",
                [](Names student, Names teacher) {
                  return attention_transfer({{student, teacher}});
                }},
               {"relational-distance",
                [](Names student, Names teacher) {
                  return relational_distance({.student_layer = student, .teacher_layer = teacher});
                }},
               {"relational-angle", [](Names student, Names teacher) {
                  return relational_angle({.student_layer = student, .teacher_layer = teacher});
                }}});
  return terms;
}

void TrainingStage::fields(FieldVisitor& f) {
  own_fields(f);
  f("teacher", teacher_name_, "Whom the network learns from: start, an earlier stage, a model file or a run");
  f("temperature", temperature_, at_least(0.01), "Of the teacher's and the student's softmax");
  f("alpha", alpha_, share(), "Share of the teacher in the loss; the labels have the rest");
  f("teacher_cache", cache_, "Whether the teacher's outputs are remembered");
  // As they were given, until they are complete.
  if (training_.model.empty()) {
    training_fields(f, flags_);
  } else if (trains()) {
    training_fields(f, training_);
  } else {
    f("epochs", training_.epochs, "");
  }
  f("keep", keep_, "best: the best epoch by validation; last");
  f.list("term", terms_, "What the network learns from its teacher besides answers");
}

void TrainingStage::settle(const Recipe& recipe) {
  settle_own(recipe);
  if (!teacher_name_ && !has_teacher_always()) {
    if (temperature_ || alpha_ || cache_)
      refuse("temperature, alpha and teacher_cache belong to a teacher; add teacher = \"start\"");
    if (!terms_.empty()) refuse("terms belong to a teacher; add teacher = \"start\" to the stage");
  } else {
    teacher_ = TeacherOptions{};
    teacher_name_ = teacher_->teacher = teacher_name_.value_or(teacher_->teacher);
    temperature_ = teacher_->distillation.temperature = temperature_.value_or(teacher_->distillation.temperature);
    alpha_ = teacher_->distillation.alpha = alpha_.value_or(teacher_->distillation.alpha);
    teacher_->cache = cache_.value_or(teacher_->cache);
    for (const TermOptions& term : terms_) {
      if (term.type == "hint" && trains_anew())
        refuse(
            "a hint trains a projection along, and a stage of type {} trains many times; use attention or relational "
            "terms",
            type);
    }
    teacher_->terms = terms_;
  }

  const std::string keep = keep_.value_or(may_keep_best() ? "best" : "last");
  if (keep != "best" && keep != "last") refuse("expected keep = \"best\" or \"last\", got \"{}\"", keep);
  for (const StagePtr& earlier : recipe.stages)
    if (earlier->includes_validation() && !includes_validation())
      refuse(
          "stage '{}' trained on the validation images, by which nothing can be chosen any more; "
          "expected include_validation in the last training stages only",
          earlier->name);
  keep_best_ = keep == "best" && recipe.validation > 0 && !includes_validation();
  const bool none = flags_.epochs == 0;
  if (none && has_to_train())
    refuse("a stage of type {} works while it trains; expected epochs of at least 1, got 0", type);

  // The defaults are those of the network that is trained.
  flags_.model = recipe.model;
  for (const StagePtr& earlier : recipe.stages)
    if (!earlier->new_network().empty()) flags_.model = earlier->new_network();
  if (!own_network().empty()) flags_.model = own_network();
  flags_.data = recipe.data;
  flags_.data_dir = recipe.data_dir;
  if (!recipe.loss.empty()) flags_.loss = recipe.loss;
  if (!recipe.metric.empty()) flags_.metric = recipe.metric;
  if (none) flags_.epochs = 1;
  training_ = resolve(flags_, nlohmann::json());
  if (none) training_.epochs = 0;
  if (teacher_ && training_.class_weights)
    refuse("class_weights are of the labels' loss alone, and a teacher has a part in this one; leave one of them out");
  if (teacher_ && teacher_->cache == TeacherCache::always && training_.augment != "none")
    refuse(
        "teacher_cache = \"always\" remembers answers to images that stay the same; expected augment = \"none\", got "
        "\"{}\"",
        training_.augment);
  keep_.reset();
  if (!none) keep_ = keep_best_ ? "best" : "last";
}

std::string TrainingStage::describe() const {
  std::string text = type;
  if (!own_network().empty()) text += " " + own_network();
  text += describe_own();
  if (trains())
    text += fmt::format("{} {} epoch{}", before_epochs(), training_.epochs, training_.epochs == 1 ? "" : "s");
  if (includes_validation()) text += ", on the validation images too";
  if (!teacher_) return text;
  text += fmt::format(", teacher {} (T {:g}, alpha {:g})", teacher_->teacher, teacher_->distillation.temperature,
                      teacher_->distillation.alpha);
  for (const TermOptions& term : teacher_->terms) text += fmt::format(", {}", term.type);
  return text;
}

bool TrainingStage::rehearse(SeedRun& run) {
  rehearse_lesson(run);
  return !trains() || parts(run).sites.empty();
}

void TrainingStage::rehearse_lesson(SeedRun& run, const ModulePtr& teacher) {
  if (!teacher || !trains()) return;
  NamedParameters others;
  const TrainerOptions trainer = trainer_options_of(run, teacher, others);
  const DataLoader loader(run.train(), {.batch_size = std::min<int64_t>(2, run.train().size()), .prefetch = 0});
  const ModulePtr student = run.network()->clone();
  const Variable loss = trainer.training_step(*student, to(*loader.batches().next(), run.options().device)).loss;
  check(std::isfinite(loss.item()), type.c_str(),
        "the loss of the first two images is {} before any training; expected a finite one: look at the weights of "
        "terms",
        loss.item());
}

std::string TrainingStage::settings(const SeedRun& run) const { return leaves_network() ? settings_text(run) : ""; }

std::string TrainingStage::settings_text(const SeedRun& run) const {
  if (!trains()) return "";
  TrainSettings settings = training_;
  settings.seed = run.seed();
  settings.images = run.recipe().images;
  settings.validation =
      includes_validation() || !validates_on_unseen_images(run.recipe()) ? 0 : run.recipe().validation;
  nlohmann::json json = to_json(settings);
  if (run.recipe().validation_seed) json["validation_seed"] = *run.recipe().validation_seed;
  return json.dump();
}

ModulePtr TrainingStage::find_teacher(SeedRun& run) const {
  return teacher_ ? run.find_network(teacher_->teacher) : nullptr;
}

TrainerOptions TrainingStage::trainer_options_of(SeedRun& run, const ModulePtr& teacher,
                                                 NamedParameters& others) const {
  TrainerOptions trainer = trainer_options(training_, image_side(run.train()));
  trainer.seed = run.seed();
  trainer.validation_fraction = 0;
  trainer.restore_best = keep_best_;
  trainer.run_folder = run.folder_of(*this);
  trainer.resume = run.options().resume;
  trainer.overwrite = !run.options().resume;
  trainer.device = run.options().device;
  if (run.options().show_progress) run.options().show_progress(trainer);
  if (!teacher) return trainer;
  KnowledgeDistillationOptions kd = teacher_->distillation;
  kd.label_smoothing = trainer.label_smoothing;
  trainer.label_smoothing = 0;
  DistillationOptions distillation{
      .terms = {{.term = knowledge_distillation(kd)}}, .cache = teacher_->cache, .seed = run.seed()};
  for (const TermOptions& term : teacher_->terms)
    distillation.terms.push_back(
        {.weight = term.weight, .term = term_registry().find("run", term.type)(term.student, term.teacher)});
  const auto learning = std::make_shared<Distillation>(run.network(), teacher, run.train(), distillation);
  others = learning->projections();
  return with_distillation(std::move(trainer), learning);
}

TrainingPlan TrainingStage::plan(SeedRun& run, const ModulePtr& teacher) const {
  NamedParameters others;
  TrainerOptions options = trainer_options_of(run, teacher, others);
  check(others.empty(), type.c_str(),
        "a term trains something along ({}), and this stage trains many times; use terms without projections",
        others.empty() ? "" : others.front().first);
  return {.optimizer = [settings = training_](Module& network) -> std::shared_ptr<Optimizer> {
            return build_optimizer(settings, network);
          },
          .options = std::move(options)};
}

void TrainingStage::fit(SeedRun& run, const ModulePtr& teacher, const std::vector<std::shared_ptr<Callback>>& more) {
  NamedParameters others;
  TrainerOptions trainer = trainer_options_of(run, teacher, others);
  const TrainingParts own = parts(run);
  trainer.callbacks.insert(trainer.callbacks.end(), own.callbacks.begin(), own.callbacks.end());
  trainer.callbacks.insert(trainer.callbacks.end(), more.begin(), more.end());
  others.insert(others.end(), own.parameters.begin(), own.parameters.end());
  Trainer(run.network(), build_optimizer(training_, *run.network(), others), std::move(trainer))
      .fit(run.train(), run.validation());
  if (!InterruptGuard::requested()) finish(run, own);
}

void TrainingStage::finish(SeedRun& run, const TrainingParts& own) {
  if (!own.sites.empty()) run.say_what_is_left(own.sites, own.min_units);
}

std::vector<FieldDescription> describe_training() {
  TrainingStage plain;
  return describe_fields([&](FieldVisitor& f) { plain.fields(f); });
}

void TrainingStage::run(SeedRun& run) {
  const ModulePtr teacher = find_teacher(run);
  if (trains()) fit(run, teacher);
}

}  // namespace espalier
