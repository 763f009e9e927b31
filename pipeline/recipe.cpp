#include "pipeline/recipe.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
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
  seeds_field(f, r.seeds);
  f("validation_seed", r.validation_seed, "Of the choice of those images; by default the run's");
  images_field(f, r.images);
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
  if (split && !recipe.images) recipe.images = split->images;
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

/// What a stage is called that nobody gave a name.
std::string stage_name(size_t earlier, const std::string& type) { return fmt::format("{}-{}", earlier + 1, type); }

std::string text_of(const std::string& path) {
  std::optional<std::string> text = read_text(path);
  if (!text) fail<FileError>("recipe", "{}: cannot read it; expected a TOML file with [[stage]] tables", path);
  return std::move(*text);
}

toml::table parse_table(const std::string& text, const std::string& source) {
  check_toml_nesting(text, source);
  try {
    return toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    fail<FileError>("recipe", "{}:{}: not TOML: {}", source, error.source().begin.line, error.description());
  }
}

/// That it can be the name of a folder, and isn't another stage's.
void check_name(const Recipe& recipe, const std::string& name) {
  constexpr size_t kLongestName = 100;
  const bool plain = !name.empty() && name.size() <= kLongestName && std::none_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) <= ' ' || c == '/' || c == '\\' || c == '.' || c == 0x7f;
  });
  if (!plain || name == "start")
    refuse(
        "expected a stage name that can be a folder's, of at most {} characters without spaces, dots and slashes, got "
        "'{}'",
        kLongestName, printable(name));
  for (const StagePtr& earlier : recipe.stages)
    if (earlier->name == name) refuse("two stages are named '{}'", name);
}

void read_stage(const toml::table& table, Recipe& recipe) {
  TomlReader reader(table, recipe.source, "a stage");
  StageHead head;
  fields(reader, head);
  reader.with_line([&] {
    add_stage(recipe, head.type, head.name, [&](Stage& stage) {
      stage.line = static_cast<int64_t>(table.source().begin.line);
      stage.fields(reader);
      reader.finish();
    });
  });
}

/// A network of a file takes the recipe's images and knows its classes. `where`: what of the recipe names it.
void check_fits(const Recipe& recipe, const std::string& where, const std::string& path) {
  const ModelFile file = open_model(find_model(path));
  check_finite_weights(file);
  if (!file.data) return;
  const ModelOptions data = model_options(recipe.data, recipe.data_dir);
  const int64_t outputs = data.heads[0].numel(), classes = static_cast<int64_t>(file.data->classes.size());
  const bool fits = file.data->input == data.input && (classes == 0 || classes == outputs);
  const auto what = [](const Shape& input) { return input.rank() == 3 ? "images" : "inputs"; };
  check(fits, "run", "{} for {}, {} {} in {} classes; {} was trained on {}, {} {} in {} classes", where, recipe.data,
        what(data.input), data.input, outputs, path, file.data->name, what(file.data->input), file.data->input,
        classes);
}

/// Networks that stand in files can be read: a mistake is told before anything is trained.
void check_outside_networks(const Recipe& recipe) {
  for (const auto& [path, stage] : outside_networks(recipe)) {
    if (stage == nullptr) {
      check_fits(recipe, recipe.source + ": expected a network", path);
      continue;
    }
    std::vector<std::string> known = {"start"};
    for (const StagePtr& other : recipe.stages) {
      if (other.get() == stage) break;
      known.push_back(other->name);
    }
    check(std::filesystem::exists(path), "run",
          "{}: expected teacher = one of {}, a model file or the folder of a run, got \"{}\"{}",
          place_of(recipe, *stage), fmt::join(known, ", "), path, did_you_mean(path, known));
    check_fits(recipe, place_of(recipe, *stage) + ": expected a teacher", path);
  }
}

