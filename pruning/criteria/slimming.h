// Network slimming: the penalty that makes BatchNorm's scales sparse in training, for bn_scale_criterion.
#pragma once

#include <string>
#include <vector>

#include "layers/norm.h"
#include "training/callback.h"

namespace espalier {

struct SlimmingOptions {
  double strength = 1e-4;  ///< lambda
  /// Names of BatchNorm modules that are left alone; may end in '*'.
  std::vector<std::string> exclude = {};
};

/// Adds lambda * sum |weight| over the BatchNorms to the loss, as its subgradient lambda * sign(weight) (0 at 0) in the
/// gradients of every step. The loss that the trainer reports is without it. Frozen weights are left alone. Liu et al.
/// 2017, "Learning efficient convolutional networks through network slimming". Throws at the start of the
/// training when there is no BatchNorm with a weight, or a name to exclude fits none.
class SlimmingPenalty : public Callback {
 public:
  explicit SlimmingPenalty(const SlimmingOptions& options = {});
  nlohmann::json config() const override;
  void on_train_begin(Trainer& trainer) override;
  /// Throws what the start of a training would.
  void check_fits(const Module& module) const;
  void on_gradients(Trainer& trainer, const StepRecord& record) override;

  /// lambda * sum |weight| now.
  double penalty(const Module& module) const;

 private:
  std::vector<Parameter> scales(const Module& module) const;

  SlimmingOptions options_;
};

}  // namespace espalier
