#include "training/checkpoint.h"

#include <nlohmann/json.hpp>

#include "core/random.h"

namespace espalier {

namespace {
constexpr char kOptimizerPrefix[] = "optimizer/";
constexpr char kFormat[] = "espalier-checkpoint-1";
}  // namespace

void save_checkpoint(const std::string& path, const Module& module, const Optimizer* optimizer,
                     std::map<std::string, std::string> metadata) {
  NamedTensors tensors = state_of(module);
  metadata["format"] = kFormat;
  metadata["model"] = module.config().dump();
  if (optimizer != nullptr) {
    const OptimizerState state = optimizer->state_dict();
    metadata["optimizer"] = nlohmann::json{{"type", state.type}, {"scalars", state.scalars}}.dump();
    for (const auto& [name, tensor] : state.tensors) tensors.emplace_back(kOptimizerPrefix + name, tensor);
  }
  save_safetensors(path, tensors, metadata);
}

Checkpoint load_checkpoint(const std::string& path) {
  SafetensorsFile file = load_safetensors(path);
  Checkpoint result{
      .path = path, .model_config = {}, .model = {}, .optimizer = {}, .metadata = std::move(file.metadata)};
  for (auto& [name, tensor] : file.tensors) {
    if (name.starts_with(kOptimizerPrefix)) {
      result.optimizer.tensors.emplace_back(name.substr(sizeof(kOptimizerPrefix) - 1), tensor);
    } else {
      result.model.emplace_back(name, tensor);
    }
  }
  if (const auto config = result.metadata.find("model"); config != result.metadata.end())
    result.model_config = config->second;
  if (const auto text = result.metadata.find("optimizer"); text != result.metadata.end()) {
    try {
      const nlohmann::json json = nlohmann::json::parse(text->second);
      result.optimizer.type = json.at("type");
      result.optimizer.scalars = json.at("scalars");
    } catch (const nlohmann::json::exception& error) {
      fail<FileError>("load_checkpoint", "{}: the metadata entry 'optimizer' is not what a checkpoint holds: {}", path,
                      error.what());
    }
  }
  return result;
}

void restore(const Checkpoint& checkpoint, Module& module, Optimizer* optimizer) {
  std::string problems;
  if (optimizer != nullptr) {
    try {
      if (checkpoint.optimizer.type.empty())
        fail<FileError>("restore", "the file has no optimiser state; it holds a network only");
      optimizer->check_state_dict(checkpoint.optimizer);
    } catch (const Error& error) {
      problems += fmt::format("\n{}", error.what());
    }
  }
  // load_state changes all or nothing; with a misfit of the optimiser it still runs, to list the network's misfits too.
  NamedTensors before;
  if (!problems.empty())
    for (const auto& [name, tensor] : state_of(module)) before.emplace_back(name, tensor.clone());
  try {
    load_state(module, checkpoint.model);
    if (!before.empty()) load_state(module, before);
  } catch (const Error& error) {
    problems += fmt::format("\n{}", error.what());
  }
  if (!problems.empty()) fail<FileError>("restore", "{} does not fit:{}", checkpoint.path, problems);
  if (optimizer != nullptr) optimizer->load_state_dict(checkpoint.optimizer);
}

ModulePtr load_model(const Checkpoint& checkpoint) {
  if (checkpoint.model_config.empty())
    fail<FileError>("load_model",
                    "{} has no 'model' entry in its metadata, so the network cannot be rebuilt; build it yourself and "
                    "use restore(load_checkpoint(path), module)",
                    checkpoint.path);
  // The fresh parameters are overwritten: whatever they drew is put back.
  const Generator before = default_generator();
  ModulePtr module;
  try {
    module = module_from_config(nlohmann::json::parse(checkpoint.model_config));
  } catch (const std::exception& error) {
    default_generator() = before;
    fail<FileError>("load_model", "{}: the network's configuration cannot be used: {}", checkpoint.path, error.what());
  }
  default_generator() = before;
  restore(checkpoint, *module);
  module->eval();
  return module;
}

ModulePtr load_model(const std::string& path) { return load_model(load_checkpoint(path)); }

}  // namespace espalier
