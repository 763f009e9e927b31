// Linear: the fully connected layer.
#pragma once

#include "layers/module.h"

namespace espalier {

struct LinearOptions {
  bool bias = true;
};

/// y = x W^T + b. x (...,in) -> (...,out); weight (out,in), bias (out), both uniform in +-1/sqrt(in) at first.
/// Throws when the last axis of x is not `in`.
class Linear : public Module {
 public:
  Linear(int64_t in_features, int64_t out_features, LinearOptions options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "Linear"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);
  int64_t macs(const Shape& input, const Shape& output) const override;

  int64_t in_features() const { return weight_.size(1); }
  int64_t out_features() const { return weight_.size(0); }
  const Parameter& weight() const { return weight_; }
  /// Undefined when built without bias.
  const Parameter& bias() const { return bias_; }

 private:
  Parameter& weight_;
  Parameter& bias_;
};

}  // namespace espalier
