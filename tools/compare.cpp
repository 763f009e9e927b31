// espalier compare: networks side by side, in size, quality and time.
#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "core/threads.h"
#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "pipeline/statistics.h"
#include "tools/commands.h"
#include "tools/recipe_command.h"

namespace espalier::tools {

namespace {

namespace fs = std::filesystem;

struct CompareFlags {
  std::vector<std::string> runs;
  std::string data, data_dir;
  int64_t rounds = 30;
  std::optional<int> threads;
};

/// A line of the tables: one network, or the same network of several seeds.
struct Row {
  std::string name;
  std::vector<std::string> files = {};
  std::vector<ModelReport> reports = {};
  std::vector<Latency> one = {}, many = {};  ///< at batch 1 and 128
};

/// `file` in the folder of a run, or in those of its seeds, as far as they are finished.
std::vector<std::string> files_of_seeds(const std::string& folder, const std::string& file) {
  std::error_code error;
  if (fs::exists(fmt::format("{}/{}", folder, file), error)) return {fmt::format("{}/{}", folder, file)};
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string inside = (entry.path() / file).string();
    if (entry.path().filename().string().starts_with("seed-") && fs::exists(inside, error)) files.push_back(inside);
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// The networks of an argument: a model file, or a run's network before compression (if there is one) and after.
std::vector<Row> rows_of(const std::string& run) {
  std::vector<Row> rows;
  std::error_code error;
  std::vector<std::string> finished;
  if (fs::is_directory(run, error)) finished = files_of_seeds(run, "model.safetensors");
  if (!finished.empty() && fs::exists(run + "/recipe.toml", error)) {
    const Recipe recipe = load_recipe(run + "/recipe.toml");
    const auto first = std::find_if(recipe.stages.begin(), recipe.stages.end(),
                                    [](const StagePtr& stage) { return stage->is_baseline(); });
    if (!recipe.start.empty()) {
      rows.push_back({.name = run + " before", .files = {find_model(recipe.start)}});
    } else if (first != recipe.stages.end() && first + 1 != recipe.stages.end()) {
      rows.push_back({.name = run + " before", .files = files_of_seeds(run, (*first)->name + "/model.safetensors")});
    }
    rows.push_back({.name = rows.empty() ? run : run + " after", .files = finished});
  } else {
    rows.push_back({.name = run, .files = finished.empty() ? std::vector{find_model(run)} : finished});
  }
  for (Row& row : rows)
    if (row.files.size() > 1) row.name += fmt::format(", {} seeds", row.files.size());
  return rows;
}

std::string milliseconds(const std::vector<Latency>& times) {
  const auto p50 = over(times, [](const Latency& t) { return 1e3 * t.p50; });
  const auto p95 = over(times, [](const Latency& t) { return 1e3 * t.p95; });
  if (times.size() == 1) return fmt::format("{:.2f} / {:.2f}", p50.mean, p95.mean);
  return fmt::format("{:.2f} +- {:.2f} / {:.2f} +- {:.2f}", p50.mean, *p50.deviation, p95.mean, *p95.deviation);
}

double mean_p50(const std::vector<Latency>& times) {
  return over(times, [](const Latency& t) { return t.p50; }).mean;
}

/// Means over the seeds under the names of a single network's figures; deviations as NAME_std; each seed in "seeds".
nlohmann::json to_json(const Row& row) {
  std::vector<nlohmann::json> seeds;
  for (size_t i = 0; i < row.files.size(); ++i) {
    nlohmann::json seed = to_json(row.reports[i]);
    seed["file"] = row.files[i];
    seed["latency_1"] = {{"p50", row.one[i].p50}, {"p95", row.one[i].p95}};
    seed["latency_128"] = {{"p50", row.many[i].p50}, {"p95", row.many[i].p95}};
    seeds.push_back(std::move(seed));
  }
  nlohmann::json json = seeds.front();
  const auto average = [&](const std::string& key) {
    using Pointer = nlohmann::json::json_pointer;
    const auto figure = over(seeds, [&](const nlohmann::json& seed) { return seed.at(Pointer(key)).get<double>(); });
    json[Pointer(key)] = figure.mean;
    json[Pointer(key + "_std")] = *figure.deviation;
  };
  if (seeds.size() > 1) {
    const nlohmann::json figures = to_json(row.reports.front());
    for (const auto& [key, value] : figures.items()) {
      average("/" + key);
    }
    for (const char* key : {"latency_1", "latency_128"})
      for (const char* q : {"p50", "p95"}) average(fmt::format("/{}/{}", key, q));
    json["seeds"] = seeds;
  }
  json["name"] = row.name;
  return json;
}

int run(const CompareFlags& options, Output& output) {
  use_threads(options.threads);
  check(options.rounds > 0, "compare", "--rounds: expected at least 1, got {}", options.rounds);
  std::vector<Row> rows;
  for (const std::string& name : options.runs)
    for (Row& row : rows_of(name)) rows.push_back(std::move(row));
  std::vector<ModulePtr> modules;
  std::vector<Shape> images;
  std::map<std::string, Splits> data;
  for (Row& row : rows)
    for (const std::string& path : row.files) {
      const ModelFile file = open_model(path);
      check(file.data.has_value(), "compare", "{} doesn't say what images it takes: it was not written by a training",
            path);
      const std::string name = options.data.empty() ? file.data->name : options.data;
      if (!data.contains(name)) data[name] = load_data(name, options.data_dir, file.data->loss, file.data->metric);
      modules.push_back(file.module);
      images.push_back(file.data->input);
      row.reports.push_back(measure(*file.module, static_cast<int64_t>(fs::file_size(path)), data[name].test));
      check_finite(path, row.reports.back().loss);
    }
  const std::vector<Latency> one = latencies(modules, images, 1, 10 * options.rounds);
  const std::vector<Latency> many = latencies(modules, images, 128, options.rounds);

  std::vector<ReportRow> reports;
  std::vector<std::vector<std::string>> cells = {
      {"network", "batch 1: p50 / p95 ms", "speed-up", "batch 128: p50 / p95 ms", "speed-up"}};
  nlohmann::json list = nlohmann::json::array();
  size_t next = 0;
  for (Row& row : rows) {
    for (size_t i = 0; i < row.files.size(); ++i, ++next) {
      row.one.push_back(one[next]);
      row.many.push_back(many[next]);
    }
    reports.emplace_back(row.name, row.reports);
    cells.push_back({row.name, milliseconds(row.one),
                     fmt::format("{:.2f}x", mean_p50(rows.front().one) / mean_p50(row.one)), milliseconds(row.many),
                     fmt::format("{:.2f}x", mean_p50(rows.front().many) / mean_p50(row.many))});
    list.push_back(to_json(row));
  }
  output.result("{}", report_table(reports));
  output.result("{}\nTimes: forward passes in turns, {} thread{}; ratios and speed-ups against the first row.",
                table(cells, {1, 2, 3, 4}), num_threads(), num_threads() == 1 ? "" : "s");
  if (modules.size() > rows.size()) output.result("Of several seeds: mean +- standard deviation.");
  output.finish({{"command", "compare"}, {"threads", num_threads()}, {"networks", list}});
  return kSuccess;
}

}  // namespace

void add_compare(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "compare", "Networks side by side: accuracy, size, MACs, measured time",
                              {"espalier compare runs/lenet5-channels                      before and after",
                               "espalier compare runs/dense runs/pruned runs/small/model.safetensors"});
  auto options = std::make_shared<CompareFlags>();
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
