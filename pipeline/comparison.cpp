#include "pipeline/comparison.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include <nlohmann/json.hpp>

#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "pipeline/recipe.h"
#include "pipeline/run_places.h"
#include "pipeline/statistics.h"

namespace espalier {

namespace {

namespace fs = std::filesystem;

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
std::vector<ComparedNetwork> networks_of_run(const std::string& run) {
  std::vector<ComparedNetwork> networks;
  std::error_code error;
  std::vector<std::string> finished;
  if (fs::is_directory(run, error)) finished = files_of_seeds(run, kModelFile);
  if (const std::string recipe = fmt::format("{}/{}", run, kRecipeIdentity); !finished.empty() && fs::exists(recipe)) {
    const RecipeOutline outline = outline_of(recipe);
    std::vector<std::string> before;
    if (!outline.start.empty())
      before = {find_model(outline.start)};
    else if (const std::string baseline = outline.baseline(); !baseline.empty())
      before = files_of_seeds(run, fmt::format("{}/{}", baseline, kModelFile));
    if (!before.empty()) networks.push_back({.name = run + " before", .files = before});
    networks.push_back({.name = networks.empty() ? run : run + " after", .files = finished});
  } else {
    networks.push_back({.name = run, .files = finished.empty() ? std::vector{find_model(run)} : finished});
  }
  for (ComparedNetwork& network : networks)
    if (network.files.size() > 1) network.name += fmt::format(", {} seeds", network.files.size());
  return networks;
}

}  // namespace

std::vector<ComparedNetwork> networks_of(const std::vector<std::string>& runs) {
  std::vector<ComparedNetwork> networks;
  for (const std::string& run : runs)
    for (ComparedNetwork& network : networks_of_run(run)) networks.push_back(std::move(network));
  return networks;
}

void measure_networks(std::vector<ComparedNetwork>& networks, const CompareOptions& options) {
  check(options.rounds > 0, "compare", "expected rounds of at least 1, got {}", options.rounds);
  std::vector<ModulePtr> modules;
  std::vector<Shape> images;
  std::map<std::string, Splits> data;
  for (ComparedNetwork& network : networks)
    for (const std::string& path : network.files) {
      const ModelFile file = open_model(path);
      check(file.data.has_value(), "compare", "{} doesn't say what images it takes: it was not written by a training",
            path);
      const std::string name = options.data.empty() ? file.data->name : options.data;
      if (!data.contains(name)) data[name] = load_data(name, options.data_dir, file.data->loss, file.data->metric);
      modules.push_back(file.module);
      images.push_back(file.data->input);
      network.reports.push_back(measure(*file.module, static_cast<int64_t>(fs::file_size(path)), data[name].test));
      check_finite(path, network.reports.back().loss);
    }
  const std::vector<Latency> one = latencies(modules, images, 1, 10 * options.rounds);
  const std::vector<Latency> many = latencies(modules, images, 128, options.rounds);
  size_t next = 0;
  for (ComparedNetwork& network : networks)
    for (size_t i = 0; i < network.files.size(); ++i, ++next) {
      network.one.push_back(one[next]);
      network.many.push_back(many[next]);
    }
}

nlohmann::json to_json(const ComparedNetwork& network) {
  std::vector<nlohmann::json> seeds;
  for (size_t i = 0; i < network.files.size(); ++i) {
    nlohmann::json seed = to_json(network.reports[i]);
    seed["file"] = network.files[i];
    seed["latency_1"] = {{"p50", network.one[i].p50}, {"p95", network.one[i].p95}};
    seed["latency_128"] = {{"p50", network.many[i].p50}, {"p95", network.many[i].p95}};
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
    const nlohmann::json figures = to_json(network.reports.front());
    for (const auto& [key, value] : figures.items()) average("/" + key);
    for (const char* key : {"latency_1", "latency_128"})
      for (const char* q : {"p50", "p95"}) average(fmt::format("/{}/{}", key, q));
    json["seeds"] = seeds;
  }
  json["name"] = network.name;
  return json;
}

}  // namespace espalier
