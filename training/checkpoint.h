// Checkpoints: a network, its configuration, an optimiser's state and any other text, in one safetensors file.
//
// Tensors: the module's by full name ("conv1.weight"), the optimiser's as "optimizer/SLOT/PARAMETER".
// A masked parameter is stored as its remaining values, in row-major order, and its mask: "conv1.weight" (n) and
// "conv1.weight.mask" (u8, one bit for each unit of the pattern, lowest bit first).
// What operations see in place of parameters and outputs (layers/transforms.h): "transforms/NAME" for the parameters'
// transforms; those of outputs are layers of the network.
// What else a training remembers (learned scores, averages): "extra/NAME".
// A parameter or module that the network uses in several places is stored once, under its first name.
// Metadata: "format", "model" (config() as JSON), "optimizer" (JSON: type, numbers), "masks" (JSON: for each masked
// parameter its shape, pattern and gradient flow), "ties" (JSON: {"4.weight": "0.weight"}, further names and the
// first), "frozen" (JSON: names of the parameters that don't train), "transforms" (JSON), and what the caller adds.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

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
  std::vector<Tie> ties;                           ///< further names of what stands in `model` once
  std::optional<std::vector<std::string>> frozen;  ///< parameters that don't train; nothing where the file doesn't say
  std::string transforms = {};                     ///< JSON text of transforms_config; "" where there are none
  NamedTensors transform_state = {};               ///< of parameter_transforms
  OptimizerState optimizer;                        ///< type "" when the file has none
  NamedTensors extra;                              ///< what the caller of save_checkpoint added
  std::map<std::string, std::string> metadata;     ///< everything, the above included
  uint64_t stored_bytes = 0;                       ///< of all tensors, as the file holds them

  /// The name in `model` of a tensor that may be tied: "0.weight" for "4.weight"; the name itself where nothing is.
  std::string stored_name(const std::string& name) const;
};

/// Writes atomically: a crash or a full disk leaves the old file or the new one. Throws FileError with path and cause.
void save_checkpoint(const std::string& path, const Module& module, const Optimizer* optimizer = nullptr,
                     std::map<std::string, std::string> metadata = {}, const NamedTensors& extra = {});

/// The first parameter with an element that is NaN or infinite: such a network is not worth keeping. Nothing when all
/// are numbers.
std::optional<std::string> find_nonfinite(const Module& module);

/// Reads a checkpoint, or any safetensors file. Throws FileError for a bad file, saying where and why.
Checkpoint load_checkpoint(const std::string& path);

/// Copies a checkpoint's tensors and masks into a module (a parameter without a mask in the file has none afterwards),
/// and its state into an optimiser if one is given. Parameters are frozen, and train, as they did when the file was
/// written; a file that doesn't say so leaves that as it is. Transforms become the file's: those that are of its
/// configuration stay and get its tensors, all others are replaced. What is tied in the file must be tied in the module
/// (Module::tie). Throws FileError, listing every missing, unknown and misshapen tensor; nothing has changed then.
void restore(const Checkpoint& checkpoint, Module& module, Optimizer* optimizer = nullptr);

/// Rebuilds the network of a checkpoint with its ties, in evaluation mode. The default generator stays where it was.
ModulePtr load_model(const Checkpoint& checkpoint);
ModulePtr load_model(const std::string& path);

}  // namespace espalier
