#include "pruning/allocation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "core/names.h"
#include "pruning/equal_units.h"

namespace espalier {

namespace {

constexpr std::pair<Scope, const char*> kScopes[] = {
    {Scope::layer, "layer"}, {Scope::global, "global"}, {Scope::erk, "erk"}};

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
  bool is_protected = false;

  bool can_remove() const { return removed < removable; }
  int64_t next_unit() const { return order[static_cast<size_t>(removed)]; }
  int64_t next_weights() const { return weights[static_cast<size_t>(removed)]; }
  void remove() { removed_weights += weights[static_cast<size_t>(removed++)]; }
  double next_score() const { return score[static_cast<size_t>(next_unit())]; }
};

/// Weights that units of several sites have in common: rows of a layer in one site, its input features in another. They
/// go with whichever unit goes first, and count once.
class CommonWeights {
 public:
  explicit CommonWeights(const std::vector<Site>& sites) : members_(sites.size()) {
    std::map<const void*, std::set<size_t>> masked_by;
    for (size_t i = 0; i < sites.size(); ++i)
      for (const SiteMember& member : sites[i].members)
        if (member.masked) masked_by[member.parameter.id()].insert(i);
    std::map<const void*, size_t> index;
    for (size_t i = 0; i < sites.size(); ++i)
      for (const SiteMember& member : sites[i].members) {
        const void* id = member.parameter.id();
        if (!member.masked || masked_by[id].size() < 2) continue;
        const auto [known, fresh] = index.try_emplace(id, gone_with_.size());
        if (fresh) gone_with_.emplace_back(static_cast<size_t>(member.parameter.numel()), kNobody);
        Member common{.parameter = known->second,
                      .layout = mask_layout(member.parameter.shape(), member.pattern),
                      .units = std::vector<std::vector<int64_t>>(static_cast<size_t>(sites[i].units))};
        for (int64_t unit = 0; unit < common.layout.units(); ++unit)
          if (const int64_t to = member.site_unit(unit); to >= 0) common.units[static_cast<size_t>(to)].push_back(unit);
        members_[i].push_back(std::move(common));
      }
  }

  CommonWeights(const CommonWeights&) = delete;
  CommonWeights& operator=(const CommonWeights&) = delete;

  /// Whether a site has weights in common with another.
  bool has(size_t site) const { return !members_[site].empty(); }
  /// Weights of a unit that went with units of other sites.
  int64_t gone(size_t site, int64_t unit) const {
    int64_t count = 0;
    for_each_weight(site, unit, [&](size_t parameter, size_t weight) {
      const int32_t by = gone_with_[parameter][weight];
      if (by != kNobody && by != static_cast<int32_t>(site)) ++count;
    });
    return count;
  }
  void remove(size_t site, int64_t unit) {
    for_each_weight(site, unit, [&](size_t parameter, size_t weight) {
      int32_t& by = gone_with_[parameter][weight];
      if (by != kNobody) return;
      by = static_cast<int32_t>(site);
      removed_.push_back(&by);
    });
  }
  /// How many have been removed; and brings all but so many back: for counts of what could go.
  size_t number_removed() const { return removed_.size(); }
  void bring_back_to(size_t number) {
    for (; removed_.size() > number; removed_.pop_back()) *removed_.back() = kNobody;
  }
  bool have_in_common(size_t a, size_t b) const {
    for (const Member& x : members_[a])
      for (const Member& y : members_[b])
        if (x.parameter == y.parameter) return true;
    return false;
  }

 private:
  static constexpr int32_t kNobody = -1;
  struct Member {
    size_t parameter;  ///< index into gone_with_
    MaskLayout layout;
    std::vector<std::vector<int64_t>> units;  ///< of the pattern, for each unit of the site
  };

  template <class F>
  void for_each_weight(size_t site, int64_t site_unit, const F& f) const {
    for (const Member& member : members_[site])
      for (const int64_t unit : member.units[static_cast<size_t>(site_unit)]) {
        const MaskLayout& layout = member.layout;
        const int64_t first = unit % layout.grid_columns * layout.block_columns;
        const int64_t own = unit / layout.grid_columns * layout.block_rows;  // its first row of each period
        for (int64_t period = 0; period < layout.rows; period += layout.row_period) {
          for (int64_t row = period + own; row < period + own + layout.block_rows; ++row)
            for (int64_t column = first; column < first + layout.block_columns; ++column)
              f(member.parameter, static_cast<size_t>(row * layout.columns + column));
          if (!layout.recurrent) continue;
          for (int64_t row = period; row < period + layout.row_period; ++row)
            if (row < period + own || row >= period + own + layout.block_rows)
              f(member.parameter, static_cast<size_t>(row * layout.columns + unit));
        }
      }
  }

