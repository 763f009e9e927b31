// What of sites and prunings decides a result, as JSON: trainings and searches refuse to go on as others.
#pragma once

#include <vector>

#include <nlohmann/json.hpp>

#include "core/fields.h"
#include "pruning/pruner.h"

namespace espalier {

/// "64 of channel 0" by the name of each site.
nlohmann::json identity_of(const std::vector<Site>& sites);
nlohmann::json identity_of(const AllocationOptions& options);
/// What a callback's config() begins with: its type, sites and the options of its list of fields.
template <class Options>
nlohmann::json identity_of(const char* type, const std::vector<Site>& sites, const Options& options) {
  nlohmann::json config = json_of_fields([copy = options](FieldVisitor& f) mutable { fields(f, copy); });
  config["type"] = type;
  config["sites"] = identity_of(sites);
  return config;
}
/// All but the network's weights and the contents of its data.
nlohmann::json identity_of(const Pruner& pruner);

}  // namespace espalier
