#include "pruning/budget.h"

#include <algorithm>
#include <cmath>

#include "core/names.h"
#include "pruning/structure/compact.h"
#include "pruning/structure/cost_model.h"
#include "pruning/structure/costs.h"
#include "training/latency.h"

namespace espalier {

namespace {

constexpr std::pair<BudgetKind, const char*> kBudgets[] = {{BudgetKind::parameters, "parameters"},
                                                           {BudgetKind::macs, "macs"},
                                                           {BudgetKind::bytes, "bytes"},
                                                           {BudgetKind::milliseconds, "milliseconds"}};
constexpr std::pair<Ranking, const char*> kRankings[] = {{Ranking::score_per_cost, "score-per-cost"},
                                                         {Ranking::score, "score"}};

double milliseconds_of(Module& network, const Bundle& example) {
  check(example.size() == 1 && is_floating(example.first().dtype()), "cost_function",
        "expected a network of one input of floats to measure milliseconds, got {} inputs", example.size());
  const ModulePtr copy = network.clone();
  compact(*copy, example);
  Shape image = example.first().shape();
  image.erase(0);
  constexpr double kSeconds = 0.2;  // that a measurement takes, about
  const double first = latencies({copy}, {image}, 1, 5).front().p50;
  const int64_t rounds = std::clamp<int64_t>(std::llround(kSeconds / std::max(first, 1e-6)), 15, 500);
  return 1e3 * latencies({copy}, {image}, 1, rounds).front().fastest;
}

}  // namespace

const char* name_of(BudgetKind kind) { return kBudgets[static_cast<size_t>(kind)].second; }

BudgetKind parse_budget_kind(const std::string& text) { return value_of_name("budget", "budget", kBudgets, text); }

const char* name_of(Ranking ranking) { return kRankings[static_cast<size_t>(ranking)].second; }

EnumNames names_of(Ranking) { return {"ranking", kRankings}; }

Ranking parse_ranking(const std::string& text) { return value_of_name("budget", "ranking", kRankings, text); }

CostFunction cost_function(BudgetKind kind, const Bundle& example) {
  return [kind, example](Module& network) {
    if (kind == BudgetKind::milliseconds) return milliseconds_of(network, example);
    if (kind == BudgetKind::bytes) return count_bytes(network);
    const Costs costs = count_costs(network, DependencyGraph::trace(network, example), example);
    return static_cast<double>(kind == BudgetKind::macs ? costs.remaining_macs : costs.remaining_parameters);
  };
}

double count_bytes(const Module& module) {
  int64_t bytes = 0;
  for (const Parameter& parameter : module.parameters()) {
    bytes += count_existing(parameter) * static_cast<int64_t>(size_of(parameter.data().dtype()));
    if (parameter.mask().defined()) bytes += (parameter.mask().num_units() + 7) / 8;
  }
  return static_cast<double>(bytes);
}

}  // namespace espalier
