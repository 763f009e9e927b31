#include "pruning/unit_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/bits.h"
#include "pruning/equal_units.h"

namespace espalier {

namespace {

using Units = CostModel::Units;

/// What a unit frees falls as other units go: units are ranked anew whenever so large a share of the cost has gone.
constexpr double kRankAnewAfter = 0.05;

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

void set(Units& exists, const Item& item, bool to) {
  for (const size_t unit : item.units) exists[item.site][unit] = to;
}

}  // namespace

int64_t number_of_units(const CostModel::Units& exists) {
  int64_t all = 0;
  for (const std::vector<bool>& units : exists) all += std::count(units.begin(), units.end(), true);
  return all;
}

/// Scores as units are to be compared, lowest first, where they cost as much.
UnitSearch::Scores UnitSearch::ranked(const Scores& costs, const Scores& scores, const Units& candidates) const {
  Scores ranks = scores;
  for (size_t s = 0; s < ranks.size(); ++s) {
    if (pruner_.options().allocation.normalize) normalize(ranks[s], candidates[s]);
    if (ranking_ == Ranking::score) continue;
    for (size_t unit = 0; unit < ranks[s].size(); ++unit) {
      const double cost = costs[s][unit];  // a unit that frees nothing stays
      ranks[s][unit] = cost > 0 ? Ranks{.cost = cost}(ranks[s][unit]) : std::numeric_limits<double>::infinity();
    }
  }
  return ranks;
}

std::vector<double> UnitSearch::piece_costs(const CostModel& model) const {
  const AllocationOptions& options = pruner_.options().allocation;
  const std::vector<Site>& sites = pruner_.sites();
  const bool one_by_one = options.scope != Scope::erk && options.sparsity_of.empty() && options.round_to == 1;
  const bool of_groups = std::any_of(sites.begin(), sites.end(), [](const Site& site) {
    return site.members.front().pattern.kind() == Pattern::Kind::n_of_m;
  });
  if (!one_by_one || of_groups || !are_pieces_of_weights(sites)) return {};
  return model.piece_costs();
}

/// Candidates with the costs of their units, ranked as the search compares them.
std::vector<Candidates> UnitSearch::priced(std::vector<Candidates> candidates, const std::vector<double>& costs) const {
  for (size_t s = 0; s < candidates.size(); ++s) {
    candidates[s].cost = costs[s];
    if (ranking_ == Ranking::score_per_cost && costs[s] > 0) candidates[s].ranks.cost = costs[s];
  }
  return candidates;
}

std::vector<Tensor> UnitSearch::cut_pieces(std::vector<Candidates> candidates, const std::vector<double>& costs,
                                           double cost) const {
  return cut_words(pruner_.sites(), priced(std::move(candidates), costs), cost, pruner_.options().allocation);
}

std::vector<Tensor> UnitSearch::fill_pieces(std::vector<Candidates> candidates, const std::vector<double>& costs,
                                            const Units& at_start, double room) const {
  std::vector<Tensor> words;
  double cost = 0;  // of all that may come back
  for (size_t s = 0; s < candidates.size(); ++s) {
    Candidates& set = candidates[s];
    words.push_back(set.words);
    set.words = words_of_units(at_start[s]).to(words.back().device());
    if (const double mean = set.mean_size(); pruner_.options().allocation.normalize && is_scale(mean))
      set.ranks.mean = mean;
    set.words = combine_bits(BitOp::bit_and_not, set.words, words[s]);
    cost += costs[s] * static_cast<double>(set.count());
  }
  const std::vector<Tensor> back =
      cut_words(pruner_.sites(), priced(std::move(candidates), costs), cost - room, {.min_units = 0});
  for (size_t s = 0; s < words.size(); ++s) words[s] = combine_bits(BitOp::bit_or, words[s], back[s]);
  return words;
}

UnitSearch::Cut UnitSearch::cut(const CostModel& model, const Scores& scores, const Units& candidates, double wanted,
                                double by_hand) const {
  const double now = model.cost(candidates);
  Cut result{.exists = candidates};
  if (const std::vector<double> costs = piece_costs(model); !costs.empty()) {
    if (pruner_.has_record()) result.ranks = ranked(model.unit_costs(candidates), scores, candidates);
    std::vector<Candidates> sets;
    for (size_t s = 0; s < candidates.size(); ++s) sets.push_back(candidates_of(scores[s], candidates[s]));
    const std::vector<Tensor> words = cut_pieces(std::move(sets), costs, now - wanted);
    for (size_t s = 0; s < words.size(); ++s) result.exists[s] = units_of_words(pruner_.sites()[s], words[s]);
    return result;
  }
  int64_t rounds = 1;
  if (ranking_ == Ranking::score_per_cost && wanted > 0 && wanted < now && !model.is_a_sum())
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

UnitSearch::Units UnitSearch::cut_once(const CostModel& model, const Scores& ranks, const Units& candidates,
                                       double wanted, double by_hand) const {
  AllocationOptions allocation = pruner_.options().allocation;
  allocation.normalize = false;  // ranked() has
  allocation.as_far_as_possible = true;
  for (auto& [name, value] : allocation.sparsity_of) value *= by_hand;
  const auto select = [&](double sparsity) {
    return allocate(pruner_.sites(), ranks, candidates, sparsity, allocation);
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
  const double unit = model.dearest(candidates);
  for (int i = 0;
       i < 100 && wanted - below.cost > unit && number_of_units(above.exists) - number_of_units(below.exists) > 1;
       ++i) {
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

UnitSearch::Cut UnitSearch::fill(const CostModel& model, const Scores& scores, const Units& at_start, Cut from,
                                 double wanted, double rate, const Evaluate& evaluate) const {
  const AllocationOptions& allocation = pruner_.options().allocation;
  const Scores ranks = ranked(model.unit_costs(from.exists), scores, at_start);
  if (from.ranks.empty()) from.ranks = ranks;
  std::vector<Item> items = items_of(may_return(at_start, from.exists), ranks, allocation.round_to);
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

/// Units that were there at the start and have gone, but for what patterns, masks of other patterns and the user have
/// decided.
UnitSearch::Units UnitSearch::may_return(const Units& at_start, const Units& exists) const {
  Units units = at_start;
  for (size_t s = 0; s < units.size(); ++s) {
    const Site& site = pruner_.sites()[s];
    bool fixed = false;
    for (const SiteMember& member : site.members) {
      const Mask& mask = member.parameter.mask();
      fixed = fixed || member.pattern.kind() == Pattern::Kind::n_of_m ||
              (member.masked && mask.defined() && mask.pattern() != member.pattern);
    }
    for (const auto& [name, value] : pruner_.options().allocation.sparsity_of)
      fixed = fixed || fits_name(name, site.name);
    for (size_t unit = 0; unit < units[s].size(); ++unit) units[s][unit] = !fixed && units[s][unit] && !exists[s][unit];
  }
  return units;
}

}  // namespace espalier
