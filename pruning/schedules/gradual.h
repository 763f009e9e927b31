// Gradual pruning: a sparsity that rises while the network trains.
#pragma once

#include <memory>
#include <string>

#include "pruning/budget_pruner.h"
#include "training/trainer.h"

namespace espalier {

class FieldVisitor;

/// How sparsity rises from its initial to its final value.
enum class SparsityCurve : uint8_t {
  one_shot,   ///< all at once, at the start
  linear,     ///< equal shares of all weights
  geometric,  ///< equal shares of the remaining weights: iterative pruning, Han et al. 2015
  cubic,      ///< fast first: s_f + (s_i - s_f)(1 - t)^3, Zhu & Gupta 2017
};
/// "one-shot", "linear", "geometric", "cubic".
const char* name_of(SparsityCurve curve);
/// The inverse of name_of. Throws ArgumentError, naming the nearest.
SparsityCurve parse_sparsity_curve(const std::string& text);
EnumNames names_of(SparsityCurve);
/// The sparsity at t in [0,1].
double sparsity_at(SparsityCurve curve, double t, double initial, double final);

struct GradualOptions {
  double sparsity = 0.9;  ///< at the end; a budget takes its place
  SparsityCurve curve = SparsityCurve::cubic;
  double begin = 0, end = 0.7;  ///< in which share of the training it rises; the rest trains with the final masks
  int64_t every = 0;            ///< steps between prunings; 0: about a hundred prunings in all
};
/// All but the sparsity.
void fields(FieldVisitor& f, GradualOptions& o);

/// A callback that prunes as the training goes on. It is a function of the step, the masks and, with a budget, of what
/// the network cost at the start: a resumed training goes on as if it had not stopped. With a curve of `one_shot` it
/// prunes once, at `begin`. With a budget the share of the cost that is gone follows the curve in place of the
/// sparsity.
class GradualPruning : public Callback {
 public:
  GradualPruning(std::shared_ptr<Pruner> pruner, const GradualOptions& options);
  /// The cost falls to the budget, in place of a sparsity that rises.
  GradualPruning(std::shared_ptr<BudgetPruner> budget, const GradualOptions& options);
  nlohmann::json config() const override;
  void on_train_begin(Trainer& trainer) override;
  void on_epoch_begin(Trainer& trainer, int64_t epoch) override;
  void on_step_end(Trainer& trainer, const StepRecord& record) override;
  bool is_settled(const Trainer& trainer, const EpochRecord& record) const override;
  /// What the pruner's record of removals holds, if it keeps one, and what the budget knows.
  NamedTensors state() const override;
  void load_state(const NamedTensors& state) override;

  /// Throws what the constructor would.
  static void check_options(const GradualOptions& options);

  /// The sparsity, or the share of the cost that is gone, wanted after `step` of `total` steps.
  double sparsity_after(int64_t step, int64_t total) const;
  const Pruner& pruner() const { return *pruner_; }

 private:
  int64_t end_step(int64_t total) const;
  /// The sparsity, or the share of the cost that is gone, at the end.
  double goal() const { return budget_ ? budget_->final_share() : options_.sparsity; }
  void prune(double sparsity);
  void prune_last();

  std::shared_ptr<Pruner> pruner_;
  std::shared_ptr<BudgetPruner> budget_;  ///< nullptr: a sparsity is followed
  GradualOptions options_;
  bool resumed_ = false;
};

}  // namespace espalier
