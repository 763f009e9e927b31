#include "pruning/budget.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "layers/snapshot.h"
#include "pruning/equal_units.h"
#include "pruning/names.h"
#include "pruning/structure/compact.h"
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

using Units = CostModel::Units;

/// What a unit frees falls as other units go: units are ranked anew whenever so large a share of the cost has gone.
constexpr double kRankAnewAfter = 0.05;

WeightPrices prices_of(BudgetKind kind, Module& net, const Tensor& example) {
  if (kind == BudgetKind::macs || kind == BudgetKind::milliseconds) return mac_prices(net, example);
  WeightPrices prices;
  for (const Parameter& parameter : net.parameters())
    prices[parameter.id()] = kind == BudgetKind::bytes ? static_cast<double>(size_of(parameter.data().dtype())) : 1.0;
  return prices;
}

double milliseconds_of(Module& network, const Tensor& example) {
  check(example.rank() == 4, "cost_function", "expected an example of images (N,C,H,W) to measure milliseconds, got {}",
        example.shape());
  const ModulePtr copy = network.clone();
  compact(*copy, example);
  const Shape image{example.size(1), example.size(2), example.size(3)};
  constexpr double kSeconds = 0.2;  // that a measurement takes, about
  const double first = latencies({copy}, {image}, 1, 5).front().p50;
  const int64_t rounds = std::clamp<int64_t>(std::llround(kSeconds / std::max(first, 1e-6)), 15, 500);
  return 1e3 * latencies({copy}, {image}, 1, rounds).front().fastest;
}

double largest_existing(const std::vector<std::vector<double>>& costs, const Units& exists) {
  double largest = 0;
  for (size_t s = 0; s < costs.size(); ++s)
    for (size_t unit = 0; unit < costs[s].size(); ++unit)
      if (exists[s][unit]) largest = std::max(largest, costs[s][unit]);
  return largest;
}

int64_t count(const Units& exists) {
  int64_t all = 0;
  for (const std::vector<bool>& units : exists) all += std::count(units.begin(), units.end(), true);
  return all;
}

/// Units of one site that come or go together: `round_to` of them.
struct Item {
  size_t site = 0;
  std::vector<size_t> units;
  double score = 0;  ///< the mean
  bool done = false;
};

/// The units of `among` in items, the lowest scores first.
std::vector<Item> items_of(const Units& among, const std::vector<std::vector<double>>& scores, int64_t round_to) {
  std::vector<Item> items;
  for (size_t s = 0; s < among.size(); ++s) {
    std::vector<size_t> units;
    for (size_t unit = 0; unit < among[s].size(); ++unit)
      if (among[s][unit]) units.push_back(unit);
    std::stable_sort(units.begin(), units.end(), [&](size_t a, size_t b) {
      return scores[s][a] != scores[s][b] ? scores[s][a] < scores[s][b] : a > b;
    });
    const auto each = static_cast<size_t>(round_to);
    for (size_t first = 0; first < units.size(); first += each) {
      Item item{.site = s, .units = {}};
      for (size_t i = first; i < std::min(first + each, units.size()); ++i) {
        item.units.push_back(units[i]);
        item.score += scores[s][units[i]];
      }
      item.score /= static_cast<double>(item.units.size());
      items.push_back(std::move(item));
    }
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.score < b.score; });
  return items;
}

/// Sets a network back to a snapshot where a block is left, by an exception too.
class SetsBack {
 public:
  explicit SetsBack(const Snapshot& before) : before_(before) {}
  ~SetsBack() { before_.restore(); }
  SetsBack(const SetsBack&) = delete;
  SetsBack& operator=(const SetsBack&) = delete;

 private:
  const Snapshot& before_;
};

void set(Units& exists, const Item& item, bool to) {
  for (const size_t unit : item.units) exists[item.site][unit] = to;
}

}  // namespace

const char* name_of(BudgetKind kind) { return kBudgets[static_cast<size_t>(kind)].second; }

BudgetKind parse_budget_kind(const std::string& text) { return value_of_name("budget", "budget", kBudgets, text); }

const char* name_of(Ranking ranking) { return kRankings[static_cast<size_t>(ranking)].second; }

Ranking parse_ranking(const std::string& text) { return value_of_name("budget", "ranking", kRankings, text); }

