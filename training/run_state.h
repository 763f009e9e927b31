// Where a training stands, as checkpoints hold it, and the folder it writes. Internal to the Trainer.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/random.h"
#include "training/callback.h"
#include "training/metrics.h"

namespace espalier {

struct RunState {
  int64_t epoch = 0;  ///< complete ones
  int64_t batch = 0;  ///< batches done of the next one
  int64_t step = 0;   ///< updates since the start

  // Sums over the epoch so far.
  Average loss;
  int64_t correct = 0;
  double seconds = 0;
  int64_t peak_bytes = 0;

  int64_t best_epoch = 0;  ///< 0: none yet
  double best_accuracy = 0, best_loss = 0;
  int64_t epochs_since_best = 0;
  std::vector<EpochRecord> history;
};

nlohmann::json to_json(const RunState& state);
RunState run_state_from_json(const nlohmann::json& json);

nlohmann::json to_json(const PhiloxState& state);
PhiloxState philox_state_from_json(const nlohmann::json& json);

/// The files of a run. With the path "" it writes nothing.
class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  bool is_used() const { return !path_.empty(); }
  std::string checkpoint() const { return path_ + "/checkpoint.safetensors"; }
  std::string best() const { return path_ + "/best.safetensors"; }
  std::string metrics() const { return path_ + "/metrics.jsonl"; }
  bool has_checkpoint() const;

  /// Makes the folder. A run that is in it is an error, or is removed with `overwrite`.
  void start(bool overwrite) const;
  /// metrics.jsonl with exactly these epochs: lines of epochs after a checkpoint go.
  void write_metrics(const std::vector<EpochRecord>& history) const;
  /// Adds one line and flushes it.
  void append_metrics(const EpochRecord& record) const;

 private:
  std::string path_;
};

}  // namespace espalier
