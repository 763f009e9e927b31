// Runs a recipe: stage after stage, each in its own folder, so that an interrupted run goes on where it stopped.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/model_report.h"
#include "tools/output.h"
#include "tools/recipe.h"
#include "training/answers.h"

namespace espalier::tools {

struct PipelineOptions {
  std::string command = "run";  ///< who runs it: "run", "prune", "distill"
  std::string out;              ///< the run's folder
  bool make_new = false;        ///< take the first of OUT, OUT-2, OUT-3, ... that is free
  bool resume = false, overwrite = false;
  Device device = Device::cpu();
};

/// What one seed gave. The test set is looked at twice: after the first training stage and at the end.
struct SeedResult {
  uint64_t seed = 0;
  std::string folder;
  std::optional<ModelReport> before;  ///< of the network that a run starts from, or that its first training stage left
  ModelReport after;
  std::string before_file = {};               ///< where `before` is
  std::optional<AnswerChanges> changes = {};  ///< of the answers to the test set, where there is a `before`
  std::vector<std::string> class_names = {};
  std::optional<double> validation_accuracy = {};  ///< of the final network; choices are made by it
  double seconds = 0;
};

/// What can be told from the recipe alone: files that it starts from fit its data, teachers and the layers that terms
/// compare exist. Throws, naming the stage.
void check_recipe(const Recipe& recipe);

/// Takes the recipe's prunings and compactions to an untrained network, in seconds, and writes nothing. Throws what
/// they would throw after hours: names that fit no layer, patterns that divide no weight, budgets out of reach.
void rehearse(const Recipe& recipe, const Splits& data, const PipelineOptions& options, const Output& output);

/// The stages of one seed in `folder`: FOLDER/STAGE/ for each, FOLDER/model.safetensors at the end. Nothing when it was
/// interrupted. With `resume` finished stages are read back and a half-finished one goes on, to the same bits.
std::optional<SeedResult> run_seed(const Recipe& recipe, uint64_t seed, const Splits& data, const std::string& folder,
                                   const PipelineOptions& options, const Output& output);

/// All seeds; writes OUT/recipe.toml, OUT/result.json. Returns the exit status. Throws when the folder holds a run that
/// is neither resumed nor overwritten, and when a run is resumed that had another recipe.
int run_recipe(const Recipe& recipe, const PipelineOptions& options, Output& output);

/// A name, and a network's report or those of several seeds.
using ReportRow = std::pair<std::string, std::vector<ModelReport>>;
/// A table of networks with a heading line, as `run` and `compare` show it: one row for each. Of several seeds it shows
/// mean +- standard deviation.
std::string report_table(const std::vector<ReportRow>& rows);

}  // namespace espalier::tools