CostFunction cost_function(BudgetKind kind, const Tensor& example) {
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

BudgetPruner::BudgetPruner(std::shared_ptr<Pruner> pruner, const Budget& budget, const Tensor& example,
                           CostFunction cost)
    : pruner_(std::move(pruner)), budget_(budget), cost_(cost ? std::move(cost) : cost_function(budget.kind, example)) {
  check(pruner_ != nullptr, "BudgetPruner", "expected a pruner, got a null pointer");
  check(budget.amount > 0 && std::isfinite(budget.amount), "BudgetPruner", "expected a budget above 0, got {} {}",
        budget.amount, name_of(budget.kind));
  check_names(pruner_->sites(), pruner_->options().allocation);
  prices_ = prices_of(budget.kind, *pruner_->module(), example);
}

CostModel BudgetPruner::model() const {
  return {*pruner_->module(), pruner_->sites(), prices_, budget_.kind != BudgetKind::bytes};
}

Units BudgetPruner::existing() const {
  Units exists;
  for (const Site& site : pruner_->sites()) exists.push_back(existing_units(site));
  return exists;
}

void BudgetPruner::apply(const Units& exists) const {
  for (size_t s = 0; s < exists.size(); ++s)
    set_existing_units(pruner_->sites()[s], exists[s], pruner_->options().flow);
}

/// Scores as units are to be compared, lowest first, where they cost as much.
BudgetPruner::Scores BudgetPruner::ranked(const Scores& costs, const Scores& scores, const Units& candidates) const {
  Scores ranks = scores;
  for (size_t s = 0; s < ranks.size(); ++s) {
    if (pruner_->options().allocation.normalize) normalize(ranks[s], candidates[s]);
    if (budget_.ranking == Ranking::score) continue;
    for (size_t unit = 0; unit < ranks[s].size(); ++unit) {
      const double cost = costs[s][unit];  // a unit that frees nothing stays
      ranks[s][unit] = cost > 0 ? Ranks{.cost = cost}(ranks[s][unit]) : std::numeric_limits<double>::infinity();
    }
  }
  return ranks;
}

/// What a unit of each site costs, where units go one by one and their number says what is left; else empty.
std::vector<double> BudgetPruner::piece_costs(const CostModel& model) const {
  const AllocationOptions& options = pruner_->options().allocation;
  const std::vector<Site>& sites = pruner_->sites();
  const bool one_by_one = options.scope != Scope::erk && options.sparsity_of.empty() && options.round_to == 1;
  const bool of_groups = std::any_of(sites.begin(), sites.end(), [](const Site& site) {
    return site.members.front().pattern.kind() == Pattern::Kind::n_of_m;
  });
  if (!one_by_one || of_groups || !are_pieces_of_weights(sites)) return {};
  return model.piece_costs();
}

/// The words of the pieces that stay when the lowest go until `cost` has gone with them.
std::vector<Tensor> BudgetPruner::cut_pieces(std::vector<Candidates> candidates, const std::vector<double>& costs,
                                             double cost) const {
  for (size_t s = 0; s < candidates.size(); ++s) {
    candidates[s].cost = costs[s];
    if (budget_.ranking == Ranking::score_per_cost && costs[s] > 0) candidates[s].ranks.cost = costs[s];
  }
  return cut_words(pruner_->sites(), std::move(candidates), cost, pruner_->options().allocation);
}

/// Which of the candidates stay when the lowest go until the model says at most `wanted`; as few as there can be when
/// that is out of reach.
BudgetPruner::Cut BudgetPruner::cut(const CostModel& model, const Scores& scores, const Units& candidates,
                                    double wanted, double by_hand) const {
  const double now = model.cost(candidates);
  Cut result{.exists = candidates};
  if (const std::vector<double> costs = piece_costs(model); !costs.empty()) {
    if (pruner_->has_record()) result.ranks = ranked(model.unit_costs(candidates), scores, candidates);
    std::vector<Candidates> sets;
    for (size_t s = 0; s < candidates.size(); ++s) sets.push_back(candidates_of(scores[s], candidates[s]));
    const std::vector<Tensor> words = cut_pieces(std::move(sets), costs, now - wanted);
    for (size_t s = 0; s < words.size(); ++s) result.exists[s] = units_of_words(pruner_->sites()[s], words[s]);
    return result;
  }
  int64_t rounds = 1;
  if (budget_.ranking == Ranking::score_per_cost && wanted > 0 && wanted < now && !model.is_a_sum())
    rounds = static_cast<int64_t>(std::ceil(std::log(wanted / now) / std::log(1 - kRankAnewAfter)));
  for (int64_t i = 1; i <= rounds; ++i) {
    const double target = i == rounds ? wanted : now * std::pow(wanted / now, static_cast<double>(i) / rounds);
    Scores ranks = ranked(model.unit_costs(result.exists), scores, result.exists);
    Units stay = cut_once(model, ranks, result.exists, target, by_hand);
    if (i > 1)  // a unit that went keeps the rank by which it did
      for (size_t s = 0; s < ranks.size(); ++s)
        for (size_t unit = 0; unit < ranks[s].size(); ++unit)
          if (!result.exists[s][unit]) ranks[s][unit] = result.ranks[s][unit];
    result.exists = std::move(stay);
    result.ranks = std::move(ranks);
  }
  return result;
}

Units BudgetPruner::cut_once(const CostModel& model, const Scores& ranks, const Units& candidates, double wanted,
                             double by_hand) const {
  AllocationOptions allocation = pruner_->options().allocation;
  allocation.normalize = false;  // ranked() has
  allocation.as_far_as_possible = true;
  for (auto& [name, value] : allocation.sparsity_of) value *= by_hand;
  const auto select = [&](double sparsity) {
    return allocate(pruner_->sites(), ranks, candidates, sparsity, allocation);
  };
  struct Try {
    double sparsity, cost;
    Units exists;
  };
  const auto attempt = [&](double sparsity) {
    Units exists = select(sparsity);
    const double cost = model.cost(exists);
    return Try{sparsity, cost, std::move(exists)};
  };
  Try above = attempt(0), below = attempt(std::nextafter(1.0, 0.0));
  if (above.cost <= wanted) return above.exists;
  if (below.cost >= wanted) return below.exists;
  // The cost falls with the sparsity. By interpolation, which finds a smooth cost's place in a few steps, and by
  // halves.
  const double unit = largest_existing(model.unit_costs(candidates), candidates);
  for (int i = 0; i < 100 && wanted - below.cost > unit && count(above.exists) - count(below.exists) > 1; ++i) {
    const double straight = (above.cost - wanted) / (above.cost - below.cost);
    const double part = i % 3 == 2 ? 0.5 : std::clamp(straight, 0.01, 0.99);
    const double middle = above.sparsity + part * (below.sparsity - above.sparsity);
    if (middle <= above.sparsity || middle >= below.sparsity) break;
    Try next = attempt(middle);
    (next.cost <= wanted ? below : above) = std::move(next);
  }
  // Layers of one size lose units at one sparsity: these go one by one.
  Units differ = above.exists;
  for (size_t s = 0; s < differ.size(); ++s)
    for (size_t u = 0; u < differ[s].size(); ++u) differ[s][u] = above.exists[s][u] && !below.exists[s][u];
  const std::vector<Item> items = items_of(differ, ranks, allocation.round_to);
  size_t too_few = 0, enough = items.size();
  const auto without = [&](size_t number) {
    Units exists = above.exists;
    for (size_t i = 0; i < number; ++i) set(exists, items[i], false);
    return exists;
  };
  while (enough - too_few > 1) {
    const size_t middle = (too_few + enough) / 2;
    (model.cost(without(middle)) <= wanted ? enough : too_few) = middle;
  }
  return without(enough);
}

/// Throws when n of m alone takes the cost below the budget: it leaves n of every m from the first pruning on.
void BudgetPruner::check_groups(const Scores& scores) const {
  const AllocationOptions& options = pruner_->options().allocation;
  const std::vector<Site>& sites = pruner_->sites();
  const auto grouped = std::find_if(sites.begin(), sites.end(), [&](const Site& site) {
    return site.members.front().pattern.kind() == Pattern::Kind::n_of_m && !names_include(options.protect, site.name);
  });
  if (grouped == sites.end()) return;
  const Snapshot before(*pruner_->module());
  const SetsBack sets_back(before);
  apply(allocate(sites, scores, existing(), 0, {.protect = options.protect, .as_far_as_possible = true}));
  const double left = cost_(*pruner_->module());
  check(
      budget_.amount <= left, "prune_to_budget",
      "expected a budget of at most the {:.6g} {} that {} leaves, got {:.6g}; it keeps exactly {} of every {}: protect "
      "layers that are to keep all, or take another pattern",
      left, name_of(budget_.kind), grouped->members.front().pattern.to_string(), budget_.amount,
      grouped->members.front().pattern.first(), grouped->members.front().pattern.second());
}

/// Brings units back that were there at the start, the highest first, as long as the cost stays within `wanted`.
BudgetPruner::Cut BudgetPruner::fill(const CostModel& model, const Scores& scores, Cut from, double wanted, double rate,
                                     const Evaluate& evaluate) const {
  const AllocationOptions& allocation = pruner_->options().allocation;
  const Scores ranks = ranked(model.unit_costs(from.exists), scores, at_start_);
  if (from.ranks.empty()) from.ranks = ranks;
  std::vector<Item> items = items_of(may_return(from.exists), ranks, allocation.round_to);
  std::reverse(items.begin(), items.end());
  constexpr int kTries = 30;
  int tries = 0;
  while (tries < kTries) {
    // As many as there is room for by the model; half of them where that was wrong.
    const std::vector<std::vector<double>> costs = model.unit_costs(from.exists);
    double room = (wanted - from.cost) / rate;
    std::vector<Item*> chosen;
    for (Item& item : items) {
      double own = 0;
      for (const size_t unit : item.units) own += costs[item.site][unit];
      if (item.done || own > room) continue;
      room -= own;
      chosen.push_back(&item);
    }
    if (chosen.empty()) break;
    for (;; chosen.resize(chosen.size() / 2)) {
      Cut more = from;
      for (const Item* item : chosen) set(more.exists, *item, true);
      more.cost = evaluate(more.exists);
      ++tries;
      if (more.cost <= wanted) from = std::move(more);
      if (more.cost <= wanted || chosen.size() == 1 || tries == kTries) break;
    }
    for (Item* item : chosen) item->done = true;  // it came, or was too dear even alone
  }
  for (const Item& item : items)
    for (const size_t unit : item.units)
      if (from.exists[item.site][unit]) from.ranks[item.site][unit] = ranks[item.site][unit];
  return from;
}

/// Units that the way has removed, but for what patterns, masks of other patterns and the user have decided.
Units BudgetPruner::may_return(const Units& exists) const {
  Units units = at_start_;
  for (size_t s = 0; s < units.size(); ++s) {
    const Site& site = pruner_->sites()[s];
    bool fixed = false;
    for (const SiteMember& member : site.members) {
      const Mask& mask = member.parameter.mask();
      fixed = fixed || member.pattern.kind() == Pattern::Kind::n_of_m ||
              (member.masked && mask.defined() && mask.pattern() != member.pattern);
    }
    for (const auto& [name, value] : pruner_->options().allocation.sparsity_of)
      fixed = fixed || fits_name(name, site.name);
    for (size_t unit = 0; unit < units[s].size(); ++unit) units[s][unit] = !fixed && units[s][unit] && !exists[s][unit];
  }
  return units;
}

/// The dearest of the cuts whose true cost is within the budget, found by correcting what is wanted of the model by
/// what the last try was off; the deepest cut when none is.
BudgetPruner::Cut BudgetPruner::deep_enough(const CostModel& model, const Scores& scores, const Units& candidates,
                                            double cost, const Evaluate& evaluate) {
  const double now = model.cost(candidates), unit = largest_existing(model.unit_costs(candidates), candidates);
  const int64_t together = pruner_->options().allocation.round_to;
  double low = 0, high = now;  // of what is wanted: fits, is too dear
  double wanted = std::clamp(now - (cost - budget_.amount) / rate_, 0.0, now);
  std::optional<Cut> within, above;
  constexpr int kTries = 40;
  for (int i = 0; i < kTries; ++i) {
    Cut next = cut(model, scores, candidates, wanted, 1);
    if (model.cost(next.exists) > wanted) break;  // nothing is left to go
    next.cost = within && next.exists == within->exists ? within->cost
                : above && next.exists == above->exists ? above->cost
                                                        : evaluate(next.exists);
    const double off = next.cost - budget_.amount, freed = now - model.cost(next.exists);
    if (freed > 0 && cost > next.cost) rate_ = (cost - next.cost) / freed;
    const bool fits = off <= 0;
    (fits ? low : high) = wanted;
    (fits ? within : above) = std::move(next);
    if (fits && -off <= rate_ * unit) break;
    if (within && above && count(above->exists) - count(within->exists) <= together) break;
    wanted -= off / rate_;
    if (!(low < wanted && wanted < high)) wanted = (low + high) / 2;
  }
  if (within) return *within;
  Cut deepest = cut(model, scores, candidates, 0, 1);
  deepest.cost = evaluate(deepest.exists);
  return deepest;
}

/// The units with which the cost is the nearest not above the budget; none when those that exist stay. It leaves the
/// network and the record as they are. `result`: what the network would cost, and the tries that this took.
std::optional<BudgetPruner::Cut> BudgetPruner::nearest(bool as_far_as_possible, BudgetResult& result) {
  Module& module = *pruner_->module();
  result = {.cost = cost_(module), .tries = 1};
  const bool regrow = pruner_->options().regrow, fits = result.cost <= budget_.amount;
  const CostModel model = this->model();
  Cut found{.exists = existing(), .cost = result.cost};
  const double unit = largest_existing(model.unit_costs(found.exists), found.exists);
  if (rate_ == 0 || budget_.kind != BudgetKind::milliseconds) rate_ = result.cost / model.cost(found.exists);
  if (fits && !regrow && (found.exists == at_start_ || budget_.amount - result.cost <= rate_ * unit))
    return std::nullopt;

  const Snapshot before(module);
  const Scores scores = pruner_->scores();
  if (!fits) check_groups(scores);
  const Evaluate evaluate = [&](const Units& exists) {
    const SetsBack sets_back(before);
    apply(exists);
    ++result.tries;
    return cost_(module);
  };
  Units candidates = found.exists;
  if (regrow)
    for (std::vector<bool>& units : candidates) units.assign(units.size(), true);
  if (!fits || regrow) found = deep_enough(model, scores, candidates, result.cost, evaluate);
  if (found.cost > budget_.amount && !as_far_as_possible)
    fail("prune_to_budget",
         "a budget of {:.6g} {} can't be met: the nearest is {:.6g}; protect less or allow fewer units", budget_.amount,
         name_of(budget_.kind), found.cost);
  if (budget_.amount - found.cost > rate_ * unit) found = fill(model, scores, found, budget_.amount, rate_, evaluate);
  found.share = final_share_ > 0 ? final_share_ : std::max(0.0, 1 - budget_.amount / result.cost);
  result.cost = found.cost;
  return found;
}

BudgetResult BudgetPruner::meet(bool as_far_as_possible) {
  BudgetResult result;
  if (const std::optional<Cut> found = nearest(as_far_as_possible, result))
    pruner_->keep(found->exists, found->ranks, found->share);
  return result;
}

void BudgetPruner::describe_record() const {
  pruner_->describe_record(name_of(budget_.kind), budget_.ranking == Ranking::score_per_cost);
}

void BudgetPruner::begin() {
  describe_record();
  at_start_ = existing();
  const CostModel model = this->model();
  start_ = cost_(*pruner_->module());
  ratio_ = start_ / model.cost(at_start_);
  rate_ = final_share_ = 0;
  if (start_ <= budget_.amount) return;
  if (budget_.kind == BudgetKind::milliseconds) {
    BudgetResult result;
    const std::optional<Cut> found = nearest(false, result);
    start_ = model.cost(at_start_);
    ratio_ = 1;
    final_share_ = found ? 1 - model.cost(found->exists) / start_ : 0;
    return;
  }
  check_groups(pruner_->scores());
  Scores none;  // which units go makes no difference to how many can
  for (const std::vector<bool>& units : at_start_) none.emplace_back(units.size(), 0.0);
  const Snapshot before(*pruner_->module());
  const SetsBack sets_back(before);
  apply(cut(model, none, at_start_, 0, 1).exists);
  const double least = cost_(*pruner_->module());
  if (least > budget_.amount)
    fail("prune_to_budget",
         "a budget of {:.6g} {} can't be met: the nearest is {:.6g}; protect less or allow fewer units", budget_.amount,
         name_of(budget_.kind), least);
  final_share_ = 1 - budget_.amount / start_;
}

/// prune() for many units without a record; false when it isn't for them, or when units have to come back.
bool BudgetPruner::prune_pieces(const CostModel& model, double wanted) const {
  const std::vector<double> costs = pruner_->has_record() ? std::vector<double>() : piece_costs(model);
  if (costs.empty()) return false;
  std::vector<int64_t> number;
  double dearest = 0;
  for (size_t s = 0; s < costs.size(); ++s) {
    number.push_back(Candidates{.scores = {}, .words = pruner_->candidate_words(pruner_->sites()[s])}.count());
    if (number.back() > 0) dearest = std::max(dearest, costs[s]);
  }
  const double now = model.cost_of_pieces(number);
  if (now > wanted) pruner_->keep(cut_pieces(pruner_->candidates(), costs, now - wanted));
  return now > wanted || wanted - now <= dearest;
}

void BudgetPruner::prune(double share, double by_hand) {
  const double wanted = start_ * (1 - share) / ratio_;
  const CostModel model = this->model();
  if (prune_pieces(model, wanted)) return;
  Units candidates = existing();
  if (pruner_->options().regrow)
    for (std::vector<bool>& units : candidates) units.assign(units.size(), true);
  const double now = model.cost(candidates);
  if (now > wanted) {
    const Scores scores = pruner_->scores();
    const Cut found = cut(model, scores, candidates, wanted, by_hand);
    pruner_->keep(found.exists, found.ranks, share);
  } else if (wanted - now > largest_existing(model.unit_costs(candidates), candidates) && candidates != at_start_) {
    const Evaluate evaluate = [&](const Units& exists) { return model.cost(exists); };
    const Scores scores = pruner_->scores();
    const Cut found = fill(model, scores, {std::move(candidates), now}, wanted, 1, evaluate);
    pruner_->keep(found.exists, found.ranks, share);
  }
}

void BudgetPruner::calibrate() {
  // Time doesn't follow MACs all the way; where the way ends it is measured.
  if (budget_.kind == BudgetKind::milliseconds || final_share_ == 0) return;
  ratio_ = cost_(*pruner_->module()) / model().cost(existing());
}

BudgetResult BudgetPruner::at_once() {
  describe_record();
  at_start_ = existing();
  rate_ = 0;
  return meet(false);
}

BudgetResult BudgetPruner::finish() {
  if (final_share_ == 0) return {.cost = cost_(*pruner_->module()), .tries = 1};
  return meet(true);
}

std::vector<std::pair<std::string, Tensor>> BudgetPruner::state() const {
  std::vector<uint8_t> units;
  for (const std::vector<bool>& site : at_start_) units.insert(units.end(), site.begin(), site.end());
  const auto number = static_cast<int64_t>(units.size());
  return {{"budget.course", Tensor::from(std::vector<double>{start_, ratio_, rate_, final_share_}, {4})},
          {"budget.units", Tensor::from(units, {number})}};
}

void BudgetPruner::load_state(const std::vector<std::pair<std::string, Tensor>>& state) {
  describe_record();
  at_start_.clear();
  for (const Site& site : pruner_->sites()) at_start_.emplace_back(static_cast<size_t>(site.units), true);
  bool has_course = false, has_units = false;
  for (const auto& [name, tensor] : state) {
    if (name == "budget.course") {
      const std::vector<double> course = tensor.to_vector<double>();
      if (course.size() != 4)
        fail<FileError>("BudgetPruner", "expected 4 numbers in '{}', got {}", name, course.size());
      if (!std::all_of(course.begin(), course.end(), [](double number) { return std::isfinite(number); }) ||
          course[1] <= 0)
        fail<FileError>("BudgetPruner", "expected finite numbers in '{}', the second above 0, got {}", name,
                        fmt::join(course, ", "));
      has_course = true;
      start_ = course[0], ratio_ = course[1], rate_ = course[2], final_share_ = course[3];
    }
    if (name != "budget.units") continue;
    const std::vector<uint8_t> units = tensor.to_vector<uint8_t>();
    if (static_cast<int64_t>(units.size()) != count(at_start_))
      fail<FileError>("BudgetPruner", "expected {} units in '{}', got {}", count(at_start_), name, units.size());
    size_t next = 0;
    for (std::vector<bool>& site : at_start_)
      for (size_t unit = 0; unit < site.size(); ++unit) site[unit] = units[next++] != 0;
    has_units = true;
  }
  if (!has_course || !has_units)
    fail<FileError>("BudgetPruner", "expected '{}', found none: was this training begun without a budget?",
                    has_course ? "budget.units" : "budget.course");
}

BudgetResult prune_to_budget(Pruner& pruner, const Budget& budget, const Tensor& example, const CostFunction& cost) {
  // A pruner that nobody else owns.
  BudgetPruner to_budget(std::shared_ptr<Pruner>(std::shared_ptr<void>(), &pruner), budget, example, cost);
  return to_budget.at_once();
}

}  // namespace espalier
