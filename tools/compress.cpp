// espalier prune, distill, compact: one stage of a recipe, given on the command line, on a trained network.
#include <filesystem>
#include <fstream>

#include "core/json.h"
#include "core/kernels.h"
#include "pipeline/model_file.h"
#include "pipeline/run_places.h"
#include "pipeline/toml_text.h"
#include "pruning/structure/compact.h"
#include "tools/commands.h"
#include "tools/recipe_command.h"
#include "training/checkpoint.h"

namespace espalier::tools {

namespace {

/// One option of a command and the recipe's key that it sets.
struct Key {
  const char* option;
  const char* key;
  enum Kind { text, number, whole, list, flag } kind;
  const char* type;
  const char* description;
};

constexpr Key kPruneKeys[] = {
    {"--sparsity,-s", "sparsity", Key::number, "X", "Share of the weights that go: 0.9"},
    {"--ratio", "ratio", Key::number, "X", "Instead of it: 10, a tenth of the weights stays"},
    {"--macs", "macs", Key::number, "X", "Instead of it: 0.5, half of the MACs that there are,\nor a number of MACs"},
    {"--parameters", "parameters", Key::number, "X", "The same with parameters"},
    {"--bytes", "bytes", Key::number, "X", "The same with bytes of weights and masks"},
    {"--milliseconds", "milliseconds", Key::number, "X", "Time of one image on this machine, compacted"},
    {"--rank-by", "rank_by", Key::text, "NAME",
     "For those: score-per-cost (default; of two units of one\nscore the dearer goes first) or score"},
    {"--pattern,-p", "pattern", Key::text, "NAME",
     "element (default), block 4x1, 2 of 4, kernel,\nchannel 0, or channels: coupled channels of all layers"},
    {"--criterion,-c", "criterion", Key::text, "NAME", "What a weight is worth (default: magnitude)"},
    {"--scope", "scope", Key::text, "NAME", "global, layer or erk (default: global; of channels layer)"},
    {"--curve", "curve", Key::text, "NAME", "cubic (default), linear, geometric or one-shot"},
    {"--end", "end", Key::number, "X", "Share of the training in which the sparsity rises\n(default: 0.7)"},
    {"--protect", "protect", Key::list, "NAME,...", "Layers that lose nothing; 'conv*' means several"},
    {"--min-units", "min_units", Key::whole, "N", "What every layer keeps (default: 1)"},
    {"--round-to", "round_to", Key::whole, "N", "Keep multiples of N units (default: 1)"},
    {"--update", "update", Key::flag, "",
     "With woodfisher and --epochs 0: the weights that remain\nmake up for those that go"},
    {"--teacher", "teacher", Key::text, "MODEL", "Learn from this network too; start: from the one\nthat is pruned"},
};
constexpr Key kDistillKeys[] = {
    {"--student", "model", Key::text, "NAME", "The network that learns: lenet300, mlp:800,800"},
    {"--teacher", "teacher", Key::text, "MODEL", "Learn from this network in place of the first one"},
};
constexpr Key kTrainKeys[] = {
    {"--epochs,-e", "epochs", Key::whole, "N", "Passes over the training images; 0: no training"},
    {"--batch-size,-b", "batch_size", Key::whole, "N", "Images in one update"},
    {"--optimizer", "optimizer", Key::text, "NAME", "sgd, adam, adamw or rmsprop"},
    {"--lr", "lr", Key::number, "X", "Learning rate"},
    {"--weight-decay", "weight_decay", Key::number, "X", "Not applied to biases and normalisation"},
    {"--schedule", "schedule", Key::text, "TEXT", "constant, cosine, onecycle, ..."},
    {"--augment", "augment", Key::text, "TEXT", "none, or crop, shift, reflect, flip, affine,\ncutout joined by '-'"},
    {"--temperature", "temperature", Key::number, "X", "Of the teacher's and the student's softmax"},
    {"--alpha", "alpha", Key::number, "X", "Weight of the teacher, 0 to 1"},
};

/// What the line said: the keys' values as TOML.
struct CompressFlags {
  std::string type;
  std::string model, out, data, data_dir, device = "cpu";
  std::map<std::string, std::string> texts;
  std::map<std::string, std::vector<std::string>> lists;
  std::map<std::string, double> numbers;
  std::map<std::string, int64_t> wholes;
  std::map<std::string, bool> flags;
  std::optional<double> validation;
  std::optional<uint64_t> seed;
  std::optional<int> threads;
  bool resume = false, overwrite = false, quiet = false;

