// UnitSearch: which units have to go so that a network costs as much as is wanted, by what each of them frees.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "pruning/budget.h"
#include "pruning/pruner.h"
#include "pruning/structure/cost_model.h"

namespace espalier {

/// How many units exist.
int64_t number_of_units(const CostModel::Units& exists);

/// Searches by the sites, the allocation and the masks of a pruner, which it leaves as they are.
class UnitSearch {
 public:
  using Units = CostModel::Units;
  /// Of each unit of each site.
  using Scores = std::vector<std::vector<double>>;
  /// The cost when these units exist: the true one, or a model's.
  using Evaluate = std::function<double(const Units&)>;
  /// Units that exist, and what the network costs with them.
  struct Cut {
    Units exists;
    double cost = 0;
    Scores ranks = {};  ///< by which units were compared; of a unit that went, then
    double share = 0;   ///< of the cost that was to go
  };

  UnitSearch(const Pruner& pruner, Ranking ranking) : pruner_(pruner), ranking_(ranking) {}

  /// Which of the candidates stay when the lowest go until the model says at most `wanted`; as few as there can be when
  /// that is out of reach. Sparsities set by hand count `by_hand` of their value. Its `cost` isn't filled in.
  Cut cut(const CostModel& model, const Scores& scores, const Units& candidates, double wanted, double by_hand) const;
  /// Brings units back that were there at the start, the highest first, as long as the cost stays within `wanted`.
  /// rate: what the cost falls by when the model's falls by 1.
  Cut fill(const CostModel& model, const Scores& scores, const Units& at_start, Cut from, double wanted, double rate,
           const Evaluate& evaluate) const;

  /// What a unit of each site costs, where units go one by one and their number says what is left; else empty.
  std::vector<double> piece_costs(const CostModel& model) const;
  /// The words of such units that stay when the lowest go until `cost` has gone with them.
  std::vector<Tensor> cut_pieces(std::vector<Candidates> candidates, const std::vector<double>& costs,
                                 double cost) const;
  /// The words of such units with the highest of those that were there at the start and have gone, as many as cost at
  /// most `room`.
  std::vector<Tensor> fill_pieces(std::vector<Candidates> candidates, const std::vector<double>& costs,
                                  const Units& at_start, double room) const;

 private:
  std::vector<Candidates> priced(std::vector<Candidates> candidates, const std::vector<double>& costs) const;
  Scores ranked(const Scores& costs, const Scores& scores, const Units& candidates) const;
  Units cut_once(const CostModel& model, const Scores& ranks, const Units& candidates, double wanted,
                 double by_hand) const;
  Units may_return(const Units& at_start, const Units& exists) const;

  const Pruner& pruner_;
  Ranking ranking_;
};

}  // namespace espalier
