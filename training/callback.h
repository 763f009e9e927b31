// What the Trainer tells while it runs, and the hooks through which one takes part.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/tensor.h"

namespace espalier {

class Trainer;

/// One update.
struct StepRecord {
  int64_t epoch = 0;     ///< from 1
  int64_t batch = 0;     ///< of the epoch, from 1
  int64_t batches = 0;   ///< in a whole epoch; the last epoch of a training may have fewer
  int64_t step = 0;      ///< updates since the start, this one included
  int64_t steps = 0;     ///< updates that the whole training will have
  int64_t examples = 0;  ///< in the batch
  double loss = 0, lr = 0;
  std::optional<double> grad_norm = {};  ///< before clipping; only where the norm is clipped
};

/// One epoch; one line of metrics.jsonl.
struct EpochRecord {
  int64_t epoch = 0;                          ///< from 1
  int64_t step = 0;                           ///< updates since the start
  double train_loss = 0;                      ///< mean over the epoch, while the weights changed
  std::optional<double> train_accuracy = {};  ///< of data that asks for a class of each example, and nothing else
  std::optional<double> validation_loss = {}, validation_accuracy = {};
  /// Of other data, by name: {"mse", 0.01}.
  std::map<std::string, double> validation_metrics = {};
  /// By which the best epoch has the highest: the primary metric, or its negative where less is better. In no file.
  std::optional<double> validation_score = {};
  double lr = 0;                              ///< of the epoch's last step
  double images_per_second = 0, seconds = 0;  ///< of training, without validation
  int64_t peak_bytes = 0;                     ///< highest memory use of the device in the epoch
};

/// {"epoch", "step", "train_loss", "train_acc", "val_loss", "val_acc", "lr", "images_per_second", "seconds",
/// "peak_bytes"}, and "val_mse", ... of other metrics than accuracy; null where there is no validation, or no class.
nlohmann::json to_json(const EpochRecord& record);
EpochRecord epoch_record_from_json(const nlohmann::json& json);

/// Base of callbacks; each hook does nothing by default. An exception from a hook ends the training.
class Callback {
 public:
  virtual ~Callback() = default;
  /// What of it decides the result of a training: its type and options, as JSON. A checkpoint goes on with the same
  /// ones only. Null, the default: nothing that could differ.
  virtual nlohmann::json config() const;
  virtual void on_train_begin(Trainer&) {}
  virtual void on_epoch_begin(Trainer&, int64_t /*epoch*/) {}
  /// After backward, before clipping: the gradients are those of the loss.
  virtual void on_gradients(Trainer&, const StepRecord&) {}
  /// After the update; the gradients are still there, clipped if they were.
  virtual void on_step_end(Trainer&, const StepRecord&) {}
  /// After validation, before the checkpoint.
  virtual void on_epoch_end(Trainer&, const EpochRecord&) {}
  virtual void on_train_end(Trainer&) {}

  /// Whether the weights at the end of this epoch may be kept as the best, and count for early stopping: not while a
  /// pruning schedule is still on its way.
  virtual bool is_settled(const Trainer&, const EpochRecord&) const { return true; }
  /// What it remembers between steps, saved in checkpoints under its position among the callbacks; load_state runs
  /// before on_train_begin.
  virtual std::vector<std::pair<std::string, Tensor>> state() const { return {}; }
  virtual void load_state(const std::vector<std::pair<std::string, Tensor>>& /*state*/) {}
};

}  // namespace espalier
