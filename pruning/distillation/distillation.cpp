#include "pruning/distillation/distillation.h"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace espalier {

namespace {
void add_missing(std::vector<std::string>& names, const std::vector<std::string>& more) {
  for (const std::string& name : more)
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

void check_classes(const Bundle& student, const Bundle& teacher) {
  check(student.size() == teacher.size(), "Distillation",
        "expected teacher and student with as many heads, got {} of the teacher and {} of the student", teacher.size(),
        student.size());
  for (size_t i = 0; i < student.size(); ++i)
    check(student[i].rank() >= 2 && student[i].shape() == teacher[i].shape(), "Distillation",
          "expected teacher and student with the same classes, got outputs {} of the teacher and {} of the student; "
          "build the student with as many classes",
          teacher[i].shape(), student[i].shape());
}

/// Puts the default generator back.
class RandomGuard {
 public:
  explicit RandomGuard(uint64_t seed) : before_(default_generator().state()) { set_seed(seed); }
  ~RandomGuard() { default_generator().set_state(before_); }
  RandomGuard(const RandomGuard&) = delete;
  RandomGuard& operator=(const RandomGuard&) = delete;

 private:
  PhiloxState before_;
};
}  // namespace

Distillation::Distillation(ModulePtr student, ModulePtr teacher, const Dataset& data,
                           const DistillationOptions& options)
    : Distillation(std::move(student), std::make_shared<Teacher>(std::move(teacher), options.cache), data, options) {}

Distillation::Distillation(ModulePtr student, std::shared_ptr<Teacher> teacher, const Dataset& data,
                           const DistillationOptions& options)
    : student_(std::move(student)), teacher_(std::move(teacher)), terms_(options.terms) {
  check(student_ != nullptr && teacher_ != nullptr, "Distillation",
        "expected a student and a teacher, got a null pointer");
  check(student_ != teacher_->module(), "Distillation",
        "the student is its own teacher; use self_distillation, which copies it");
  check(data.size() > 0, "Distillation", "expected at least one example to run the networks on, got none");
  if (terms_.empty()) terms_ = {{1, knowledge_distillation()}};
  for (const WeightedTerm& term : terms_) {
    check(term.term != nullptr, "Distillation", "expected a term, got a null pointer");
    check(term.weight >= 0, "Distillation", "expected a weight of at least 0 for {}, got {}", term.term->name(),
          term.weight);
    add_missing(student_layers_, term.term->student_layers());
    add_missing(teacher_layers_, term.term->teacher_layers());
  }
  check(teacher_layers_.empty() || teacher_->cache() != TeacherCache::always, "Distillation",
        "the cache holds the teacher's outputs, but a term needs its layer '{}'; use TeacherCache::automatic",
        teacher_layers_.empty() ? "" : teacher_layers_.front());

  const DataLoader loader(data.first(2), {.batch_size = std::min<int64_t>(data.size(), 2), .prefetch = 0});
  BatchStream stream = loader.batches();
  const Device device = student_->device();
  const Batch batch = to(*stream.next(), device);
  const RandomGuard random(options.seed);
  const NoGrad no_grad;
  const EvalMode mode(*student_), teacher_mode(*teacher_->module());
  teacher_->module()->to(device);
  const NetworkView from = run_and_watch(*student_, inputs_of(batch), student_layers_);
  const NetworkView to = run_and_watch(*teacher_->module(), inputs_of(batch), teacher_layers_);
  check_classes(from.outputs, to.outputs);
  for (const WeightedTerm& term : terms_) term.term->prepare({from, to, batch});
}

TrainingStep Distillation::step(Module& student, const Batch& batch) {
  const NetworkView teacher = (*teacher_)(batch, teacher_layers_);
  return step(student, batch, teacher);
}

TrainingStep Distillation::step(Module& student, const Batch& batch, const NetworkView& teacher) {
  const NetworkView own = run_and_watch(student, inputs_of(batch), student_layers_);
  check_classes(own.outputs, teacher.outputs);
  Variable total;
  for (const WeightedTerm& term : terms_) {
    if (term.weight == 0) continue;
    if (const ModulePtr projection = term.term->projection()) projection->to(batch.images.device());
    Variable loss = term.term->loss({own, teacher, batch});
    if (term.weight != 1) loss = loss * term.weight;
    total = total.defined() ? total + loss : loss;
  }
  check(total.defined(), "Distillation", "all terms have the weight 0; give one a positive weight");
  return {own.outputs, total};
}

NamedParameters Distillation::projections() const {
  NamedParameters result;
  int64_t number = 0;
  for (const WeightedTerm& term : terms_) {
    const ModulePtr projection = term.term->projection();
    if (!projection) continue;
    for (const auto& [name, parameter] : projection->named_parameters())
      result.emplace_back(fmt::format("distillation.{}.{}", number, name), parameter);
    ++number;
  }
  return result;
}

NamedParameters Distillation::parameters() const {
  NamedParameters result = student_->named_parameters();
  for (auto& projection : projections()) result.push_back(std::move(projection));
  return result;
}

nlohmann::json Distillation::config() const {
  nlohmann::json terms = nlohmann::json::array();
  for (const auto& [weight, term] : terms_)
    terms.push_back({{"type", term->name()},
                     {"weight", weight},
                     {"options", term->options()},
                     {"student_layers", term->student_layers()},
                     {"teacher_layers", term->teacher_layers()}});
  return {{"type", "Distillation"}, {"teacher", fmt::format("{:016x}", teacher_->fingerprint())}, {"terms", terms}};
}

void Distillation::on_train_begin(Trainer& trainer) {
  teacher_->expect_augmentations(!trainer.options().augmentations.empty());
}

std::vector<std::pair<std::string, Tensor>> Distillation::state() const {
  NamedTensors state = teacher_->state();
  for (const auto& [name, parameter] : projections()) state.emplace_back(name, parameter.data());
  return state;
}

void Distillation::load_state(const std::vector<std::pair<std::string, Tensor>>& state) {
  teacher_->load_state(state);
  for (auto& [name, parameter] : projections()) {
    const auto found =
        std::find_if(state.begin(), state.end(), [&name = name](const auto& entry) { return entry.first == name; });
    if (found == state.end() || found->second.shape() != parameter.shape())
      fail<FileError>("Distillation", "the checkpoint has no projection '{}' of shape {}; resume with the same terms",
                      name, parameter.shape());
    Tensor data = parameter.data();
    data.copy_(found->second);
  }
}

TrainerOptions with_distillation(TrainerOptions options, const std::shared_ptr<Distillation>& distillation) {
  check(distillation != nullptr, "with_distillation", "expected a Distillation, got a null pointer");
  check(!options.training_step, "with_distillation", "the options have a training step already; only one can be used");
  options.training_step = [distillation](Module& module, const Batch& batch) {
    return distillation->step(module, batch);
  };
  options.callbacks.push_back(distillation);
  return options;
}

std::shared_ptr<Distillation> self_distillation(const ModulePtr& network, const Dataset& data,
                                                const DistillationOptions& options) {
  check(network != nullptr, "self_distillation", "expected a network, got a null pointer");
  return std::make_shared<Distillation>(network, network->clone(), data, options);
}

FineTunedDistillation fine_tune_and_distill(Trainer& teacher, const ModulePtr& student,
                                            const StudentOptimizer& optimizer, const TrainerOptions& options,
                                            const DistillationOptions& distillation, const Dataset& train,
                                            const Dataset& validation) {
  check(optimizer != nullptr, "fine_tune_and_distill", "expected a function that makes the student's optimiser");
  FineTunedDistillation result;
  result.teacher = teacher.fit(train, validation);
  const auto learning = std::make_shared<Distillation>(student, teacher.module(), train, distillation);
  Trainer trainer(student, optimizer(learning->parameters()), with_distillation(options, learning));
  result.student = trainer.fit(train, validation);
  return result;
}

}  // namespace espalier
