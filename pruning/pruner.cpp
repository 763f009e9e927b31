#include "pruning/pruner.h"

#include <unordered_map>
#include <unordered_set>

namespace espalier {

Pruner::Pruner(ModulePtr module, std::vector<Site> sites, PrunerOptions options)
    : module_(std::move(module)), sites_(std::move(sites)), options_(std::move(options)) {
  check(module_ != nullptr && options_.criterion != nullptr, "Pruner", "expected a module and a criterion");
  check(!sites_.empty(), "Pruner", "expected something to prune, got no site");
}

CriterionInput Pruner::input() const {
  return {.module = *module_,
          .data = options_.data.size() > 0 ? &options_.data : nullptr,
          .loss = options_.loss,
          .batch_size = options_.batch_size,
          .batches = options_.batches,
          .seed = options_.seed,
          .sites = &sites_};
}

std::vector<std::vector<double>> Pruner::scores() const {
  std::vector<Parameter> parameters;
  std::unordered_set<const void*> seen;
  for (const Site& site : sites_)
    for (const SiteMember& member : site.members)
      if (seen.insert(member.parameter.id()).second) parameters.push_back(member.parameter);
  const Saliencies saliencies = options_.criterion->score(parameters, input());
  std::vector<std::vector<double>> scores;
  for (const Site& site : sites_) scores.push_back(unit_scores(site, saliencies));
  return scores;
}

double Pruner::removed_share() const {
  std::unordered_map<const void*, Mask> left;  // of each parameter what the units that exist are made of
  for (const Site& site : sites_) {
    const std::vector<bool> exists = existing_units(site);
    for (const SiteMember& member : site.members) {
      if (!member.masked) continue;
      // Units of n of m are single weights; before the first pruning more than n of them exist.
      const bool n_of_m = member.pattern.kind() == Pattern::Kind::n_of_m;
      const Pattern pattern = n_of_m ? Pattern::element() : member.pattern;
      const Shape& shape = member.parameter.shape();
      std::vector<bool> bits(static_cast<size_t>(mask_layout(shape, pattern).units()), true);
      for (size_t unit = 0; unit < bits.size(); ++unit)
        if (const int64_t of = member.site_unit(static_cast<int64_t>(unit)); of >= 0)
          bits[unit] = exists[static_cast<size_t>(of)];
      const Mask mask = Mask::from_units(shape, pattern, bits);
      const auto [entry, fresh] = left.emplace(member.parameter.id(), mask);
      if (!fresh) entry->second = entry->second & mask;
    }
  }
  int64_t all = 0, existing = 0;
  for (const auto& [id, mask] : left) {
    all += mask.num_elements();
    existing += mask.count_elements();
  }
  return all == 0 ? 0 : static_cast<double>(all - existing) / static_cast<double>(all);
}

void Pruner::prune(double sparsity, double share) {
  std::vector<std::vector<bool>> candidates;
  for (const Site& site : sites_)
    candidates.push_back(options_.regrow ? std::vector<bool>(static_cast<size_t>(site.units), true)
                                         : existing_units(site));
  AllocationOptions allocation = options_.allocation;
  for (auto& [name, value] : allocation.sparsity_of) value *= share;
  if (!options_.regrow && allocation.sparsity_of.empty() && sparsity <= removed_share()) {
    check(sparsity >= 0, "prune", "expected a sparsity in [0,1), got {}", sparsity);
    return;
  }
  const auto exists = allocate(sites_, scores(), candidates, sparsity, allocation);
  for (size_t i = 0; i < sites_.size(); ++i) set_existing_units(sites_[i], exists[i], options_.flow);
}

}  // namespace espalier
