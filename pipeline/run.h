// Runs a recipe: stage after stage, each in its own folder, so that an interrupted run goes on where it stopped.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pipeline/seed_run.h"

namespace espalier {

struct RecipeResult {
  std::string folder;
  std::vector<SeedResult> seeds;
  bool interrupted = false;
};
/// "folder", "recipe", mean and deviation of the test error, "runs".
nlohmann::json to_json(const RecipeResult& result, const Recipe& recipe, const RunOptions& options);

/// All seeds; writes OUT/recipe.toml, OUT/result.json. Before anything is trained it goes through the stages with an
/// untrained network. Throws when the folder holds a run that is neither resumed nor overwritten, and when a run is
/// resumed that had another recipe.
RecipeResult run_recipe(const Recipe& recipe, const RunOptions& options);

/// A name, and a network's report or those of several seeds.
using ReportRow = std::pair<std::string, std::vector<ModelReport>>;
/// A table of networks with a heading line, as `run` and `compare` show it: one row for each. Of several seeds it shows
/// mean +- standard deviation.
std::string report_table(const std::vector<ReportRow>& rows);

}  // namespace espalier
