// Sparse variational dropout: every weight learns how much noise it bears; those that bear any amount are not needed.
#pragma once

#include "layers/module.h"
#include "pruning/site.h"
#include "training/trainer.h"

namespace espalier {

class FieldVisitor;

struct VariationalOptions {
  double initial_log_sigma2 = -8;  ///< -8 to -10: little noise at first
  double threshold = 3;            ///< weights with a larger log alpha are removed: a dropout rate above 95 %
};
void fields(FieldVisitor& f, VariationalOptions& o);

/// An affine layer (ChannelAccount), such as Linear or Conv2d, with noise on its weights: the same Parameters, and a
/// "log_sigma2" of the weight's shape. Its type is "VariationalLinear", "VariationalConv2d". In training the outputs
/// are drawn from the Gaussian that the weights imply: the layer's own answer for x is their mean, its answer for x^2
/// with the weights' variances, without bias, is their variance (local reparameterisation, one draw for each output of
/// each example). In evaluation the weights are their means, with 0 where log alpha exceeds the threshold. Molchanov,
/// Ashukha & Vetrov 2017; log sigma^2 as parameter: their additive noise reparameterisation.
class VariationalLayer : public Module {
 public:
  /// Takes over the layer, which remove_variational gives back. Throws when it is none of that kind, or was compacted.
  explicit VariationalLayer(ModulePtr layer, const VariationalOptions& options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "Variational" + layer_->type(); }
  nlohmann::json config() const override;
  int64_t macs(const Shape& input, const Shape& output) const override { return layer_->macs(input, output); }
  ChannelAccount channels() const override { return {.axis = layer_->channels().axis}; }

  const Parameter& weight() const { return weight_; }
  /// Undefined when the plain layer has none.
  const Parameter& bias() const { return bias_; }
  const Parameter& log_sigma2() const { return log_sigma2_; }
  double threshold() const { return threshold_; }

  /// Which weights stay: log alpha at most the threshold, and not masked already. When there is none, the one with the
  /// lowest log alpha: a layer doesn't collapse.
  Mask mask() const;
  /// The plain layer with the same Parameters.
  const ModulePtr& plain() const { return layer_; }

 private:
  /// What the plain layer does, with another weight.
  Variable affine(const Variable& x, const Variable& weight, const Variable& bias) const;
  /// The variances of the noise; 0 for masked weights.
  Variable variance() const;
  /// The means that evaluation computes with.
  Variable evaluation_weight() const;

  ModulePtr layer_;
  ChannelReader reader_;
  Parameter &weight_, &bias_, &log_sigma2_;
  double threshold_;
};

/// Makes the variational layers known to module_from_config. make_variational and the layers call it; a program that
/// loads a checkpoint of a variational network calls it first.
void register_variational_layers();

/// Replaces every affine layer, such as Linear and Conv2d, of a Sequential, and of the Sequentials in it, by its
/// variational layer, which takes over the layer's Parameters. Returns how many. Make the optimiser afterwards: there
/// are new parameters; no weight decay on them. Throws when the network is no Sequential, or has none to replace.
int64_t make_variational(Module& network, const VariationalOptions& options = {});

/// The inverse: plain layers, masked where log alpha exceeds the threshold. The weights' Parameters stay the same ones;
/// an optimiser made before trains the log_sigma2 that are gone, so make a new one. Returns the weights and how many of
/// them are masked.
SparsityCount remove_variational(Module& network);

/// The variational layers of a network. Throws when there is none.
std::vector<std::shared_ptr<VariationalLayer>> variational_layers(const Module& network);
/// Weights of the variational layers, and how many remove_variational would mask.
SparsityCount variational_sparsity(const Module& network);
/// The sum of KL over all variational layers: for training loops of your own, loss + weight * KL / examples.
Variable variational_kl(const Module& network);

struct VariationalPenaltyOptions {
  double weight = 1;        ///< of KL/examples, after the warm-up
  double warmup_begin = 0;  ///< share of the training after which the weight begins to rise from 0
  double warmup_end = 0.2;  ///< share after which it is reached
  int64_t examples = 0;     ///< in the training set; 0: batches of an epoch times the batch size
};
/// All but examples.
void fields(FieldVisitor& f, VariationalPenaltyOptions& o);

/// Adds the gradient of weight(step) * KL / examples to that of the loss. The recorded losses stay those of the data. A
/// function of the step: a resumed training gives the same bits.
class VariationalPenalty : public Callback {
 public:
  explicit VariationalPenalty(ModulePtr network, const VariationalPenaltyOptions& options = {});
  nlohmann::json config() const override;
  void on_gradients(Trainer& trainer, const StepRecord& record) override;
  /// The factor of KL/examples in step `step` (from 1) of `total`.
  double weight_at(int64_t step, int64_t total) const;

 private:
  ModulePtr network_;
  VariationalPenaltyOptions options_;
};

}  // namespace espalier
