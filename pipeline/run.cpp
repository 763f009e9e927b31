#include "pipeline/run.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <set>

#include "core/json.h"
#include "core/text.h"
#include "core/threads.h"
#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "pipeline/run_places.h"
#include "pipeline/statistics.h"
#include "pipeline/training_stage.h"
#include "pruning/schedules/search_folder.h"
#include "training/interrupt.h"

namespace espalier {

namespace {

/// Removes what older runs left, of all their seeds, before anything of the new one is written: their stages would be
/// taken for this one's. Nothing else in the folder is touched.
void forget_older_run(const Recipe& recipe, const RunFolder& folder) {
  std::set<std::string> files;  // of stages of any kind: the older run had others by these names
  for (const std::string& type : stage_registry().names())
    for (const std::string& file : stage_registry().find("run", type)()->files()) files.insert(file);
  for (const RunFolder& place : places_in(folder)) {
    place.forget_training();
    place.forget({kResultFile, kTrainIdentity});
    if (place.path() != folder.path())
      place.forget({kRecipeIdentity, kRecipeRecord});  // the folder's own is replaced in one step
    for (const StagePtr& stage : recipe.stages) {
      if (!place.has(stage->name)) continue;
      const RunFolder of_stage(place.file(stage->name));
      of_stage.forget_training();
      of_stage.forget({files.begin(), files.end()});
    }
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
      const RunFolder stage(seed.file(recipe_.stages.front()->name));
      if (stage.has_begun() || stage.has(fmt::format("{}/{}", kRoundsFolder, SearchFolder::kList))) return;
      stage.forget_training();  // the lines of an epoch that came to nothing
      out_.forget({kRecipeIdentity, kRecipeRecord});
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

/// Networks of files that somebody still trains: the one that the run starts from, teachers.
void warn_of_sources(const Recipe& recipe, const RunOptions& options) {
  std::set<std::string> files;
  for (const auto& [path, stage] : outside_networks(recipe)) files.insert(find_model(path));
  for (const std::string& file : files)
    if (const std::string warning = training_warning(file); !warning.empty()) warn(options, "{}", warning);
}

/// Which images choose the epoch of a network that was trained before.
void say_validation(const Recipe& recipe, const RunOptions& options) {
  if (recipe.start.empty()) return;
  const std::optional<ValidationSplit> split = validation_split_of(find_model(recipe.start));
  if (split && split->data != recipe.data) return;
  if (recipe.validation > 0 && validates_on_unseen_images(recipe))
    say(options, "  validation on the {:g} % of the training images that {} was not trained on\n", 100 * split->share,
        recipe.start);
  else if (recipe.validation == 0)
    say(options, "  no validation: {}; the last epoch counts\n",
        split && split->share > 0 ? "none was asked for"
        : split                   ? fmt::format("{} was trained on all training images", recipe.start)
                                  : fmt::format("{} doesn't say which images it was trained on", recipe.start));
  else
    warn(options, "  warning: {}; accuracy on validation images says little, and chooses the epoch\n",
         split ? fmt::format("{} was trained on images of the validation set", recipe.start)
               : fmt::format("{} may have been trained on images of the validation set", recipe.start));
}

}  // namespace

nlohmann::json to_json(const RecipeResult& result, const Recipe& recipe, const RunOptions& options) {
  nlohmann::json runs = nlohmann::json::array();
  for (const SeedResult& r : result.seeds) runs.push_back(to_json(r));
  nlohmann::json json = {
      {"command", options.command}, {"recipe", recipe.source}, {"folder", result.folder}, {"runs", runs}};
  const MetricValue& metric = result.seeds.front().after.metrics.front();
  const bool is_accuracy = metric.name == "accuracy";  // of which people want the error
  const std::string name = is_accuracy ? "test_error" : "test_" + metric.name;
  const auto figure = over(result.seeds, [&](const SeedResult& r) {
    const double value = r.after.metrics.front().value;
    return is_accuracy ? 1 - value : value;
  });
  json[name] = figure.mean;
  json[name + "_std"] = json_or_null(figure.deviation);
  return json;
}

std::string report_table(const std::vector<ReportRow>& rows) {
  const bool is_classification = rows.front().second.front().is_classification();
  std::vector<std::vector<std::string>> cells = {{"network"}};
  if (is_classification) cells[0].insert(cells[0].end(), {"accuracy", "error", "macro F1"});
  std::vector<std::string> metrics;
  if (!is_classification)
    for (const MetricValue& metric : rows.front().second.front().metrics) metrics.push_back(metric.name);
  cells[0].insert(cells[0].end(), metrics.begin(), metrics.end());
  cells[0].insert(cells[0].end(), {"sparsity", "parameters", "ratio", "MACs", "ratio", "file"});
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
    std::vector<std::string> row = {name};
    if (is_classification) {
      row.push_back(figure(2, " %", [](const ModelReport& r) { return 100 * r.accuracy(); }));
      row.push_back(figure(2, " %", [](const ModelReport& r) { return 100 - 100 * r.accuracy(); }));
      row.push_back(figure(4, "", [](const ModelReport& r) { return r.macro_f1; }));
    }
    for (const std::string& metric : metrics)
      row.push_back(figure(4, "", [&](const ModelReport& r) { return r.value_of(metric); }));
    row.insert(
        row.end(),
        {figure(2, " %", [](const ModelReport& r) { return 100 * r.sparsity; }), grouped(size(remaining_parameters)),
         ratio([](const ModelReport& r) { return r.parameters; }, remaining_parameters), grouped(size(remaining_macs)),
         ratio([](const ModelReport& r) { return r.macs; }, remaining_macs),
         bytes_text(size([](const ModelReport& r) { return r.bytes; }))});
    cells.push_back(std::move(row));
  }
  std::vector<size_t> to_the_right;
  for (size_t column = 1; column < cells[0].size(); ++column) to_the_right.push_back(column);
  return table(cells, to_the_right);
}

RecipeResult run_recipe(const Recipe& recipe, const RunOptions& options) {
  check(!recipe.stages.empty(), options.command, "expected a recipe with stages, got none");
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());  // that a TOML file can hold
  check(recipe.seed <= kMost - static_cast<uint64_t>(recipe.seeds - 1), options.command,
        "expected seeds up to {}, got {} from {} on", kMost, recipe.seeds, recipe.seed);
  check(!options.out.empty(), options.command, "expected a folder for the run, got \"\"");
  check_can_be_folder(options.command.c_str(), options.out);
  RunFolder folder;  // taken when nothing is in the way of a run any more; to resume one, at once
  if (options.resume) {
    folder = open_run(options.command.c_str(), options.out, kRecipeIdentity);
    // The recipe in the folder may have been edited since; runs of earlier versions have nothing else.
    nlohmann::json began_as = folder.read_json(kRecipeRecord);
    if (began_as.is_null()) began_as = identity_of(load_recipe(folder.file(kRecipeIdentity)));
    const std::string differing = differences(began_as, identity_of(recipe));
    check(differing.empty(), options.command,
          "{} was started with another recipe; choose another --out, or --overwrite:{}", options.out, differing);
  } else if (!options.overwrite && !options.make_new) {
    check_holds_no_run(options.command.c_str(), options.out);
  }
  check_recipe(recipe);
  const InterruptGuard guard;
  const Splits data = load_data(recipe.data, recipe.data_dir, recipe.loss, recipe.metric);
  if (!options.resume) {
    SeedRun(recipe, recipe.seed, data, options.out, options).rehearse();
    folder = options.make_new ? RunFolder::make_new(options.out) : RunFolder(options.out);
    if (!options.overwrite) check_holds_no_run(options.command.c_str(), folder.path());
    if (!recipe.start.empty())
      check_replaces_nothing(options.command.c_str(), folder.file(kModelFile), find_model(recipe.start), true);
    forget_older_run(recipe, folder);
    folder.write_json(kRecipeRecord, identity_of(recipe));
    write_file_atomically(folder.file(kRecipeIdentity), to_toml(recipe));
  }

