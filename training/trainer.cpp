#include "training/trainer.h"

#include <chrono>
#include <cmath>
#include <optional>

#include "core/json.h"
#include "core/sparse/dispatch.h"
#include "layers/snapshot.h"
#include "training/checkpoint.h"
#include "training/interrupt.h"
#include "training/run_state.h"
#include "training/step.h"

namespace espalier {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string to_line(const EpochRecord& r, int64_t epochs) {
  std::string line =
      fmt::format("epoch {:{}}/{}  loss {:.4f}", r.epoch, std::to_string(epochs).size(), epochs, r.train_loss);
  if (r.train_accuracy) line += fmt::format("  acc {:.2f}%", 100 * *r.train_accuracy);
  if (r.validation_loss) line += fmt::format("  val loss {:.4f}", *r.validation_loss);
  if (r.validation_accuracy) line += fmt::format("  val acc {:.2f}%", 100 * *r.validation_accuracy);
  for (const auto& [name, value] : r.validation_metrics) line += fmt::format("  val {} {:.4g}", name, value);
  return line + fmt::format("  lr {:.4g}  {:.0f} images/s  {}", r.lr, r.images_per_second, format_duration(r.seconds));
}

}  // namespace

const char* name_of(StopReason reason) {
  switch (reason) {
    case StopReason::finished: return "finished";
    case StopReason::early_stopping: return "early stopping";
    case StopReason::requested: return "requested";
    case StopReason::interrupted: return "interrupted";
  }
  return "unknown";
}

DataLoader training_loader(const TrainerOptions& options, const Dataset& train) {
  return DataLoader(train, {.batch_size = options.batch_size,
                            .shuffle = true,
                            .drop_last = options.drop_last,
                            .seed = options.seed,
                            .prefetch = options.prefetch,
                            .augmentations = options.augmentations});
}

int64_t total_steps(const TrainerOptions& options, const Dataset& train) {
  return options.steps > 0 ? options.steps : options.epochs * training_loader(options, train).num_batches();
}

namespace {
TrainingStepFunction forward_of(const TrainerOptions& options) {
  if (options.training_step) return options.training_step;
  return [&options](Module& module, const Batch& batch) -> TrainingStep {
    const Bundle outputs = outputs_of(module, batch);
    if (options.loss) return {outputs, options.loss(outputs, batch)};
    return {outputs, batch_loss(outputs, batch, options.label_smoothing)};
  };
}
}  // namespace

struct Trainer::Run {
  DataLoader loader;
  Training training;
  Dataset validation;
  RunFolder folder;
  nlohmann::json identity;       ///< what must agree for a resume to give the same result
  std::optional<Snapshot> best;  ///< without a run folder: the best epoch's state, if it is to be restored
  Progress progress;

  /// From now on the folder's checkpoint is of this run.
  void note_saved() { training.kept = "the last good checkpoint is " + folder.file(kCheckpointFile); }
};

Trainer::Trainer(ModulePtr module, std::shared_ptr<Optimizer> optimizer, TrainerOptions options)
    : module_(std::move(module)), optimizer_(std::move(optimizer)), options_(std::move(options)) {
  check(module_ != nullptr && optimizer_ != nullptr, "Trainer",
        "expected a module and an optimiser, got a null pointer");
  check(options_.epochs > 0 && options_.steps >= 0, "Trainer", "expected epochs > 0 and steps >= 0, got {} and {}",
        options_.epochs, options_.steps);
  check(options_.batch_size > 0, "Trainer", "expected batch_size > 0, got {}", options_.batch_size);
  check(options_.label_smoothing >= 0 && options_.label_smoothing < 1, "Trainer",
        "expected 0 <= label_smoothing < 1, got {}", options_.label_smoothing);
  check(options_.label_smoothing == 0 || !(options_.loss || options_.training_step), "Trainer",
        "label_smoothing belongs to the built-in loss; put it into your own");
  check(options_.clip_norm >= 0 && options_.clip_value >= 0, "Trainer",
        "expected clip_norm and clip_value >= 0, got {} and {}", options_.clip_norm, options_.clip_value);
  check(options_.validation_fraction >= 0 && options_.validation_fraction < 1, "Trainer",
        "expected 0 <= validation_fraction < 1, got {}", options_.validation_fraction);
  check(options_.patience >= 0 && options_.checkpoint_every >= 0, "Trainer",
        "expected patience and checkpoint_every >= 0, got {} and {}", options_.patience, options_.checkpoint_every);
  check(!options_.resume || !options_.run_folder.empty(), "Trainer", "resume needs a run_folder to go on from");
  check(!options_.resume || !options_.overwrite, "Trainer", "expected resume or overwrite, got both");
  if (!options_.schedule) options_.schedule = constant_schedule();
  total_steps_ = options_.steps;
}

Trainer::~Trainer() = default;

nlohmann::json Callback::config() const { return {}; }

