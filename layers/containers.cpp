#include "layers/containers.h"

#include <map>

#include "layers/config_reader.h"

namespace espalier {

Sequential& Sequential::add(const std::string& name, ModulePtr layer) {
  add_child(name, std::move(layer));
  return *this;
}

void Sequential::replace(size_t i, ModulePtr layer) {
  check(i < size(), "Sequential", "expected a position below {}, got {}", size(), i);
  replace_child(children()[i].first, std::move(layer));
}

Variable Sequential::forward(const Variable& x) {
  Variable y = x;
  for (const auto& [name, layer] : children()) y = (*layer)(y);
  return y;
}

nlohmann::json Sequential::config() const {
  nlohmann::json layers = nlohmann::json::array();
  std::map<const Module*, std::string> first_names;
  for (const auto& [name, layer] : children()) {
    const auto [first, is_new] = first_names.emplace(layer.get(), name);
    if (is_new)
      layers.push_back({{"name", name}, {"module", layer->config()}});
    else
      layers.push_back({{"name", name}, {"same_as", first->second}});
  }
  return {{"type", type()}, {"layers", std::move(layers)}};
}

ModulePtr Sequential::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const nlohmann::json& layers = reader.at("layers");
  check(layers.is_array(), "module_from_config", "\"layers\" of Sequential must be a list");
  auto result = std::make_shared<Sequential>();
  std::map<std::string, ModulePtr> built;
  for (const nlohmann::json& entry : layers) {
    // A layer stands there as {"name": ..., "module": {...}} or, for short, as its own configuration.
    if (entry.is_object() && (entry.contains("type") || entry.contains("model"))) {
      result->add(module_from_config(entry));
      continue;
    }
    ConfigReader item(entry);
    const std::string name = item.text("name");
    ModulePtr layer;
    if (item.has("same_as")) {
      const std::string first = item.text("same_as");
      check(built.contains(first), "module_from_config", "layer '{}' is the same as '{}', which is not before it", name,
            first);
      layer = built[first];
    } else {
      layer = item.module("module");
    }
    item.finish();
    built.emplace(name, layer);
    result->add(name, std::move(layer));
  }
  reader.finish();
  return result;
}

Variable Flatten::forward(const Variable& x) {
  if (x.rank() < 1) fail(label(), "expected a batch (N,...), got a scalar");
  int64_t features = 1;  // also of a batch of no examples
  for (int axis = 1; axis < x.rank(); ++axis) features *= x.size(axis);
  return x.rank() == 2 ? x : reshape(x, {x.size(0), features});
}

nlohmann::json Flatten::config() const { return {{"type", type()}}; }
nlohmann::json Identity::config() const { return {{"type", type()}}; }

}  // namespace espalier