  const RunMark mark(recipe, folder, !options.resume);
  const auto plural = [](auto number) { return number == 1 ? "" : "s"; };
  say(options, "{}", recipe.title.empty() ? recipe.source : recipe.title);
  say(options, "  {} on {}, {} stage{}, {} seed{}, {} thread{}, in {}\n", recipe.model, recipe.data,
      recipe.stages.size(), plural(recipe.stages.size()), recipe.seeds, plural(recipe.seeds), num_threads(),
      plural(num_threads()), folder.path());
  warn_of_sources(recipe, options);
  say_validation(recipe, options);
  RecipeResult result{.folder = folder.path(), .seeds = {}};
  std::vector<std::string> written;
  for (int64_t i = 0; i < recipe.seeds; ++i) {
    const uint64_t seed = recipe.seed + static_cast<uint64_t>(i);
    written.push_back(seed_folder(folder.path(), recipe.seeds, seed));
    if (recipe.seeds > 1) say(options, "seed {}", seed);
    std::optional<SeedResult> one = SeedRun(recipe, seed, data, written.back(), options).run();
    if (!one) {
      result.interrupted = true;
      return result;
    }
    result.seeds.push_back(std::move(*one));
  }
  forget_other_networks(folder, written);
  folder.write_json(kResultFile, to_json(result, recipe, options));
  return result;
}

}  // namespace espalier
