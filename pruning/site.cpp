#include "pruning/site.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include <fmt/ranges.h>

namespace espalier {

bool fits_name(const std::string& pattern, const std::string& name) {
  return pattern.ends_with('*') ? name.starts_with(pattern.substr(0, pattern.size() - 1)) : pattern == name;
}

bool names_include(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return fits_name(pattern, name); });
}

void check_names(const char* operation, const std::vector<Site>& sites, const std::vector<std::string>& names) {
  std::vector<std::string> known;
  for (const Site& site : sites) known.push_back(site.name);
  for (const std::string& given : names)
    check(std::any_of(known.begin(), known.end(), [&](const std::string& site) { return fits_name(given, site); }),
          operation, "no site is named '{}'{}; there are: {}", given, did_you_mean(given, known),
          fmt::join(known, ", "));
}

void check_no_n_of_m(const char* operation, const std::vector<Site>& sites, const char* why) {
  for (const Site& site : sites)
    for (const SiteMember& member : site.members)
      check(member.pattern.kind() != Pattern::Kind::n_of_m, operation, "'{}': {}, so that the pattern {} can't be kept",
            site.name, why, member.pattern.to_string());
}

Site site_of(const std::string& name, const Parameter& parameter, const Pattern& pattern) {
  const int64_t units = mask_layout(parameter.shape(), pattern).units();
  return {.name = name, .units = units, .members = {{.parameter = parameter, .pattern = pattern}}};
}

std::vector<Site> weight_sites(const Module& module, const Pattern& pattern, const std::vector<std::string>& protect) {
  std::vector<Site> sites;
  for (const auto& [name, parameter] : module.named_parameters()) {
    if (parameter.shape().rank() < 2) continue;
    if (pattern.kind() == Pattern::Kind::kernel && parameter.shape().rank() != 4) continue;
    if (pattern.kind() == Pattern::Kind::recurrent && name.find("weight_hh") == std::string::npos) continue;
    try {
      sites.push_back(site_of(name, parameter, pattern));
    } catch (const ArgumentError& error) {
      if (!names_include(protect, name))
        fail("weight_sites", "'{}': {}; choose another pattern, or protect '{}'", name, error.what(), name);
      sites.push_back(site_of(name, parameter, Pattern::element()));
    }
  }
  check(!sites.empty(), "weight_sites", "the pattern '{}' fits no weight of this {}", pattern.to_string(),
        module.type());
  return sites;
}

std::vector<double> unit_scores(const Site& site, const Saliencies& saliencies) {
  std::vector<double> scores(static_cast<size_t>(site.units), 0.0);
  for (const SiteMember& member : site.members) {
    const auto found = saliencies.find(member.parameter.id());
    if (found == saliencies.end()) continue;
    const std::vector<double> sums = Mask::sum_over_units(found->second, member.pattern).to_vector<double>();
    for (size_t unit = 0; unit < sums.size(); ++unit)
      if (const int64_t to = member.site_unit(static_cast<int64_t>(unit)); to >= 0)
        scores[static_cast<size_t>(to)] += sums[unit];
  }
  return scores;
}

std::vector<int64_t> unit_weights(const Site& site) {
  std::vector<int64_t> weights(static_cast<size_t>(site.units), 0);
  for (const SiteMember& member : site.members) {
    if (!member.masked) continue;
    const MaskLayout layout = mask_layout(member.parameter.shape(), member.pattern);
    const int64_t each = layout.recurrent ? layout.rows / layout.row_period * layout.columns + layout.rows - 4
                                          : layout.rows * layout.columns / std::max<int64_t>(layout.units(), 1);
    for (int64_t unit = 0; unit < layout.units(); ++unit)
      if (const int64_t to = member.site_unit(unit); to >= 0) weights[static_cast<size_t>(to)] += each;
  }
  return weights;
}

std::vector<int64_t> existing_unit_weights(const Site& site) {
  Site masked = site;
  std::erase_if(masked.members, [](const SiteMember& member) { return !member.masked; });
  Saliencies ones;
  for (const SiteMember& member : masked.members) {
    const Parameter& p = member.parameter;
    ones[p.id()] = p.mask().defined() ? p.mask().expand(DType::f32) : Tensor::ones(p.shape());
  }
  const std::vector<double> counts = unit_scores(masked, ones);
  return {counts.begin(), counts.end()};
}

namespace {
/// For each unit of the member's pattern whether any of its weights exists.
std::vector<bool> member_units(const SiteMember& member) {
  const Mask& mask = member.parameter.mask();
  const auto units = static_cast<size_t>(mask_layout(member.parameter.shape(), member.pattern).units());
  if (!mask.defined()) return std::vector<bool>(units, true);
  if (mask.pattern() == member.pattern) return mask.units();
  std::vector<bool> exists(units);
  const std::vector<double> counts = Mask::sum_over_units(mask.expand(DType::f32), member.pattern).to_vector<double>();
  for (size_t i = 0; i < units; ++i) exists[i] = counts[i] > 0;
  return exists;
}
}  // namespace

