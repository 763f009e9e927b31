// Linear: the fully connected layer.
#pragma once

#include "layers/module.h"

namespace espalier {

struct LinearOptions {
  bool bias = true;
};

/// y = x W^T + b. x (...,in) -> (...,out); weight (out,in), bias (out), both uniform in +-1/sqrt(in) at first.
/// Throws when the last axis of x is not `in`. Compaction may leave a layer that reads a part of x only: its weight has
/// a column for each of these features, its config() lists them as "inputs".
class Linear : public Module {
 public:
  Linear(int64_t in_features, int64_t out_features, const LinearOptions& options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "Linear"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);
  int64_t macs(const Shape& input, const Shape& output) const override;
  ChannelAccount channels() const override;
  void keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs) override;
  void select_inputs(int64_t channels, const std::vector<int64_t>& inputs) override;

  /// Features that x must have.
  int64_t in_features() const { return inputs_.empty() ? weight_.size(1) : in_features_; }
  int64_t out_features() const { return weight_.size(0); }
  const Parameter& weight() const { return weight_; }
  /// Undefined when built without bias.
  const Parameter& bias() const { return bias_; }

 private:
  int64_t in_features_;          // of x; used with inputs_ only
  std::vector<int64_t> inputs_;  // the features of x that are read; empty: all
  Parameter& weight_;
  Parameter& bias_;
};

}  // namespace espalier
