// The training loop: data, loss, backward, update, validation, checkpoints, and stopping in good order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "datasets/data_loader.h"
#include "training/callback.h"
#include "training/evaluate.h"
#include "training/optimizer.h"
#include "training/progress.h"
#include "training/schedule.h"

namespace espalier {

/// The stream of the random numbers that a training draws (dropout, noise), apart from those of initialisers and of the
/// data.
inline constexpr uint64_t kTrainingStream = 0x7261696E;

/// The forward pass of one training batch.
struct TrainingStep {
  Bundle outputs;  ///< what the network made of the batch
  Variable loss;   ///< what goes down, as a mean over the examples
};
using TrainingStepFunction = std::function<TrainingStep(Module& module, const Batch& batch)>;

struct TrainerOptions {
  int64_t epochs = 10;
  /// Updates in the whole training, in place of `epochs`; the last epoch ends with the last update, is validated and
  /// counts like any other. 0: those of whole epochs.
  int64_t steps = 0;
  int64_t batch_size = 128;
  SchedulePtr schedule = nullptr;  ///< default: constant
  uint64_t seed = 0;               ///< of the data order, augmentation, dropout and validation split
  std::vector<Augmentation> augmentations = {};
  bool drop_last = false;  ///< leave out a last batch that is not full
  int prefetch = 2;        ///< batches made ahead by a thread; 0: none

  double label_smoothing = 0;  ///< of the training loss; evaluation uses none
  LossFunction loss = {};      ///< instead of batch_loss, in training and in evaluation
  /// Instead of module(images) and the loss, in training only: distillation, losses that look inside the network.
  TrainingStepFunction training_step = {};
  double clip_norm = 0;   ///< largest joint norm of the gradients; 0: no clipping
  double clip_value = 0;  ///< largest gradient element; 0: no clipping

  double validation_fraction = 0;  ///< of the training set, when fit gets no validation set
  int64_t validation_batch_size = 256;
  int64_t patience = 0;       ///< early stopping: epochs without a better validation result; 0: never
  bool restore_best = false;  ///< leave the module with the weights of the best epoch by validation, not the last

  std::string run_folder = {};   ///< metrics.jsonl, checkpoint.safetensors, best.safetensors; "": nothing is written
  int64_t checkpoint_every = 0;  ///< steps between checkpoints, besides the one after each epoch
  bool resume = false;           ///< go on from the run folder's checkpoint, if there is one
  bool overwrite = false;        ///< start anew in a folder that holds a run
  bool handle_signals = true;    ///< Ctrl-C and SIGTERM save and stop

  Device device = Device::cpu();
  ProgressMode progress = ProgressMode::automatic;
  std::function<void(const std::string&)> log = {};  ///< gets the progress lines instead of stderr
  std::vector<std::shared_ptr<Callback>> callbacks = {};
};

/// The batches of a training with these options.
DataLoader training_loader(const TrainerOptions& options, const Dataset& train);
/// Updates of the whole training: options.steps, or those of its epochs.
int64_t total_steps(const TrainerOptions& options, const Dataset& train);

enum class StopReason : uint8_t { finished, early_stopping, requested, interrupted };
/// "finished", "early stopping", "requested", "interrupted".
const char* name_of(StopReason reason);

struct TrainingResult {
  std::vector<EpochRecord> history;  ///< all epochs, those before a resume included
  int64_t best_epoch = 0;  ///< by the primary metric (metric.h) on validation data, then loss; 0 without validation
  int64_t step = 0;
  StopReason stop = StopReason::finished;
};

/// Trains a network to answer what a data set asks for. One Trainer may fit several times; each fit starts the schedule
/// anew.
///
/// The same machine, thread count and seed give the same bits, also when the training was stopped and resumed, in the
/// middle of an epoch too: checkpoints hold weights, buffers, optimiser state, schedule, random state and position.
class Trainer {
 public:
  /// Throws on options that make no sense.
  Trainer(ModulePtr module, std::shared_ptr<Optimizer> optimizer, TrainerOptions options = {});
  ~Trainer();

  /// Trains. With `validation` (or validation_fraction) each epoch ends with its evaluation; the best epoch's weights
  /// go to best.safetensors.
  ///
  /// A loss that is NaN or infinite throws NumericError naming epoch and step; the update is not made and the last
  /// checkpoint stays. Throws FileError when the run folder cannot be written or does not fit.
  TrainingResult fit(const Dataset& train, const Dataset& validation = {});

  /// What decides the result of a training on this data, as JSON, but for the weights at its start, functions that were
  /// given (loss, training_step) and callbacks that have no config(): a
  /// checkpoint is resumed by the same training only.
  nlohmann::json identity(const TrainValidation& data) const;

  /// Evaluates the module as it is.
  Evaluation evaluate(const Dataset& dataset) const;

  /// Ends fit after the current step, with a checkpoint. For callbacks.
  void request_stop() { stop_requested_ = true; }
  bool stop_requested() const { return stop_requested_; }

  const ModulePtr& module() const { return module_; }
  Optimizer& optimizer() const { return *optimizer_; }
  const TrainerOptions& options() const { return options_; }
  /// Updates that the training under way will have, stops aside: what schedules reckon with. 0 before the first fit.
  int64_t total_steps() const { return total_steps_; }

 private:
  struct Run;  // the state of one fit

  /// Both are false when a stop came before the end; the epoch stays open.
  bool train_epoch(Run& run) const;
  bool finish_epoch(Run& run) const;
  void keep_best(Run& run, const EpochRecord& record) const;
  void save(Run& run) const;
  void resume(Run& run) const;
  /// "POSITION/NAME" for each tensor that a callback remembers.
  NamedTensors callback_state() const;
  void load_callback_state(const NamedTensors& all) const;

  ModulePtr module_;
  std::shared_ptr<Optimizer> optimizer_;
  TrainerOptions options_;
  int64_t total_steps_ = 0;
  bool stop_requested_ = false;
};

}  // namespace espalier
