#include "pruning/identity.h"

#include <nlohmann/json.hpp>

namespace espalier {

nlohmann::json identity_of(const std::vector<Site>& sites) {
  nlohmann::json all = nlohmann::json::object();
  for (const Site& site : sites)
    all[site.name] = fmt::format("{} of {}", site.units, site.members.front().pattern.to_string());
  return all;
}

nlohmann::json identity_of(const AllocationOptions& options) {
  return {{"scope", name_of(options.scope)},
          {"sparsity_of", options.sparsity_of},
          {"protect", options.protect},
          {"normalize", options.normalize},
          {"min_units", options.min_units},
          {"round_to", options.round_to},
          {"as_far_as_possible", options.as_far_as_possible}};
}

nlohmann::json identity_of(const Pruner& pruner) {
  const PrunerOptions& options = pruner.options();
  nlohmann::json criterion = options.criterion->name();
  const nlohmann::json own = json_of_fields([&](FieldVisitor& f) { options.criterion->fields(f); });
  if (!own.empty()) criterion = {{"name", criterion}, {"options", own}};
  return {{"sites", identity_of(pruner.sites())},
          {"criterion", criterion},
          {"allocation", identity_of(options.allocation)},
          {"dense_gradients", options.flow == GradientFlow::dense},
          {"regrow", options.regrow},
          {"examples", options.data.size()},
          {"batch_size", options.batch_size},
          {"batches", options.batches},
          {"seed", options.seed}};
}

}  // namespace espalier
