#include "layers/transforms.h"

#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

namespace espalier {

namespace {

/// Names of children have no dots: "conv1/weight" of "conv1.weight".
std::string as_child(std::string name) {
  std::replace(name.begin(), name.end(), '.', '/');
  return name;
}

/// The transforms of all modules' outputs, by the modules' names.
std::shared_ptr<Sequential> output_transforms(const Module& network) {
  auto all = std::make_shared<Sequential>();
  for (const auto& [name, module] : network.named_modules())
    if (module->output_transform()) all->add("/" + as_child(name), module->output_transform());
  return all;
}

void set_output_transforms(Module& network, const Sequential& transforms) {
  std::map<std::string, ModulePtr> modules;
  for (const auto& [name, module] : network.named_modules()) modules.emplace("/" + as_child(name), module);
  for (const auto& [name, module] : modules) module->set_output_transform(nullptr);
  for (const auto& [name, transform] : transforms.children()) {
    check(modules.contains(name), "build_transforms", "the network has no module '{}' for a {}", name.substr(1),
          transform->type());
    modules.at(name)->set_output_transform(transform);
  }
}

nlohmann::json config_of(const Sequential& transforms) {
  nlohmann::json config = {{"layers", transforms.config()}, {"ties", nlohmann::json::array()}};
  for (const Tie& tie : transforms.ties()) config["ties"].push_back({tie.name, tie.first});
  return config;
}

std::shared_ptr<Sequential> from_config(const nlohmann::json& config) {
  const auto transforms = std::dynamic_pointer_cast<Sequential>(module_from_config(config.at("layers")));
  check(transforms != nullptr, "build_transforms", "expected a Sequential of transforms, got another module");
  for (const nlohmann::json& tie : config.at("ties")) transforms->tie({tie.at(0), tie.at(1)});
  return transforms;
}

}  // namespace

std::shared_ptr<Sequential> parameter_transforms(const Module& network) {
  auto all = std::make_shared<Sequential>();
  for (const auto& [name, parameter] : network.named_parameters())
    for (size_t i = 0; i < parameter.transforms().size(); ++i)
      all->add(fmt::format("{}:{}", as_child(name), i), parameter.transforms()[i]);
  return all;
}

void set_parameter_transforms(Module& network, const Sequential& transforms) {
  std::map<std::string, std::vector<ModulePtr>> chains;
  for (const auto& [name, transform] : transforms.children())
    chains[name.substr(0, name.rfind(':'))].push_back(transform);
  std::map<std::string, Parameter> parameters;
  for (const auto& [name, parameter] : network.named_parameters()) parameters.emplace(as_child(name), parameter);
  for (const auto& [name, chain] : chains)
    check(parameters.contains(name), "set_parameter_transforms", "the network has no parameter '{}' for a {}", name,
          chain[0]->type());
  for (auto& [name, parameter] : parameters) parameter.set_transforms(chains[name]);
}

nlohmann::json transforms_config(const Module& network) {
  const auto parameters = parameter_transforms(network), outputs = output_transforms(network);
  if (parameters->size() + outputs->size() == 0) return nullptr;
  return {{"parameters", config_of(*parameters)}, {"outputs", config_of(*outputs)}};
}

void build_transforms(Module& network, const nlohmann::json& config) {
  if (config == transforms_config(network)) return;
  const bool has_any = !config.is_null();
  // Both are built before anything changes.
  const auto parameters = has_any ? from_config(config.at("parameters")) : std::make_shared<Sequential>();
  const auto outputs = has_any ? from_config(config.at("outputs")) : std::make_shared<Sequential>();
  if (const std::vector<Parameter> own = network.parameters(); !own.empty())
    for (const auto& fresh : {parameters, outputs}) {
      fresh->to(own[0].data().dtype());
      fresh->to(own[0].data().device());
    }
  set_parameter_transforms(network, *parameters);
  set_output_transforms(network, *outputs);
}

}  // namespace espalier
