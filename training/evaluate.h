// Evaluation of a classifier on a data set.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "datasets/data_loader.h"
#include "layers/module.h"
#include "training/metrics.h"
#include "training/progress.h"

namespace espalier {

/// The loss of a batch, as a mean over its examples. `outputs` is what the network made of batch.images.
using LossFunction = std::function<Variable(const Variable& outputs, const Batch& batch)>;

struct EvaluateOptions {
  int64_t batch_size = 256;
  std::optional<Device> device = {};  ///< where the module is moved; default: it stays where it is
  LossFunction loss = {};             ///< default: cross-entropy
  ProgressMode progress = ProgressMode::silent;
  std::function<bool()> stop = {};  ///< asked after each batch; true leaves early, with what was counted so far
};

struct Evaluation {
  double loss = 0;  ///< mean over examples
  ConfusionMatrix confusion;
  double seconds = 0;

  int64_t examples() const { return confusion.examples(); }
  double accuracy() const { return confusion.accuracy(); }
  double images_per_second() const { return seconds > 0 ? static_cast<double>(examples()) / seconds : 0; }
  /// The metrics' JSON with "loss", "examples", "seconds" and "images_per_second".
  nlohmann::json to_json() const;
};

/// Runs the network over the data in evaluation mode, without gradients; its mode comes back afterwards. Throws if the
/// outputs are not (N, number of classes).
Evaluation evaluate(Module& module, const Dataset& dataset, const EvaluateOptions& options = {});

/// The batch with its tensors on `device`; the same one if they are there already.
Batch to(const Batch& batch, Device device);

}  // namespace espalier
