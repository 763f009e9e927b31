// Checkpoints: a network, its configuration, an optimiser's state and any other text, in one safetensors file.
//
// Tensors: the module's by full name ("conv1.weight"), the optimiser's as "optimizer/SLOT/PARAMETER".
// Metadata: "format", "model" (config() as JSON), "optimizer" (JSON: type, numbers), and what the caller adds.
#pragma once

#include <map>
#include <string>

#include "layers/module.h"
#include "training/optimizer.h"

namespace espalier {

/// What is in a checkpoint file.
struct Checkpoint {
  std::string path;
  std::string model_config;  ///< JSON text; empty when the file is not from Espalier
  NamedTensors model;
  OptimizerState optimizer;                     ///< type "" when the file has none
  std::map<std::string, std::string> metadata;  ///< everything, the above included
};

/// Writes atomically: a crash or a full disk leaves the old file or the new one. Throws FileError with path and cause.
void save_checkpoint(const std::string& path, const Module& module, const Optimizer* optimizer = nullptr,
                     std::map<std::string, std::string> metadata = {});

/// Reads a checkpoint, or any safetensors file. Throws FileError for a bad file, saying where and why.
Checkpoint load_checkpoint(const std::string& path);

/// Copies a checkpoint's tensors into a module, and its state into an optimiser if one is given. Throws FileError,
/// listing every missing, unknown and misshapen tensor; nothing has changed then.
void restore(const Checkpoint& checkpoint, Module& module, Optimizer* optimizer = nullptr);

/// Rebuilds the network of a checkpoint, in evaluation mode. The default generator stays where it was.
ModulePtr load_model(const Checkpoint& checkpoint);
ModulePtr load_model(const std::string& path);

}  // namespace espalier
