// espalier train: trains a network of the zoo, saves it, and reports the test set once, at the end.
#include <cmath>

#include "core/json.h"
#include "core/kernels.h"
#include "core/threads.h"
#include "layers/models/zoo.h"
#include "layers/summary.h"
#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "pipeline/model_report.h"
#include "pipeline/run_places.h"
#include "pipeline/statistics.h"
#include "pipeline/train_settings.h"
#include "tools/commands.h"
#include "tools/field_flags.h"
#include "tools/progress.h"
#include "training/checkpoint.h"
#include "training/interrupt.h"

namespace espalier::tools {

namespace {

struct TrainCommandFlags {
  FieldFlags given;
  std::string out, device = "cpu";
  std::optional<int> threads;
  bool resume = false, overwrite = false, quiet = false;
};

TrainFlags flags_of(const TrainCommandFlags& options) {
  TrainFlags flags;
  options.given.read("train", [&](FieldVisitor& f) {
    run_fields(f, flags);
    training_fields(f, flags);
  });
  return flags;
}

/// What one seed gave.
struct RunResult {
  uint64_t seed = 0;
  std::string folder;
  StopReason stop = StopReason::finished;
  int64_t epochs = 0, best_epoch = 0;
  double test_loss = 0;
  std::optional<double> macro_f1 = {};    ///< of data that asks for a class
  std::vector<MetricValue> metrics = {};  ///< of the test set, the primary one first
  double seconds = 0, images = 0;         ///< of training
  int64_t peak_bytes = 0;
};

ModulePtr build_model(const TrainSettings& settings, const Dataset& data) {
  set_seed(settings.seed);
  return make_model(settings.model, model_options(data));
}

/// runs/lenet5-mnist, where that is free; runs/mlp-8-cars-csv for csv:DATA/cars.csv?target=price.
std::string default_folder(const TrainSettings& settings) {
  std::string data = settings.data.substr(0, settings.data.find('?'));
  data.erase(0, data.find_last_of("/:") + 1);  // npos + 1 is 0
  std::string name = settings.model + "-" + data;
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
  return "runs/" + name;
}

/// Throws unless a run with the settings `was` can go on as `is`, to the result that it would have had.
void check_may_go_on(const std::string& file, const nlohmann::json& was, const TrainSettings& settings) {
  nlohmann::json then = was, now = to_json(settings);
  const nlohmann::json epochs = then.value("epochs", nlohmann::json()), seeds = then.value("seeds", nlohmann::json());
  std::vector<const char*> free = {"data_dir", "checkpoint_every", "epochs"};
  if (seeds > 1 && settings.seeds > seeds) free.push_back("seeds");  // with fewer, finished networks would be lost
  for (const char* key : free) then.erase(key), now.erase(key);
  check_same_run("train", file, then, now);
  const bool follows_length = parse_schedule(schedule_text(settings))->follows_length();
  if (epochs == settings.epochs || (epochs < settings.epochs && !follows_length)) return;
  fail<FileError>("train", "{}: a run of {} epochs cannot go on as one of {}: {}; start anew in another --out", file,
                  epochs.dump(), settings.epochs,
                  follows_length
                      ? fmt::format("the learning rates of '{}' depend on where it ends, and it would not be "
                                    "the run that --epochs {} gives from the start",
                                    schedule_text(settings), settings.epochs)
                      : "it can only be made longer");
}

/// Removes what older runs left, of all their seeds, before anything of the new one is written.
void forget_older_run(const RunFolder& folder) {
  for (const RunFolder& place : places_in(folder)) {
    place.forget_training();
    place.forget({kResultFile, kRecipeIdentity, kRecipeRecord});
    if (place.path() != folder.path()) place.forget({kTrainIdentity});  // the folder's own is replaced in one step
  }
}

void say_header(const Output& output, const TrainSettings& s, const Splits& data, const ModelSummary& model,
                const TrainCommandFlags& options, const std::string& folder) {
  const Dataset& train = data.train;
  output.say("Training {} on {}", s.model, s.data);
  output.say("  data       {} training and {} test {}", grouped(train.size()), grouped(data.test.size()),
             shape_text(train));
  output.say("             {}", train.source == "embedded" ? "part of espalier" : "from " + train.source);
  output.say("  model      {} parameters, {} MACs an image", grouped(model.parameters), grouped(model.macs));
  output.say("  optimiser  {}", describe_optimizer(s));
  output.say("  schedule   {}, {} epoch{}, batches of {}", schedule_text(s), s.epochs, s.epochs == 1 ? "" : "s",
             s.batch_size);
  output.say("  augment    {}", s.augment);
  if (s.validation > 0)
    output.say("  validation {:g} % of the training images; the best epoch is kept{}", 100 * s.validation,
               s.patience > 0 ? fmt::format(", stops after {} epochs without a better one", s.patience) : "");
  output.say("  machine    {}, {} thread{}", Device::parse(options.device).name(), num_threads(),
             num_threads() == 1 ? "" : "s");
  output.say("  seed       {}{}", s.seed,
             s.seeds > 1 ? fmt::format(" to {}", s.seed + static_cast<uint64_t>(s.seeds) - 1) : "");
  output.say("  folder     {}\n", folder);
}

RunResult train_one(const Output& output, const TrainSettings& settings, const Splits& data,
                    const TrainCommandFlags& options, const std::string& folder) {
  const ModulePtr module = build_model(settings, data.train);
  TrainerOptions trainer_settings = trainer_options(settings, image_side(data.train));
  trainer_settings.run_folder = folder;
  trainer_settings.resume = options.resume;
  trainer_settings.overwrite = !options.resume;  // an existing run was refused before anything was read
  trainer_settings.device = Device::parse(options.device);
  set_progress(trainer_settings, output);
  const ProgressMode progress = trainer_settings.progress;
  Trainer trainer(module, build_optimizer(settings, *module), std::move(trainer_settings));
  const TrainingResult trained = trainer.fit(data.train);

  RunResult result{.seed = settings.seed, .folder = folder, .stop = trained.stop, .best_epoch = trained.best_epoch};
  for (const EpochRecord& record : trained.history) {
    ++result.epochs;
    result.seconds += record.seconds;
    result.images += record.images_per_second * record.seconds;
    result.peak_bytes = std::max(result.peak_bytes, record.peak_bytes);
  }
  if (trained.stop == StopReason::interrupted) return result;

  save_checkpoint(fmt::format("{}/{}", folder, kModelFile), *module, nullptr,
                  {{"data", description_of(data.train)}, {"settings", to_json(settings).dump()}});
  const Evaluation test = evaluate(*module, data.test,
                                   {.device = Device::parse(options.device),
                                    .progress = progress == ProgressMode::automatic ? progress : ProgressMode::silent,
                                    .stop = InterruptGuard::requested});
  if (InterruptGuard::requested()) {
    result.stop = StopReason::interrupted;
    return result;
  }
  check_finite(folder + "/model.safetensors", test.loss);
  result.metrics = test.metrics;
  result.test_loss = test.loss;
  if (data.test.is_classification()) result.macro_f1 = test.confusion.macro_f1();
  return result;
}

nlohmann::json to_json(const RunResult& r) {
  nlohmann::json json = {{"seed", r.seed},
                         {"folder", r.folder},
                         {"epochs", r.epochs},
                         {"best_epoch", r.best_epoch > 0 ? nlohmann::json(r.best_epoch) : nlohmann::json()},
                         {"stop", name_of(r.stop)},
                         {"test_loss", r.test_loss},
                         {"seconds", r.seconds},
                         {"images_per_second", r.seconds > 0 ? r.images / r.seconds : 0},
                         {"peak_bytes", r.peak_bytes}};
  for (const MetricValue& metric : r.metrics) json["test_" + metric.name] = metric.value;
  if (r.macro_f1) json["macro_f1"] = *r.macro_f1;
  return json;
}

/// The object of --json: means over the seeds, and each of them.
nlohmann::json to_json(const std::vector<RunResult>& runs, const TrainSettings& settings, const ModelSummary& model,
                       const std::string& folder) {
  double seconds = 0, images = 0;
  int64_t peak = 0;
  nlohmann::json list = nlohmann::json::array();
  for (const RunResult& run : runs) {
    seconds += run.seconds;
    images += run.images;
    peak = std::max(peak, run.peak_bytes);
    list.push_back(to_json(run));
  }
  nlohmann::json json = {{"command", "train"},
                         {"model", settings.model},
                         {"data", settings.data},
                         {"folder", folder},
                         {"test_loss", over(runs, [](const RunResult& r) { return r.test_loss; }).mean},
                         {"parameters", model.parameters},
                         {"macs", model.macs},
                         {"seconds", seconds},
                         {"images_per_second", seconds > 0 ? images / seconds : 0},
                         {"peak_bytes", peak},
                         {"settings", to_json(settings)},
                         {"runs", list}};
  for (size_t i = 0; i < runs.front().metrics.size(); ++i) {
    const std::string name = "test_" + runs.front().metrics[i].name;
    const auto metric = over(runs, [&](const RunResult& r) { return r.metrics[i].value; });
    json[name] = metric.mean;
    if (i == 0) json[name + "_std"] = json_or_null(metric.deviation);
  }
  if (runs.front().macro_f1) json["macro_f1"] = over(runs, [](const RunResult& r) { return *r.macro_f1; }).mean;
  return json;
}

void say_result(const Output& output, const std::vector<RunResult>& runs, const Splits& data) {
  std::vector<std::vector<std::string>> rows = {{"seed", "epochs"}};
  for (const MetricValue& metric : runs.front().metrics) rows[0].push_back("test " + metric.name);
  rows[0].push_back("test loss");
  if (runs.front().macro_f1) rows[0].push_back("macro F1");
  rows[0].insert(rows[0].end(), {"training", "images/s", "peak memory"});
  for (const RunResult& r : runs) {
    std::string epochs = std::to_string(r.epochs);
    if (r.best_epoch > 0) epochs += fmt::format(", best {}", r.best_epoch);
    std::vector<std::string> row = {std::to_string(r.seed), epochs};
    for (const MetricValue& metric : r.metrics) row.push_back(metric.text());
    row.push_back(fmt::format("{:.4f}", r.test_loss));
    if (r.macro_f1) row.push_back(fmt::format("{:.4f}", *r.macro_f1));
    row.insert(row.end(), {format_duration(r.seconds), grouped(std::llround(r.seconds > 0 ? r.images / r.seconds : 0)),
                           bytes_text(r.peak_bytes)});
    rows.push_back(std::move(row));
  }
  std::vector<size_t> to_the_right = {0};
  for (size_t column = 2; column < rows[0].size(); ++column) to_the_right.push_back(column);
  output.result("\nResult on the {} test {} of {}\n{}", grouped(data.test.size()),
                data.test.has_images() ? "images" : "examples", data.test.name, table(rows, to_the_right));
  if (runs.size() > 1) {
    const MetricValue& primary = runs.front().metrics.front();
    const auto figure = over(runs, [](const RunResult& r) { return r.metrics.front().value; });
    const double scale = primary.is_share ? 100 : 1;
    output.result("test {} {:.{}f}{} +- {:.{}f} (mean and standard deviation of {} seeds)\n", primary.name,
                  scale * figure.mean, primary.is_share ? 2 : 4, primary.is_share ? " %" : "",
                  scale * *figure.deviation, primary.is_share ? 2 : 4, runs.size());
  }
}

void say_next(const Output& output, const RunResult& run, const TrainSettings& settings) {
  const std::string where = settings.data_dir.empty() ? "" : " --data-dir " + settings.data_dir;
  output.say("Saved in {}: model.safetensors, metrics.jsonl (a line for every epoch), checkpoint.safetensors",
             run.folder);
  output.say("Next");
  if (run.macro_f1) {
    output.say("  espalier eval {} --per-class{}", run.folder, where);
    output.say("  espalier predict IMAGE.png --model {}", run.folder);
  } else {
    output.say("  espalier eval {}{}", run.folder, where);
  }
  if (settings.seeds == 1)
    output.say("  espalier train --model {} --data {}{} --seeds 3", settings.model, settings.data, where);
}

int run(const TrainCommandFlags& options, Output& output) {
  check_can_be_folder("train", options.out);
  output.set_quiet(options.quiet);
  check(!options.resume || !options.overwrite, "train", "expected --resume or --overwrite, got both");
  use_threads(options.threads);
  kernels(Device::parse(options.device));  // says now what is missing
  RunFolder folder;                        // taken when nothing is in the way of a run any more; to resume one, at once
  if (options.resume) folder = open_run("train", options.out, kTrainIdentity);
  const nlohmann::json before = folder.read_json(kTrainIdentity);
  const TrainSettings settings = resolve(flags_of(options), before, flag_of);
  if (options.resume) check_may_go_on(folder.file(kTrainIdentity), before, settings);
  if (!options.resume && !options.overwrite && !options.out.empty()) check_holds_no_run("train", options.out);

  model_image(settings.model);  // throws for a name that nobody knows, before the data is read
  const InterruptGuard guard;
  Splits data = load_data(settings.data, settings.data_dir, settings.loss, settings.metric);
  if (settings.images) data.train = data.train.first(*settings.images);
  const ModulePtr module = build_model(settings, data.train);
  // Refuse a share that leaves one part empty and a batch that is too large, while an old run is still there.
  DataLoader(
      settings.validation > 0 ? split_validation(data.train, settings.validation, settings.seed).train : data.train,
      {.batch_size = settings.batch_size, .shuffle = true});
  const ModelSummary model = summarize(*module, example_of(data.train));
  if (!options.resume) {
    folder = options.out.empty() ? RunFolder::make_new(default_folder(settings)) : RunFolder(options.out);
    if (!options.overwrite) check_holds_no_run("train", folder.path());
    forget_older_run(folder);
  }
  folder.write_json(kTrainIdentity, to_json(settings));
  say_header(output, settings, data, model, options, folder.path());

  std::vector<RunResult> runs;
  for (int64_t i = 0; i < settings.seeds; ++i) {
    TrainSettings one = settings;
    one.seed += static_cast<uint64_t>(i);
    one.seeds = 1;
    const RunFolder place(seed_folder(folder.path(), settings.seeds, one.seed));
    if (settings.seeds > 1) {
      output.say("seed {}", one.seed);
      place.write_json(kTrainIdentity, to_json(one));
    }
    const RunResult result = train_one(output, one, data, options, place.path());
    if (result.stop == StopReason::interrupted || InterruptGuard::requested()) {
      output.result("Stopped. Go on with: {}", resume_command("train", folder.path(), "", options.device));
      output.finish({{"command", "train"}, {"interrupted", true}, {"folder", folder.path()}, {"error", "interrupted"}});
      return kInterrupted;
    }
    runs.push_back(result);
  }
  std::vector<std::string> written;
  for (const RunResult& result : runs) written.push_back(result.folder);
  forget_other_networks(folder, written);
  const nlohmann::json json = to_json(runs, settings, model, folder.path());
  folder.write_json(kResultFile, json);
  say_result(output, runs, data);
  say_next(output, runs.front(), settings);
  output.finish(json);
  return kSuccess;
}

}  // namespace

void add_train(CLI::App& parent, Commands& commands) {
  CLI::App* app =
      add_command(parent, "train", "Train a network and report how good it is",
                  {"espalier train --model lenet5 --data fashion-mnist          good defaults for everything",
                   "espalier train --model lenet5 --data mnist --seeds 3        mean and deviation of three seeds",
                   "espalier train --model mlp:64 --data digits --epochs 5      nothing to download",
                   "espalier train --model resnet20 --data cifar10 --schedule cosine --lr 0.1 --epochs 30",
                   "espalier train --model lenet5 --data mnist --validation 0.1 --patience 3   early stopping",
                   "espalier train --resume --out runs/lenet5-mnist             goes on where Ctrl-C stopped it"});
  auto options = std::make_shared<TrainCommandFlags>();
  TrainFlags untouched;
  options->given.add(*app, [&](FieldVisitor& f) { run_fields(f, untouched); },
                     {.group = "What", .flags = {{"model", "--model,-m"}, {"data", "--data,-d"}}});
  options->given.add(*app, [&](FieldVisitor& f) { training_fields(f, untouched); },
                     {.group = "Training", .flags = {{"epochs", "--epochs,-e"}, {"batch_size", "--batch-size,-b"}}});
  const auto flag = [&](const char* name, bool& value, const std::string& description) {
    app->add_flag(name, value, description)->group("Run");
  };
  app->add_option("--out,-o", options->out, "Folder of the run (default: runs/MODEL-DATA)")
      ->type_name("DIR")
      ->group("Run");
  flag("--resume", options->resume, "Go on with the run in --out; the same result as\nif it had not stopped");
  flag("--overwrite", options->overwrite, "Start anew in a folder that holds a run");
  flag("--quiet,-q", options->quiet, "Only the result");
  add_threads_and_device(*app, options->threads, options->device);
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
