// What of sites and prunings decides a result, as JSON: trainings and searches refuse to go on as others.
#pragma once

#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pruning/pruner.h"

namespace espalier {

/// "64 of channel 0" by the name of each site.
nlohmann::json identity_of(const std::vector<Site>& sites);
nlohmann::json identity_of(const AllocationOptions& options);
/// All but the network's weights and the contents of its data.
nlohmann::json identity_of(const Pruner& pruner);

}  // namespace espalier
