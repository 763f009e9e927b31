// [[stage]] type = "distill": a new network takes over, and learns from the one before; type = "teacher": a network is
// trained beside the run's, for later stages to learn from.
#include <utility>

#include "layers/models/zoo.h"
#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/training_stage.h"
#include "training/interrupt.h"

namespace espalier {

namespace {

/// Trains a network of the zoo.
class NewNetworkStage : public TrainingStage {
 protected:
  void own_fields(FieldVisitor& f) override { f("model", model_, "The network of the zoo that is trained"); }
  void settle_own(const Recipe&) override {
    if (!model_) refuse("a {} stage needs a network, such as model = \"lenet300\"", type);
    model_image(*model_);  // throws on an unknown name
  }
  bool has_to_train() const override { return false; }
  ModulePtr fresh(SeedRun& run) const {
    set_seed(run.seed());
    return run.zoo_network(*model_);
  }

  std::optional<std::string> model_;
};

class DistillStage : public NewNetworkStage {
 public:
  std::string new_network() const override { return model_.value_or(""); }
  bool rehearse(SeedRun& run) override {
    const ModulePtr teacher = find_teacher(run);
    run.set_network(run.zoo_network(*model_));
    rehearse_lesson(run, teacher);
    return true;
  }
  void run(SeedRun& run) override {
    const ModulePtr teacher = find_teacher(run);
    run.index_map().clear();
    run.set_network(fresh(run));
    if (trains()) fit(run, teacher);
  }
  void read_back(SeedRun& run) override {
    TrainingStage::read_back(run);
    run.index_map().clear();
  }

 protected:
  bool has_teacher_always() const override { return true; }
};

class TeacherStage : public NewNetworkStage {
 public:
  std::string own_network() const override { return model_.value_or(""); }
  bool leaves_network() const override { return false; }
  bool rehearse(SeedRun& run) override {
    const ModulePtr teacher = find_teacher(run), network = run.network();
    run.set_network(run.zoo_network(*model_));
    rehearse_lesson(run, teacher);
    run.set_network(network);
    return true;
  }
  void run(SeedRun& run) override {
    const ModulePtr teacher = find_teacher(run), network = run.network();
    const IndexMap index_map = std::exchange(run.index_map(), {});
    const std::string settings = std::exchange(run.settings(), settings_text(run));
    run.set_network(fresh(run));
    if (trains()) fit(run, teacher);
    if (!InterruptGuard::requested()) run.save_network(run.network_file_of(*this));
    run.set_network(network);
    run.index_map() = index_map;
    run.settings() = settings;
  }
};

}  // namespace

StagePtr make_distill_stage() { return std::make_shared<DistillStage>(); }
StagePtr make_teacher_stage() { return std::make_shared<TeacherStage>(); }

}  // namespace espalier
