#include "tools/train_settings.h"

#include <algorithm>
#include <cmath>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "layers/models/zoo.h"
#include "tools/commands.h"
#include "tools/defaults.h"

namespace espalier::tools {

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

void add_train_flags(CLI::App& app, TrainFlags& f) {
  const auto add = [&](const std::string& name, auto& value, const std::string& type, const std::string& description) {
    return app.add_option(name, value, description)->type_name(type);
  };
  add("--model,-m", f.model, "NAME", "Network; espalier models list shows them")->group("What");
  add("--data,-d", f.data, "NAME", "Data set; espalier datasets list shows them")->group("What");
  add("--epochs,-e", f.epochs, "N", "Passes over the training images")->group("Training");
  add("--batch-size,-b", f.batch_size, "N", "Images in one update")->group("Training");
  add("--optimizer", f.optimizer, "NAME", "sgd, adam, adamw or rmsprop")->group("Training");
  add("--lr", f.lr, "X", "Learning rate; with onecycle the highest")->group("Training");
  add("--momentum", f.momentum, "X", "Momentum (beta1 of the Adams)")->group("Training");
  // Of bool only the callback leaves "not given" apart from "no".
  app.add_flag_callback(
         "--nesterov", [&f] { f.nesterov = true; }, "Nesterov momentum, sgd only")
      ->group("Training");
  app.add_flag_callback(
         "--no-nesterov", [&f] { f.nesterov = false; }, "Plain momentum")
      ->group("Training");
  add("--weight-decay", f.weight_decay, "X", "Not applied to biases and normalisation")->group("Training");
  add("--schedule", f.schedule, "TEXT",
      "constant, step:30,0.1, multistep:80,120,\ngamma=0.1, cosine, onecycle, plateau")
      ->group("Training");
  add("--warmup", f.warmup, "EPOCHS", "Linear warm-up before the schedule")->group("Training");
  add("--label-smoothing", f.label_smoothing, "X", "Of the training loss, 0 to below 1")->group("Training");
  add("--clip", f.clip, "NORM", "Largest norm of the gradients; 0: no clipping")->group("Training");
  add("--augment", f.augment, "TEXT", "none, or crop, shift, reflect, flip, affine, cutout\njoined by '-': crop-flip")
      ->group("Training");
  add("--validation", f.validation, "X",
      "Share of the training images set aside; the\nbest epoch on them is kept (default: 0, the\nlast epoch is kept)")
      ->group("Training");
  add("--patience", f.patience, "EPOCHS", "Stop when validation doesn't improve for so long")->group("Training");
  add("--seed", f.seed, "N", "Of weights, order, augmentation (default: 0)")->check(is_seed())->group("Training");
  add("--seeds", f.seeds, "N", "Train with N seeds from --seed on; report mean and\nstandard deviation")->group("Run");
  add("--data-dir", f.data_dir, "DIR", "Folder with data sets, looked into before\nESPALIER_DATA")->group("What");
  add("--checkpoint-every", f.checkpoint_every, "STEPS", "Save more often than after every epoch")->group("Run");
}

TrainSettings resolve(const TrainFlags& flags, const nlohmann::json& before) {
  check(before.is_null() || before.is_object(), "train", "run.json: expected a JSON object");
  const Chooser choose(before);
  TrainSettings s{};
  s.model = choose("model", flags.model, std::string());
  check(!s.model.empty(), "train", "expected --model NAME; known: {}", fmt::join(model_names(), ", "));
  s.data = choose("data", flags.data, std::string());
  check(!s.data.empty(), "train", "expected --data NAME; known: {}", fmt::join(dataset_names(), ", "));
  s.data = dataset_info(s.data).name;
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
  s.data_dir = choose("data_dir", flags.data_dir, std::string());
  s.seeds = choose("seeds", flags.seeds, int64_t{1});
  s.checkpoint_every = choose("checkpoint_every", flags.checkpoint_every, int64_t{0});
  check_settings(s);
  // Schedule, augmentations and optimiser judge their own names and numbers.
  trainer_options(s);
  make_optimizer(s.optimizer, ParameterGroups({Parameter("w", Tensor::zeros({1}))}), optimizer_options(s));
  return s;
}

nlohmann::json to_json(const TrainSettings& s) {
  return {{"model", s.model},
          {"data", s.data},
          {"epochs", s.epochs},
          {"batch_size", s.batch_size},
          {"optimizer", s.optimizer},
          {"lr", s.lr},
          {"momentum", s.momentum ? nlohmann::json(*s.momentum) : nlohmann::json()},
          {"nesterov", s.nesterov},
          {"weight_decay", s.weight_decay},
          {"schedule", s.schedule},
          {"warmup", s.warmup},
          {"label_smoothing", s.label_smoothing},
          {"clip", s.clip},
          {"augment", s.augment},
          {"validation", s.validation},
          {"patience", s.patience},
          {"seed", s.seed},
          {"data_dir", s.data_dir},
          {"seeds", s.seeds},
          {"checkpoint_every", s.checkpoint_every}};
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

TrainerOptions trainer_options(const TrainSettings& s) {
  TrainerOptions options;
  options.epochs = s.epochs;
  options.batch_size = s.batch_size;
  options.schedule = parse_schedule(schedule_text(s));
  options.seed = s.seed;
  const DatasetInfo& data = dataset_info(s.data);
  options.augmentations = parse_augment(s.augment, std::min(data.height, data.width));
  options.label_smoothing = s.label_smoothing;
  options.clip_norm = s.clip;
  options.validation_fraction = s.validation;
  options.patience = s.patience;
  options.restore_best = s.validation > 0;
  options.checkpoint_every = s.checkpoint_every;
  return options;
}

void set_progress(TrainerOptions& trainer, const Output& output, const std::string& indent) {
  if (output.quiet()) {
    trainer.progress = ProgressMode::silent;
  } else if (isatty(STDERR_FILENO) == 0) {
    trainer.progress = ProgressMode::lines;
    trainer.log = [&output, indent](const std::string& line) { output.say("{}{}", indent, line); };
  }
}

}  // namespace espalier::tools
