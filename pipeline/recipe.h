// Recipes: what a run does, stage by stage, as a TOML file.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
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
  std::optional<int64_t> images = {};  ///< only the first so many training images, validation included; nothing: all
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

/// What the recipe of a run says to those who look at its folder: stages of other programs may be in it.
struct RecipeOutline {
  struct Entry {
    std::string type, name;
  };
  std::string start;
  std::vector<Entry> stages = {};
  /// The stage whose network is the one to compare the final one with; "": none.
  std::string baseline() const;
};
/// Throws FileError when the file is no recipe.
RecipeOutline outline_of(const std::string& path);

// --- a recipe that a program puts together
/// Completes what stands before the stages: the data's full name, the images that choose epochs (`validation_given`:
/// the recipe's share, whatever the network of `start` was trained on). Throws ArgumentError on unknown names.
void settle_head(Recipe& recipe, bool validation_given);
/// Adds a stage of this type: `read` gives its options values, then it is settled with those before it. `name`: of its
/// folder; nothing: its number and type. Throws ArgumentError.
Stage& add_stage(Recipe& recipe, const std::string& type, const std::optional<std::string>& name,
                 const std::function<void(Stage&)>& read);

/// What of it decides the result, as JSON.
nlohmann::json identity_of(const Recipe& recipe);

/// The files and runs that the recipe takes networks from: the one that it starts from, teachers. Each with the stage
/// that learns from it, or null.
std::vector<std::pair<std::string, const Stage*>> outside_networks(const Recipe& recipe);

/// Whether no image of the validation set was among those that the network `start` was trained on, as far as its file
/// tells; true without a `start`.
bool validates_on_unseen_images(const Recipe& recipe);

/// "r.toml:12: stage '2-prune'": how messages name a stage.
std::string place_of(const Recipe& recipe, const Stage& stage);

/// What can be told from the recipe alone: files that it starts from fit its data, teachers and the layers that terms
/// compare exist. Throws, naming the stage.
void check_recipe(const Recipe& recipe);

}  // namespace espalier
