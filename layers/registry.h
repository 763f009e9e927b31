// Layers by name: the "type" of a configuration and the function that builds the layer from it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/registry.h"
#include "layers/module.h"

namespace espalier {

/// What module_from_config, clone and load_model know. Add a type of your own before they need it:
///   module_registry().add("Scale", [](const nlohmann::json& config) { return share(Scale(config.at("by"))); });
Registry<ModulePtr(const nlohmann::json&)>& module_registry();

}  // namespace espalier
