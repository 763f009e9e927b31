// L0 regularisation: a random gate on every unit, whose probability of being open is trained.
#pragma once

#include "pruning/learned/transforms.h"
#include "training/optimizer.h"
#include "training/trainer.h"

namespace espalier {

class FieldVisitor;

struct HardConcreteOptions {
  double lambda = 0.1;              ///< penalty of one expected weight, divided by `examples`
  int64_t examples = 0;             ///< in the training set; 0: batches of an epoch times the batch size
  double open = 0.9;                ///< probability that a gate is open at the start, before stretching
  double beta = 2.0 / 3;            ///< temperature
  double gamma = -0.1, zeta = 1.1;  ///< the interval that the concrete distribution is stretched to
  /// The share of the training after which the gates are folded into the weights (harden); the rest trains the
  /// remaining weights.
  double harden = 0.8;
  int64_t min_units = 1;  ///< what every site keeps, if it had as many, however far its gates are closed
  uint64_t seed = 0;      ///< of the gates' noise
};
/// All but examples, min_units and the seed.
void fields(FieldVisitor& f, HardConcreteOptions& o);

/// Gates z = clip(s*(zeta - gamma) + gamma, 0, 1), s = sigmoid((log u - log(1-u) + log a)/beta), u uniform; one for
/// each unit of each site, drawn anew for every step, the same for all members of the site. The expected number of
/// weights, sum of |unit| * sigmoid(log a - beta*log(-gamma/zeta)), is the penalty; |unit| counts weights that exist.
/// In evaluation z = clip(sigmoid(log a)*(zeta - gamma) + gamma, 0, 1). Louizos, Welling & Kingma 2018, "Learning
/// sparse neural networks through L0 regularization", hard concrete gates.
///
/// Give the optimiser log_alphas() besides the network's parameters, without weight decay. The recorded losses are
/// those of the data. The gates are transforms of the parameters: a clone of the network, or one that is loaded from a
/// checkpoint, has them too. Noise is a function of seed and step, checkpoints hold log a: a resumed training gives the
/// same bits. No epoch before hardening counts as best.
class HardConcreteGates : public Callback {
 public:
  /// Throws on options that make no sense, on n-of-m patterns, and when a parameter belongs to two sites.
  HardConcreteGates(ModulePtr module, std::vector<Site> sites, const HardConcreteOptions& options = {});
  HardConcreteGates(const HardConcreteGates&) = delete;
  HardConcreteGates& operator=(const HardConcreteGates&) = delete;

  /// "log_alpha.SITE" (units) for each site.
  const NamedParameters& log_alphas() const { return log_alphas_; }
  /// The gates of a site in evaluation.
  std::vector<double> gates(size_t site) const;
  /// The gates of a site in the current training step.
  Variable sample(size_t site) const;
  /// The expected number of weights behind open gates.
  double expected_weights() const;
  /// Of the sites' weights: those behind gates that are closed in evaluation.
  double sparsity() const;

  /// Multiplies the weights by their gates and masks units behind closed ones. A site with fewer than min_units open
  /// gates keeps those units with the highest log a, as if their gates were open: the rest of the training can revive
  /// it.
  void harden();
  bool is_hard() const { return hard_; }

  nlohmann::json config() const override;
  void on_gradients(Trainer& trainer, const StepRecord& record) override;
  void on_step_end(Trainer& trainer, const StepRecord& record) override;
  bool is_settled(const Trainer&, const EpochRecord&) const override { return hard_; }
  std::vector<std::pair<std::string, Tensor>> state() const override;
  void load_state(const std::vector<std::pair<std::string, Tensor>>& state) override;

 private:
  void attach();
  void set_step(int64_t step);
  HardConcrete distribution(size_t site) const;
  /// Units of a site that exist and whose gates are open in evaluation, or at least min_units.
  std::vector<bool> open_units(size_t site) const;
  ModulePtr module_;
  std::vector<Site> sites_;
  HardConcreteOptions options_;
  NamedParameters log_alphas_;
  MemberTransforms<HardConcreteGate> transforms_;
  std::vector<Tensor> weights_;  ///< that exist, of each unit, as numbers of log alpha's type
  int64_t step_ = 0;
  bool hard_ = false;
};

}  // namespace espalier
