// BudgetPruner: prunes until a network costs no more than a budget, at once or while it trains.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pruning/unit_search.h"

namespace espalier {

struct BudgetResult {
  double cost = 0;
  int64_t tries = 0;  ///< how often the cost was taken
};

/// Follows a cost where Pruner follows a sparsity. On the way the cost is reckoned by a CostModel, in less time than a
/// training step takes; where the way ends it is taken as it is: the network costs no more than the budget, and at
/// least that less what its dearest unit costs.
///
/// Time can't be reckoned from weights: the way to a number of milliseconds is that of the MACs with which the network
/// takes so long, measured when it begins; where it ends the time is measured again. Those numbers are in state().
///
/// Units that the way has removed come back, as zeros, when more was cut than the budget asks for. Units that were
/// missing before it stay away, unless the pruner's `regrow` is set.
class BudgetPruner {
 public:
  /// `example`: one input of the network. `cost`: in place of cost_function(budget.kind, example).
  BudgetPruner(std::shared_ptr<Pruner> pruner, const Budget& budget, const Bundle& example, CostFunction cost = {});

  /// What the network costs now; the way to the budget starts here. Throws when it can't be met, naming the nearest
  /// cost that can, and when n of m alone takes the cost below it. Throws what the cost throws. The network and the
  /// record of removals stay as they are, then too.
  void begin();
  /// The share of the cost that is gone at the end of the way; 0 for a network within its budget.
  double final_share() const { return final_share_; }
  /// Prunes by the model until the share `share` of the starting cost is gone. Sparsities set by hand count `by_hand`
  /// of their value.
  void prune(double share, double by_hand = 1);
  /// Takes the true cost, by which prune() corrects the model from then on.
  void calibrate();
  /// Without a way: masks the network until its cost is the nearest not above the budget. Throws as begin() does.
  BudgetResult at_once();
  /// The end of the way: the nearest cost not above the budget. Where no unit is left to remove, the nearest above it.
  BudgetResult finish();

  const Budget& budget() const { return budget_; }
  const std::shared_ptr<Pruner>& pruner() const { return pruner_; }

  /// What it knows since begin(), for checkpoints.
  std::vector<std::pair<std::string, Tensor>> state() const;
  /// Throws FileError when an entry of state() is missing or holds what begin() can't have found.
  void load_state(const std::vector<std::pair<std::string, Tensor>>& state);

 private:
  using Units = UnitSearch::Units;
  using Scores = UnitSearch::Scores;
  using Evaluate = UnitSearch::Evaluate;
  using Cut = UnitSearch::Cut;

  CostModel model() const;
  UnitSearch search() const { return {*pruner_, budget_.ranking}; }
  Units existing() const;
  void apply(const Units& exists) const;
  /// The record of removals says what is asked for and compared.
  void describe_record() const;
  bool prune_pieces(const CostModel& model, double wanted) const;
  void check_groups() const;
  Cut deep_enough(const CostModel& model, const Scores& scores, const Units& candidates, double cost,
                  const Evaluate& evaluate);
  std::optional<Cut> nearest(bool as_far_as_possible, BudgetResult& result);
  BudgetResult meet(bool as_far_as_possible);

  std::shared_ptr<Pruner> pruner_;
  Budget budget_;
  CostFunction cost_;
  WeightPrices prices_;
  Units at_start_;    ///< units that may come back
  double start_ = 0;  ///< the cost at the start; of milliseconds: the MACs
  double ratio_ = 1;  ///< true cost / the model's
  double rate_ = 0;   ///< what the true cost falls by when the model's falls by 1; 0: not known
  double final_share_ = 0;
};

/// Masks the network until its cost is the nearest not above the budget. Throws when the budget is out of reach, naming
/// the nearest cost that can be reached; then nothing has changed. A network within the budget already stays as it is.
BudgetResult prune_to_budget(Pruner& pruner, const Budget& budget, const Bundle& example,
                             const CostFunction& cost = {});

}  // namespace espalier
