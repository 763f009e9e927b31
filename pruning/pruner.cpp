#include "pruning/pruner.h"

#include <unordered_map>
#include <unordered_set>

#include "core/bits.h"
#include "pruning/equal_units.h"

namespace espalier {

namespace {
/// The saliencies of the parameters of all sites.
Saliencies saliencies_of(const std::vector<Site>& sites, Criterion& criterion, const CriterionInput& input) {
  std::vector<Parameter> parameters;
  std::unordered_set<const void*> seen;
  for (const Site& site : sites)
    for (const SiteMember& member : site.members)
      if (seen.insert(member.parameter.id()).second) parameters.push_back(member.parameter);
  return criterion.score(parameters, input);
}
}  // namespace

Pruner::Pruner(ModulePtr module, std::vector<Site> sites, PrunerOptions options)
    : module_(std::move(module)), sites_(std::move(sites)), options_(std::move(options)) {
  check(module_ != nullptr && options_.criterion != nullptr, "Pruner", "expected a module and a criterion");
  check(!sites_.empty(), "Pruner", "expected something to prune, got no site");
  options_.criterion->attach(*module_);
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
  const Saliencies saliencies = saliencies_of(sites_, *options_.criterion, input());
  std::vector<std::vector<double>> scores;
  for (const Site& site : sites_) scores.push_back(unit_scores(site, saliencies));
  return scores;
}

Tensor Pruner::candidate_words(const Site& site) const {
  if (!options_.regrow) return existing_words(site);
  return full_words(site.units, site.members.front().parameter.data().device());
}

std::vector<Candidates> Pruner::candidates() const {
  const Saliencies saliencies = saliencies_of(sites_, *options_.criterion, input());
  std::vector<Candidates> candidates;
  for (const Site& site : sites_) candidates.push_back({score_tensor(site, saliencies), candidate_words(site)});
  return candidates;
}

double Pruner::removed_share() const {
  if (have_equal_units(sites_, options_.allocation)) {
    int64_t units = 0, existing = 0;
    for (const Site& site : sites_) {
      units += site.units;
      existing += count_bits(existing_words(site));
    }
    return static_cast<double>(units - existing) / static_cast<double>(units);
  }
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
  keep(allocate(sites_, scores, candidates, sparsity, allocation), scores, sparsity);
}

void Pruner::keep(const std::vector<std::vector<bool>>& exists, const std::vector<std::vector<double>>& scores,
                  double asked) {
  if (record_) record_->add(asked, scores, existing(), exists);
  for (size_t i = 0; i < sites_.size(); ++i) set_existing_units(sites_[i], exists[i], options_.flow);
}

void Pruner::keep(const std::vector<Tensor>& words) {
  for (size_t i = 0; i < sites_.size(); ++i) set_existing_words(sites_[i], words[i], options_.flow);
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

void Pruner::describe_record(const std::string& budget, bool per_cost) {
  if (record_) record_->set_budget(budget, per_cost);
}

void Pruner::load_record(const NamedTensors& state) {
  if (record_) record_->load_state(state);
}

void Pruner::record_to(std::shared_ptr<RemovalRecord> record) {
  std::vector<std::string> names;
  for (const Site& site : sites_) names.push_back(site.name);
  check(record == nullptr || record->sites() == names, "Pruner", "expected a record of this Pruner's {} sites",
        sites_.size());
  record_ = record && record->has_units() ? std::move(record) : nullptr;
}

void Pruner::prune(double sparsity, double share) {
  if (!has_to_remove(sparsity)) return;
  // The record wants to know each unit's score.
  if (record_ || !have_equal_units(sites_, options_.allocation)) return remove(scores(), sparsity, share);
  check_allocation(sites_, sparsity, options_.allocation);
  keep(allocate_words(sites_, candidates(), sparsity, options_.allocation));
}

void Pruner::prune_by(const std::vector<std::vector<double>>& scores, double sparsity, double share) {
  if (has_to_remove(sparsity)) remove(scores, sparsity, share);
}

}  // namespace espalier
