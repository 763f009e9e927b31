#include "pipeline/train_settings.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "datasets/data_kind.h"
#include "layers/models/zoo.h"
#include "pipeline/train_defaults.h"

namespace espalier {

namespace {

/// Numbers that no list of fields can judge, since they depend on each other.
void check_settings(const TrainSettings& s, const OptionLabel& label) {
  check(s.epochs >= 1 && s.epochs <= 1'000'000, "train", "{}: expected a number from 1 to 1000000, got {}",
        label("epochs"), s.epochs);
  check(s.warmup <= static_cast<double>(s.epochs), "train", "{}: expected at most the {} epochs, got {}",
        label("warmup"), s.epochs, s.warmup);
  check(s.patience == 0 || s.validation > 0, "train",
        "{} {} stops on validation results, and there is no validation set; add {} 0.1", label("patience"), s.patience,
        label("validation"));
  check(!s.nesterov || (s.optimizer.name == "sgd" && s.momentum.value_or(0) > 0), "train",
        "{}: expected the optimiser sgd with a momentum, got {} with momentum {}", label("nesterov"), s.optimizer.name,
        s.momentum.value_or(0));
}

OptimizerOptions optimizer_options(const TrainSettings& s) {
  // What an optimiser doesn't know it isn't told, unless somebody asked for it. Weight decay stands in the groups.
  OptimizerOptions options{.lr = s.lr, .momentum = s.momentum};
  if (s.nesterov) options.nesterov = true;
  return options;
}

/// Flags, and where they say nothing what `before` says.
TrainFlags merged(TrainFlags flags, const nlohmann::json& before) {
  const auto visit = [](TrainFlags& given) {
    return [&given](FieldVisitor& f) {
      training_fields(f, given);
      run_fields(f, given);
    };
  };
  nlohmann::json all = before;
  const nlohmann::json given = json_of_fields(visit(flags));
  for (const auto& [key, value] : given.items())
    if (!value.is_null()) all[key] = value;
  try {
    TrainFlags result;
    read_fields("train", all, visit(result));
    return result;
  } catch (const ArgumentError& error) {
    fail<FileError>("train", "run.json is not what a run wrote: {}", error.what());
  }
}

/// Moves what is said of an optimiser in its own table, and can be said beside it, there.
void take_from_optimizer(TrainFlags& flags, const OptionLabel& label) {
  if (!flags.optimizer) return;
  const OptimizerOptions own = take_shared_options(*flags.optimizer);
  const auto take = [&](const char* key, auto& beside, const auto& inside) {
    check(!beside || !inside, "train", "{} is said of the optimiser and beside it; say it once", label(key));
    if (inside) beside = inside;
  };
  take("lr", flags.lr, own.lr);
  take("momentum", flags.momentum, own.momentum);
  take("weight_decay", flags.weight_decay, own.weight_decay);
  take("nesterov", flags.nesterov, own.nesterov);
}

/// The training loss with weights of classes. Throws on names of no class.
LossFunction weighted_loss(const TrainSettings& s, const DatasetInfo& data) {
  std::vector<double> weights(data.class_names.size(), 1.0);
  for (const auto& [name, weight] : *s.class_weights) {
    const auto found = std::find(data.class_names.begin(), data.class_names.end(), name);
    check(found != data.class_names.end(), "train", "class_weights: '{}' is no class of {}{}; its classes: {}", name,
          s.data, did_you_mean(name, data.class_names), fmt::join(data.class_names, ", "));
    weights[static_cast<size_t>(found - data.class_names.begin())] = weight;
  }
  const Tensor tensor = Tensor::from(weights, {static_cast<int64_t>(weights.size())});
  return [tensor, smoothing = s.label_smoothing](const Variable& outputs, const Batch& batch) {
    return cross_entropy(outputs, batch.labels, {.label_smoothing = smoothing, .class_weights = tensor});
  };
}

/// What an optimiser's own default is; nothing when it has no such number.
std::optional<double> own_default(const std::string& optimizer, const char* option) {
  const nlohmann::json options = json_of_fields(optimizer_fields(optimizer));
  if (!options.contains(option)) return std::nullopt;
  return options.at(option).get<double>();
}

template <class Settings>
void visit_training(FieldVisitor& f, Settings& s) {
  f("epochs", s.epochs, at_least(0), "Passes over the training images");
  f("batch_size", s.batch_size, at_least(1), "Images in one update");
  optimizer_field(f, s.optimizer);
  lr_field(f, s.lr);
  momentum_field(f, s.momentum);
  nesterov_field(f, s.nesterov);
  weight_decay_field(f, s.weight_decay);
  f("schedule", s.schedule, "constant, step:30,0.1, multistep:80,120,gamma=0.1, cosine, onecycle, plateau");
  f("warmup", s.warmup, at_least(0), "Epochs of linear warm-up before the schedule");
  f("label_smoothing", s.label_smoothing, share_below_one(), "Of the training loss");
  f.unless_default("class_weights", s.class_weights, at_least(0),
                   "Of the training loss, by class, such as { \"9\" = 2 }; other classes have 1");
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
  images_field(f, s.images);
  f("validation", s.validation, share_below_one(), "Share of the training images set aside; they choose the epoch");
  f("patience", s.patience, at_least(0), "Stop when validation doesn't improve for so many epochs");
  f("seed", s.seed, "Of weights, order, augmentation");
  f("data_dir", s.data_dir, "Folder with data sets, looked into before ESPALIER_DATA");
  seeds_field(f, s.seeds);
}

}  // namespace

void training_fields(FieldVisitor& f, TrainFlags& flags) { visit_training(f, flags); }
void training_fields(FieldVisitor& f, TrainSettings& settings) { visit_training(f, settings); }
void run_fields(FieldVisitor& f, TrainFlags& flags) { visit_run(f, flags); }
void run_fields(FieldVisitor& f, TrainSettings& settings) { visit_run(f, settings); }

TrainSettings resolve(const TrainFlags& flags, const nlohmann::json& before, const OptionLabel& label) {
  const OptionLabel called = label ? label : OptionLabel([](const std::string& key) { return key; });
  TrainFlags given = flags;
  take_from_optimizer(given, called);
  if (!before.is_null()) {
    if (!before.is_object()) fail<FileError>("train", "run.json: expected a JSON object");
    given = merged(given, before);
  }
  TrainSettings s{};
  s.model = given.model.value_or("");
  check(!s.model.empty(), "train", "expected {} NAME; known: {}", called("model"), fmt::join(model_names(), ", "));
  s.data = given.data.value_or("");
  check(!s.data.empty(), "train", "expected {} NAME; known: {}", called("data"), fmt::join(dataset_names(), ", "));
  s.data = data_name(s.data);
  if (before.is_object())
    check(s.model == before.at("model") && s.data == before.at("data"), "train",
          "the run to resume trains {} on {}, got {} on {}", before["model"].get<std::string>(),
          before["data"].get<std::string>(), s.model, s.data);

  const TrainDefaults& defaults = defaults_for(s.model, s.data);
  s.epochs = given.epochs.value_or(defaults.epochs);
  s.batch_size = given.batch_size.value_or(defaults.batch_size);
  s.optimizer = given.optimizer.value_or(PartChoice{.name = std::string(defaults.optimizer)});
  const std::string& optimizer = s.optimizer.name;
  const bool own = optimizer == defaults.optimizer;  // their numbers fit their optimiser only
  const bool sgd = optimizer == "sgd";
  s.lr =
      given.lr.value_or(own ? defaults.lr : default_lr(optimizer).value_or(own_default(optimizer, "lr").value_or(0)));
  s.momentum = given.momentum;
  if (sgd) s.momentum = given.momentum.value_or(own ? defaults.momentum : 0.9);
  s.nesterov = given.nesterov.value_or(sgd && s.momentum.value_or(0) > 0 && defaults.nesterov);
  s.weight_decay =
      given.weight_decay.value_or(own ? defaults.weight_decay : own_default(optimizer, "weight_decay").value_or(0));
  s.schedule = given.schedule.value_or(std::string(defaults.schedule));
  s.warmup = given.warmup.value_or(0);
  s.label_smoothing = given.label_smoothing.value_or(defaults.label_smoothing);
  s.clip = given.clip.value_or(defaults.clip);
  s.augment = given.augment.value_or(std::string(defaults.augment));
  s.validation = given.validation.value_or(0);
  s.patience = given.patience.value_or(0);
  s.seed = given.seed.value_or(0);
  s.loss = given.loss.value_or("");
  s.metric = given.metric.value_or("");
  s.data_dir = given.data_dir.value_or("");
  s.seeds = given.seeds.value_or(1);
  s.images = given.images;
  s.class_weights = given.class_weights;
  s.checkpoint_every = given.checkpoint_every.value_or(0);
  check_settings(s, called);
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
  std::string text = fmt::format("{}, learning rate {:g}", to_text(s.optimizer), s.lr);
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
  if (s.class_weights) {
    options.loss = weighted_loss(s, dataset_info(s.data));
    options.label_smoothing = 0;  // it is in the loss
  }
  options.validation_fraction = s.validation;
  options.patience = s.patience;
  options.restore_best = s.validation > 0;
  options.checkpoint_every = s.checkpoint_every;
  return options;
}

}  // namespace espalier
