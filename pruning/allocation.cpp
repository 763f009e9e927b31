#include "pruning/allocation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>

#include "pruning/names.h"

namespace espalier {

namespace {

constexpr std::pair<Scope, const char*> kScopes[] = {
    {Scope::layer, "layer"}, {Scope::global, "global"}, {Scope::erk, "erk"}};

/// Every name given by hand fits a site.
void check_names(const std::vector<Site>& sites, const AllocationOptions& options) {
  std::vector<std::string> known;
  for (const Site& site : sites) known.push_back(site.name);
  const auto check_name = [&](const std::string& given) {
    check(std::any_of(known.begin(), known.end(), [&](const std::string& site) { return fits_name(given, site); }),
          "allocate", "no site is named '{}'{}; there are: {}", given, did_you_mean(given, known),
          fmt::join(known, ", "));
  };
  for (const std::string& name : options.protect) check_name(name);
  for (const auto& [name, sparsity] : options.sparsity_of) {
    check_name(name);
    check(sparsity >= 0 && sparsity < 1, "allocate", "expected a sparsity in [0,1) for '{}', got {}", name, sparsity);
  }
}

/// One site on its way: its units from least to most worthy, and how many may go.
struct Queue {
  std::vector<int64_t> order;    ///< units, the first to go first
  std::vector<double> score;     ///< comparable between sites
  std::vector<int64_t> weights;  ///< that go with each of `order`
  int64_t total = 0;             ///< weights of all units
  int64_t gone = 0;              ///< how many of `order` have to go
  int64_t removable = 0;         ///< how many of `order` may go
  int64_t removed = 0;
  int64_t removed_weights = 0;

