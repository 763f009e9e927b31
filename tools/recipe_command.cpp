// What `run`, `prune` and `distill` show of a recipe's run.
#include "tools/recipe_command.h"

#include <nlohmann/json.hpp>

#include "pipeline/run_places.h"
#include "pipeline/statistics.h"
#include "tools/commands.h"
#include "tools/diff.h"
#include "tools/progress.h"

namespace espalier::tools {

namespace {

void say_results(const Output& output, const std::vector<SeedResult>& results) {
  std::vector<ReportRow> rows;
  for (const SeedResult& r : results) {
    const std::string name = results.size() > 1 ? fmt::format("seed {} ", r.seed) : "";
    if (r.before) rows.push_back({name + "before", {*r.before}});
    rows.push_back({name + "after", {r.after}});
  }
  output.result("\n{}", report_table(rows));
  if (results.size() > 1) {
    const bool is_classification = results.front().after.is_classification();
    const auto figure = [&](const ModelReport& r) {
      return is_classification ? 100 - 100 * r.accuracy() : r.metrics.front().value;
    };
    const auto text_of = [&](const MeanAndDeviation& f) {
      return is_classification ? fmt::format("{:.2f} +- {:.2f} %", f.mean, *f.deviation)
                               : fmt::format("{:.4g} +- {:.2g}", f.mean, *f.deviation);
    };
    std::string text =
        is_classification ? "test error " : fmt::format("test {} ", results.front().after.metrics[0].name);
    text += text_of(over(results, [&](const SeedResult& r) { return figure(r.after); }));
    if (results.front().before)
      text += ", before " + text_of(over(results, [&](const SeedResult& r) { return figure(*r.before); }));
    output.result("{} (mean and standard deviation of {} seeds)", text, results.size());
  }
  for (const SeedResult& r : results) {
    if (!r.changes) continue;
    if (results.size() > 1) output.result("seed {}:", r.seed);
    output.result("{}\n  espalier diff {} {}", changes_line(*r.changes, r.class_names), r.before_file, r.folder);
  }
}

}  // namespace

int show_recipe_run(const Recipe& recipe, RunOptions options, Output& output) {
  options.say = [&output](const std::string& line) { output.say("{}", line); };
  options.warn = [&output](const std::string& line) { output.result("{}", line); };
  options.show_progress = [&output](TrainerOptions& trainer) { set_progress(trainer, output, "    "); };
  const RecipeResult result = run_recipe(recipe, options);
  if (result.interrupted) {
    output.result("Stopped. Go on with: {}",
                  resume_command(options.command, result.folder, recipe.data_dir, options.device.name()));
    output.finish(
        {{"command", options.command}, {"interrupted", true}, {"folder", result.folder}, {"error", "interrupted"}});
    return kInterrupted;
  }
  say_results(output, result.seeds);
  output.finish(to_json(result, recipe, options));
  return kSuccess;
}

}  // namespace espalier::tools
