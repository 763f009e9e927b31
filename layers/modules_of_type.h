// The modules of a network that are of a type.
#pragma once

#include "layers/module.h"

namespace espalier {

/// Those of named_modules() that are of a type, or of one that derives from it.
template <class M>
std::vector<std::pair<std::string, std::shared_ptr<M>>> modules_of_type(const Module& network) {
  std::vector<std::pair<std::string, std::shared_ptr<M>>> result;
  for (const auto& [name, module] : network.named_modules())
    if (auto typed = std::dynamic_pointer_cast<M>(module)) result.emplace_back(name, std::move(typed));
  return result;
}

}  // namespace espalier
