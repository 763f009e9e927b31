// Everything that decides how `espalier train` trains: flags, the settings of a run that is resumed, and defaults.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>

#include "tools/output.h"
#include "training/trainer.h"

namespace espalier::tools {

/// What was given on the command line; the rest comes from a resumed run or from defaults.h.
struct TrainFlags {
  std::optional<std::string> model, data, data_dir, optimizer, schedule, augment;
  std::optional<int64_t> epochs, batch_size, patience, checkpoint_every, seeds;
  std::optional<double> lr, momentum, weight_decay, warmup, label_smoothing, clip, validation;
  std::optional<bool> nesterov;
  std::optional<uint64_t> seed;
};

/// Complete settings of one run.
struct TrainSettings {
  std::string model, data, data_dir, optimizer, schedule, augment;
  int64_t epochs, batch_size, patience, checkpoint_every;
  int64_t seeds;  ///< runs, with seed, seed + 1, ...
  double lr, weight_decay, warmup, label_smoothing, clip, validation;
  std::optional<double> momentum;  ///< nothing: the optimiser's own (beta1 of the Adams)
  bool nesterov;
  uint64_t seed;
};

void add_train_flags(CLI::App& app, TrainFlags& flags);

/// Flags, then `before` (run.json of a resumed run, or null), then the defaults of model and data. Throws ArgumentError
/// for values that make no sense and for a model or data set other than the resumed run's.
TrainSettings resolve(const TrainFlags& flags, const nlohmann::json& before);
nlohmann::json to_json(const TrainSettings& settings);

/// "sgd, learning rate 0.05, momentum 0.9 (Nesterov), weight decay 0.0005".
std::string describe_optimizer(const TrainSettings& settings);
/// The schedule as text for parse_schedule, warm-up included.
std::string schedule_text(const TrainSettings& settings);

/// Weight decay leaves out biases and normalisation layers, and `others`: what is trained along with the module.
std::unique_ptr<Optimizer> build_optimizer(const TrainSettings& settings, const Module& module,
                                           const NamedParameters& others = {});
/// Without folder, device and callbacks, which are no settings of the training.
TrainerOptions trainer_options(const TrainSettings& settings);

/// A bar on a terminal; elsewhere the epochs' lines go, behind `indent`, where the other text goes. `output` has to
/// outlive the training.
void set_progress(TrainerOptions& trainer, const Output& output, const std::string& indent = "");

}  // namespace espalier::tools