  std::vector<std::vector<Member>> members_;     ///< of each site, those that others mask too
  std::vector<std::vector<int32_t>> gone_with_;  ///< the site, by parameter and weight
  std::vector<int32_t*> removed_;                ///< entries of gone_with_ that aren't kNobody, in the order of removal
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

void check_sizes(const Site& site, const std::vector<double>& scores, const std::vector<bool>& candidates) {
  const auto units = static_cast<size_t>(site.units);
  check(scores.size() == units && candidates.size() == units, "allocate",
        "'{}' has {} units, got {} scores and {} bits", site.name, units, scores.size(), candidates.size());
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
  check_sizes(site, scores, candidates);
  const auto units = static_cast<size_t>(site.units);
  const bool is_protected = names_include(options.protect, site.name);
  const std::vector<bool> forced = is_protected ? std::vector<bool>(units, false) : forced_out(site, scores);
  for (size_t i = 0; i < units; ++i)
    if (std::isnan(scores[i]))
      fail<NumericError>("allocate", "the score of unit {} of '{}' is NaN; did the training diverge?", i, site.name);
  std::vector<bool> may_stay = candidates;
  for (size_t i = 0; i < units; ++i) may_stay[i] = may_stay[i] && !forced[i];
  const int64_t gone = std::count(may_stay.begin(), may_stay.end(), false);
  Queue queue{.order = std::vector<int64_t>(units), .score = scores, .weights = {}};
  if (options.normalize) normalize(queue.score, may_stay);
  for (size_t i = 0; i < units; ++i)
    if (!may_stay[i]) queue.score[i] = -std::numeric_limits<double>::infinity();
  std::iota(queue.order.begin(), queue.order.end(), int64_t{0});
  std::sort(queue.order.begin(), queue.order.end(), [&](int64_t a, int64_t b) {
    const double x = queue.score[static_cast<size_t>(a)], y = queue.score[static_cast<size_t>(b)];
    return x != y ? x < y : a > b;
  });
  queue.weights = weights_in_order(site, queue.order);
  queue.total = std::accumulate(queue.weights.begin(), queue.weights.end(), int64_t{0});
  queue.is_protected = is_protected;
  queue.removable = is_protected ? gone : std::max(gone, site.units - std::min(options.min_units, site.units));
  queue.gone = gone;
  return queue;
}

/// Densities eps*(sum of dimensions)/(product of dimensions), at most 1, that together leave 1 - sparsity of the
/// weights of these sites; 1 for protected ones.
std::vector<double> erk_sparsities(const std::vector<Site>& sites, const std::vector<Queue>& queues,
                                   const std::vector<size_t>& which, double sparsity) {
  std::vector<double> raw(sites.size(), 0);
  std::vector<bool> dense(sites.size(), false);
  double all = 0;
  for (const size_t i : which) {
    const Shape& shape = sites[i].members.front().parameter.shape();
    double sum = 0;
    for (int64_t size : shape) sum += static_cast<double>(size);
    raw[i] = sum / static_cast<double>(shape.numel());
    all += static_cast<double>(queues[i].total);
    dense[i] = queues[i].is_protected;
  }
  double epsilon = 0;
  for (bool changed = true; changed;) {  // layers whose density would pass 1 are dense; the others share the rest
    changed = false;
    double wanted = (1 - sparsity) * all, divisor = 0;
    for (const size_t i : which) {
      const auto total = static_cast<double>(queues[i].total);
      if (dense[i])
        wanted -= total;
      else
        divisor += raw[i] * total;
    }
    epsilon = divisor > 0 ? std::max(0.0, wanted / divisor) : 0;
    for (const size_t i : which)
      if (!dense[i] && epsilon * raw[i] > 1) dense[i] = changed = true;
  }
  std::vector<double> result(sites.size(), 0);
  for (const size_t i : which)
    if (!dense[i]) result[i] = 1 - epsilon * raw[i];
  return result;
}

/// allocate() by way of words.
std::vector<std::vector<bool>> allocate_equal_units(const std::vector<Site>& sites,
                                                    const std::vector<std::vector<double>>& scores,
                                                    const std::vector<std::vector<bool>>& candidates, double sparsity,
                                                    const AllocationOptions& options) {
  std::vector<Candidates> sets;
  for (size_t i = 0; i < sites.size(); ++i) {
    check_sizes(sites[i], scores[i], candidates[i]);
    sets.push_back(candidates_of(scores[i], candidates[i]));
  }
  const std::vector<Tensor> words = allocate_words(sites, std::move(sets), sparsity, options);
  std::vector<std::vector<bool>> exists;
  for (size_t i = 0; i < sites.size(); ++i) exists.push_back(units_of_words(sites[i], words[i]));
  return exists;
}

/// The queues of all sites, and what went with their units so far.
class RemovalProgress {
 public:
  RemovalProgress(const std::vector<Site>& sites, std::vector<Queue> queues)
      : common_(sites), queues_(std::move(queues)) {}