  /// Whether the line says nothing of what is to be done.
  bool is_bare() const {
    return model.empty() && data.empty() && texts.empty() && lists.empty() && numbers.empty() && wholes.empty() &&
           flags.empty() && !validation && !seed;
  }
};

template <size_t N>
void add_keys(CLI::App& app, const Key (&keys)[N], const char* group, CompressFlags& options) {
  for (const Key& key : keys) {
    CLI::Option* option = nullptr;
    const std::string name = key.key;
    if (key.kind == Key::text)
      option = app.add_option_function<std::string>(
          key.option, [&options, name](const std::string& value) { options.texts[name] = value; }, key.description);
    else if (key.kind == Key::list)
      option =
          app.add_option_function<std::vector<std::string>>(
                 key.option, [&options, name](const std::vector<std::string>& values) { options.lists[name] = values; },
                 key.description)
              ->delimiter(',')
              ->allow_extra_args(false);
    else if (key.kind == Key::number)
      option = app.add_option_function<double>(
          key.option, [&options, name](double value) { options.numbers[name] = value; }, key.description);
    else if (key.kind == Key::flag)
      option = app.add_flag_callback(
          key.option, [&options, name] { options.flags[name] = true; }, key.description);
    else
      option = app.add_option_function<int64_t>(
          key.option, [&options, name](int64_t value) { options.wholes[name] = value; }, key.description);
    option->group(group);
    if (key.kind != Key::flag) option->type_name(key.type);
  }
}

/// A recipe of one stage. Errors name the command line as their source.
Recipe recipe_of(const CompressFlags& options, const std::string& file, const ModelFile& model) {
  std::string name = "network";
  if (const auto settings = model.metadata.find("settings"); settings != model.metadata.end())
    name = parse_json_object_or_empty(settings->second).value("model", name);
  std::string data = options.data;
  if (data.empty() && model.data) data = model.data->name;
  check(!data.empty(), options.type.c_str(), "{} doesn't say what data it was trained on; add --data NAME", file);
  std::string text =
      fmt::format("title = {}\nmodel = {}\ndata = {}\nstart = {}\nseed = {}\n", quote(options.type + " " + file),
                  quote(name), quote(data), quote(file), options.seed.value_or(0));
  if (options.validation) text += fmt::format("validation = {}\n", toml_number(*options.validation));
  text += fmt::format("[[stage]]\ntype = {}\n", quote(options.type));
  for (const auto& [key, value] : options.texts) text += fmt::format("{} = {}\n", key, quote(value));
  for (const auto& [key, values] : options.lists) text += fmt::format("{} = {}\n", key, quote(values));
  for (const auto& [key, value] : options.numbers) text += fmt::format("{} = {}\n", key, toml_number(value));
  for (const auto& [key, value] : options.wholes) text += fmt::format("{} = {}\n", key, value);
  for (const auto& [key, value] : options.flags) text += fmt::format("{} = {}\n", key, value);
  Recipe recipe = parse_recipe(text, "command line");
  recipe.data_dir = options.data_dir;
  return recipe;
}

int run_stage(const CompressFlags& options, Output& output) {
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

std::shared_ptr<CompressFlags> add_stage_command(CLI::App* app, const char* type, Commands& commands) {
  auto options = std::make_shared<CompressFlags>();
  options->type = type;
  add_model(*app, options->model);
  app->add_option("--data,-d", options->data, "Data set (default: the one it was trained on)")->type_name("NAME");
  app->add_option("--out,-o", options->out,
                  fmt::format("Folder of the result (default: {0}, {0}-2, ...\nbeside the model)", type))
      ->type_name("DIR");
  app->add_option(
         "--validation", options->validation,
         "Share of the training images that choose the epoch\n(default: those that the network was not trained on)")
      ->type_name("X");
  app->add_option("--seed", options->seed, "Of order and augmentation (default: 0)")->type_name("N")->check(is_seed());
  add_data_dir(*app, options->data_dir);
  app->add_flag("--resume", options->resume, "Go on with the run in --out; needs nothing else");
  app->add_flag("--overwrite", options->overwrite, "Start anew in a folder that holds a run");
  app->add_flag("--quiet,-q", options->quiet, std::string("Only the result"));
  add_threads_and_device(*app, options->threads, options->device);
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run_stage(*options, output); }});
  return options;
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
  const auto options = add_stage_command(app, "prune", commands);
  add_keys(*app, kPruneKeys, "Pruning", *options);
  add_keys(*app, kTrainKeys, "Training", *options);
}

void add_distill(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "distill", "Train a new, smaller network to answer as a trained one does",
                              {"espalier distill runs/lenet5-mnist --student lenet300 --epochs 15",
                               "espalier distill runs/teacher --student mlp:800,800 --temperature 20 --alpha 0.9"});
  const auto options = add_stage_command(app, "distill", commands);
  add_keys(*app, kDistillKeys, "Distillation", *options);
  add_keys(*app, kTrainKeys, "Training", *options);
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
