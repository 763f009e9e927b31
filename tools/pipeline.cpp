#include "tools/pipeline.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <filesystem>
#include <map>
#include <set>

#include "core/json.h"
#include "core/threads.h"
#include "layers/models/zoo.h"
#include "pruning/schedules/search_folder.h"
#include "tools/commands.h"
#include "tools/diff.h"
#include "tools/model_file.h"
#include "tools/run_places.h"
#include "tools/statistics.h"
#include "training/interrupt.h"

namespace espalier::tools {

namespace fs = std::filesystem;

namespace {

/// Removes what older runs left, of all their seeds, before anything of the new one is written: their stages would be
/// taken for this one's. Nothing else in the folder is touched.
void forget_older_run(const Recipe& recipe, const RunFolder& folder) {
  for (const RunFolder& place : places_in(folder)) {
    place.forget_training();
    place.forget({kResultFile, kTrainIdentity});
    if (place.path() != folder.path()) place.forget({kRecipeIdentity});  // the folder's own is replaced in one step
    for (const Stage& stage : recipe.stages) {
      if (!place.has(stage.name)) continue;
      const RunFolder of_stage(place.file(stage.name));
      of_stage.forget_training();
      of_stage.forget({"budget.json", "compaction.json", "removals.safetensors", kRoundsFolder});
    }
  }
}

/// A network of a file takes the recipe's images and knows its classes.
void check_fits(const Recipe& recipe, const std::string& whose, const std::string& path) {
  const ModelFile file = open_model(find_model(path));
  check_finite_weights(file);
  if (!file.data) return;
  const DatasetInfo& data = dataset_info(recipe.data);
  const Shape image{data.channels, data.height, data.width};
  const auto classes = static_cast<int64_t>(file.data->classes.size());
  check(file.data->image == image && classes == data.num_classes(), "run",
        "{}: expected {} for {}, images {} in {} classes; {} was trained on {}, images {} in {} classes", recipe.source,
        whose, recipe.data, image, data.num_classes(), path, file.data->name, file.data->image, classes);
}

/// Whether a stage's teacher stands in a file of its own: it is neither the network before the stage nor that of one.
bool has_own_teacher(const Recipe& recipe, const Stage& stage) {
  const std::string& name = stage.distill->teacher;
  return name != "start" && std::none_of(recipe.stages.begin(), recipe.stages.end(),
                                         [&](const Stage& other) { return other.name == name; });
}

/// Teachers that stand in files can be read: a mistake is told before anything is trained.
void check_teachers(const Recipe& recipe) {
  for (auto stage = recipe.stages.begin(); stage != recipe.stages.end(); ++stage) {
    if (!stage->distill || stage->distill->teacher == "start") continue;
    const std::string& name = stage->distill->teacher;
    std::vector<std::string> earlier;
    for (auto other = recipe.stages.begin(); other != stage; ++other) earlier.push_back(other->name);
    if (std::find(earlier.begin(), earlier.end(), name) != earlier.end()) continue;
    earlier.insert(earlier.begin(), "start");
    check(fs::exists(name), "run",
          "{}: stage '{}': expected teacher = one of {}, a model file or the folder of a run, got \"{}\"{}",
          recipe.source, stage->name, fmt::join(earlier, ", "), name, did_you_mean(name, earlier));
    check_fits(recipe, "a teacher", name);
  }
}

/// The layers that terms compare are layers of their networks, as far as those are known: compaction and distillation
/// keep or replace them as a whole.
void check_layers(const Recipe& recipe) {
  if (std::none_of(recipe.stages.begin(), recipe.stages.end(),
                   [](const Stage& stage) { return stage.distill && !stage.distill->terms.empty(); }))
    return;
  const DatasetInfo& data = dataset_info(recipe.data);
  const auto fresh = [&](const std::string& name) {
    return make_model(
        name,
        {.classes = data.num_classes(), .in_channels = data.channels, .height = data.height, .width = data.width});
  };
  ModulePtr network = recipe.start.empty() ? fresh(recipe.model) : open_model(find_model(recipe.start)).module;
  std::map<std::string, ModulePtr> after;  // of each stage
  for (const Stage& stage : recipe.stages) {
    const ModulePtr student = stage.model.empty() ? network : fresh(stage.model);
    if (stage.distill && !stage.distill->terms.empty()) {
      const std::string& name = stage.distill->teacher;
      const ModulePtr teacher = name == "start"        ? network
                                : after.contains(name) ? after.at(name)
                                                       : open_model(find_model(name)).module;
      const auto check_layer = [&](const char* whose, const Module& of, const std::string& layer) {
        std::vector<std::string> known;
        for (const auto& [known_name, module] : of.named_modules())
          if (!known_name.empty()) known.push_back(known_name);
        check(layer.empty() || std::find(known.begin(), known.end(), layer) != known.end(), "run",
              "{}: stage '{}': the {} has no layer '{}'{}; its layers: {}", recipe.source, stage.name, whose, layer,
              did_you_mean(layer, known), fmt::join(known, ", "));
      };
      for (const TermSettings& term : stage.distill->terms) {
        check_layer("student", *student, term.student);
        check_layer("teacher", *teacher, term.teacher);
      }
    }
    after[stage.name] = student;
    if (stage.type != "teacher") network = student;
  }
}

/// Takes recipe.toml back when a run fails before its first epoch or stage is saved: the folder holds no run then, and
/// goes if nothing else is in it.
class RunMark {
 public:
  RunMark(const Recipe& recipe, const RunFolder& out, bool armed) : recipe_(recipe), out_(out), armed_(armed) {}
  ~RunMark() {
    if (!armed_ || std::uncaught_exceptions() == 0) return;
    try {
      const RunFolder seed(seed_folder(out_.path(), recipe_.seeds, recipe_.seed));
      const RunFolder stage(seed.file(recipe_.stages.front().name));
      if (stage.has_begun() || stage.has(fmt::format("{}/{}", kRoundsFolder, SearchFolder::kList))) return;
      out_.forget({kRecipeIdentity});
      for (const RunFolder* folder : {&stage, &seed, &out_}) folder->remove_if_empty();
    } catch (const Error&) {  // the one that is under way says more
    }
  }
  RunMark(const RunMark&) = delete;
  RunMark& operator=(const RunMark&) = delete;

