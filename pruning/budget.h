// Budgets: what a network may cost, in parameters, MACs, bytes or milliseconds (BudgetPruner, budget_pruner.h, meets
// them).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "layers/module.h"

namespace espalier {

class EnumNames;

/// Of what a network may have only so much.
enum class BudgetKind : uint8_t {
  parameters,    ///< that compaction leaves: Costs::remaining_parameters
  macs,          ///< that compaction leaves, of one input: Costs::remaining_macs
  bytes,         ///< of the weights that exist and the masks, in a file: count_bytes
  milliseconds,  ///< that one input takes on this machine, compacted: the fastest of many passes
};
/// "parameters", "macs", "bytes", "milliseconds".
const char* name_of(BudgetKind kind);
/// The inverse of name_of. Throws ArgumentError, naming the nearest.
BudgetKind parse_budget_kind(const std::string& text);

/// By what units are put in order when a budget is to be met.
enum class Ranking : uint8_t {
  /// score / what of the budget the unit frees; a score below 0 is multiplied by it. Of two units of one score the
  /// dearer goes first, whichever the sign: of -1 that frees 100 and -1 that frees 1 the first.
  score_per_cost,
  score,  ///< the score alone, as for a sparsity
};
/// "score-per-cost", "score".
const char* name_of(Ranking ranking);
/// The inverse of name_of. Throws ArgumentError, naming the nearest.
Ranking parse_ranking(const std::string& text);
EnumNames names_of(Ranking);

struct Budget {
  BudgetKind kind = BudgetKind::parameters;
  double amount = 0;
  Ranking ranking = Ranking::score_per_cost;
};

/// What a network costs, in the budget's unit. It sees the masked network and must leave it as it is; measure what
/// compaction would leave, on a compacted copy, for instance.
using CostFunction = std::function<double(Module&)>;

/// The cost of each kind of budget for one input like `example`.
CostFunction cost_function(BudgetKind kind, const Bundle& example);

/// Bytes of its parameters in a checkpoint: of the elements that exist, and one bit for each unit of a mask.
double count_bytes(const Module& module);

}  // namespace espalier
