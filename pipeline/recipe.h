// Recipes: what a run does, stage by stage, as a TOML file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pipeline/stage.h"

namespace espalier {

struct Recipe {
  std::string source;  ///< the file, for messages
  std::string title;
  std::string model, data, data_dir;
  std::string loss, metric;  ///< "": what the data asks for
  std::string start;         ///< a model file or run to start from; "": a fresh network of the zoo
  double validation = 0.1;   ///< share of the training images; with `start` what that network was not trained on
  /// Which images are set aside: the seed of the split; nothing: that of the run.
  std::optional<uint64_t> validation_seed = {};
  uint64_t seed = 0;
  int64_t seeds = 1;
  std::vector<StagePtr> stages;
};
/// All but source, data_dir and stages.
void fields(FieldVisitor& f, Recipe& recipe);

/// Throws FileError or ArgumentError with file and line, what was expected and the known keys.
/// `data`: a data set in place of the recipe's; "": its own.
Recipe load_recipe(const std::string& path, const std::string& data = "");
/// The same from text; `source` stands in messages.
Recipe parse_recipe(const std::string& text, const std::string& source, const std::string& data = "");
/// The recipe with everything that it left to defaults: what a run saves.
std::string to_toml(const Recipe& recipe);

/// What of it decides the result, as JSON.
nlohmann::json identity_of(const Recipe& recipe);

/// Whether no image of the validation set was among those that the network `start` was trained on, as far as its file
/// tells; true without a `start`.
bool validates_on_unseen_images(const Recipe& recipe);

/// What can be told from the recipe alone: files that it starts from fit its data, teachers and the layers that terms
/// compare exist. Throws, naming the stage.
void check_recipe(const Recipe& recipe);

}  // namespace espalier
