// espalier eval: how good a trained network is on a data set.
#include <filesystem>

#include "core/json.h"
#include "core/kernels.h"
#include "layers/summary.h"
#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "pipeline/model_report.h"
#include "pipeline/run_places.h"
#include "tools/commands.h"
#include "training/evaluate.h"

namespace espalier::tools {

namespace {

struct EvalFlags {
  std::string model, data, data_dir, split = "test", device = "cpu";
  int64_t batch_size = 256;
  std::optional<int> threads;
  bool per_class = false;
};

/// The images, normalised as the network saw them in training, whatever data set they are from.
Dataset prepare(const EvalFlags& options, const ModelFile& file) {
  check(options.split == "test" || options.split == "train", "eval", "--split: expected test or train, got '{}'{}",
        options.split, did_you_mean(options.split, {"test", "train"}));
  std::string name = options.data;
  if (name.empty()) {
    check(file.data.has_value(), "eval", "{} does not say what it was trained on; add --data NAME", file.path);
    name = file.data->name;
  }
  const Splits splits = load_dataset(name, {.data_dir = options.data_dir});
  return seen_by("eval", file, options.split == "test" ? splits.test : splits.train);
}

/// Says when the network is not of the run whose settings stand beside it: a run that takes the place of another and
/// was stopped leaves the older one's network there.
void warn_of_other_run(const ModelFile& file, const Output& output) {
  const auto settings = file.metadata.find("settings");
  const std::string path = (std::filesystem::path(file.path).parent_path() / kTrainIdentity).string();
  const std::optional<std::string> text = read_text(path);
  if (!text || settings == file.metadata.end()) return;
  try {
    nlohmann::json of_network = parse_json(settings->second), of_run = parse_json(*text);
    for (const char* key : {"data_dir", "checkpoint_every", "seeds"}) of_network.erase(key), of_run.erase(key);
    if (const std::string found = differences(of_network, of_run); !found.empty())
      output.say("warning: {} was not trained by the run in {}, which may not have ended:{}", file.path, path, found);
  } catch (const nlohmann::json::exception&) {
    // What can't be read says nothing about the network.
  }
}

int run(const EvalFlags& options, Output& output) {
  use_threads(options.threads);
  const Device device = Device::parse(options.device);
  kernels(device);
  check(options.batch_size > 0, "eval", "--batch-size: expected at least 1, got {}", options.batch_size);
  const ModelFile file = open_model(find_model(options.model));
  const Dataset dataset = prepare(options, file);
  warn_of_other_run(file, output);
  const ModelSummary model = summarize(*file.module, example_of(dataset));

  reset_peak_memory(device);
  const Evaluation result = evaluate(
      *file.module, dataset, {.batch_size = options.batch_size, .device = device, .progress = ProgressMode::automatic});
  check_finite(file.path, result.loss);
  const auto peak = static_cast<int64_t>(memory_stats(device).peak);
  const ConfusionMatrix& confusion = result.confusion;

  const bool is_classification = dataset.is_classification();
  output.result("{} on {}, {} {} {} from {}", file.path, dataset.name, grouped(dataset.size()), options.split,
                dataset.has_images() ? "images" : "examples", dataset.source);
  if (is_classification) {
    output.result("  accuracy   {:.2f} %  ({} wrong)", 100 * result.accuracy(),
                  grouped(confusion.examples() - confusion.correct()));
    if (confusion.classes() > 2 * confusion.top_k())
      output.result("  top {}      {:.2f} %", confusion.top_k(), 100 * confusion.top_k_accuracy());
  } else {
    for (const MetricValue& metric : result.metrics) output.result("  {:<10} {}", metric.name, metric.text());
  }
  output.result("  loss       {:.4f}", result.loss);
  if (is_classification) output.result("  macro F1   {:.4f}", confusion.macro_f1());
  output.result("  size       {} parameters, {} MACs an image", grouped(model.parameters), grouped(model.macs));
  output.result("  time       {:.2f} s, {} images/s, peak memory {}", result.seconds,
                grouped(static_cast<int64_t>(result.images_per_second())), bytes_text(peak));
  check(!options.per_class || confusion.classes() > 0, "eval", "--per-class: {} asks for no class", dataset.name);
  if (options.per_class) output.result("\n{}", confusion.to_table());

  nlohmann::json json = {
      {"command", "eval"},      {"model", file.path},        {"data", dataset.name},
      {"split", options.split}, {"test_loss", result.loss},  {"parameters", model.parameters},
      {"macs", model.macs},     {"seconds", result.seconds}, {"images_per_second", result.images_per_second()},
      {"peak_bytes", peak}};
  for (const MetricValue& metric : result.metrics) json["test_" + metric.name] = metric.value;
  if (is_classification) json["macro_f1"] = confusion.macro_f1();
  if (options.per_class) json["metrics"] = confusion.to_json();
  output.finish(json);
  return kSuccess;
}

}  // namespace

void add_eval(CLI::App& parent, Commands& commands) {
  CLI::App* app =
      add_command(parent, "eval", "Say how good a trained network is",
                  {"espalier eval runs/lenet5-mnist                            on the data it was trained for",
                   "espalier eval runs/demo/model.safetensors --data fashion-mnist --per-class",
                   "espalier eval runs/lenet5-mnist --data emnist-digits --json"});
  auto options = std::make_shared<EvalFlags>();
  add_model(*app, options->model);
  app->add_option("--data,-d", options->data, "Data set (default: the one it was trained on)")->type_name("NAME");
  add_data_dir(*app, options->data_dir);
  app->add_option("--split", options->split, "test or train (default: test)")->type_name("NAME");
  app->add_option("--batch-size,-b", options->batch_size, "Images at a time (default: 256)")->type_name("N");
  app->add_flag("--per-class", options->per_class, std::string("Also precision, recall, F1 and confusions"));
  add_threads_and_device(*app, options->threads, options->device);
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