  const std::vector<Queue>& queues() const { return queues_; }
  /// Weights that the next unit of a site takes along.
  int64_t next_weights(size_t i) const { return queues_[i].next_weights() - common_.gone(i, queues_[i].next_unit()); }
  void remove(size_t i) {
    common_.remove(i, queues_[i].next_unit());
    queues_[i].remove();
  }
  /// The weights that sites still have, or, of those, what may go.
  int64_t weights_left(const std::vector<size_t>& which) { return count(which, false); }
  int64_t weights_removable(const std::vector<size_t>& which) { return count(which, true); }

  /// Removes what is gone already or has to go.
  void remove_gone() {
    for (size_t i = 0; i < queues_.size(); ++i)
      while (queues_[i].removed < queues_[i].gone) remove(i);
  }
  /// Removes a share of a site's own weights, to the nearest unit, as round() does for a layer on its own.
  void remove_share(size_t i, double sparsity) {
    const Queue& queue = queues_[i];
    const double wanted = sparsity * static_cast<double>(queue.total);
    while (queue.can_remove()) {
      if (static_cast<double>(queue.removed_weights) + 0.5 * static_cast<double>(queue.next_weights()) > wanted) return;
      remove(i);
    }
  }
  /// Removes from sites that have weights in common until `removed` of their weights, which have gone, are `wanted`.
  /// They take turns, so that each is as far along as its share says.
  void remove_together(const std::vector<size_t>& which, const std::vector<double>& shares, double removed,
                       double wanted) {
    const auto progress = [&](size_t i) {
      return static_cast<double>(queues_[i].removed_weights) / (shares[i] * static_cast<double>(queues_[i].total));
    };
    for (;;) {
      const size_t* next = nullptr;
      for (const size_t& i : which)
        if (queues_[i].can_remove() && shares[i] > 0 && (next == nullptr || progress(i) < progress(*next))) next = &i;
      if (next == nullptr) return;
      const auto weights = static_cast<double>(next_weights(*next));
      if (removed + 0.5 * weights > wanted) return;
      remove(*next);
      removed += weights;
    }
  }
  /// The sites that each of these has weights in common with, itself among them, each once.
  std::vector<std::vector<size_t>> families(const std::vector<size_t>& which) const {
    std::vector<std::vector<size_t>> families;
    for (const size_t i : which) {
      std::vector<size_t> family = {i};
      std::erase_if(families, [&](const std::vector<size_t>& other) {
        const bool related =
            std::any_of(other.begin(), other.end(), [&](size_t k) { return common_.have_in_common(i, k); });
        if (related) family.insert(family.end(), other.begin(), other.end());
        return related;
      });
      std::sort(family.begin(), family.end());
      families.push_back(std::move(family));
    }
    return families;
  }

 private:
  int64_t count(const std::vector<size_t>& which, bool only_removable) {
    const size_t now = common_.number_removed();
    int64_t weights = 0;
    for (const size_t i : which) {
      const Queue& queue = queues_[i];
      const size_t end = only_removable ? static_cast<size_t>(queue.removable) : queue.order.size();
      if (!common_.has(i)) {  // most networks, with millions of units
        weights += std::accumulate(queue.weights.begin() + queue.removed,
                                   queue.weights.begin() + static_cast<int64_t>(end), int64_t{0});
        continue;
      }
      for (auto k = static_cast<size_t>(queue.removed); k < end; ++k) {
        weights += queue.weights[k] - common_.gone(i, queue.order[k]);
        common_.remove(i, queue.order[k]);
      }
    }
    common_.bring_back_to(now);
    return weights;
  }

