// espalier prune, distill, compact: one stage of a recipe, given on the command line, on a trained network.
#include <filesystem>
#include <fstream>

#include "core/json.h"
#include "core/kernels.h"
#include "pipeline/model_file.h"
#include "pipeline/run_places.h"
#include "pipeline/training_stage.h"
#include "pruning/structure/compact.h"
#include "tools/commands.h"
#include "tools/field_flags.h"
#include "tools/recipe_command.h"
#include "training/checkpoint.h"
#include "training/interrupt.h"

namespace espalier::tools {

namespace {

struct CompressFlags {
  std::string type;
  std::string model, out, data_dir, device = "cpu";
  FieldFlags head, stage;  ///< what the line said of the recipe and of its stage
  std::optional<int> threads;
  bool resume = false, overwrite = false, quiet = false;

  /// Whether the line says nothing of what is to be done.
  bool is_bare() const { return model.empty() && head.is_bare() && stage.is_bare(); }
};

/// A recipe of one stage.
Recipe recipe_of(const CompressFlags& options, const std::string& file, const ModelFile& model) {
  const char* command = options.type.c_str();
  Recipe recipe{.source = "espalier " + options.type,
                .title = options.type + " " + file,
                .model = "network",
                .data = model.data ? model.data->name : "",
                .data_dir = options.data_dir,
                .start = file,
                .stages = {}};
  if (const auto settings = model.metadata.find("settings"); settings != model.metadata.end())
    recipe.model = parse_json_object_or_empty(settings->second).value("model", recipe.model);
  options.head.read(command, [&](FieldVisitor& f) { fields(f, recipe); });
  check(!recipe.data.empty(), command, "{} doesn't say what data it was trained on; add --data NAME", file);
  try {
    settle_head(recipe, options.head.has("validation"));
    add_stage(recipe, options.type, std::nullopt,
              [&](Stage& stage) { options.stage.read(command, [&](FieldVisitor& f) { stage.fields(f); }); });
  } catch (const ArgumentError& error) {
    const std::string message = error.what(), own = "[stage] ";
    if (!message.starts_with(own)) throw;
    fail(command, "{}; espalier {} --help lists the options", message.substr(own.size()), options.type);
  }
  return recipe;
}

/// What is wrong with single flags is told before any file is looked for.
void check_flags(const CompressFlags& options) {
  Recipe recipe;
  options.head.read(options.type.c_str(), [&](FieldVisitor& f) { fields(f, recipe); });
  const StagePtr stage = stage_registry().find("stage", options.type)();
  options.stage.read(options.type.c_str(), [&](FieldVisitor& f) { stage->fields(f); });
}

int run_stage(const CompressFlags& options, Output& output) {
  const InterruptGuard guard;  // from here on a signal ends it in order, with its JSON
  output.set_quiet(options.quiet);
  check(!options.resume || !options.overwrite, options.type.c_str(), "expected --resume or --overwrite, got both");
  use_threads(options.threads);
  kernels(Device::parse(options.device));
  RunOptions pipeline{.command = options.type,
                      .out = options.out,
                      .resume = options.resume,
                      .overwrite = options.overwrite,
                      .device = Device::parse(options.device)};
  if (options.resume && options.is_bare()) {
    const RunFolder folder = open_run(options.type.c_str(), options.out, kRecipeIdentity);
    Recipe recipe = load_recipe(folder.file(kRecipeIdentity));
    recipe.data_dir = options.data_dir;
    return show_recipe_run(recipe, pipeline, output);
  }
  check_flags(options);
  const std::string file = find_model(options.model);
  if (pipeline.out.empty()) {
    const std::string parent = std::filesystem::path(file).parent_path().string();
    pipeline.out = (parent.empty() ? "." : parent) + "/" + options.type;
    pipeline.make_new = !options.resume && !options.overwrite;
  }
  if (options.resume) open_run(options.type.c_str(), pipeline.out, kRecipeIdentity);
  const Recipe recipe = recipe_of(options, file, open_model(file));
  return show_recipe_run(recipe, pipeline, output);
}

/// A command that runs one stage: flags for all of its options, those of a training in a group of their own.
void add_stage_command(CLI::App* app, const char* type, FieldFlags::Style own, Commands& commands) {
  auto options = std::make_shared<CompressFlags>();
  options->type = type;
  add_model(*app, options->model);
  Recipe untouched;
  options->head.add(
      *app, [&](FieldVisitor& f) { fields(f, untouched); },
      {.flags = {{"data", "--data,-d"}},
       .help = {{"data", "Data set (default: the one it was trained on)"},
                {"validation",
                 "Share of the training images that choose the epoch (default: those that the network was not trained "
                 "on)"}},
       .left_out = {"title", "model", "start"}});
  app->add_option("--out,-o", options->out,
                  fmt::format("Folder of the result (default: {0}, {0}-2, ...\nbeside the model)", type))
      ->type_name("DIR");
  add_data_dir(*app, options->data_dir);
  app->add_flag("--resume", options->resume, "Go on with the run in --out; needs nothing else");
  app->add_flag("--overwrite", options->overwrite, "Start anew in a folder that holds a run");
  app->add_flag("--quiet,-q", options->quiet, std::string("Only the result"));
  add_threads_and_device(*app, options->threads, options->device);
  add_json_flag(*app);

  const StagePtr stage = stage_registry().find(type, type)();
  const auto all = [&](FieldVisitor& f) { stage->fields(f); };
  FieldFlags::Style training{.group = "Training",
                             .flags = {{"epochs", "--epochs,-e"}, {"batch_size", "--batch-size,-b"}}};
  for (const FieldDescription& option : describe_training()) own.left_out.insert(option.field.name);
  for (const FieldDescription& option : describe_fields(all))
    if (!own.left_out.contains(option.field.name)) training.left_out.insert(option.field.name);
  options->stage.add(*app, all, own);
  options->stage.add(*app, all, training);
  commands.push_back({app, [options](Output& output) { return run_stage(*options, output); }});
}

struct CompactOptionsOnLine {
  std::string model, out;
  double tolerance = 1e-5;
  bool overwrite = false;
};

int run_compact(const CompactOptionsOnLine& options, Output& output) {
  const std::string file = find_model(options.model);
  const std::string out =
      options.out.empty() ? (std::filesystem::path(file).parent_path() / "compact.safetensors").string() : options.out;
  check_replaces_nothing("compact", out, file, options.overwrite);
  if (const std::string warning = training_warning(file); !warning.empty()) output.result("{}", warning);
  ModelFile model = open_model(file);
  check_finite_weights(model);
  check(model.data.has_value(), "compact", "{} doesn't say what images it takes: it was not written by a training",
        file);
  const Tensor example = model.data->example();
  const auto size = [](const std::string& path) { return static_cast<int64_t>(std::filesystem::file_size(path)); };
  std::vector<std::pair<std::string, NetworkSize>> rows = {
      {"before", measure_size(*model.module, example, size(file))}};
  const CompactionReport report =
      compact(*model.module, example, {.tolerance = options.tolerance, .earlier = index_map_of(model)});
  model.metadata["compaction"] = report.to_json().dump();
  for (const char* stale : {"training", "metrics"}) model.metadata.erase(stale);
  save_checkpoint(out, *model.module, nullptr, model.metadata);
  rows.emplace_back("after", measure_size(*model.module, example, size(out)));
  output.say("{}", report.to_table());
  std::vector<std::vector<std::string>> cells = {{"", "parameters", "MACs", "file"}};
  for (const auto& [name, r] : rows)
    cells.push_back({name, grouped(r.parameters), grouped(r.macs), bytes_text(r.bytes)});
  output.result("{}", table(cells, {1, 2, 3}));
  if (report.parameters_after == report.parameters_before && report.kept_whole.empty())
    output.result("Nothing to take out: no channel or hidden unit is masked as a whole");
  output.result("Saved {}", out);
  output.finish({{"command", "compact"},
                 {"model", file},
                 {"out", out},
                 {"before", to_json(rows[0].second)},
                 {"after", to_json(rows[1].second)},
                 {"kept", report.to_json()}});
  return kSuccess;
}

}  // namespace

void add_prune(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "prune", "Remove the weights or channels that matter least, while training on",
                              {"espalier prune runs/lenet5-mnist --sparsity 0.95 --epochs 5",
                               "espalier prune runs/lenet5-mnist --ratio 100 --epochs 20 --teacher start",
                               "espalier prune runs/resnet20-cifar10 --pattern channels --sparsity 0.4 --epochs 10",
                               "espalier prune runs/lenet300-mnist --sparsity 0.5 --pattern \"2 of 4\" --epochs 0"});
  add_stage_command(
      app, "prune",
      {.group = "Pruning",
       .flags = {{"sparsity", "--sparsity,-s"}, {"pattern", "--pattern,-p"}, {"criterion", "--criterion,-c"}}},
      commands);
}

