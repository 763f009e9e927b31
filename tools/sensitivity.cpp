// espalier sensitivity: how much each layer can lose.
#include <nlohmann/json.hpp>

#include "core/kernels.h"
#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "pipeline/model_report.h"
#include "pipeline/toml_text.h"
#include "pruning/sensitivity.h"
#include "pruning/structure/graph.h"
#include "tools/commands.h"

namespace espalier::tools {

namespace {

struct SensitivityFlags {
  std::string model, data, data_dir, pattern = "element", criterion = "magnitude", device = "cpu";
  std::vector<double> sparsities;
  int64_t images = 5000;
  double tolerance = 0.02;
  std::optional<int> threads;
};

int run(const SensitivityFlags& options, Output& output) {
  use_threads(options.threads);
  const Device device = Device::parse(options.device);
  kernels(device);  // says now what is missing
  check(options.images > 0, "sensitivity", "--images: expected at least 1, got {}", options.images);
  const ModelFile file = open_model(find_model(options.model));
  check(file.data.has_value(), "sensitivity", "{} doesn't say what images it takes: it was not written by a training",
        file.path);
  file.module->to(device);
  const Splits data = load_data(options.data.empty() ? file.data->name : options.data, options.data_dir,
                                file.data->loss, file.data->metric);
  // Images of the training set: the test set chooses nothing.
  const int64_t count = std::min(options.images, data.train.size() - 1);
  const Dataset images = split_validation(data.train, static_cast<double>(count)).validation;
  std::vector<Site> sites;
  if (options.pattern == "channels") {
    sites = channel_sites(DependencyGraph::trace(*file.module, example_of(data.train, device)));
  } else {
    sites = weight_sites(*file.module, Pattern::parse(options.pattern));
  }
  const Pruner pruner(file.module, std::move(sites),
                      {.criterion = make_criterion(options.criterion), .data = data.train});
  SensitivityOptions settings;
  if (!options.sparsities.empty()) settings.sparsities = options.sparsities;
  const Sensitivity result = measure_sensitivity(pruner, images, settings);
  check_finite(file.path, result.loss);
  output.result(
      "{} on {} images of {}'s training set: loss {:.4f}{}\nchange of the loss when one layer "
      "alone is pruned:\n{}",
      file.path, grouped(images.size()), images.name, result.loss,
      result.accuracy ? fmt::format(", accuracy {:.2f} %", 100 * *result.accuracy) : "", result.to_string());
  const std::map<std::string, double> within = sparsities_within(result, options.tolerance);
  std::string line;
  for (const auto& [site, sparsity] : within)
    line += fmt::format("{}{} = {:.3f}", line.empty() ? "" : ", ", quote(site), sparsity);
  output.result("For a recipe, layers that each cost at most {:g}: sparsity_of = {{ {} }}", options.tolerance, line);
  nlohmann::json json = result.to_json();
  json["command"] = "sensitivity";
  json["sparsity_of"] = within;
  output.finish(json);
  return kSuccess;
}

}  // namespace

void add_sensitivity(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "sensitivity", "Say how much each layer can lose",
                              {"espalier sensitivity runs/lenet5-mnist",
                               "espalier sensitivity runs/lenet5-mnist --pattern channels --criterion taylor"});
  auto options = std::make_shared<SensitivityFlags>();
  add_model(*app, options->model);
  app->add_option("--data,-d", options->data, "Data set (default: the one it was trained on)")->type_name("NAME");
  add_data_dir(*app, options->data_dir);
  app->add_option("--pattern,-p", options->pattern, "element (default), a pattern, or channels")->type_name("NAME");
  app->add_option("--criterion,-c", options->criterion, "What a weight is worth (default: magnitude)")
      ->type_name("NAME");
  app->add_option("--sparsities", options->sparsities, "Rising, such as 0.5 0.9")->type_name("X...");
  app->add_option("--images", options->images, "Training images to measure with (default: 5000)")->type_name("N");
  app->add_option("--tolerance", options->tolerance, "How much loss a layer may cost (default: 0.02)")->type_name("X");
  add_threads_and_device(*app, options->threads, options->device);
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
