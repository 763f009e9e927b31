// [[stage]] type = "recalibrate", "compensate", "reconstruct": repairs that need no training.
#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pruning/recovery/reconstruct.h"
#include "pruning/recovery/statistics.h"

namespace espalier {

namespace {

class RecalibrateStage : public Stage {
 public:
  void fields(FieldVisitor& f) override { espalier::fields(f, options_); }
  void run(SeedRun& run) override {
    RecalibrateOptions options = options_;
    options.seed = run.seed();
    if (recalibrate_batch_norm(*run.network(), run.train(), options) == 0)
      run.warn("    warning: nothing was recalibrated: the network has no BatchNorm");
  }

 private:
  RecalibrateOptions options_;
};

/// Gets back what an earlier stage's network put out.
class ReferenceStage : public Stage {
 public:
  void fields(FieldVisitor& f) override {
    f("reference", reference_, "The stage whose outputs are to be had again");
    own_fields(f);
  }
  void settle(const Recipe& recipe) override {
    std::vector<std::string> names;
    for (const StagePtr& earlier : recipe.stages) names.push_back(earlier->name);
    if (std::find(names.begin(), names.end(), reference_) == names.end())
      refuse("a {} stage needs reference = an earlier stage, got \"{}\"; there are: {}", type, reference_,
             fmt::join(names, ", "));
  }

 protected:
  virtual void own_fields(FieldVisitor& f) = 0;
  void warn_of_nothing(const SeedRun& run) const {
    run.warn(
        "    warning: nothing was done: no layer has a masked weight or has lost an input that it has in '{}'; a "
        "stage of type {} comes before a compaction",
        reference_, type);
  }
  std::string reference_;
};

class CompensateStage : public ReferenceStage {
 public:
  void run(SeedRun& run) override {
    CompensateOptions options = options_;
    options.seed = run.seed();
    if (compensate_bias(*run.network(), *run.find_network(reference_), run.train(), options).empty())
      warn_of_nothing(run);
  }

 protected:
  void own_fields(FieldVisitor& f) override { espalier::fields(f, options_); }

 private:
  CompensateOptions options_;
};

class ReconstructStage : public ReferenceStage {
 public:
  void run(SeedRun& run) override {
    ReconstructOptions options = options_;
    options.seed = run.seed();
    const std::vector<Reconstruction> layers =
        reconstruct(*run.network(), *run.find_network(reference_), run.train(), options);
    if (layers.empty()) warn_of_nothing(run);
    for (const Reconstruction& layer : layers)
      run.say("    {}: mean square error {:.4g} -> {:.4g}", layer.layer, layer.before, layer.after);
  }

 protected:
  void own_fields(FieldVisitor& f) override { espalier::fields(f, options_); }

 private:
  ReconstructOptions options_;
};

}  // namespace

StagePtr make_recalibrate_stage() { return std::make_shared<RecalibrateStage>(); }
StagePtr make_compensate_stage() { return std::make_shared<CompensateStage>(); }
StagePtr make_reconstruct_stage() { return std::make_shared<ReconstructStage>(); }

}  // namespace espalier
