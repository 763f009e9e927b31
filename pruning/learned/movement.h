// Movement pruning as a criterion: what counts is whether training moves a weight away from 0.
#pragma once

#include "pruning/criteria/criterion.h"
#include "training/trainer.h"

namespace espalier {

/// S = -sum over the steps of lr*g*w: positive when the weight grew, negative when it shrank towards 0. Sanh, Wolf &
/// Rush 2020, "Movement pruning: adaptive sparsity by fine-tuning". It remembers: one object is the
/// Pruner's criterion and, placed before the pruning schedule, a callback of the training:
///
///   auto movement = std::make_shared<MovementCriterion>();
///   auto pruner = std::make_shared<Pruner>(net, weight_sites(*net), PrunerOptions{.criterion = movement});
///   .callbacks = {movement, std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.9})}
///
/// A masked weight is 0 here, so its score stands still; LearnedMasks has the paper's variant in which weights outside
/// the mask keep moving.
class MovementCriterion : public Criterion, public Callback {
 public:
  /// Watches these parameters; without them all of the network that its Pruner prunes.
  explicit MovementCriterion(std::vector<Parameter> parameters = {});
  std::string name() const override { return "movement"; }
  void attach(const Module& module) override;
  Callback* watcher() override { return this; }
  /// Throws before the first step, and for a parameter that it doesn't watch.
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput& input) override;

  nlohmann::json config() const override;
  void on_gradients(Trainer& trainer, const StepRecord& record) override;
  std::vector<std::pair<std::string, Tensor>> state() const override;
  void load_state(const std::vector<std::pair<std::string, Tensor>>& state) override;

 private:
  void watch(std::vector<Parameter> parameters);
  bool were_given_;  ///< the parameters, before there was a Pruner
  std::vector<Parameter> parameters_;
  std::vector<Tensor> scores_;
  int64_t steps_ = 0;
};

}  // namespace espalier