std::vector<bool> existing_units(const Site& site) {
  std::vector<bool> exists(static_cast<size_t>(site.units), true);
  for (const SiteMember& member : site.members) {
    if (!member.masked) continue;
    const std::vector<bool> own = member_units(member);
    for (size_t unit = 0; unit < own.size(); ++unit)
      if (const int64_t to = member.site_unit(static_cast<int64_t>(unit)); to >= 0 && !own[unit])
        exists[static_cast<size_t>(to)] = false;
  }
  return exists;
}

Mask member_mask(const SiteMember& member, const std::vector<bool>& exists, std::vector<bool> others) {
  const Shape& shape = member.parameter.shape();
  std::vector<bool> bits = std::move(others);
  if (bits.empty()) bits.assign(static_cast<size_t>(mask_layout(shape, member.pattern).units()), true);
  for (size_t unit = 0; unit < bits.size(); ++unit)
    if (const int64_t from = member.site_unit(static_cast<int64_t>(unit)); from >= 0)
      bits[unit] = exists[static_cast<size_t>(from)];
  return Mask::from_units(shape, member.pattern, bits);
}

void set_existing_units(const Site& site, const std::vector<bool>& exists, GradientFlow flow) {
  check(static_cast<int64_t>(exists.size()) == site.units, "set_existing_units", "'{}' has {} units, got {} bits",
        site.name, site.units, exists.size());
  for (const SiteMember& member : site.members) {
    if (!member.masked) continue;
    // A protected layer may have more than n of m: no mask of that pattern describes it, and none is needed.
    if (member.pattern.kind() == Pattern::Kind::n_of_m && exists == existing_units(site)) continue;
    Parameter parameter = member.parameter;
    const Mask& before = parameter.mask();
    const bool same = before.defined() && before.pattern() == member.pattern;
    const Mask mask = member_mask(member, exists, same ? before.units() : std::vector<bool>());
    parameter.set_mask(before.defined() && !same ? before & mask : mask, flow);
  }
}

std::vector<size_t> highest(std::vector<size_t> among, const std::vector<double>& scores, size_t count) {
  const auto better = [&](size_t a, size_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; };
  count = std::min(count, among.size());
  std::nth_element(among.begin(), among.begin() + static_cast<std::ptrdiff_t>(count), among.end(), better);
  among.resize(count);
  return among;
}

void keep_at_least(std::vector<bool>& exists, const std::vector<bool>& candidates, const std::vector<double>& scores,
                   int64_t least) {
  const int64_t wanted = least - std::count(exists.begin(), exists.end(), true);
  if (wanted <= 0) return;
  std::vector<size_t> missing;
  for (size_t i = 0; i < exists.size(); ++i)
    if (candidates[i] && !exists[i]) missing.push_back(i);
  for (const size_t unit : highest(std::move(missing), scores, static_cast<size_t>(wanted))) exists[unit] = true;
}

std::string Collapse::to_string() const {
  return fmt::format("{}: {} of {} units, {:.2f} % of its weights", site, units_left, units,
                     100.0 * static_cast<double>(weights_left) / static_cast<double>(std::max<int64_t>(weights, 1)));
}

namespace {
/// Whether its units are channels, rows or hidden units, and no parts of them.
bool has_whole_units(const Site& site) {
  return std::any_of(site.members.begin(), site.members.end(), [](const SiteMember& member) {
    const Pattern::Kind kind = member.pattern.kind();
    return member.masked && (kind == Pattern::Kind::channel || kind == Pattern::Kind::recurrent);
  });
}
}  // namespace

std::vector<Collapse> find_collapses(const std::vector<Site>& sites, int64_t least) {
  std::vector<Collapse> found;
  for (const Site& site : sites) {
    const std::vector<bool> exists = existing_units(site);
    const SparsityCount count = count_sparsity({site});
    const Collapse c{.site = site.name,
                     .units = site.units,
                     .units_left = std::count(exists.begin(), exists.end(), true),
                     .weights = count.weights,
                     .weights_left = count.weights - count.masked};
    const bool at_least = c.units_left < c.units && c.units_left <= least;
    const bool lost_units = has_whole_units(site) && 10 * c.units_left < c.units;
    if (at_least || lost_units || count.sparsity() > 0.99) found.push_back(c);
  }
  return found;
}

SparsityCount count_sparsity(const std::vector<Site>& sites) {
  SparsityCount count;
  std::unordered_set<const void*> seen;
  for (const Site& site : sites)
    for (const SiteMember& member : site.members) {
      if (!member.masked || !seen.insert(member.parameter.id()).second) continue;
      count.weights += member.parameter.numel();
      const Mask& mask = member.parameter.mask();
      if (mask.defined()) count.masked += mask.num_elements() - mask.count_elements();
    }
  return count;
}

}  // namespace espalier
