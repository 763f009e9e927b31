#include "pruning/pruner.h"

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

void Pruner::prune(double sparsity, double share) {
  std::vector<std::vector<bool>> candidates;
  for (const Site& site : sites_)
    candidates.push_back(options_.regrow ? std::vector<bool>(static_cast<size_t>(site.units), true)
                                         : existing_units(site));
  AllocationOptions allocation = options_.allocation;
  for (auto& [name, value] : allocation.sparsity_of) value *= share;
  if (!options_.regrow && allocation.sparsity_of.empty() && sparsity <= this->sparsity()) {
    check(sparsity >= 0, "prune", "expected a sparsity in [0,1), got {}", sparsity);
    return;
  }
  const auto exists = allocate(sites_, scores(), candidates, sparsity, allocation);
  for (size_t i = 0; i < sites_.size(); ++i) set_existing_units(sites_[i], exists[i], options_.flow);
}

}  // namespace espalier
