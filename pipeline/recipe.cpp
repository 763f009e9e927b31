#include "pipeline/recipe.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include <toml++/toml.h>
#include <nlohmann/json.hpp>

#include "core/text.h"
#include "datasets/data_kind.h"
#include "layers/models/zoo.h"
#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "pipeline/toml_fields.h"
#include "pipeline/toml_text.h"
#include "pipeline/training_stage.h"

namespace espalier {

void fields(FieldVisitor& f, Recipe& r) {
  f("title", r.title, "For people");
  f("model", r.model, "Network of the zoo; with start only its name for the defaults of trainings");
  f("data", r.data, "Data set, or KIND:PATH of data of one's own");
  f.unless_default("loss", r.loss,
                   "What is minimised: cross-entropy, mse, l1 or bce; by default what the data asks for");
  f.unless_default("metric", r.metric, "What chooses the epoch: accuracy, mse, mae or r2; by default the data's first");
  f("validation", r.validation, share_below_one(), "Share of the training images set aside; they choose the epoch");
  f("seed", r.seed, "Of weights, order, augmentation");
  f("seeds", r.seeds, at_least(1), "Runs, with seed, seed + 1, ...");
  f("validation_seed", r.validation_seed, "Of the choice of those images; by default the run's");
  f.unless_default("start", r.start, "A model file or run to start from, in place of a fresh network");
}

namespace {

/// A network that a recipe starts from chooses no epoch on images that it was trained on: unless the recipe says
/// otherwise the images are set aside that its own training set aside.
void choose_validation(Recipe& recipe, bool given) {
  if (recipe.start.empty() || !std::filesystem::exists(recipe.start))
    return;  // what is missing is told when it is to be read
  const std::optional<ValidationSplit> split = validation_split_of(find_model(recipe.start));
  if (split && split->data != recipe.data) return;  // other images
  if (!given) recipe.validation = split ? split->share : 0;
  if (split && split->share == recipe.validation && split->share > 0 && !recipe.validation_seed)
    recipe.validation_seed = split->seed;
}

/// What is true of every stage.
struct StageHead {
  std::string type;
  std::optional<std::string> name;
};
void fields(FieldVisitor& f, StageHead& head) {
  f("type", head.type, "What the stage does");
  f("name", head.name, "Of its folder; by default its number and type");
}

StagePtr read_stage(const toml::table& table, const Recipe& recipe) {
  TomlReader reader(table, recipe.source, "a stage");
  StageHead head;
  fields(reader, head);
  const std::vector<std::string> types = stage_registry().names();
  if (!stage_registry().contains(head.type))
    reader.fail_here(fmt::format("expected a stage with type = {}, got {}{}", fmt::join(types, ", "),
                                 head.type.empty() ? "none" : "\"" + head.type + "\"",
                                 head.type.empty() ? "" : did_you_mean(head.type, types)));
  const StagePtr stage = stage_registry().find("recipe", head.type)();
  stage->type = head.type;
  stage->name = head.name.value_or(fmt::format("{}-{}", recipe.stages.size() + 1, stage->type));
  constexpr size_t kLongestName = 100;
  const bool plain_name =
      !stage->name.empty() && stage->name.size() <= kLongestName &&
      std::none_of(stage->name.begin(), stage->name.end(), [](char c) {
        return static_cast<unsigned char>(c) <= ' ' || c == '/' || c == '\\' || c == '.' || c == 0x7f;
      });
  if (!plain_name || stage->name == "start")
    reader.fail_here(
        fmt::format("expected a stage name that can be a folder's, of at most {} characters without spaces, "
                    "dots and slashes, got '{}'",
                    kLongestName, printable(stage->name)));
  for (const StagePtr& earlier : recipe.stages)
    if (earlier->name == stage->name) reader.fail_here(fmt::format("two stages are named '{}'", stage->name));
  stage->fields(reader);
  reader.judge([&] { stage->settle(recipe); });
  reader.finish();
  return stage;
}

/// A network of a file takes the recipe's images and knows its classes.
void check_fits(const Recipe& recipe, const std::string& whose, const std::string& path) {
  const ModelFile file = open_model(find_model(path));
  check_finite_weights(file);
  if (!file.data) return;
  const ModelOptions data = model_options(recipe.data, recipe.data_dir);
  const int64_t outputs = data.heads[0].numel(), classes = static_cast<int64_t>(file.data->classes.size());
  const bool fits = file.data->input == data.input && (classes == 0 || classes == outputs);
  const auto what = [](const Shape& input) { return input.rank() == 3 ? "images" : "inputs"; };
  check(fits, "run", "{}: expected {} for {}, {} {} in {} classes; {} was trained on {}, {} {} in {} classes",
        recipe.source, whose, recipe.data, what(data.input), data.input, outputs, path, file.data->name,
        what(file.data->input), file.data->input, classes);
}

/// Teachers that stand in files can be read: a mistake is told before anything is trained.
void check_teachers(const Recipe& recipe) {
  std::vector<std::string> known = {"start"};
  for (const StagePtr& stage : recipe.stages) {
    if (const TeacherOptions* teacher = stage->teacher();
        teacher != nullptr && std::find(known.begin(), known.end(), teacher->teacher) == known.end()) {
      check(std::filesystem::exists(teacher->teacher), "run",
            "{}: stage '{}': expected teacher = one of {}, a model file or the folder of a run, got \"{}\"{}",
            recipe.source, stage->name, fmt::join(known, ", "), teacher->teacher,
            did_you_mean(teacher->teacher, known));
      check_fits(recipe, "a teacher", teacher->teacher);
    }
    known.push_back(stage->name);
  }
}

void check_layer(const Recipe& recipe, const Stage& stage, const char* whose, const Module& of,
                 const std::string& layer) {
  std::vector<std::string> known;
  for (const auto& [name, module] : of.named_modules())
    if (!name.empty()) known.push_back(name);
  check(layer.empty() || std::find(known.begin(), known.end(), layer) != known.end(), "run",
        "{}: stage '{}': the {} has no layer '{}'{}; its layers: {}", recipe.source, stage.name, whose, layer,
        did_you_mean(layer, known), fmt::join(known, ", "));
}

/// The layers that terms compare are layers of their networks, as far as those are known: compaction and distillation
/// keep or replace them as a whole.
void check_layers(const Recipe& recipe) {
  if (std::none_of(recipe.stages.begin(), recipe.stages.end(), [](const StagePtr& stage) {
        return stage->teacher() != nullptr && !stage->teacher()->terms.empty();
      }))
    return;
  const ModelOptions data = model_options(recipe.data, recipe.data_dir);
  const auto fresh = [&](const std::string& name) { return make_model(name, data); };
  ModulePtr network = recipe.start.empty() ? fresh(recipe.model) : open_model(find_model(recipe.start)).module;
  std::map<std::string, ModulePtr> after;  // of each stage
  for (const StagePtr& stage : recipe.stages) {
    const ModulePtr student = stage->own_network().empty() ? network : fresh(stage->own_network());
    if (const TeacherOptions* options = stage->teacher(); options != nullptr && !options->terms.empty()) {
      const std::string& name = options->teacher;
      const ModulePtr teacher = name == "start"        ? network
                                : after.contains(name) ? after.at(name)
                                                       : open_model(find_model(name)).module;
      for (const TermOptions& term : options->terms) {
        check_layer(recipe, *stage, "student", *student, term.student);
        check_layer(recipe, *stage, "teacher", *teacher, term.teacher);
      }
    }
    after[stage->name] = student;
    if (stage->leaves_network()) network = student;
  }
}

}  // namespace

void check_recipe(const Recipe& recipe) {
  if (!recipe.start.empty()) check_fits(recipe, "a network", recipe.start);
  check_teachers(recipe);
  check_layers(recipe);
}

bool validates_on_unseen_images(const Recipe& recipe) {
  if (recipe.start.empty()) return true;
  const std::optional<ValidationSplit> split = validation_split_of(find_model(recipe.start));
  if (split && split->data != recipe.data) return true;
  return split && split->share == recipe.validation && split->seed == recipe.validation_seed;
}

Recipe parse_recipe(const std::string& text, const std::string& source, const std::string& data) {
  check_toml_nesting(text, source);
  toml::table table;
  try {
    table = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    fail<FileError>("recipe", "{}:{}: not TOML: {}", source, error.source().begin.line, error.description());
  }
  Recipe recipe;
  recipe.source = source;
  TomlReader reader(table, source, "a recipe");
  fields(reader, recipe);
  const std::vector<const toml::table*> stages = reader.tables("stage");
  reader.finish();
  if (!data.empty()) recipe.data = data;
  if (recipe.model.empty() || recipe.data.empty())
    reader.fail_here("expected model and data, such as model = \"lenet5\" and data = \"mnist\"");
  try {
    recipe.data = data_name(recipe.data);
    if (recipe.start.empty()) model_image(recipe.model);
  } catch (const ArgumentError& unknown_name) {
    reader.fail_here(unknown_name.what());
  }
  choose_validation(recipe, table.contains("validation"));
  constexpr int64_t kMostSeeds = 1000;
  if (recipe.seeds > kMostSeeds)
    reader.fail_here(fmt::format("expected 1 to {} seeds, got {}", kMostSeeds, recipe.seeds));
  if (stages.empty()) reader.fail_here("expected at least one [[stage]]");
  for (const toml::table* stage : stages) recipe.stages.push_back(read_stage(*stage, recipe));
  return recipe;
}

Recipe load_recipe(const std::string& path, const std::string& data) {
  const std::optional<std::string> text = read_text(path);
  if (!text) fail<FileError>("recipe", "{}: cannot read it; expected a TOML file with [[stage]] tables", path);
  return parse_recipe(*text, path, data);
}

std::string to_toml(const Recipe& recipe) {
  Recipe head = recipe;
  std::string text = toml_of_fields([&](FieldVisitor& f) { fields(f, head); },
                                    [untouched = Recipe()](FieldVisitor& f) mutable { fields(f, untouched); });
  for (const StagePtr& stage : recipe.stages) {
    const StagePtr untouched = stage_registry().find("recipe", stage->type)();
    text += fmt::format("\n[[stage]]\ntype = {}\nname = {}\n", quote(stage->type), quote(stage->name));
    text += toml_of_fields([&](FieldVisitor& f) { stage->fields(f); }, [&](FieldVisitor& f) { untouched->fields(f); },
                           "stage.");
  }
  return text;
}

nlohmann::json identity_of(const Recipe& recipe) {
  toml::table table = toml::parse(to_toml(recipe));
  table.erase("title");
  if (toml::array* stages = table["stage"].as_array())
    for (toml::node& stage : *stages) stage.as_table()->erase("checkpoint_every");
  std::ostringstream json;
  json << toml::json_formatter{table};
  return nlohmann::json::parse(json.str());
}

}  // namespace espalier
