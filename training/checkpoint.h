// Checkpoints: a network, its configuration, an optimiser's state and any other text, in one safetensors file.
//
// Tensors: the module's by full name ("conv1.weight"), the optimiser's as "optimizer/SLOT/PARAMETER".
// A masked parameter is stored as its remaining values, in row-major order, and its mask: "conv1.weight" (n) and
// "conv1.weight.mask" (u8, one bit for each unit of the pattern, lowest bit first).
// What else a training remembers (learned scores, averages): "extra/NAME".
// Metadata: "format", "model" (config() as JSON), "optimizer" (JSON: type, numbers), "masks" (JSON: for each masked
// parameter its shape, pattern and gradient flow), and what the caller adds.
#pragma once

#include <map>
#include <string>

#include "layers/module.h"
#include "training/optimizer.h"

namespace espalier {

/// A parameter's mask in a checkpoint.
struct SavedMask {
  std::string parameter;
  Mask mask;
  GradientFlow flow;
};

/// What is in a checkpoint file.
struct Checkpoint {
  std::string path;
  std::string model_config;  ///< JSON text; empty when the file is not from Espalier
  NamedTensors model;        ///< in full, with zeros where weights are masked
  std::vector<SavedMask> masks;
  OptimizerState optimizer;                     ///< type "" when the file has none
  NamedTensors extra;                           ///< what the caller of save_checkpoint added
  std::map<std::string, std::string> metadata;  ///< everything, the above included
};

/// Writes atomically: a crash or a full disk leaves the old file or the new one. Throws FileError with path and cause.
void save_checkpoint(const std::string& path, const Module& module, const Optimizer* optimizer = nullptr,
                     std::map<std::string, std::string> metadata = {}, const NamedTensors& extra = {});

/// Reads a checkpoint, or any safetensors file. Throws FileError for a bad file, saying where and why.
Checkpoint load_checkpoint(const std::string& path);

/// Copies a checkpoint's tensors and masks into a module (a parameter without a mask in the file has none afterwards),
/// and its state into an optimiser if one is given. Throws FileError, listing every missing, unknown and misshapen
/// tensor; nothing has changed then.
void restore(const Checkpoint& checkpoint, Module& module, Optimizer* optimizer = nullptr);

/// Rebuilds the network of a checkpoint, in evaluation mode. The default generator stays where it was.
ModulePtr load_model(const Checkpoint& checkpoint);
ModulePtr load_model(const std::string& path);

}  // namespace espalier