  bool can_remove() const { return removed < removable; }
  int64_t next_weights() const { return weights[static_cast<size_t>(removed)]; }
  void remove() { removed_weights += weights[static_cast<size_t>(removed++)]; }
  double next_score() const { return score[static_cast<size_t>(order[static_cast<size_t>(removed)])]; }
};

/// Weights that go with each unit of `order` when those before it have gone. Two hidden units of an LSTM share weights
/// of w_hh: the unit's four at the column of each unit that went already, and theirs at its own.
std::vector<int64_t> weights_in_order(const Site& site, const std::vector<int64_t>& order) {
  const std::vector<int64_t> alone = unit_weights(site);
  std::vector<int64_t> weights;
  for (const int64_t unit : order) weights.push_back(alone[static_cast<size_t>(unit)]);
  for (const SiteMember& member : site.members) {
    if (!member.masked || member.pattern.kind() != Pattern::Kind::recurrent) continue;
    const MaskLayout layout = mask_layout(member.parameter.shape(), member.pattern);
    std::vector<int64_t> members(static_cast<size_t>(site.units), 0);  // of the pattern's units, in each of the site's
    for (int64_t unit = 0; unit < layout.units(); ++unit)
      if (const int64_t to = member.site_unit(unit); to >= 0) ++members[static_cast<size_t>(to)];
    int64_t gone = 0;
    for (size_t i = 0; i < order.size(); ++i)
      for (int64_t k = 0; k < members[static_cast<size_t>(order[i])]; ++k)
        weights[i] -= 2 * (layout.rows / layout.row_period) * gone++;
  }
  return weights;
}

/// For n of m: the units that are not among the n best of their m have to go.
std::vector<bool> forced_out(const Site& site, const std::vector<double>& scores) {
  std::vector<bool> out(scores.size(), false);
  if (site.members.size() != 1 || site.members[0].pattern.kind() != Pattern::Kind::n_of_m) return out;
  const auto n = static_cast<size_t>(site.members[0].pattern.first());
  const auto m = static_cast<size_t>(site.members[0].pattern.second());
  for (size_t group = 0; group < scores.size(); group += m) {
    std::vector<size_t> order(m);
    std::iota(order.begin(), order.end(), group);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    for (size_t i = n; i < m; ++i) out[order[i]] = true;
  }
  return out;
}

Queue make_queue(const Site& site, const std::vector<double>& scores, const std::vector<bool>& candidates,
                 const AllocationOptions& options) {
  const auto units = static_cast<size_t>(site.units);
  check(scores.size() == units && candidates.size() == units, "allocate",
        "'{}' has {} units, got {} scores and {} bits", site.name, units, scores.size(), candidates.size());
  const std::vector<bool> forced = forced_out(site, scores);
  Queue queue{.order = std::vector<int64_t>(units), .score = scores, .weights = {}};
  double mean = 0;
  int64_t gone = 0;
  for (size_t i = 0; i < units; ++i) {
    if (std::isnan(scores[i]))
      fail<NumericError>("allocate", "the score of unit {} of '{}' is NaN; did the training diverge?", i, site.name);
    if (!candidates[i] || forced[i])
      ++gone;
    else
      mean += std::abs(scores[i]);
  }
  mean /= static_cast<double>(std::max<int64_t>(site.units - gone, 1));
  if (options.normalize && mean > 0)
    for (double& score : queue.score) score /= mean;
  for (size_t i = 0; i < units; ++i)
    if (!candidates[i] || forced[i]) queue.score[i] = -std::numeric_limits<double>::infinity();
  std::iota(queue.order.begin(), queue.order.end(), int64_t{0});
  std::sort(queue.order.begin(), queue.order.end(), [&](int64_t a, int64_t b) {
    const double x = queue.score[static_cast<size_t>(a)], y = queue.score[static_cast<size_t>(b)];
    return x != y ? x < y : a > b;
  });
  queue.weights = weights_in_order(site, queue.order);
  queue.total = std::accumulate(queue.weights.begin(), queue.weights.end(), int64_t{0});
  const bool is_protected = std::any_of(options.protect.begin(), options.protect.end(),
                                        [&](const std::string& name) { return fits_name(name, site.name); });
  queue.removable = is_protected ? gone : std::max(gone, site.units - std::min(options.min_units, site.units));
  queue.gone = gone;
  while (queue.removed < gone) queue.remove();
  return queue;
}

/// Densities eps*(sum of dimensions)/(product of dimensions), at most 1, that together leave 1 - sparsity of the
/// weights.
std::vector<double> erk_sparsities(const std::vector<Site>& sites, const std::vector<Queue>& queues, double sparsity) {
  std::vector<double> raw;
  double all = 0;
  for (size_t i = 0; i < sites.size(); ++i) {
    const Shape& shape = sites[i].members.front().parameter.shape();
    double sum = 0;
    for (int64_t size : shape) sum += static_cast<double>(size);
    raw.push_back(sum / static_cast<double>(shape.numel()));
    all += static_cast<double>(queues[i].total);
  }
  std::vector<bool> dense(sites.size(), false);
  double epsilon = 0;
  for (bool changed = true; changed;) {  // layers whose density would pass 1 are dense; the others share the rest
    changed = false;
    double wanted = (1 - sparsity) * all, divisor = 0;
    for (size_t i = 0; i < sites.size(); ++i) {
      const auto total = static_cast<double>(queues[i].total);
      if (dense[i])
        wanted -= total;
      else
        divisor += raw[i] * total;
    }
    epsilon = divisor > 0 ? std::max(0.0, wanted / divisor) : 0;
    for (size_t i = 0; i < sites.size(); ++i)
      if (!dense[i] && epsilon * raw[i] > 1) dense[i] = changed = true;
  }
  std::vector<double> result;
  for (size_t i = 0; i < sites.size(); ++i) result.push_back(dense[i] ? 0 : 1 - epsilon * raw[i]);
  return result;
}

void remove_share(Queue& queue, double sparsity) {
  // To the nearest unit, as round() does for a layer on its own.
  const double wanted = sparsity * static_cast<double>(queue.total);
  while (queue.can_remove()) {
    if (static_cast<double>(queue.removed_weights) + 0.5 * static_cast<double>(queue.next_weights()) > wanted) return;
    queue.remove();
  }
}

}  // namespace

const char* name_of(Scope scope) { return kScopes[static_cast<size_t>(scope)].second; }

Scope parse_scope(const std::string& text) { return value_of_name("scope", "scope", kScopes, text); }

std::vector<std::vector<bool>> allocate(const std::vector<Site>& sites, const std::vector<std::vector<double>>& scores,
                                        const std::vector<std::vector<bool>>& candidates, double sparsity,
                                        const AllocationOptions& options) {
  check(sparsity >= 0 && sparsity < 1, "allocate", "expected a sparsity in [0,1), got {}", sparsity);
  check(options.min_units >= 0 && options.round_to >= 1, "allocate",
        "expected min_units >= 0 and round_to >= 1, got {} and {}", options.min_units, options.round_to);
  check(scores.size() == sites.size() && candidates.size() == sites.size(), "allocate",
        "expected scores and bits for {} sites, got {} and {}", sites.size(), scores.size(), candidates.size());
  check_names(sites, options);

  std::vector<Queue> queues;
  std::vector<std::optional<double>> by_hand;
  for (size_t i = 0; i < sites.size(); ++i) {
    queues.push_back(make_queue(sites[i], scores[i], candidates[i], options));
    by_hand.emplace_back();
    for (const auto& [name, value] : options.sparsity_of)
      if (fits_name(name, sites[i].name)) by_hand.back() = value;
  }

  // What stays to be shared out among the sites without a sparsity of their own.
  int64_t shared = 0, limit = 0;
  double wanted = 0;
  for (size_t i = 0; i < sites.size(); ++i) {
    if (by_hand[i]) {
      remove_share(queues[i], *by_hand[i]);
      continue;
    }
    shared += queues[i].total;
    for (int64_t unit = 0; unit < queues[i].removable; ++unit) limit += queues[i].weights[static_cast<size_t>(unit)];
  }
  wanted = sparsity * static_cast<double>(shared);
  // Half a unit of slack: a sparsity that falls between two units is met by the nearer one.
  int64_t largest = 0;
  for (const Queue& queue : queues)
    for (int64_t weights : queue.weights) largest = std::max(largest, weights);
  check(wanted <= static_cast<double>(limit) + 0.5 * static_cast<double>(largest), "allocate",
        "a sparsity of {} is out of reach: protected sites and the least number of units leave at most {:.4f}; protect "
        "less or ask for less",
        sparsity, shared == 0 ? 0.0 : static_cast<double>(limit) / static_cast<double>(shared));

  if (options.scope == Scope::global) {
    double removed = 0;
    for (size_t i = 0; i < sites.size(); ++i)
      if (!by_hand[i]) removed += static_cast<double>(queues[i].removed_weights);
    using Next = std::pair<double, size_t>;  // lowest score first, then the site
    std::vector<Next> heap;
    for (size_t i = 0; i < sites.size(); ++i)
      if (!by_hand[i] && queues[i].can_remove()) heap.emplace_back(queues[i].next_score(), i);
    std::make_heap(heap.begin(), heap.end(), std::greater<>());
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      const size_t i = heap.back().second;
      heap.pop_back();
      Queue& queue = queues[i];
      const auto next = static_cast<double>(queue.next_weights());
      if (removed + 0.5 * next > wanted) break;
      queue.remove();
      removed += next;
      if (queue.can_remove()) {
        heap.emplace_back(queue.next_score(), i);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
      }
    }
  } else {
    std::vector<double> shares(sites.size(), sparsity);
    if (options.scope == Scope::erk) shares = erk_sparsities(sites, queues, sparsity);
    for (size_t i = 0; i < sites.size(); ++i)
      if (!by_hand[i]) remove_share(queues[i], shares[i]);
  }

  std::vector<std::vector<bool>> exists;
  for (size_t i = 0; i < sites.size(); ++i) {
    const Queue& queue = queues[i];
    const int64_t kept = sites[i].units - queue.removed;
    // Rounding up brings no unit back that is gone or that n of m has no place for.
    const int64_t up = (kept + options.round_to - 1) / options.round_to * options.round_to;
    const int64_t rounded = std::min(sites[i].units - queue.gone, up);
    std::vector<bool> bits(static_cast<size_t>(sites[i].units), true);
    for (int64_t unit = 0; unit < sites[i].units - rounded; ++unit)
      bits[static_cast<size_t>(queue.order[static_cast<size_t>(unit)])] = false;
    exists.push_back(std::move(bits));
  }
  return exists;
}

}  // namespace espalier
