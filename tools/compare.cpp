// espalier compare: networks side by side, in size, quality and time.
#include <nlohmann/json.hpp>

#include "core/threads.h"
#include "pipeline/comparison.h"
#include "pipeline/run.h"
#include "pipeline/statistics.h"
#include "tools/commands.h"

namespace espalier::tools {

namespace {

struct CompareFlags {
  std::vector<std::string> runs;
  CompareOptions compare;
  std::optional<int> threads;
};

std::string milliseconds(const std::vector<Latency>& times) {
  const auto p50 = over(times, [](const Latency& t) { return 1e3 * t.p50; });
  const auto p95 = over(times, [](const Latency& t) { return 1e3 * t.p95; });
  if (times.size() == 1) return fmt::format("{:.2f} / {:.2f}", p50.mean, p95.mean);
  return fmt::format("{:.2f} +- {:.2f} / {:.2f} +- {:.2f}", p50.mean, *p50.deviation, p95.mean, *p95.deviation);
}

double mean_p50(const std::vector<Latency>& times) {
  return over(times, [](const Latency& t) { return t.p50; }).mean;
}

int run(const CompareFlags& options, Output& output) {
  use_threads(options.threads);
  check(options.compare.rounds > 0, "compare", "--rounds: expected at least 1, got {}", options.compare.rounds);
  std::vector<ComparedNetwork> networks = networks_of(options.runs);
  measure_networks(networks, options.compare);

  std::vector<ReportRow> reports;
  std::vector<std::vector<std::string>> cells = {
      {"network", "batch 1: p50 / p95 ms", "speed-up", "batch 128: p50 / p95 ms", "speed-up"}};
  nlohmann::json list = nlohmann::json::array();
  bool several_seeds = false;
  const ComparedNetwork& first = networks.front();
  for (const ComparedNetwork& network : networks) {
    several_seeds = several_seeds || network.files.size() > 1;
    reports.emplace_back(network.name, network.reports);
    cells.push_back({network.name, milliseconds(network.one),
                     fmt::format("{:.2f}x", mean_p50(first.one) / mean_p50(network.one)), milliseconds(network.many),
                     fmt::format("{:.2f}x", mean_p50(first.many) / mean_p50(network.many))});
    list.push_back(to_json(network));
  }
  output.result("{}", report_table(reports));
  output.result("{}\nTimes: forward passes in turns, {} thread{}; ratios and speed-ups against the first row.",
                table(cells, {1, 2, 3, 4}), num_threads(), num_threads() == 1 ? "" : "s");
  if (several_seeds) output.result("Of several seeds: mean +- standard deviation.");
  output.finish({{"command", "compare"}, {"threads", num_threads()}, {"networks", list}});
  return kSuccess;
}

}  // namespace

void add_compare(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "compare", "Networks side by side: accuracy, size, MACs, measured time",
                              {"espalier compare runs/lenet5-channels                      before and after",
                               "espalier compare runs/dense runs/pruned runs/small/model.safetensors"});
  auto options = std::make_shared<CompareFlags>();
  app->add_option("runs", options->runs, "Runs or checkpoints; the first is the reference")
      ->type_name("RUN...")
      ->required();
  app->add_option("--data,-d", options->compare.data, "Data set (default: what each was trained on)")
      ->type_name("NAME");
  add_data_dir(*app, options->compare.data_dir);
  app->add_option("--rounds", options->compare.rounds,
                  "Timed passes at batch 128; ten times as many at\nbatch 1 (default: 30)")
      ->type_name("N");
  app->add_option("--threads", options->threads, "Threads of the kernels")->type_name("N");
  add_json_flag(*app);
  commands.push_back({app, [options](Output& output) { return run(*options, output); }});
}

}  // namespace espalier::tools
