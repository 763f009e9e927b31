// Normalisation: BatchNorm1d, BatchNorm2d, LayerNorm.
#pragma once

#include <optional>

#include "layers/module.h"

namespace espalier {

struct BatchNormOptions {
  double epsilon = 1e-5;
  /// Weight of the newest batch in the running statistics; nullopt: their plain average over all batches seen.
  std::optional<double> momentum = 0.1;
  bool affine = true;  ///< learn weight and bias
};

/// What BatchNorm1d and BatchNorm2d share. y = (x - mean)/sqrt(var + epsilon) * weight + bias for each channel: in
/// training with the batch's own mean and biased variance, in evaluation with the running ones, whose variance is
/// unbiased. weight, bias, running_mean, running_var (C); num_batches_tracked () i64.
/// Ioffe & Szegedy 2015, algorithms 1 and 2.
class BatchNorm : public Module {
 public:
  Variable forward(const Variable& x) override;
  nlohmann::json config() const override;
  ChannelAccount channels() const override { return {.axis = ChannelAxis::second}; }
  /// The running statistics of these channels stay. Throws when inputs and outputs differ.
  void keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs) override;

  int64_t num_features() const { return running_mean_.numel(); }
  const BatchNormOptions& options() const { return options_; }
  /// Undefined unless affine.
  const Parameter& weight() const { return weight_; }
  const Parameter& bias() const { return bias_; }
  const Tensor& running_mean() const { return running_mean_; }
  const Tensor& running_var() const { return running_var_; }
  const Tensor& num_batches_tracked() const { return num_batches_tracked_; }
  /// Forgets the running statistics: mean 0, variance 1, no batches.
  void reset_running_stats();
  void set_momentum(std::optional<double> momentum);

 protected:
  BatchNorm(const char* type, int64_t num_features, const BatchNormOptions& options);
  /// The input as (N,C) or (N,C,H,W). Throws on another rank.
  virtual Variable canonical(const Variable& x) const = 0;

 private:
  void update_running_stats(const BatchStats& stats, int64_t values);

  BatchNormOptions options_;
  Parameter& weight_;
  Parameter& bias_;
  Tensor& running_mean_;
  Tensor& running_var_;
  Tensor& num_batches_tracked_;
};

/// Batch normalisation of features (N,C) or sequences (N,C,L). Throws on another shape, and in training when a
/// channel has one value only.
class BatchNorm1d : public BatchNorm {
 public:
  explicit BatchNorm1d(int64_t num_features, const BatchNormOptions& options = {})
      : BatchNorm("BatchNorm1d", num_features, options) {}
  std::string type() const override { return "BatchNorm1d"; }
  static ModulePtr from_config(const nlohmann::json& config);

 protected:
  Variable canonical(const Variable& x) const override;
};

/// Batch normalisation of images (N,C,H,W). Throws on another shape, and in training when a channel has one value only.
class BatchNorm2d : public BatchNorm {
 public:
  explicit BatchNorm2d(int64_t num_features, const BatchNormOptions& options = {})
      : BatchNorm("BatchNorm2d", num_features, options) {}
  std::string type() const override { return "BatchNorm2d"; }
  static ModulePtr from_config(const nlohmann::json& config);

 protected:
  Variable canonical(const Variable& x) const override;
};

/// Every batch normalisation in a network, also one of your own that derives from BatchNorm, by name.
std::vector<std::pair<std::string, std::shared_ptr<BatchNorm>>> batch_norms(const Module& network);

struct LayerNormOptions {
  double epsilon = 1e-5;
  bool affine = true;  ///< learn a weight of the normalised shape
  bool bias = true;    ///< and a bias; only with affine
};

/// Normalises each example over its last axes, which must be `shape`: (x - mean)/sqrt(var + epsilon)*weight + bias.
/// x (...,shape) -> the same; weight 1, bias 0 at first. Throws on other last axes. Ba, Kiros & Hinton 2016, eq. 4.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(const Shape& shape, LayerNormOptions options = {});
  explicit LayerNorm(int64_t features, LayerNormOptions options = {}) : LayerNorm(Shape{features}, options) {}
  Variable forward(const Variable& x) override;
  std::string type() const override { return "LayerNorm"; }
  ChannelAccount channels() const override { return {.axis = ChannelAxis::last}; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

  /// Sizes of the normalised axes.
  const Shape& normalized_shape() const { return weight_.defined() ? weight_.shape() : shape_; }
  const Parameter& weight() const { return weight_; }
  const Parameter& bias() const { return bias_; }

 private:
  Shape shape_;
  LayerNormOptions options_;
  Parameter& weight_;
  Parameter& bias_;
};

}  // namespace espalier
