// How good a network is on a data set.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "training/loss.h"
#include "training/metric.h"
#include "training/metrics.h"
#include "training/progress.h"

namespace espalier {

struct EvaluateOptions {
  int64_t batch_size = 256;
  std::optional<Device> device = {};  ///< where the module is moved; default: it stays where it is
  LossFunction loss = {};             ///< default: batch_loss, that of the targets
  ProgressMode progress = ProgressMode::silent;
  std::function<bool()> stop = {};  ///< asked after each batch; true leaves early, with what was counted so far
};

struct Evaluation {
  double loss = 0;                        ///< mean over examples
  ConfusionMatrix confusion = {};         ///< of the first target, where it is a class of each example; else of none
  std::vector<MetricValue> metrics = {};  ///< the primary one, by which networks are compared, first
  int64_t count = 0;
  double seconds = 0;

  int64_t examples() const { return count; }
  const MetricValue& primary() const { return metrics.at(0); }
  /// Throws where the data asks for no class.
  double accuracy() const;
  /// Nothing where the data asks for no class.
  std::optional<double> maybe_accuracy() const;
  double images_per_second() const { return seconds > 0 ? static_cast<double>(examples()) / seconds : 0; }
  /// {"loss", "examples", "seconds", "images_per_second"} with the confusion matrix's JSON, or, where the metrics
  /// aren't accuracy alone, with "metrics": {"mse": 0.01, ...}.
  nlohmann::json to_json() const;
};

/// Runs the network over the data in evaluation mode, without gradients; its mode comes back afterwards. Throws where
/// the outputs don't fit the targets: (N, number of classes), or as many values.
Evaluation evaluate(Module& module, const Dataset& dataset, const EvaluateOptions& options = {});

}  // namespace espalier