 private:
  const Recipe& recipe_;
  const RunFolder& out_;
  bool armed_;
};

/// Which images choose the epoch of a network that was trained before.
void say_validation(const Recipe& recipe, const Output& output) {
  if (recipe.start.empty()) return;
  const std::optional<ValidationSplit> split = validation_split_of(find_model(recipe.start));
  if (split && split->data != recipe.data) return;
  if (recipe.validation > 0 && validates_on_unseen_images(recipe))
    output.say("  validation on the {:g} % of the training images that {} was not trained on\n", 100 * split->share,
               recipe.start);
  else if (recipe.validation == 0)
    output.say("  no validation: {}; the last epoch counts\n",
               split && split->share > 0 ? "none was asked for"
               : split                   ? fmt::format("{} was trained on all training images", recipe.start)
                                         : fmt::format("{} doesn't say which images it was trained on", recipe.start));
  else
    output.say("  warning: {}; accuracy on validation images says little, and chooses the epoch\n",
               split ? fmt::format("{} was trained on images of the validation set", recipe.start)
                     : fmt::format("{} may have been trained on images of the validation set", recipe.start));
}

/// Networks of files that somebody still trains: the one that the run starts from, teachers.
void warn_of_sources(const Recipe& recipe, const Output& output) {
  std::set<std::string> files;
  if (!recipe.start.empty()) files.insert(find_model(recipe.start));
  for (const Stage& stage : recipe.stages)
    if (stage.distill && has_own_teacher(recipe, stage)) files.insert(find_model(stage.distill->teacher));
  for (const std::string& file : files) warn_of_training(file, output);
}

nlohmann::json to_json(const AnswerChanges& changes) {
  return {{"broken", changes.broken.size()},
          {"repaired", changes.repaired.size()},
          {"moved", changes.moved.size()},
          {"p", changes.p}};
}

nlohmann::json to_json(const SeedResult& r) {
  return {{"seed", r.seed},
          {"folder", r.folder},
          {"before", r.before ? to_json(*r.before) : nlohmann::json()},
          {"after", to_json(r.after)},
          {"changes", r.changes ? to_json(*r.changes) : nlohmann::json()},
          {"validation_accuracy", json_or_null(r.validation_accuracy)},
          {"seconds", r.seconds}};
}

void say_results(const Output& output, const std::vector<SeedResult>& results) {
  std::vector<ReportRow> rows;
  for (const SeedResult& r : results) {
    const std::string name = results.size() > 1 ? fmt::format("seed {} ", r.seed) : "";
    if (r.before) rows.push_back({name + "before", {*r.before}});
    rows.push_back({name + "after", {r.after}});
  }
  output.result("\n{}", report_table(rows));
  if (results.size() > 1) {
    const auto after = over(results, [](const SeedResult& r) { return 100 - 100 * r.after.accuracy; });
    std::string text = fmt::format("test error {:.2f} +- {:.2f} %", after.mean, *after.deviation);
    if (results.front().before) {
      const auto before = over(results, [](const SeedResult& r) { return 100 - 100 * r.before->accuracy; });
      text += fmt::format(", before {:.2f} +- {:.2f} %", before.mean, *before.deviation);
    }
    output.result("{} (mean and standard deviation of {} seeds)", text, results.size());
  }
  for (const SeedResult& r : results) {
    if (!r.changes) continue;
    if (results.size() > 1) output.result("seed {}:", r.seed);
    output.result("{}\n  espalier diff {} {}", changes_line(*r.changes, r.class_names), r.before_file, r.folder);
  }
}

}  // namespace

std::string report_table(const std::vector<ReportRow>& rows) {
  std::vector<std::vector<std::string>> cells = {
      {"network", "accuracy", "error", "macro F1", "sparsity", "parameters", "ratio", "MACs", "ratio", "file"}};
  // The reference for ratios is the first row: a compacted network no longer knows what it was.
  const std::vector<ModelReport>& first = rows.front().second;
  for (const auto& [name, reports] : rows) {
    const auto mean = [](const std::vector<ModelReport>& of, auto value) {
      return over(of, [&](const ModelReport& r) { return static_cast<double>(value(r)); }).mean;
    };
    const auto figure = [&, &of = reports](int digits, const char* unit, auto value) {
      const MeanAndDeviation f = over(of, value);
      return of.size() == 1 ? fmt::format("{:.{}f}{}", f.mean, digits, unit)
                            : fmt::format("{:.{}f} +- {:.{}f}{}", f.mean, digits, *f.deviation, digits, unit);
    };
    const auto size = [&, &of = reports](auto value) { return std::llround(mean(of, value)); };
    const auto ratio = [&, &of = reports](auto all, auto left) {
      return fmt::format("{:.1f}x", mean(first, all) / std::max(mean(of, left), 1.0));
    };
    const auto remaining_parameters = [](const ModelReport& r) { return r.remaining_parameters; };
    const auto remaining_macs = [](const ModelReport& r) { return r.remaining_macs; };
    cells.push_back({name, figure(2, " %", [](const ModelReport& r) { return 100 * r.accuracy; }),
                     figure(2, " %", [](const ModelReport& r) { return 100 - 100 * r.accuracy; }),
                     figure(4, "", [](const ModelReport& r) { return r.macro_f1; }),
                     figure(2, " %", [](const ModelReport& r) { return 100 * r.sparsity; }),
                     grouped(size(remaining_parameters)),
                     ratio([](const ModelReport& r) { return r.parameters; }, remaining_parameters),
                     grouped(size(remaining_macs)), ratio([](const ModelReport& r) { return r.macs; }, remaining_macs),
                     bytes_text(size([](const ModelReport& r) { return r.bytes; }))});
  }
  return table(cells, {1, 2, 3, 4, 5, 6, 7, 8, 9});
}

void check_recipe(const Recipe& recipe) {
  if (!recipe.start.empty()) check_fits(recipe, "a network", recipe.start);
  check_teachers(recipe);
  check_layers(recipe);
}

int run_recipe(const Recipe& recipe, const PipelineOptions& options, Output& output) {
  RunFolder folder;  // taken when nothing is in the way of a run any more; to resume one, at once
  if (options.resume) {
    folder = open_run(options.command.c_str(), options.out, kRecipeIdentity);
    const std::string differing =
        differences(identity_of(load_recipe(folder.file(kRecipeIdentity))), identity_of(recipe));
    check(differing.empty(), options.command,
          "{} was started with another recipe; choose another --out, or --overwrite:{}", options.out, differing);
  } else if (!options.overwrite && !options.make_new) {
    check_holds_no_run(options.command.c_str(), options.out);
  }
  check_recipe(recipe);
  const InterruptGuard guard;
  const Splits data = load_dataset(recipe.data, {.data_dir = recipe.data_dir});
  if (!options.resume) rehearse(recipe, data, options, output);
  if (!options.resume) {
    folder = options.make_new ? RunFolder::make_new(options.out) : RunFolder(options.out);
    if (!options.overwrite) check_holds_no_run(options.command.c_str(), folder.path());
    if (!recipe.start.empty())
      check_replaces_nothing(options.command.c_str(), folder.file(kModelFile), find_model(recipe.start), true);
    forget_older_run(recipe, folder);
    write_file_atomically(folder.file(kRecipeIdentity), to_toml(recipe));
  }

  const RunMark mark(recipe, folder, !options.resume);
  output.say("{}", recipe.title.empty() ? recipe.source : recipe.title);
  output.say("  {} on {}, {} stage{}, {} seed{}, {} thread{}, in {}\n", recipe.model, recipe.data, recipe.stages.size(),
             recipe.stages.size() == 1 ? "" : "s", recipe.seeds, recipe.seeds == 1 ? "" : "s", num_threads(),
             num_threads() == 1 ? "" : "s", folder.path());
  warn_of_sources(recipe, output);
  say_validation(recipe, output);
  std::vector<SeedResult> results;
  std::vector<std::string> written;
  for (int64_t i = 0; i < recipe.seeds; ++i) {
    const uint64_t seed = recipe.seed + static_cast<uint64_t>(i);
    written.push_back(seed_folder(folder.path(), recipe.seeds, seed));
    if (recipe.seeds > 1) output.say("seed {}", seed);
    const std::optional<SeedResult> result = run_seed(recipe, seed, data, written.back(), options, output);
    if (!result) {
      output.result("Stopped. Go on with: {}",
                    resume_command(options.command, folder.path(), recipe.data_dir, options.device.name()));
      output.finish(
          {{"command", options.command}, {"interrupted", true}, {"folder", folder.path()}, {"error", "interrupted"}});
      return kInterrupted;
    }
    results.push_back(*result);
  }
  const auto error_after = over(results, [](const SeedResult& r) { return 1 - r.after.accuracy; });
  nlohmann::json list = nlohmann::json::array();
  for (const SeedResult& r : results) list.push_back(to_json(r));
  const nlohmann::json json = {{"command", options.command},
                               {"recipe", recipe.source},
                               {"folder", folder.path()},
                               {"test_error", error_after.mean},
                               {"test_error_std", json_or_null(error_after.deviation)},
                               {"runs", list}};
  forget_other_networks(folder, written);
  folder.write_json(kResultFile, json);
  say_results(output, results);
  output.finish(json);
  return kSuccess;
}

}  // namespace espalier::tools
