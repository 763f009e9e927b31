#include "pruning/equal_units.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "core/bits.h"

namespace espalier {
namespace {

bool are_pieces_of_a_weight(const Pattern& pattern) {
  switch (pattern.kind()) {
    case Pattern::Kind::element:
    case Pattern::Kind::n_of_m:
    case Pattern::Kind::block:
    case Pattern::Kind::kernel: return true;
    default: return false;
  }
}

int64_t weights_of_a_unit(const Site& site) { return site.members.front().parameter.numel() / site.units; }

/// One site on its way.
struct Entry {
  Candidates candidates;
  int64_t units = 0;
  int64_t gone = 0;       ///< units that are none of the candidates
  int64_t removable = 0;  ///< units that may be gone in the end
  bool is_protected = false;

  int64_t limit() const { return removable - gone; }  ///< of what may be removed
  double cost_of(int64_t count) const { return static_cast<double>(count) * candidates.cost; }
  void remove(int64_t count) {
    if (count > 0) candidates.words = highest_of(candidates, candidates.count() - count);
  }
};

Entry make_entry(const Site& site, Candidates candidates, const AllocationOptions& options) {
  if (const int64_t nan = find_nan(candidates.scores); nan >= 0)
    fail<NumericError>("allocate", "the score of unit {} of '{}' is NaN; did the training diverge?", nan, site.name);
  const bool is_protected = names_include(options.protect, site.name);
  const Pattern& pattern = site.members.front().pattern;
  if (pattern.kind() == Pattern::Kind::n_of_m && !is_protected) {
    const Tensor best = best_of_groups(candidates.scores, pattern.first(), pattern.second());
    candidates.words = combine_bits(BitOp::bit_and, candidates.words, best);
  }
  if (const double mean = options.normalize ? candidates.mean_size() : 0; is_scale(mean)) candidates.ranks.mean = mean;
  Entry entry{.candidates = std::move(candidates), .units = site.units};
  entry.gone = site.units - entry.candidates.count();
  entry.is_protected = is_protected;
  entry.removable =
      is_protected ? entry.gone : std::max(entry.gone, site.units - std::min(options.min_units, site.units));
  return entry;
}

/// The number of units of `each` weights that comes nearest to `wanted` weights; half a unit more rounds up.
int64_t nearest_units(double wanted, int64_t each) {
  const auto weight = static_cast<double>(each);
  auto units = static_cast<int64_t>(wanted / weight);
  const auto is_enough = [&](int64_t n) { return static_cast<double>(n) * weight + 0.5 * weight > wanted; };
  while (!is_enough(units)) ++units;
  while (units > 0 && is_enough(units - 1)) --units;
  return units;
}

/// Removes the lowest of all entries together, as few as cost at least `cost`, or as many as may go. An entry that
/// reaches its limit stops there, and the others make up for it; of equal ranks the units of earlier entries go first.
/// Units that cost nothing stay.
void remove_together(std::vector<Entry*> entries, double cost) {
  std::erase_if(entries, [](const Entry* entry) { return entry->limit() == 0 || entry->candidates.cost <= 0; });
  for (;;) {
    std::vector<Candidates> sets;
    for (const Entry* entry : entries) sets.push_back(entry->candidates);
    Border border = border_of_lowest(sets, cost);
    std::vector<Entry*> full, open;
    for (size_t i = 0; i < entries.size(); ++i) {
      const int64_t before = entries[i]->units - entries[i]->gone;
      remove_lowest(border, sets[i]);
      (before - sets[i].count() > entries[i]->limit() ? full : open).push_back(entries[i]);
    }
    if (full.empty()) {
      for (size_t i = 0; i < entries.size(); ++i) entries[i]->candidates.words = sets[i].words;
      return;
    }
    for (Entry* entry : full) {
      cost -= entry->cost_of(entry->limit());
      entry->remove(entry->limit());
    }
    entries = std::move(open);
  }
}

/// Removes the lowest of each entry, the same share of all their units to the nearest unit, as few as cost at least
/// `cost` together, or as many as may go. Of units with which entries reach that share at once the lowest go.
void remove_shares(std::vector<Entry*> entries, double cost) {
  const auto count = [](const Entry& entry, double share) {
    const int64_t nearest = nearest_units(share * static_cast<double>(entry.units), 1);
    return std::clamp(nearest, entry.gone, entry.removable) - entry.gone;
  };
  const auto freed = [&](double share) {
    double sum = 0;
    for (const Entry* entry : entries) sum += entry->cost_of(count(*entry, share));
    return sum;
  };
  double too_few = 0, enough = 1;
  for (;;) {
    const double middle = (too_few + enough) / 2;
    if (middle <= too_few || middle >= enough) break;
    (freed(middle) < cost ? too_few : enough) = middle;
  }
  for (Entry* entry : entries) {
    const int64_t first = count(*entry, too_few), last = count(*entry, enough);
    entry->remove(first);
    cost -= entry->cost_of(first);
    entry->removable = entry->gone + last;
    entry->gone += first;
  }
  remove_together(std::move(entries), cost);
}

}  // namespace

void check_allocation(const std::vector<Site>& sites, double sparsity, const AllocationOptions& options) {
  check(sparsity >= 0 && sparsity < 1, "allocate", "expected a sparsity in [0,1), got {}", sparsity);
  check(options.min_units >= 0 && options.round_to >= 1, "allocate",
        "expected min_units >= 0 and round_to >= 1, got {} and {}", options.min_units, options.round_to);
  check_names(sites, options);
}

bool is_of_pieces(const Site& site) {
  if (site.members.size() != 1 || site.units == 0) return false;
  const SiteMember& member = site.members.front();
  return member.masked && member.site_units.empty() && are_pieces_of_a_weight(member.pattern);
}

bool are_pieces_of_weights(const std::vector<Site>& sites) {
  std::unordered_set<const void*> parameters;
  for (const Site& site : sites)
    if (!is_of_pieces(site) || !parameters.insert(site.members.front().parameter.id()).second) return false;
  return !sites.empty();
}

bool have_equal_units(const std::vector<Site>& sites, const AllocationOptions& options) {
  if (options.scope == Scope::erk || !options.sparsity_of.empty() || !are_pieces_of_weights(sites)) return false;
  return std::all_of(sites.begin(), sites.end(),
                     [&](const Site& site) { return weights_of_a_unit(site) == weights_of_a_unit(sites.front()); });
}

std::vector<Tensor> allocate_words(const std::vector<Site>& sites, std::vector<Candidates> candidates, double sparsity,
                                   const AllocationOptions& options) {
  const int64_t each = weights_of_a_unit(sites.front());
  const auto weights_of = [each](int64_t units) { return static_cast<double>(each * units); };
  std::vector<Entry> entries;
  for (size_t i = 0; i < sites.size(); ++i) entries.push_back(make_entry(sites[i], std::move(candidates[i]), options));
  std::vector<Entry*> which;  // that share out the sparsity; by layers what is protected takes no part
  int64_t units = 0, gone = 0, removable = 0;
  for (Entry& entry : entries) {
    if (options.scope == Scope::layer && entry.is_protected) continue;
    which.push_back(&entry);
    units += entry.units;
    gone += entry.gone;
    removable += entry.removable;
  }
  const double wanted = sparsity * weights_of(units);
  // Half a unit of slack: a sparsity that falls between two units is met by the nearer one.
  check(options.as_far_as_possible || wanted <= weights_of(removable) + 0.5 * weights_of(1), "allocate",
        "a sparsity of {} is out of reach: protected sites and the least number of units leave at most {:.4f}; protect "
        "less or ask for less",
        sparsity, units == 0 ? 0.0 : weights_of(removable) / weights_of(units));

  std::vector<Tensor> before;
  for (const Entry& entry : entries) before.push_back(entry.candidates.words);
  if (options.scope == Scope::global) {
    const int64_t count = std::min(nearest_units(wanted, each), removable) - gone;
    remove_together(which, static_cast<double>(count));
  } else {
    for (Entry* entry : which) {
      const double part = sparsity * weights_of(entry->units);
      entry->remove(std::min(nearest_units(part, each), entry->removable) - entry->gone);
    }
  }
  std::vector<Tensor> words;
  for (size_t i = 0; i < entries.size(); ++i) {
    Entry& entry = entries[i];
    const int64_t kept = entry.candidates.count(), all = entry.units - entry.gone;
    // Rounding up brings no unit back that is gone or that n of m has no place for.
    const int64_t rounded = std::min(all, (kept + options.round_to - 1) / options.round_to * options.round_to);
    if (rounded > kept) {
      entry.candidates.words = before[i];
      entry.remove(all - rounded);
    }
    words.push_back(entry.candidates.words);
  }
  return words;
}

std::vector<Tensor> cut_words(const std::vector<Site>& sites, std::vector<Candidates> candidates, double cost,
                              const AllocationOptions& options) {
  std::vector<Entry> entries;
  for (size_t i = 0; i < sites.size(); ++i) entries.push_back(make_entry(sites[i], std::move(candidates[i]), options));
  std::vector<Entry*> which;
  for (Entry& entry : entries) which.push_back(&entry);
  options.scope == Scope::global ? remove_together(std::move(which), cost) : remove_shares(std::move(which), cost);
  std::vector<Tensor> words;
  for (const Entry& entry : entries) words.push_back(entry.candidates.words);
  return words;
}

Tensor words_of_units(const std::vector<bool>& exists) {
  return Mask::from_units({static_cast<int64_t>(exists.size())}, Pattern::element(), exists).words();
}

Candidates candidates_of(const std::vector<double>& scores, const std::vector<bool>& exists) {
  return {Tensor::from(scores, {static_cast<int64_t>(scores.size())}), words_of_units(exists)};
}

std::vector<bool> units_of_words(const Site& site, const Tensor& words) {
  return Mask::from_words({site.units}, Pattern::element(), words).units();
}

Tensor existing_words(const Site& site) {
  if (!is_of_pieces(site)) return words_of_units(existing_units(site));
  const SiteMember& member = site.members.front();
  const Device device = member.parameter.data().device();
  const Mask& mask = member.parameter.mask();
  if (!mask.defined()) return full_words(site.units, device);
  if (mask.pattern() == member.pattern) return mask.words().to(device);
  return words_of_units(existing_units(site)).to(device);
}

Mask mask_of_words(const Site& site, const Tensor& words) {
  const SiteMember& member = site.members.front();
  return Mask::from_words(member.parameter.shape(), member.pattern, words).to(member.parameter.data().device());
}

void set_existing_words(const Site& site, const Tensor& words, GradientFlow flow) {
  if (!is_of_pieces(site)) return set_existing_units(site, units_of_words(site, words), flow);
  const SiteMember& member = site.members.front();
  // A protected layer may have more than n of m: no mask of that pattern describes it, and none is needed.
  if (member.pattern.kind() == Pattern::Kind::n_of_m &&
      count_bits(combine_bits(BitOp::bit_xor, words, existing_words(site))) == 0)
    return;
  Parameter parameter = member.parameter;
  const Mask mask = mask_of_words(site, words);
  const Mask& before = parameter.mask();
  parameter.set_mask(before.defined() && before.pattern() != member.pattern ? before & mask : mask, flow);
}

Tensor score_tensor(const Site& site, const Saliencies& saliencies) {
  if (!is_of_pieces(site)) return Tensor::from(unit_scores(site, saliencies), {site.units});
  const SiteMember& member = site.members.front();
  const auto found = saliencies.find(member.parameter.id());
  if (found == saliencies.end()) return Tensor::zeros({site.units}, DType::f64, member.parameter.data().device());
  if (weights_of_a_unit(site) > 1) return Mask::sum_over_units(found->second, member.pattern);
  return found->second.contiguous().reshape({site.units});
}

}  // namespace espalier