nlohmann::json Trainer::identity(const TrainValidation& data) const {
  const auto contents = [](const Dataset& set) {
    if (set.size() == 0) return nlohmann::json();
    nlohmann::json json = {
        {"name", set.name}, {"examples", set.size()}, {"checksum", fmt::format("{:016x}", checksum_of(set))}};
    if (set.reconstructs) json["reconstructs"] = true;
    if (!set.loss.empty()) json["loss"] = set.loss;
    if (!set.metric.empty()) json["metric"] = set.metric;
    return json;
  };
  std::vector<std::string> augmentations;
  for (const Augmentation& augmentation : options_.augmentations) augmentations.push_back(to_text(augmentation));
  nlohmann::json callbacks = nlohmann::json::array();
  for (const std::shared_ptr<Callback>& callback : options_.callbacks) callbacks.push_back(callback->config());
  return {{"model", module_->config()},
          {"training_data", contents(data.train)},
          {"validation_data", contents(data.validation)},
          {"optimizer", optimizer_->config()},
          {"schedule", options_.schedule->text()},
          {"epochs", options_.steps > 0 ? nlohmann::json() : nlohmann::json(options_.epochs)},
          {"steps", options_.steps},
          {"batch_size", options_.batch_size},
          {"seed", options_.seed},
          {"augmentations", augmentations},
          {"drop_last", options_.drop_last},
          {"label_smoothing", options_.label_smoothing},
          {"own_loss", static_cast<bool>(options_.loss)},
          {"own_training_step", static_cast<bool>(options_.training_step)},
          {"clip_norm", options_.clip_norm},
          {"clip_value", options_.clip_value},
          {"patience", options_.patience},
          {"callbacks", callbacks},
          {"restore_best", options_.restore_best},
          {"sparse_kernels", sparse_enabled() ? name_of(vector_isa()) : "off"}};
}

Evaluation Trainer::evaluate(const Dataset& dataset) const {
  return espalier::evaluate(*module_, dataset,
                            {.batch_size = options_.validation_batch_size,
                             .device = options_.device,
                             .loss = options_.loss,
                             .progress = options_.log ? ProgressMode::silent : options_.progress});
}

TrainingResult Trainer::fit(const Dataset& train, const Dataset& validation) {
  TrainValidation data{train, validation};
  if (validation.size() == 0 && options_.validation_fraction > 0)
    data = split_validation(train, options_.validation_fraction, options_.seed);
  check(data.validation.size() > 0 || (options_.patience == 0 && !options_.restore_best), "Trainer::fit",
        "early stopping and restore_best need a validation set; pass one or set validation_fraction");
  module_->to(options_.device);

  total_steps_ = espalier::total_steps(options_, data.train);
  const DataLoader loader = training_loader(options_, data.train);
  Run run{.loader = loader,
          .training = Training(*this, loader.num_batches(), "Trainer::fit"),
          .validation = data.validation,
          .folder = RunFolder(options_.run_folder),
          .identity = {},
          .best = {},
          .progress = Progress(options_.progress, options_.log)};

  if (run.folder.is_used()) run.identity = identity(data);
  stop_requested_ = false;
  const InterruptGuard guard(options_.handle_signals);
  const bool holds_run = run.folder.has(kCheckpointFile);
  if (options_.resume && holds_run) {
    resume(run);
  } else {
    if (holds_run && !options_.overwrite)
      fail<FileError>("Trainer::fit", "{} holds a run already; resume it, overwrite it, or choose another folder",
                      run.folder.path());
    default_generator().set_state({options_.seed, kTrainingStream, 0});
    run.folder.forget_training();
    write_metrics(run.folder, {});
  }
  Training& training = run.training;
  training.begin();

  const RunState& state = training.state;
  std::optional<StopReason> stop;
  while (!stop && !training.is_over()) {
    if (options_.patience > 0 && state.epochs_since_best >= options_.patience) {
      stop = StopReason::early_stopping;
      break;
    }
    if (!train_epoch(run) || !finish_epoch(run)) save(run);
    stop = training.stop_reason();
  }

  if (stop == StopReason::requested || stop == StopReason::interrupted) {
    run.progress.line(fmt::format("stopped at step {} (epoch {}, batch {} of {}){}", state.step, state.epoch + 1,
                                  state.batch, training.batches(),
                                  run.folder.is_used() ? "; saved " + run.folder.file(kCheckpointFile) : ""));
  } else if (options_.restore_best && state.best_epoch > 0) {
    if (run.folder.is_used())
      restore(load_checkpoint(run.folder.file(kBestFile)), *module_);
    else
      run.best->restore();
  }
  training.end();
  return {.history = state.history,
          .best_epoch = state.best_epoch,
          .step = state.step,
          .stop = stop.value_or(StopReason::finished)};
}

