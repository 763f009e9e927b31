// How a network is trained, in text: what a recipe's stage, the flags of `espalier train` and the file of a run have in
// common, and the defaults of networks and data sets.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "core/fields.h"
#include "training/trainer.h"

namespace espalier {

/// What was given; the rest comes from a resumed run or from train_defaults.h.
struct TrainFlags {
  std::optional<std::string> model = {}, data = {}, data_dir = {}, schedule = {}, augment = {}, loss = {}, metric = {};
  std::optional<PartChoice> optimizer = {};
  std::optional<std::map<std::string, double>> class_weights = {};
  std::optional<int64_t> epochs = {}, batch_size = {}, patience = {}, checkpoint_every = {}, seeds = {}, images = {};
  std::optional<double> lr = {}, momentum = {}, weight_decay = {}, warmup = {}, label_smoothing = {}, clip = {},
                        validation = {};
  std::optional<bool> nesterov = {};
  std::optional<uint64_t> seed = {};
};

/// Complete settings of one run.
struct TrainSettings {
  std::string model, data, data_dir, schedule, augment;
  std::string loss, metric;  ///< "": what the data asks for
  PartChoice optimizer;      ///< without lr, momentum, nesterov and weight decay, which stand beside it
  int64_t epochs, batch_size, patience, checkpoint_every;
  int64_t seeds;                                               ///< runs, with seed, seed + 1, ...
  std::optional<int64_t> images;                               ///< only the first so many
  std::optional<std::map<std::string, double>> class_weights;  ///< of the training loss, by name; others have 1
  double lr, weight_decay, warmup, label_smoothing, clip, validation;
  std::optional<double> momentum;  ///< nothing: the optimiser's own (beta1 of the Adams)
  bool nesterov;
  uint64_t seed;
};

/// Of what is trained, on what, and how often: of recipes and trainings.
template <class T>
void images_field(FieldVisitor& f, T& images) {
  f.unless_default("images", images, at_least(1), "Only the first so many training images; by default all");
}
template <class T>
void seeds_field(FieldVisitor& f, T& seeds) {
  f("seeds", seeds, Range{.low = 1, .high = 1000}, "Runs, with seed, seed + 1, ...");
}

/// The options of a training, which a stage has too.
void training_fields(FieldVisitor& f, TrainFlags& flags);
void training_fields(FieldVisitor& f, TrainSettings& settings);
/// Those of a run besides: what it trains, on what, and how often.
void run_fields(FieldVisitor& f, TrainFlags& flags);
void run_fields(FieldVisitor& f, TrainSettings& settings);

/// What messages call an option: its key in a recipe, its flag on a command line.
using OptionLabel = std::function<std::string(const std::string& key)>;

/// Flags, then `before` (run.json of a resumed run, or null), then the defaults of model and data. Throws ArgumentError
/// for values that make no sense together and for a model or data set other than the resumed run's.
TrainSettings resolve(const TrainFlags& flags, const nlohmann::json& before, const OptionLabel& label = {});
nlohmann::json to_json(const TrainSettings& settings);

/// "sgd, learning rate 0.05, momentum 0.9 (Nesterov), weight decay 0.0005".
std::string describe_optimizer(const TrainSettings& settings);
/// The schedule as text for parse_schedule, warm-up included.
std::string schedule_text(const TrainSettings& settings);

/// Weight decay leaves out biases and normalisation layers, and `others`: what is trained along with the module.
std::unique_ptr<Optimizer> build_optimizer(const TrainSettings& settings, const Module& module,
                                           const NamedParameters& others = {});
/// Without folder, device and callbacks, which are no settings of the training. `side`: the shorter one of the images,
/// image_side(data).
TrainerOptions trainer_options(const TrainSettings& settings, int64_t side);

}  // namespace espalier