  CommonWeights common_;
  std::vector<Queue> queues_;
};

}  // namespace

const char* name_of(Scope scope) { return kScopes[static_cast<size_t>(scope)].second; }

EnumNames names_of(Scope) { return {"scope", kScopes}; }

Scope parse_scope(const std::string& text) { return value_of_name("scope", "scope", kScopes, text); }

bool is_scale(double mean) { return mean > 0 && std::isfinite(mean); }

void normalize(std::vector<double>& scores, const std::vector<bool>& candidates) {
  double sum = 0;
  for (size_t i = 0; i < scores.size(); ++i)
    if (candidates[i]) sum += std::abs(scores[i]);
  const auto count = std::count(candidates.begin(), candidates.end(), true);
  const double mean = sum / static_cast<double>(std::max<std::ptrdiff_t>(count, 1));
  if (!is_scale(mean)) return;
  for (double& score : scores) score /= mean;
}

void check_names(const std::vector<Site>& sites, const AllocationOptions& options) {
  check_names("allocate", sites, options.protect);
  for (const auto& [name, sparsity] : options.sparsity_of) {
    check_names("allocate", sites, {name});
    check(sparsity >= 0 && sparsity < 1, "allocate", "expected a sparsity in [0,1) for '{}', got {}", name, sparsity);
  }
}

std::vector<std::vector<bool>> allocate(const std::vector<Site>& sites, const std::vector<std::vector<double>>& scores,
                                        const std::vector<std::vector<bool>>& candidates, double sparsity,
                                        const AllocationOptions& options) {
  check_allocation(sites, sparsity, options);
  check(scores.size() == sites.size() && candidates.size() == sites.size(), "allocate",
        "expected scores and bits for {} sites, got {} and {}", sites.size(), scores.size(), candidates.size());
  if (have_equal_units(sites, options)) return allocate_equal_units(sites, scores, candidates, sparsity, options);

  std::vector<Queue> queues;
  std::vector<std::optional<double>> by_hand;
  std::vector<size_t> which;  // sites that share out the common sparsity
  int64_t largest = 0;
  for (size_t i = 0; i < sites.size(); ++i) {
    queues.push_back(make_queue(sites[i], scores[i], candidates[i], options));
    by_hand.emplace_back();
    for (const auto& [name, value] : options.sparsity_of)
      if (fits_name(name, sites[i].name)) by_hand.back() = value;
    // By layers what is protected takes no part; else the others make up for it.
    if (!by_hand[i] && !(options.scope == Scope::layer && queues[i].is_protected)) which.push_back(i);
    for (const int64_t weights : queues[i].weights) largest = std::max(largest, weights);
  }
  std::vector<double> shares(sites.size(), sparsity);
  if (options.scope == Scope::erk) shares = erk_sparsities(sites, queues, which, sparsity);

  // By layers and densities, sites with weights in common are one layer.
  RemovalProgress removal(sites, std::move(queues));
  const std::vector<std::vector<size_t>> families = removal.families(which);
  std::vector<double> totals;
  for (const std::vector<size_t>& family : families)
    totals.push_back(static_cast<double>(removal.weights_left(family)));
  const double total = std::accumulate(totals.begin(), totals.end(), 0.0);
  removal.remove_gone();
  for (size_t i = 0; i < sites.size(); ++i)
    if (by_hand[i]) removal.remove_share(i, *by_hand[i]);

  const double wanted = sparsity * total, gone = total - static_cast<double>(removal.weights_left(which));
  const double limit = gone + static_cast<double>(removal.weights_removable(which));
  // Half a unit of slack: a sparsity that falls between two units is met by the nearer one.
  check(options.as_far_as_possible || wanted <= limit + 0.5 * static_cast<double>(largest), "allocate",
        "a sparsity of {} is out of reach: protected sites and the least number of units leave at most {:.4f}; protect "
        "less or ask for less",
        sparsity, total == 0 ? 0.0 : limit / total);

  if (options.scope == Scope::global) {
    double removed = gone;
    using Next = std::pair<double, size_t>;  // lowest score first, then the site
    std::vector<Next> heap;
    for (const size_t i : which)
      if (removal.queues()[i].can_remove()) heap.emplace_back(removal.queues()[i].next_score(), i);
    std::make_heap(heap.begin(), heap.end(), std::greater<>());
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      const size_t i = heap.back().second;
      heap.pop_back();
      const auto next = static_cast<double>(removal.next_weights(i));
      if (removed + 0.5 * next > wanted) break;
      removal.remove(i);
      removed += next;
      if (removal.queues()[i].can_remove()) {
        heap.emplace_back(removal.queues()[i].next_score(), i);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
      }
    }
  } else {
    for (size_t f = 0; f < families.size(); ++f) {
      double own = 0, share = 0;
      for (const size_t i : families[f]) {
        own += static_cast<double>(removal.queues()[i].total);
        share += shares[i] * static_cast<double>(removal.queues()[i].total);
      }
      const auto left = static_cast<double>(removal.weights_left(families[f]));
      removal.remove_together(families[f], shares, totals[f] - left, share / std::max(own, 1.0) * totals[f]);
    }
  }

  std::vector<std::vector<bool>> exists;
  for (size_t i = 0; i < sites.size(); ++i) {
    const Queue& queue = removal.queues()[i];
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
