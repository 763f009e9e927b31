// Adaptive pruning: the validation loss decides how fast the sparsity rises, and where it ends.
#pragma once

#include <string>
#include <vector>

#include "pruning/pruner.h"
#include "pruning/schedules/retraining.h"

namespace espalier {

class FieldVisitor;

struct AdaptiveOptions {
  TrainingPlan training = {};
  /// Every pruning is followed by this last share of the plan's training, learning rates included: learning-rate
  /// rewinding, Renda, Frankle & Carbin 2020. 1: all of it.
  double retrain = 0.3;
  double step = 0.5;            ///< share of the remaining weights that the first round removes
  double smallest_step = 0.05;  ///< below it the search ends
  double tolerance = 0.02;      ///< how much the validation loss may rise above that of the network at the start
  double largest_sparsity = 0.999;
  int64_t rounds = 50;      ///< at most
  std::string folder = {};  ///< results, networks, runs; a search that was stopped goes on from there. "": none
};
/// All but training and folder.
void fields(FieldVisitor& f, AdaptiveOptions& o);

struct AdaptiveRound {
  int64_t round = 0;  ///< from 1
  double sparsity = 0, step = 0;
  double validation_loss = 0;
  std::optional<double> validation_accuracy = {};  ///< of data that asks for a class
  bool accepted = false;
};

struct AdaptiveResult {
  double start_loss = 0;  ///< validation loss before any pruning
  std::vector<AdaptiveRound> rounds;
  double sparsity = 0;   ///< of the network that is left
  std::string end = {};  ///< why the search ended, for people; "" when it was stopped
  bool finished = true;  ///< false when it was stopped; with a folder, call it again
};

/// Prunes and retrains as long as the validation loss stays within the tolerance. A round that passes it is taken back,
/// to the bit, and the step is halved. The search ends after `rounds`, with a step below the smallest, at the largest
/// sparsity, where protected sites and the least number of units leave nothing to remove, and with a step that removes
/// no unit: a share that is less than half of one. Afterwards the pruner's network is the last one accepted. Throws
/// without a validation set (or validation_fraction).
AdaptiveResult prune_adaptively(Pruner& pruner, const Dataset& train, const Dataset& validation,
                                const AdaptiveOptions& options);

}  // namespace espalier