void check_layer(const Recipe& recipe, const Stage& stage, const char* whose, const Module& of,
                 const std::string& layer) {
  std::vector<std::string> known;
  for (const auto& [name, module] : of.named_modules())
    if (!name.empty()) known.push_back(name);
  check(layer.empty() || std::find(known.begin(), known.end(), layer) != known.end(), "run",
        "{}: the {} has no layer '{}'{}; its layers: {}", place_of(recipe, stage), whose, layer,
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
  check_outside_networks(recipe);
  check_layers(recipe);
}

std::vector<std::pair<std::string, const Stage*>> outside_networks(const Recipe& recipe) {
  std::vector<std::pair<std::string, const Stage*>> networks;
  if (!recipe.start.empty()) networks.emplace_back(recipe.start, nullptr);
  std::set<std::string> inside = {"start"};
  for (const StagePtr& stage : recipe.stages) {
    if (const TeacherOptions* teacher = stage->teacher(); teacher != nullptr && !inside.contains(teacher->teacher))
      networks.emplace_back(teacher->teacher, stage.get());
    inside.insert(stage->name);
  }
  return networks;
}

std::string place_of(const Recipe& recipe, const Stage& stage) {
  const std::string line = stage.line > 0 ? fmt::format(":{}", stage.line) : "";
  return fmt::format("{}{}: stage '{}'", recipe.source, line, stage.name);
}

bool validates_on_unseen_images(const Recipe& recipe) {
  if (recipe.start.empty()) return true;
  const std::optional<ValidationSplit> split = validation_split_of(find_model(recipe.start));
  if (split && split->data != recipe.data) return true;
  return split && split->share == recipe.validation && split->seed == recipe.validation_seed &&
         split->images == recipe.images;
}

void settle_head(Recipe& recipe, bool validation_given) {
  if (recipe.model.empty() || recipe.data.empty())
    refuse("expected model and data, such as model = \"lenet5\" and data = \"mnist\"");
  recipe.data = data_name(recipe.data);
  if (recipe.start.empty()) model_image(recipe.model);
  choose_validation(recipe, validation_given);
}

Stage& add_stage(Recipe& recipe, const std::string& type, const std::optional<std::string>& name,
                 const std::function<void(Stage&)>& read) {
  const std::vector<std::string> types = stage_registry().names();
  if (!stage_registry().contains(type))
    refuse("expected a stage with type = {}, got {}{}", fmt::join(types, ", "),
           type.empty() ? "none" : "\"" + type + "\"", type.empty() ? "" : did_you_mean(type, types));
  const StagePtr stage = stage_registry().find("recipe", type)();
  stage->type = type;
  stage->name = name.value_or(stage_name(recipe.stages.size(), type));
  check_name(recipe, stage->name);
  read(*stage);
  stage->settle(recipe);
  recipe.stages.push_back(stage);
  return *stage;
}

Recipe parse_recipe(const std::string& text, const std::string& source, const std::string& data) {
  const toml::table table = parse_table(text, source);
  Recipe recipe;
  recipe.source = source;
  TomlReader reader(table, source, "a recipe");
  fields(reader, recipe);
  const std::vector<const toml::table*> stages = reader.tables("stage");
  reader.finish();
  if (!data.empty()) recipe.data = data;
  reader.with_line([&] { settle_head(recipe, table.contains("validation")); });
  if (stages.empty()) reader.fail_here("expected at least one [[stage]]");
  for (const toml::table* stage : stages) read_stage(*stage, recipe);
  return recipe;
}

Recipe load_recipe(const std::string& path, const std::string& data) { return parse_recipe(text_of(path), path, data); }

RecipeOutline outline_of(const std::string& path) {
  const toml::table table = parse_table(text_of(path), path);
  RecipeOutline outline{.start = table["start"].value_or(std::string())};
  if (const toml::array* stages = table["stage"].as_array())
    for (const toml::node& node : *stages) {
      const toml::table* stage = node.as_table();
      if (stage == nullptr) continue;
      const std::string type = (*stage)["type"].value_or(std::string());
      const std::string name = stage_name(outline.stages.size(), type);
      outline.stages.push_back({type, (*stage)["name"].value_or(name)});
    }
  return outline;
}

std::string RecipeOutline::baseline() const {
  for (size_t i = 0; i + 1 < stages.size(); ++i)
    if (stage_registry().contains(stages[i].type) && stage_registry().find("recipe", stages[i].type)()->is_baseline())
      return stages[i].name;
  return "";
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
