#include "pipeline/seed_run.h"

#include <chrono>
#include <filesystem>

#include "core/json.h"
#include "core/text.h"
#include "layers/models/zoo.h"
#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "training/checkpoint.h"
#include "training/interrupt.h"

namespace espalier {

nlohmann::json to_json(const SeedResult& r) {
  nlohmann::json changes;
  if (r.changes)
    changes = {{"broken", r.changes->broken.size()},
               {"repaired", r.changes->repaired.size()},
               {"moved", r.changes->moved.size()},
               {"p", r.changes->p}};
  nlohmann::json json = {{"seed", r.seed},
                         {"folder", r.folder},
                         {"before", r.before ? to_json(*r.before) : nlohmann::json()},
                         {"after", to_json(r.after)},
                         {"changes", changes},
                         {"seconds", r.seconds}};
  json["validation_" + r.after.metrics.front().name] =
      r.validation ? nlohmann::json(r.validation->value) : nlohmann::json();
  return json;
}

SeedRun::SeedRun(const Recipe& recipe, uint64_t seed, const Splits& data, std::string folder, const RunOptions& options)
    : recipe_(recipe),
      seed_(seed),
      folder_(std::move(folder)),
      options_(options),
      all_(recipe.images ? data.train.first(*recipe.images) : data.train),
      train_(all_),
      test_(data.test) {
  if (recipe.validation > 0) {
    TrainValidation parts = split_validation(all_, recipe.validation, recipe.validation_seed.value_or(seed));
    train_ = std::move(parts.train);
    validation_ = std::move(parts.validation);
  }
  example_ = example_of(train_, options.device);
}

void SeedRun::rehearse() {
  begin();
  for (const StagePtr& stage : recipe_.stages) {
    try {
      if (!stage->rehearse(*this)) return;
    } catch (const Error& error) {
      fail("run", "{}: {}", place_of(recipe_, *stage), error.what());
    }
    if (stage->leaves_network())
      rehearsed_[stage->name] = network_->clone();
    else if (!stage->own_network().empty())
      rehearsed_[stage->name] = zoo_network(stage->own_network());
  }
}

std::optional<SeedResult> SeedRun::run() {
  const auto started = std::chrono::steady_clock::now();
  SeedResult result;
  result.seed = seed_;
  result.folder = folder_;
  begin();
  std::optional<Answers> before;
  const auto note_before = [&](const std::string& file) {
    result.before = report(file);
    result.before_file = file;
    if (test_.is_classification()) before = answers(*network_, test_);
  };
  if (!recipe_.start.empty()) note_before(find_model(recipe_.start));
  for (size_t i = 0; i < recipe_.stages.size(); ++i) {
    Stage& stage = *recipe_.stages[i];
    stage.begin(*this);
    const bool done_before = options_.resume && read_back(stage);
    if (!done_before) {
      say("  {}/{} {}", i + 1, recipe_.stages.size(), stage.describe());
      const RunFolder folder(folder_of(stage));
      stage.run(*this);
      if (InterruptGuard::requested()) return std::nullopt;
    }
    if (std::string settings = stage.settings(*this); !settings.empty()) settings_ = std::move(settings);
    if (done_before)
      stage.tidy(RunFolder(folder_of(stage)));  // what a kill between its end and its tidying left
    else
      save(stage);
    if (!result.before && stage.is_baseline() && i + 1 < recipe_.stages.size()) note_before(network_file_of(stage));
  }
  const std::string file = fmt::format("{}/{}", folder_, kModelFile);
  save_network(file);
  result.after = report(file);
  if (before) result.changes = changes(*before, answers(*network_, test_), test_.num_classes());
  result.class_names = test_.class_names;
  if (validation_.size() > 0) result.validation = evaluate(*network_, validation_).primary();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

/// The network before the first stage.
void SeedRun::begin() {
  espalier::set_seed(seed_);
  if (recipe_.start.empty()) {
    set_network(zoo_network(recipe_.model));
    return;
  }
  const ModelFile start = open_model(find_model(recipe_.start));
  set_network(start.module);
  index_map_ = index_map_of(start);
  if (const auto settings = start.metadata.find("settings"); settings != start.metadata.end())
    settings_ = settings->second;
}

void SeedRun::set_network(ModulePtr network) {
  network_ = std::move(network);
  network_->to(options_.device);
}

void SeedRun::include_validation() {
  train_ = all_;
  validation_ = {};
}

ModulePtr SeedRun::zoo_network(const std::string& name) const { return make_model(name, model_options(train_)); }

ModulePtr SeedRun::find_network(const std::string& name) const {
  ModulePtr found;
  if (name == "start") {
    found = network_->clone();
  } else if (const auto rehearsed = rehearsed_.find(name); rehearsed != rehearsed_.end()) {
    found = rehearsed->second->clone();
  } else {
    std::string path = name;
    for (const StagePtr& stage : recipe_.stages)
      if (stage->name == name) path = network_file_of(*stage);
    found = load_model(find_model(path));
    found->to(options_.device);
  }
  found->eval();
  return found;
}

std::string SeedRun::network_file_of(const Stage& stage) const {
  return fmt::format("{}/{}", folder_of(stage), kModelFile);
}

void SeedRun::save_network(const std::string& path) const {
  std::map<std::string, std::string> metadata = {{"data", description_of(train_)}};
  if (!index_map_.empty()) metadata["compaction"] = nlohmann::json{{"kept", espalier::to_json(index_map_)}}.dump();
  if (!settings_.empty()) metadata["settings"] = settings_;
  save_checkpoint(path, *network_, nullptr, metadata);
}

ModelReport SeedRun::report(const std::string& file) const {
  const ModelReport report = measure(*network_, static_cast<int64_t>(std::filesystem::file_size(file)), test_);
  check_finite(file, report.loss);
  return report;
}

/// A finished stage of an earlier start.
bool SeedRun::read_back(Stage& stage) {
  if (!RunFolder(folder_of(stage)).is_done()) return false;
  stage.read_back(*this);
  say("  {}: done before", stage.name);
  return true;
}

void SeedRun::save(const Stage& stage) const {
  const RunFolder folder(folder_of(stage));
  if (stage.leaves_network()) save_network(network_file_of(stage));
  folder.mark_done(stage.describe());
  stage.tidy(folder);
}

void SeedRun::say_sparsity(const SparsityCount& count) const {
  say("    {:.2f} % of {} weights are masked: {:.1f}x", 100 * count.sparsity(), grouped(count.weights),
      static_cast<double>(count.weights) / static_cast<double>(std::max<int64_t>(count.weights - count.masked, 1)));
}

void SeedRun::say_what_is_left(const std::vector<Site>& sites, int64_t min_units) const {
  say_sparsity(count_sparsity(sites));
  warn_of_collapses(sites, min_units);
}

void SeedRun::warn_of_collapses(const std::vector<Site>& sites, int64_t min_units) const {
  for (const Collapse& layer : find_collapses(sites, min_units))
    warn(
        "    warning: next to nothing is left of {}; ask for less, set min_units or scope = \"layer\", or take "
        "another criterion",
        layer.to_string());
}

void Stage::read_back(SeedRun& run) {
  if (leaves_network()) run.set_network(load_model(run.network_file_of(*this)));
}

}  // namespace espalier
