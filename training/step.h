// One training under way: its updates and the ends of its epochs, whoever brings the batches. The Trainer runs one over
// its own data, distill_many several over the same batches.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "training/run_state.h"
#include "training/trainer.h"

namespace espalier {

/// What a Trainer does with batches. It sets the learning rate, goes forward and backward, tells the Trainer's
/// callbacks, clips, updates and counts; when it goes away, the optimiser's learning rate and momentum, the schedule
/// and the module's mode are put back. Internal to whoever trains.
class Training {
 public:
  /// `batches`: of a whole epoch. `operation` begins the messages of errors.
  Training(Trainer& trainer, int64_t batches, std::string operation);
  ~Training();
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  /// Where it stands, as checkpoints hold it. To resume, set it before begin.
  RunState state;
  /// What a message says that is left after an error.
  std::string kept = "no checkpoint was written";

  int64_t batches() const { return batches_; }
  /// Epochs of the whole training; the last one may be a part.
  int64_t epochs() const;
  /// An epoch is open until it was closed, also when all its updates are done.
  bool is_over() const { return state.step >= trainer_.total_steps() && state.batch == 0; }
  /// Whether the epoch has updates to come.
  bool has_batches() const { return state.batch < batches_ && state.step < trainer_.total_steps(); }
  /// Whether a callback or a signal asked for the end.
  bool should_stop() const;
  /// Why the training ends here; nothing while it goes on, or when it has come to its own end.
  std::optional<StopReason> stop_reason() const;

  void begin();
  /// Sets the training mode and counts memory anew; callbacks hear of the epoch unless it was begun before a stop.
  void begin_epoch();
  /// One update. Throws NumericError, before the update, when the loss or the gradients' norm is NaN or infinite.
  void update(const Batch& batch, const TrainingStepFunction& forward);
  /// The epoch's record, with its validation where there is data for it; nothing when a stop ended the validation. A
  /// validation loss that is NaN or infinite throws NumericError.
  std::optional<EpochRecord> measure_epoch(const Dataset& validation) const;
  /// Whether the epoch is the best so far by the primary metric on the validation data, then by the loss; counts the
  /// epochs since.
  bool note_best(const EpochRecord& record);
  /// Tells schedule and callbacks, and begins the next epoch's count.
  void close_epoch(const EpochRecord& record);
  void end();

  /// Throws NumericError that names the update which was begun last, whatever was counted or closed since.
  [[noreturn]] void fail_numerically(const std::string& what) const;

 private:
  Module& module() const { return *trainer_.module(); }
  const TrainerOptions& options() const { return trainer_.options(); }

  Trainer& trainer_;
  int64_t batches_;
  std::string operation_;
  double base_lr_, base_momentum_;
  std::string schedule_before_;  ///< its state, as JSON
  bool was_training_;
  struct Place {
    int64_t epoch, step, batch;
  };
  std::optional<Place> latest_;  ///< of the update that was begun last
};

}  // namespace espalier
