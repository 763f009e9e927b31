#include "pruning/pruner.h"

#include <unordered_map>
#include <unordered_set>

namespace espalier {

Pruner::Pruner(ModulePtr module, std::vector<Site> sites, PrunerOptions options)
    : module_(std::move(module)), sites_(std::move(sites)), options_(std::move(options)) {
  check(module_ != nullptr && options_.criterion != nullptr, "Pruner", "expected a module and a criterion");
  check(!sites_.empty(), "Pruner", "expected something to prune, got no site");
  options_.criterion->check_fits(*module_, sites_);
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
      SiteMember counted = member;
      if (member.pattern.kind() == Pattern::Kind::n_of_m) counted.pattern = Pattern::element();
      const Mask mask = member_mask(counted, exists);
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

bool Pruner::has_to_remove(double sparsity) const {
  if (options_.regrow || !options_.allocation.sparsity_of.empty() || sparsity > removed_share()) return true;
  check(sparsity >= 0, "prune", "expected a sparsity in [0,1), got {}", sparsity);  // NaN too
  return false;
}

void Pruner::remove(const std::vector<std::vector<double>>& scores, double sparsity, double share) {
  std::vector<std::vector<bool>> candidates;
  for (const Site& site : sites_)
    candidates.push_back(options_.regrow ? std::vector<bool>(static_cast<size_t>(site.units), true)
                                         : existing_units(site));
  AllocationOptions allocation = options_.allocation;
  for (auto& [name, value] : allocation.sparsity_of) value *= share;
  const auto exists = allocate(sites_, scores, candidates, sparsity, allocation);
  if (record_) record_->add(sparsity, scores, existing(), exists);
  for (size_t i = 0; i < sites_.size(); ++i) set_existing_units(sites_[i], exists[i], options_.flow);
}

std::vector<std::vector<bool>> Pruner::existing() const {
  std::vector<std::vector<bool>> exists;
  for (const Site& site : sites_) exists.push_back(existing_units(site));
  return exists;
}

std::shared_ptr<const RemovalRecord> Pruner::record() const {
  if (record_) record_->forget(existing());
  return record_;
}

void Pruner::load_record(const NamedTensors& state) {
  if (record_) record_->load_state(state);
}

void Pruner::record_to(std::shared_ptr<RemovalRecord> record) {
  std::vector<std::string> names;
  for (const Site& site : sites_) names.push_back(site.name);
  check(record == nullptr || record->sites() == names, "Pruner", "expected a record of this Pruner's {} sites",
        sites_.size());
  record_ = std::move(record);
}

void Pruner::prune(double sparsity, double share) {
  if (has_to_remove(sparsity)) remove(scores(), sparsity, share);
}

void Pruner::prune_by(const std::vector<std::vector<double>>& scores, double sparsity, double share) {
  if (has_to_remove(sparsity)) remove(scores, sparsity, share);
}

}  // namespace espalier
