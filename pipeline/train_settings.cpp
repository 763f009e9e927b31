#include "pipeline/train_settings.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "datasets/data_kind.h"
#include "layers/models/zoo.h"
#include "pipeline/train_defaults.h"

namespace espalier {

namespace {

/// Takes a setting from the flag, else from the resumed run, else the default.
class Chooser {
 public:
  explicit Chooser(const nlohmann::json& before) : before_(before) {}

  template <class T>
  T operator()(const char* key, const std::optional<T>& flag, const T& fallback) const {
    if (flag) return *flag;
    try {
      if (before_.is_object() && before_.contains(key) && !before_.at(key).is_null()) return before_.at(key).get<T>();
    } catch (const nlohmann::json::exception& error) {
      fail<FileError>("train", "run.json: \"{}\" is not what a run wrote: {}", key, error.what());
    }
    return fallback;
  }

 private:
  const nlohmann::json& before_;
};

void check_number(const char* flag, double value, double low, double high) {
  check(std::isfinite(value) && value >= low && value <= high, "train", "{}: expected a number from {} to {}, got {}",
        flag, low, high, value);
}

void check_settings(const TrainSettings& s) {
  constexpr double kMost = 1e9;
  check_number("--epochs", static_cast<double>(s.epochs), 1, 1e6);
  check_number("--batch-size", static_cast<double>(s.batch_size), 1, kMost);
  check_number("--patience", static_cast<double>(s.patience), 0, kMost);
  check_number("--checkpoint-every", static_cast<double>(s.checkpoint_every), 0, kMost);
  check_number("--seeds", static_cast<double>(s.seeds), 1, 1000);
  check_number("--lr", s.lr, 0, kMost);
  check_number("--weight-decay", s.weight_decay, 0, kMost);
  check_number("--warmup", s.warmup, 0, static_cast<double>(s.epochs));
  check_number("--clip", s.clip, 0, kMost);
  check(s.label_smoothing >= 0 && s.label_smoothing < 1, "train",
        "--label-smoothing: expected a number from 0 to below 1, got {}", s.label_smoothing);
  check(s.validation >= 0 && s.validation < 1, "train", "--validation: expected a fraction from 0 to below 1, got {}",
        s.validation);
  check(s.patience == 0 || s.validation > 0, "train",
        "--patience {} stops on validation results, and there is no validation set; add --validation 0.1", s.patience);
  if (s.momentum) check_number("--momentum", *s.momentum, 0, 1);
  check(!s.nesterov || (s.optimizer == "sgd" && s.momentum.value_or(0) > 0), "train",
        "--nesterov: expected the optimiser sgd with a momentum, got {} with momentum {}", s.optimizer,
        s.momentum.value_or(0));
}

OptimizerOptions optimizer_options(const TrainSettings& s) {
  return {.lr = s.lr, .momentum = s.momentum, .weight_decay = s.weight_decay, .nesterov = s.nesterov};
}

}  // namespace

namespace {

template <class Settings>
void visit_training(FieldVisitor& f, Settings& s) {
  f("epochs", s.epochs, at_least(0), "Passes over the training images");
  f("batch_size", s.batch_size, at_least(1), "Images in one update");
  f("optimizer", s.optimizer, "sgd, adam, adamw or rmsprop");
  f("lr", s.lr, at_least(0), "Learning rate; with onecycle the highest");
  f("momentum", s.momentum, share(), "Momentum (beta1 of the Adams)");
  f("nesterov", s.nesterov, "Nesterov momentum, sgd only");
  f("weight_decay", s.weight_decay, at_least(0), "Not applied to biases and normalisation");
  f("schedule", s.schedule, "constant, step:30,0.1, multistep:80,120,gamma=0.1, cosine, onecycle, plateau");
  f("warmup", s.warmup, at_least(0), "Epochs of linear warm-up before the schedule");
  f("label_smoothing", s.label_smoothing, share_below_one(), "Of the training loss");
  f("clip", s.clip, at_least(0), "Largest norm of the gradients; 0: no clipping");
  f("augment", s.augment, "none, or crop, shift, reflect, flip, affine, cutout joined by '-': crop-flip");
  f.unless_default("checkpoint_every", s.checkpoint_every, at_least(0), "Steps between checkpoints; 0: one an epoch");
}

template <class Settings>
void visit_run(FieldVisitor& f, Settings& s) {
  f("model", s.model, "Network; espalier models list shows them");
  f("data", s.data, "Data set; espalier datasets list shows them");
  f.unless_default("loss", s.loss, "cross-entropy, mse, l1 or bce; by default what the data asks for");
  f.unless_default("metric", s.metric, "Which one chooses the epoch: accuracy, mse, mae or r2");
  f("validation", s.validation, share_below_one(), "Share of the training images set aside; they choose the epoch");
  f("patience", s.patience, at_least(0), "Stop when validation doesn't improve for so many epochs");
  f("seed", s.seed, "Of weights, order, augmentation");
  f("data_dir", s.data_dir, "Folder with data sets, looked into before ESPALIER_DATA");
  f("seeds", s.seeds, at_least(1), "Runs, with seed, seed + 1, ...");
}

}  // namespace

void training_fields(FieldVisitor& f, TrainFlags& flags) { visit_training(f, flags); }
void training_fields(FieldVisitor& f, TrainSettings& settings) { visit_training(f, settings); }
void run_fields(FieldVisitor& f, TrainFlags& flags) { visit_run(f, flags); }
void run_fields(FieldVisitor& f, TrainSettings& settings) { visit_run(f, settings); }

TrainSettings resolve(const TrainFlags& flags, const nlohmann::json& before) {
  check(before.is_null() || before.is_object(), "train", "run.json: expected a JSON object");
  const Chooser choose(before);
  TrainSettings s{};
  s.model = choose("model", flags.model, std::string());
  check(!s.model.empty(), "train", "expected --model NAME; known: {}", fmt::join(model_names(), ", "));
  s.data = choose("data", flags.data, std::string());
  check(!s.data.empty(), "train", "expected --data NAME; known: {}", fmt::join(dataset_names(), ", "));
  s.data = data_name(s.data);
  if (before.is_object()) {
    const std::string model = choose("model", std::optional<std::string>(), s.model);
    const std::string data = choose("data", std::optional<std::string>(), s.data);
    check(s.model == model && s.data == data, "train", "the run to resume trains {} on {}, got {} on {}", model, data,
          s.model, s.data);
  }

  const TrainDefaults& defaults = defaults_for(s.model, s.data);
  s.epochs = choose("epochs", flags.epochs, defaults.epochs);
  s.batch_size = choose("batch_size", flags.batch_size, defaults.batch_size);
  s.optimizer = choose("optimizer", flags.optimizer, std::string(defaults.optimizer));
  const bool own = s.optimizer == defaults.optimizer;  // their numbers fit their optimiser only
  const bool sgd = s.optimizer == "sgd";
  s.lr = choose("lr", flags.lr, own ? defaults.lr : default_lr(s.optimizer));
  if (flags.momentum || sgd || (before.is_object() && before.contains("momentum") && !before["momentum"].is_null()))
    s.momentum = choose("momentum", flags.momentum, own && sgd ? defaults.momentum : 0.9);
  s.nesterov = choose("nesterov", flags.nesterov, sgd && s.momentum.value_or(0) > 0 && defaults.nesterov);
  s.weight_decay = choose("weight_decay", flags.weight_decay,
                          own                      ? defaults.weight_decay
                          : s.optimizer == "adamw" ? 1e-2
                                                   : 0.0);
  s.schedule = choose("schedule", flags.schedule, std::string(defaults.schedule));
  s.warmup = choose("warmup", flags.warmup, 0.0);
  s.label_smoothing = choose("label_smoothing", flags.label_smoothing, defaults.label_smoothing);
  s.clip = choose("clip", flags.clip, defaults.clip);
  s.augment = choose("augment", flags.augment, std::string(defaults.augment));
  s.validation = choose("validation", flags.validation, 0.0);
  s.patience = choose("patience", flags.patience, int64_t{0});
  s.seed = choose("seed", flags.seed, uint64_t{0});
  s.loss = choose("loss", flags.loss, std::string());
  s.metric = choose("metric", flags.metric, std::string());
  s.data_dir = choose("data_dir", flags.data_dir, std::string());
  s.seeds = choose("seeds", flags.seeds, int64_t{1});
  s.checkpoint_every = choose("checkpoint_every", flags.checkpoint_every, int64_t{0});
  check_settings(s);
  // Schedule, augmentations and optimiser judge their own names and numbers.
  constexpr int64_t kAnySide = 28;  // what augmentations are called doesn't depend on it
  trainer_options(s, kAnySide);
  make_optimizer(s.optimizer, ParameterGroups({Parameter("w", Tensor::zeros({1}))}), optimizer_options(s));
  return s;
}

nlohmann::json to_json(const TrainSettings& settings) {
  nlohmann::json json = json_of_fields([s = settings](FieldVisitor& f) mutable {
    training_fields(f, s);
    run_fields(f, s);
  });
  for (const char* key : {"loss", "metric"})  // runs of earlier versions don't know them
    if (json[key] == "") json.erase(key);
  return json;
}

std::string describe_optimizer(const TrainSettings& s) {
  std::string text = fmt::format("{}, learning rate {:g}", s.optimizer, s.lr);
  if (s.momentum) text += fmt::format(", momentum {:g}{}", *s.momentum, s.nesterov ? " (Nesterov)" : "");
  if (s.weight_decay > 0) text += fmt::format(", weight decay {:g}", s.weight_decay);
  if (s.clip > 0) text += fmt::format(", gradient norm at most {:g}", s.clip);
  if (s.label_smoothing > 0) text += fmt::format(", label smoothing {:g}", s.label_smoothing);
  return text;
}

std::string schedule_text(const TrainSettings& s) {
  return s.warmup > 0 ? fmt::format("warmup:{:g}+{}", s.warmup, s.schedule) : s.schedule;
}

std::unique_ptr<Optimizer> build_optimizer(const TrainSettings& s, const Module& module,
                                           const NamedParameters& others) {
  std::vector<ParameterGroup> groups = no_decay_groups(module, s.weight_decay);
  if (!others.empty()) groups.push_back({.parameters = others, .weight_decay = 0.0});
  return make_optimizer(s.optimizer, std::move(groups), optimizer_options(s));
}

TrainerOptions trainer_options(const TrainSettings& s, int64_t side) {
  TrainerOptions options;
  options.epochs = s.epochs;
  options.batch_size = s.batch_size;
  options.schedule = parse_schedule(schedule_text(s));
  options.seed = s.seed;
  options.augmentations = parse_augment(s.augment, side);
  options.label_smoothing = s.label_smoothing;
  options.clip_norm = s.clip;
  options.validation_fraction = s.validation;
  options.patience = s.patience;
  options.restore_best = s.validation > 0;
  options.checkpoint_every = s.checkpoint_every;
  return options;
}

}  // namespace espalier