bool Trainer::train_epoch(Run& run) const {
  Training& training = run.training;
  RunState& state = training.state;
  training.begin_epoch();

  run.progress.begin(fmt::format("epoch {}/{}", state.epoch + 1, training.epochs()), run.loader.dataset().size(),
                     state.loss.examples());
  const Clock::time_point started = Clock::now();
  const double seconds_before = state.seconds;
  const auto note_time = [&] { state.seconds = seconds_before + seconds_since(started); };
  if (training.has_batches()) {
    const TrainingStepFunction forward = forward_of(options_);
    BatchStream stream = run.loader.batches(state.epoch, state.batch);
    for (const Batch& batch : stream) {
      training.update(to(batch, options_.device), forward);
      run.progress.update(state.loss.examples(), [&] {
        std::string line = fmt::format("loss {:.4f}", state.loss.value());
        if (state.correct)
          line += fmt::format("  acc {:.2f}%",
                              100.0 * static_cast<double>(*state.correct) / static_cast<double>(state.loss.examples()));
        return line;
      });
      if (training.should_stop()) {
        note_time();
        return false;
      }
      if (options_.checkpoint_every > 0 && state.step % options_.checkpoint_every == 0) {
        note_time();
        save(run);
      }
      if (!training.has_batches()) break;
    }
  }
  note_time();
  return true;
}

bool Trainer::finish_epoch(Run& run) const {
  const std::optional<EpochRecord> record = run.training.measure_epoch(run.validation);
  if (!record) return false;
  if (run.training.note_best(*record)) keep_best(run, *record);
  run.training.close_epoch(*record);
  append_metrics(run.folder, *record);
  save(run);
  run.progress.line(to_line(*record, run.training.epochs()));
  return true;
}

void Trainer::keep_best(Run& run, const EpochRecord& record) const {
  if (run.folder.is_used()) {
    save_checkpoint(run.folder.file(kBestFile), *module_, nullptr,
                    {{"data", description_of(run.loader.dataset())}, {"metrics", to_json(record).dump()}});
  } else if (options_.restore_best) {
    run.best.emplace(*module_);
  }
}

void Trainer::save(Run& run) const {
  if (!run.folder.is_used()) return;
  if (const auto name = find_nonfinite(*module_))
    run.training.fail_numerically(fmt::format("the weights '{}' became NaN or infinite", *name));
  nlohmann::json settings = run.identity;
  settings.erase("model");  // the file has it anyway
  const nlohmann::json training = {{"state", to_json(run.training.state)},
                                   {"schedule", options_.schedule->state()},
                                   {"rng", to_json(default_generator().state())},
                                   {"settings", settings}};
  save_checkpoint(run.folder.file(kCheckpointFile), *module_, optimizer_.get(),
                  {{"training", training.dump()}, {"data", description_of(run.loader.dataset())}}, callback_state());
  run.note_saved();
}

NamedTensors Trainer::callback_state() const {
  NamedTensors all;
  for (size_t i = 0; i < options_.callbacks.size(); ++i)
    for (auto& [name, tensor] : options_.callbacks[i]->state()) all.emplace_back(fmt::format("{}/{}", i, name), tensor);
  return all;
}

void Trainer::load_callback_state(const NamedTensors& all) const {
  for (size_t i = 0; i < options_.callbacks.size(); ++i) {
    const std::string prefix = fmt::format("{}/", i);
    NamedTensors own;
    for (const auto& [name, tensor] : all)
      if (name.starts_with(prefix)) own.emplace_back(name.substr(prefix.size()), tensor);
    options_.callbacks[i]->load_state(own);
  }
}

void Trainer::resume(Run& run) const {
  const Checkpoint checkpoint = load_checkpoint(run.folder.file(kCheckpointFile));
  const auto text = checkpoint.metadata.find("training");
  if (text == checkpoint.metadata.end())
    fail<FileError>("Trainer::fit", "{} has no 'training' entry in its metadata: it holds a network, not a run",
                    checkpoint.path);
  try {
    const nlohmann::json training = parse_json(text->second);
    nlohmann::json then = training.at("settings");
    then["model"] = parse_json(checkpoint.model_config);
    // Where nothing reckons with its end, a training is the beginning of every longer one.
    const bool may_be_longer = !options_.schedule->follows_length() && options_.callbacks.empty();
    if (may_be_longer)
      for (const char* length : {"epochs", "steps"}) then[length] = run.identity[length];
    check_same_run("Trainer::fit", checkpoint.path, then, run.identity);
    RunState state = run_state_from_json(training.at("state"));
    check(state.step <= total_steps_, "Trainer::fit",
          "{} has made {} updates already ({} epochs), more than the {} asked for", checkpoint.path, state.step,
          state.epoch, total_steps_);
    const PhiloxState random = philox_state_from_json(training.at("rng"));
    options_.schedule->load_state(training.at("schedule"));
    restore(checkpoint, *module_, optimizer_.get());
    load_callback_state(checkpoint.extra);
    run.training.state = std::move(state);
    default_generator().set_state(random);
  } catch (const nlohmann::json::exception& error) {
    fail<FileError>("Trainer::fit", "{}: the metadata entry 'training' is not what a checkpoint holds: {}",
                    checkpoint.path, error.what());
  }
  run.note_saved();
  write_metrics(run.folder, run.training.state.history);
  run.progress.line(fmt::format("resuming {} at step {} (epoch {}, batch {} of {})", checkpoint.path,
                                run.training.state.step, run.training.state.epoch + 1, run.training.state.batch,
                                run.training.batches()));
}

}  // namespace espalier