void add_distill(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "distill", "Train a new, smaller network to answer as a trained one does",
                              {"espalier distill runs/lenet5-mnist --student lenet300 --epochs 15",
                               "espalier distill runs/teacher --student mlp:800,800 --temperature 20 --alpha 0.9"});
  add_stage_command(app, "distill",
                    {.group = "Distillation",
                     .flags = {{"model", "--student"}},
                     .help = {{"model", "The network that learns: lenet300, mlp:800,800"}}},
                    commands);
}

void add_compact(CLI::App& parent, Commands& commands) {
  CLI::App* app =
      add_command(parent, "compact", "Take masked channels out of a network: the same outputs, smaller layers",
                  {"espalier compact runs/lenet5-mnist/prune                   writes compact.safetensors there",
                   "espalier compact pruned.safetensors --out small.safetensors"});
  auto options = std::make_shared<CompactOptionsOnLine>();
  add_model(*app, options->model);
  app->add_option("--out,-o", options->out, "The compacted network (default: compact.safetensors\nbeside the model)")
      ->type_name("FILE");
  app->add_flag("--overwrite", options->overwrite, "Replace the file that is there");
  app->add_option("--tolerance", options->tolerance,
                  "Largest relative difference of the outputs;\nwhat would differ by more stays (default: 1e-5)")
      ->type_name("X");
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run_compact(*options, output); }});
}

}  // namespace espalier::tools
