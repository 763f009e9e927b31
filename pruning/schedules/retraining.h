// Retraining: the last part of a training once more.
#pragma once

#include <functional>
#include <memory>

#include "training/trainer.h"

namespace espalier {

/// Makes the optimiser of one training of a network; nothing is left of the last one's state.
using OptimizerFactory = std::function<std::shared_ptr<Optimizer>(Module& network)>;

/// What one training in a row of trainings needs.
struct TrainingPlan {
  OptimizerFactory optimizer = {};  ///< required
  /// The whole training. Its schedule is copied for every training, its run folder is set by whoever runs the plan.
  TrainerOptions options = {};
};

struct Retraining {
  TrainingResult result;
  /// False when somebody stopped it (a signal, a callback); the run folder holds where it was.
  bool finished = true;
};

/// Trains from step `first` of the plan to its end, with the learning rates of those steps: with 0 the whole training,
/// else learning-rate rewinding (Renda, Frankle & Carbin 2020, "Comparing rewinding and fine-tuning in neural network
/// pruning"). An epoch in part comes last and counts like a whole one. With a run folder in plan.options it goes on
/// where it was stopped. Throws unless 0 <= first < total_steps(plan.options, train).
Retraining retrain(const ModulePtr& network, const TrainingPlan& plan, const Dataset& train, const Dataset& validation,
                   int64_t first = 0, const std::vector<std::shared_ptr<Callback>>& callbacks = {});

/// All that decides the result of a row of trainings by this plan, as JSON.
nlohmann::json identity_of(const TrainingPlan& plan, const ModulePtr& network, const TrainValidation& data);

/// The plan's data: with validation_fraction set and no validation set, splits one off the training set.
TrainValidation training_data(const TrainingPlan& plan, const Dataset& train, const Dataset& validation);

}  // namespace espalier
