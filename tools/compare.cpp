// espalier compare: networks side by side, in size, quality and time.
#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "core/threads.h"
#include "tools/commands.h"
#include "tools/model_file.h"
#include "tools/pipeline.h"

namespace espalier::tools {

namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> runs;
  std::string data, data_dir;
  int64_t rounds = 30;
  std::optional<int> threads;
};

struct Row {
  std::string name, file;
};

/// The networks of an argument: a model file, or a run's network before compression (if there is one) and after.
std::vector<Row> rows_of(const std::string& run) {
  std::vector<Row> rows;
  std::error_code error;
  if (fs::is_directory(run, error) && fs::exists(run + "/recipe.toml", error)) {
    const Recipe recipe = load_recipe(run + "/recipe.toml");
    const std::string folder = recipe.seeds == 1 ? run : fmt::format("{}/seed-{}", run, recipe.seed);
    const auto first = std::find_if(recipe.stages.begin(), recipe.stages.end(),
                                    [](const Stage& stage) { return stage.type == "train"; });
    if (!recipe.start.empty())
      rows.push_back({run + " before", find_model(recipe.start)});
    else if (first != recipe.stages.end() && first + 1 != recipe.stages.end())
      rows.push_back({run + " before", fmt::format("{}/{}/model.safetensors", folder, first->name)});
    rows.push_back({rows.empty() ? run : run + " after", folder + "/model.safetensors"});
  } else {
    rows.push_back({run, find_model(run)});
  }
  return rows;
}

std::string milliseconds(const Latency& latency) {
  return fmt::format("{:.2f} / {:.2f}", 1e3 * latency.p50, 1e3 * latency.p95);
}

int run(const Options& options, Output& output) {
  use_threads(options.threads);
  check(options.rounds > 0, "compare", "--rounds: expected at least 1, got {}", options.rounds);
  std::vector<Row> rows;
  for (const std::string& name : options.runs)
    for (Row& row : rows_of(name)) rows.push_back(std::move(row));
  std::vector<ModulePtr> modules;
  std::vector<Shape> images;
  std::vector<std::pair<std::string, ModelReport>> reports;
  std::map<std::string, Splits> data;
  for (const Row& row : rows) {
    const ModelFile file = open_model(row.file);
    check(file.data.has_value(), "compare", "{} doesn't say what images it takes: it was not written by a training",
          row.file);
    const std::string name = options.data.empty() ? file.data->name : options.data;
    if (!data.contains(name)) data[name] = load_dataset(name, {.data_dir = options.data_dir});
    modules.push_back(file.module);
    images.push_back(file.data->image);
    reports.emplace_back(row.name, measure(*file.module, file.data->image,
                                           static_cast<int64_t>(fs::file_size(row.file)), &data[name].test));
  }
  const std::vector<Latency> one = latencies(modules, images, 1, 10 * options.rounds);
  const std::vector<Latency> many = latencies(modules, images, 128, options.rounds);

  output.result("{}", report_table(reports));
  std::vector<std::vector<std::string>> cells = {
      {"network", "batch 1: p50 / p95 ms", "speed-up", "batch 128: p50 / p95 ms", "speed-up"}};
  nlohmann::json list = nlohmann::json::array();
  for (size_t i = 0; i < rows.size(); ++i) {
    cells.push_back({rows[i].name, milliseconds(one[i]), fmt::format("{:.2f}x", one[0].p50 / one[i].p50),
                     milliseconds(many[i]), fmt::format("{:.2f}x", many[0].p50 / many[i].p50)});
    nlohmann::json json = to_json(reports[i].second);
    json["name"] = rows[i].name;
    json["file"] = rows[i].file;
    json["latency_1"] = {{"p50", one[i].p50}, {"p95", one[i].p95}};
    json["latency_128"] = {{"p50", many[i].p50}, {"p95", many[i].p95}};
    list.push_back(std::move(json));
  }
  output.result("{}\nTimes: forward passes in turns, {} thread{}; ratios and speed-ups against the first row.",
                table(cells, {1, 2, 3, 4}), num_threads(), num_threads() == 1 ? "" : "s");
  output.finish({{"command", "compare"}, {"threads", num_threads()}, {"networks", list}});
  return kSuccess;
}

}  // namespace

void add_compare(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "compare", "Networks side by side: accuracy, size, MACs, measured time",
                              {"espalier compare runs/lenet5-channels                      before and after",
                               "espalier compare runs/dense runs/pruned runs/small/model.safetensors"});
  auto options = std::make_shared<Options>();
  app->add_option("runs", options->runs, "Runs or checkpoints; the first is the reference")
      ->type_name("RUN...")
      ->required();
  app->add_option("--data,-d", options->data, "Data set (default: what each was trained on)")->type_name("NAME");
  add_data_dir(*app, options->data_dir);
  app->add_option("--rounds", options->rounds, "Timed passes at batch 128; ten times as many at\nbatch 1 (default: 30)")
      ->type_name("N");
  app->add_option("--threads", options->threads, "Threads of the kernels")->type_name("N");
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
