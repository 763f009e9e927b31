#include "pruning/budget_pruner.h"

#include <algorithm>
#include <cmath>

#include "core/bits.h"
#include "layers/snapshot.h"
#include "pruning/unit_search.h"

namespace espalier {

namespace {

WeightPrices prices_of(BudgetKind kind, Module& net, const Bundle& example) {
  if (kind == BudgetKind::macs || kind == BudgetKind::milliseconds) return mac_prices(net, example);
  WeightPrices prices;
  for (const Parameter& parameter : net.parameters())
    prices[parameter.id()] = kind == BudgetKind::bytes ? static_cast<double>(size_of(parameter.data().dtype())) : 1.0;
  return prices;
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

}  // namespace

BudgetPruner::BudgetPruner(std::shared_ptr<Pruner> pruner, const Budget& budget, const Bundle& example,
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

BudgetPruner::Units BudgetPruner::existing() const {
  Units exists;
  for (const Site& site : pruner_->sites()) exists.push_back(existing_units(site));
  return exists;
}

void BudgetPruner::apply(const Units& exists) const {
  for (size_t s = 0; s < exists.size(); ++s)
    set_existing_units(pruner_->sites()[s], exists[s], pruner_->options().flow);
}

/// Throws when n of m alone takes the cost below the budget: it leaves n of every m from the first pruning on.
void BudgetPruner::check_groups() const {
  const AllocationOptions& options = pruner_->options().allocation;
  const std::vector<Site>& sites = pruner_->sites();
  const auto grouped = std::find_if(sites.begin(), sites.end(), [&](const Site& site) {
    return site.members.front().pattern.kind() == Pattern::Kind::n_of_m && !names_include(options.protect, site.name);
  });
  if (grouped == sites.end()) return;
  const Snapshot before(*pruner_->module());
  const SetsBack sets_back(before);
  apply(allocate(sites, pruner_->scores(), existing(), 0, {.protect = options.protect, .as_far_as_possible = true}));
  const double left = cost_(*pruner_->module());
  check(
      budget_.amount <= left, "prune_to_budget",
      "expected a budget of at most the {:.6g} {} that {} leaves, got {:.6g}; it keeps exactly {} of every {}: protect "
      "layers that are to keep all, or take another pattern",
      left, name_of(budget_.kind), grouped->members.front().pattern.to_string(), budget_.amount,
      grouped->members.front().pattern.first(), grouped->members.front().pattern.second());
}

/// The dearest of the cuts whose true cost is within the budget, found by correcting what is wanted of the model by
/// what the last try was off; the deepest cut when none is.
BudgetPruner::Cut BudgetPruner::deep_enough(const CostModel& model, const Scores& scores, const Units& candidates,
                                            double cost, const Evaluate& evaluate) {
  const double now = model.cost(candidates), unit = model.dearest(candidates);
  const int64_t together = pruner_->options().allocation.round_to;
  double low = 0, high = now;  // of what is wanted: fits, is too dear
  double wanted = std::clamp(now - (cost - budget_.amount) / rate_, 0.0, now);
  std::optional<Cut> within, above;
  constexpr int kTries = 40;
  for (int i = 0; i < kTries; ++i) {
    Cut next = search().cut(model, scores, candidates, wanted, 1);
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
    if (within && above && number_of_units(above->exists) - number_of_units(within->exists) <= together) break;
    wanted -= off / rate_;
    if (!(low < wanted && wanted < high)) wanted = (low + high) / 2;
  }
  if (within) return *within;
  Cut deepest = search().cut(model, scores, candidates, 0, 1);
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
  const double unit = model.dearest(found.exists);
  if (rate_ == 0 || budget_.kind != BudgetKind::milliseconds) rate_ = result.cost / model.cost(found.exists);
  if (fits && !regrow && (found.exists == at_start_ || budget_.amount - result.cost <= rate_ * unit))
    return std::nullopt;

  const Snapshot before(module);
  if (!fits) check_groups();
  const Scores scores = pruner_->scores();
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
  if (budget_.amount - found.cost > rate_ * unit)
    found = search().fill(model, scores, at_start_, found, budget_.amount, rate_, evaluate);
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
  check_groups();
  Scores none;  // which units go makes no difference to how many can
  for (const std::vector<bool>& units : at_start_) none.emplace_back(units.size(), 0.0);
  const Snapshot before(*pruner_->module());
  const SetsBack sets_back(before);
  apply(search().cut(model, none, at_start_, 0, 1).exists);
  const double least = cost_(*pruner_->module());
  if (least > budget_.amount)
    fail("prune_to_budget",
         "a budget of {:.6g} {} can't be met: the nearest is {:.6g}; protect less or allow fewer units", budget_.amount,
         name_of(budget_.kind), least);
  final_share_ = 1 - budget_.amount / start_;
}

/// prune() for many units without a record; false when it isn't for them.
bool BudgetPruner::prune_pieces(const CostModel& model, double wanted) const {
  const UnitSearch search = this->search();
  const std::vector<double> costs = pruner_->has_record() ? std::vector<double>() : search.piece_costs(model);
  if (costs.empty()) return false;
  std::vector<int64_t> number;
  double dearest = 0;
  for (size_t s = 0; s < costs.size(); ++s) {
    number.push_back(count_bits(pruner_->candidate_words(pruner_->sites()[s])));
    if (number.back() > 0) dearest = std::max(dearest, costs[s]);
  }
  const double now = model.cost_of_pieces(number);
  if (now > wanted)
    pruner_->keep(search.cut_pieces(pruner_->candidates(), costs, now - wanted));
  else if (wanted - now > dearest)
    pruner_->keep(search.fill_pieces(pruner_->candidates(), costs, at_start_, wanted - now));
  return true;
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
    const Cut found = search().cut(model, scores, candidates, wanted, by_hand);
    pruner_->keep(found.exists, found.ranks, share);
  } else if (wanted - now > model.dearest(candidates) && candidates != at_start_) {
    const Evaluate evaluate = [&](const Units& exists) { return model.cost(exists); };
    const Scores scores = pruner_->scores();
    const Cut found = search().fill(model, scores, at_start_, {std::move(candidates), now}, wanted, 1, evaluate);
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
    if (static_cast<int64_t>(units.size()) != number_of_units(at_start_))
      fail<FileError>("BudgetPruner", "expected {} units in '{}', got {}", number_of_units(at_start_), name,
                      units.size());
    size_t next = 0;
    for (std::vector<bool>& site : at_start_)
      for (size_t unit = 0; unit < site.size(); ++unit) site[unit] = units[next++] != 0;
    has_units = true;
  }
  if (!has_course || !has_units)
    fail<FileError>("BudgetPruner", "expected '{}', found none: was this training begun without a budget?",
                    has_course ? "budget.units" : "budget.course");
}

BudgetResult prune_to_budget(Pruner& pruner, const Budget& budget, const Bundle& example, const CostFunction& cost) {
  // A pruner that nobody else owns.
  BudgetPruner to_budget(std::shared_ptr<Pruner>(std::shared_ptr<void>(), &pruner), budget, example, cost);
  return to_budget.at_once();
}

}  // namespace espalier
