// Where a training stands, as checkpoints hold it, and the lines that it writes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/random.h"
#include "training/callback.h"
#include "training/metrics.h"
#include "training/run_folder.h"

namespace espalier {

struct RunState {
  int64_t epoch = 0;  ///< complete ones
  int64_t batch = 0;  ///< batches done of the next one
  int64_t step = 0;   ///< updates since the start

  // Sums over the epoch so far.
  Average loss;
  std::optional<int64_t> correct = {};  ///< right answers, where there are classes to be right about
  double seconds = 0;
  int64_t peak_bytes = 0;

  int64_t best_epoch = 0;                ///< 0: none yet
  double best_score = 0, best_loss = 0;  ///< EpochRecord::validation_score
  int64_t epochs_since_best = 0;
  std::vector<EpochRecord> history;
};

nlohmann::json to_json(const RunState& state);
RunState run_state_from_json(const nlohmann::json& json);

nlohmann::json to_json(const PhiloxState& state);
PhiloxState philox_state_from_json(const nlohmann::json& json);

/// metrics.jsonl with exactly these epochs: lines of epochs after a checkpoint go.
void write_metrics(const RunFolder& folder, const std::vector<EpochRecord>& history);
/// Adds one line and flushes it.
void append_metrics(const RunFolder& folder, const EpochRecord& record);

}  // namespace espalier
