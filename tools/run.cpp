// espalier run: executes a recipe.
#include <algorithm>
#include <filesystem>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "core/kernels.h"
#include "pipeline/run_places.h"
#include "pipeline/training_stage.h"
#include "tools/commands.h"
#include "tools/field_flags.h"
#include "tools/recipe_command.h"
#include "training/interrupt.h"

namespace espalier::tools {

namespace {

struct RunFlags {
  std::string recipe, out, data, data_dir, device = "cpu";
  FieldFlags in_place;  ///< of what the recipe says
  std::optional<int> threads;
  bool resume = false, overwrite = false, quiet = false, check = false, keys = false;
};

nlohmann::json to_json(const FieldDescription& option) {
  std::string values = option.choices.empty() ? option.type : fmt::format("{}", fmt::join(option.choices, ", "));
  if (const std::string range = option.field.range.to_string(); !range.empty()) values += " " + range;
  return {{"key", option.field.name}, {"values", values}, {"default", option.otherwise}, {"help", option.field.help}};
}

/// What recipes may say: the keys of the file, of every stage, and those that all stages that train have.
int show_keys(Output& output) {
  const auto show = [&](const std::string& title, const std::vector<FieldDescription>& options) {
    output.result("{}{}", title, options.empty() ? ": no keys of its own" : "");
    nlohmann::json list = nlohmann::json::array();
    for (const FieldDescription& option : options) {
      list.push_back(to_json(option));
      const std::string values = list.back()["values"], otherwise = list.back()["default"];
      output.result("  {} ({}{})\n      {}", option.field.name, values, otherwise.empty() ? "" : "; " + otherwise,
                    option.field.help);
    }
    output.result("");
    return list;
  };
  const std::vector<FieldDescription> common = describe_training();
  const auto is_common = [&](const FieldDescription& option) {
    return std::any_of(common.begin(), common.end(),
                       [&](const FieldDescription& other) { return other.field.name == option.field.name; });
  };
  Recipe recipe;
  nlohmann::json keys = {{"recipe", show("A recipe", describe_fields([&](FieldVisitor& f) { fields(f, recipe); }))},
                         {"training", show("Stages that train", common)}};
  for (const std::string& type : stage_registry().names()) {
    std::vector<FieldDescription> own = describe_stage(type);
    const bool trains = std::any_of(own.begin(), own.end(), [](const auto& o) { return o.field.name == "epochs"; });
    if (trains) std::erase_if(own, is_common);
    keys["stages"].push_back({{"type", type}, {"trains", trains}, {"keys", show("Stage " + type, own)}});
  }
  output.finish({{"command", "run"}, {"keys", keys}});
  return kSuccess;
}

int run(const RunFlags& options, Output& output) {
  if (options.keys) return show_keys(output);
  const InterruptGuard guard;  // from here on a signal ends it in order, with its JSON
  output.set_quiet(options.quiet);
  check(!options.resume || !options.overwrite, "run", "expected --resume or --overwrite, got both");
  use_threads(options.threads);
  kernels(Device::parse(options.device));  // says now what is missing
  check(!options.recipe.empty() || (options.resume && !options.out.empty()), "run",
        "expected a recipe, a TOML file; or --resume --out DIR, which goes on with the run in DIR");
  std::string file = options.recipe;
  if (file.empty()) file = open_run("run", options.out, kRecipeIdentity).file(kRecipeIdentity);
  Recipe recipe = load_recipe(file, options.data);
  recipe.data_dir = options.data_dir;
  options.in_place.read("run", [&](FieldVisitor& f) { fields(f, recipe); });
  if (options.check) {
    check_recipe(recipe);
    output.result("{}", to_toml(recipe));
    output.finish({{"command", "run"}, {"recipe", to_toml(recipe)}});
    return kSuccess;
  }
  const std::string folder =
      options.out.empty() ? "runs/" + std::filesystem::path(options.recipe).stem().string() : options.out;
  return show_recipe_run(recipe,
                         {.out = folder,
                          .resume = options.resume,
                          .overwrite = options.overwrite,
                          .device = Device::parse(options.device)},
                         output);
}

}  // namespace

void add_run(CLI::App& parent, Commands& commands) {
  CLI::App* app =
      add_command(parent, "run", "Execute a recipe: train, prune, distil, compact, measure",
                  {"espalier run recipes/digits.toml                            seconds, nothing to download",
                   "espalier run recipes/lenet5-unstructured.toml --seeds 1     one seed instead of three",
                   "espalier run --resume --out runs/lenet5-channels            goes on where Ctrl-C stopped it",
                   "espalier run my.toml --check                                shows it with all defaults",
                   "espalier run --keys                                         every key that a recipe may have"});
  auto options = std::make_shared<RunFlags>();
  app->add_option("recipe", options->recipe, "The recipe, a TOML file")->type_name("RECIPE");
  app->add_option("--out,-o", options->out, "Folder of the run (default: runs/RECIPE)")->type_name("DIR");
  app->add_option("--data,-d", options->data, "Data set, instead of the recipe's")->type_name("NAME");
  Recipe untouched;
  options->in_place.add(
      *app, [&](FieldVisitor& f) { fields(f, untouched); },
      {.help = {{"seed", "First seed, instead of the recipe's"}, {"seeds", "Number of seeds, instead of the recipe's"}},
       .left_out = {"title", "model", "data", "validation", "validation_seed", "start"}});
  add_data_dir(*app, options->data_dir);
  app->add_flag("--resume", options->resume, "Go on with the run in --out; the same result as\nif it had not stopped");
  app->add_flag("--overwrite", options->overwrite, "Start anew in a folder that holds a run");
  app->add_flag("--check", options->check,
                std::string("Read the recipe and show it with all its defaults,\nrun nothing"));
  app->add_flag("--keys", options->keys, std::string("Show every stage and key that recipes may have"));
  app->add_flag("--quiet,-q", options->quiet, std::string("Only the result"));
  add_threads_and_device(*app, options->threads, options->device);
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
