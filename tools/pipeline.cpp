#include "tools/pipeline.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/threads.h"
#include "layers/models/zoo.h"
#include "pruning/criteria/slimming.h"
#include "pruning/distillation/distillation.h"
#include "pruning/learned/variational.h"
#include "pruning/recovery/reconstruct.h"
#include "pruning/recovery/statistics.h"
#include "pruning/schedules/sparse_training.h"
#include "pruning/schedules/surgery.h"
#include "pruning/sensitivity.h"
#include "pruning/structure/compact.h"
#include "pruning/structure/costs.h"
#include "tools/commands.h"
#include "tools/model_file.h"
#include "training/checkpoint.h"
#include "training/interrupt.h"

namespace espalier::tools {

namespace fs = std::filesystem;

namespace {

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// One seed on its way through the stages.
class SeedRun {
 public:
  SeedRun(const Recipe& recipe, uint64_t seed, const Splits& data, std::string folder, const PipelineOptions& options,
          const Output& output)
      : recipe_(recipe), seed_(seed), folder_(std::move(folder)), options_(options), output_(output), test_(data.test) {
    if (recipe.validation > 0) {
      TrainValidation parts = split_validation(data.train, recipe.validation, seed);
      train_ = std::move(parts.train);
      validation_ = std::move(parts.validation);
    } else {
      train_ = data.train;
    }
    example_ = Tensor::zeros({1, train_.channels(), train_.height(), train_.width()});
  }

  std::optional<SeedResult> run() {
    const auto started = std::chrono::steady_clock::now();
    SeedResult result;
    result.seed = seed_;
    result.folder = folder_;
    if (recipe_.start.empty()) {
      set_seed(seed_);
      network_ = zoo_network(recipe_.model);
    } else {
      const std::string file = find_model(recipe_.start);
      const ModelFile start = open_model(file);
      network_ = start.module;
      index_map_ = index_map_of(start);
      result.before = report(file);
    }
    for (size_t i = 0; i < recipe_.stages.size(); ++i) {
      const Stage& stage = recipe_.stages[i];
      if (!(options_.resume && read_back(stage))) {
        output_.say("  {}/{} {}", i + 1, recipe_.stages.size(), describe(stage));
        run_stage(stage);
        if (InterruptGuard::requested()) return std::nullopt;
        save_stage(stage);
      }
      if (!result.before && stage.type == "train" && i + 1 < recipe_.stages.size())
        result.before = report(stage_file(stage));
    }
    const std::string file = folder_ + "/model.safetensors";
    save_network(file);
    result.after = report(file);
    if (validation_.size() > 0) result.validation_accuracy = evaluate(*network_, validation_).accuracy();
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    return result;
  }

 private:
  ModulePtr zoo_network(const std::string& name) const {
    return make_model(name, {.classes = train_.num_classes(),
                             .in_channels = train_.channels(),
                             .height = train_.height(),
                             .width = train_.width()});
  }
  std::string stage_folder(const Stage& stage) const { return folder_ + "/" + stage.name; }
  std::string stage_file(const Stage& stage) const { return stage_folder(stage) + "/model.safetensors"; }
  std::string compaction_file(const Stage& stage) const { return stage_folder(stage) + "/compaction.json"; }
  ModelReport report(const std::string& file) const {
    return measure(*network_, {train_.channels(), train_.height(), train_.width()},
                   static_cast<int64_t>(fs::file_size(file)), &test_);
  }
  void save_network(const std::string& path) const {
    save_checkpoint(path, *network_, nullptr, {{"data", to_text(description_of(train_))}});
  }

  /// A finished stage of an earlier start.
  bool read_back(const Stage& stage) {
    if (!fs::exists(stage_folder(stage) + "/done")) return false;
    if (stage.type != "teacher") network_ = load_model(stage_file(stage));
    if (stage.type == "compact" && fs::exists(compaction_file(stage)))
      index_map_ = index_map_from_json(nlohmann::json::parse(read_text(compaction_file(stage))).at("kept"));
    if (stage.type == "distill") index_map_.clear();
    output_.say("  {}: done before", stage.name);
    return true;
  }

  void save_stage(const Stage& stage) const {
    if (stage.type != "teacher") save_network(stage_file(stage));
    write_file_atomically(stage_folder(stage) + "/done", describe(stage) + "\n");
    // Optimiser state is only needed to go on within the stage.
    std::error_code ignored;
    for (const char* name : {"checkpoint.safetensors", "best.safetensors"})
      fs::remove(fmt::format("{}/{}", stage_folder(stage), name), ignored);
  }

  void run_stage(const Stage& stage) {
    fs::create_directories(stage_folder(stage));
    if (stage.type == "recalibrate") {
      recalibrate_batch_norm(*network_, train_, {.seed = seed_});
      return;
    }
    if (stage.type == "compensate") {
      compensate_bias(*network_, *find_network(stage.reference), train_, {.seed = seed_});
      return;
    }
    if (stage.type == "reconstruct") {
      for (const Reconstruction& layer :
           reconstruct(*network_, *find_network(stage.reference), train_, {.seed = seed_}))
        output_.say("    {}: mean square error {:.4g} -> {:.4g}", layer.layer, layer.before, layer.after);
      return;
    }
    if (stage.type == "compact") {
      const CompactionReport report = compact(*network_, example_, {.earlier = index_map_});
      index_map_ = report.kept;
      write_file_atomically(compaction_file(stage), report.to_json().dump() + "\n");
      output_.say("{}", report.to_table());
      return;
    }
    ModulePtr teacher = stage.distill ? find_network(stage.distill->teacher) : nullptr;
    if (stage.type == "teacher") {
      const ModulePtr network = network_;
      set_seed(seed_);
      network_ = zoo_network(stage.model);
      fit(stage, nullptr, teacher);
      if (!InterruptGuard::requested()) save_network(stage_file(stage));
      network_ = network;
      return;
    }
    if (stage.type == "distill") {
      index_map_.clear();
      set_seed(seed_);
      network_ = zoo_network(stage.model);
    }
    std::shared_ptr<Pruner> pruner;
    if (stage.prune) pruner = make_pruner(network_, *stage.prune);
    if (pruner && !stage.prune->budget.empty()) {
      run_to_budget(stage, pruner, teacher);
    } else if (stage.trains) {
      fit(stage, pruner, teacher);
    } else if (pruner) {
      pruner->prune(stage.prune->sparsity);
    }
    if (pruner && !InterruptGuard::requested()) {
      const SparsityCount count = count_sparsity(pruner->sites());
      output_.say("    {:.2f} % of {} weights are masked: {:.1f}x", 100 * count.sparsity(), grouped(count.weights),
                  static_cast<double>(count.weights) / static_cast<double>(count.weights - count.masked));
    }
  }

  /// What a masked network costs once it is compacted (parameters, MACs, time) or saved (bytes).
  CostFunction cost_function(BudgetKind kind) const {
    const Tensor example = example_;
    return [kind, example](Module& network) {
      if (kind == BudgetKind::milliseconds) {
        const ModulePtr copy = network.clone();
        compact(*copy, example);
        return 1e3 * latencies({copy}, {{example.size(1), example.size(2), example.size(3)}}, 1, 200).front().p50;
      }
      const Costs costs = count_costs(network, DependencyGraph::trace(network, example), example);
      if (kind == BudgetKind::macs) return static_cast<double>(costs.remaining_macs);
      auto cost = static_cast<double>(costs.remaining_parameters);
      if (kind == BudgetKind::bytes) {
        cost *= sizeof(float);
        for (const Parameter& p : network.parameters())
          if (p.mask().defined()) cost += static_cast<double>(p.mask().num_units()) / 8;
      }
      return cost;
    };
  }

  /// Finds on a copy the sparsity that meets the budget and makes it the schedule's goal. What the training moves since
  /// is made up for at the end: the budget holds.
  void run_to_budget(const Stage& stage, const std::shared_ptr<Pruner>& pruner, const ModulePtr& teacher) {
    const PruneSettings& p = *stage.prune;
    const BudgetKind kind = parse_budget_kind(p.budget);
    const CostFunction cost = cost_function(kind);
    const double now = cost(*network_);
    const bool share = p.amount < 1 && kind != BudgetKind::milliseconds;
    const Budget budget{.kind = kind, .amount = share ? p.amount * now : p.amount};
    if (stage.trains) {
      // A resumed run goes on with the sparsity that it began with: measured milliseconds never come out the same
      // twice.
      const std::string found = stage_folder(stage) + "/budget.json";
      Stage scheduled = stage;
      if (options_.resume && fs::exists(found)) {
        scheduled.prune->sparsity = nlohmann::json::parse(read_text(found)).at("sparsity");
      } else {
        scheduled.prune->sparsity = prune_to_budget(*make_pruner(network_->clone(), p), budget, cost).sparsity;
        write_file_atomically(found, nlohmann::json{{"sparsity", scheduled.prune->sparsity}}.dump() + "\n");
      }
      fit(scheduled, pruner, teacher);
      if (InterruptGuard::requested()) return;
    }
    const BudgetResult result = prune_to_budget(*pruner, budget, cost);
    output_.say("    {}: {:.6g} -> {:.6g}, within {:.6g}", p.budget, now, result.cost, budget.amount);
  }

  std::shared_ptr<Pruner> make_pruner(const ModulePtr& network, const PruneSettings& p) const {
    std::vector<Site> sites;
    if (p.pattern == "channels") {
      sites = channel_sites(DependencyGraph::trace(*network, example_));
      for (Site& site : input_feature_sites(*network, p.inputs)) sites.push_back(std::move(site));
    } else {
      sites = weight_sites(*network, Pattern::parse(p.pattern));
    }
    return std::make_shared<Pruner>(network, std::move(sites),
                                    PrunerOptions{.criterion = make_criterion(p.criterion),
                                                  .allocation = {.scope = parse_scope(p.scope),
                                                                 .sparsity_of = p.sparsity_of,
                                                                 .protect = p.protect,
                                                                 .normalize = p.normalize,
                                                                 .min_units = p.min_units,
                                                                 .round_to = p.round_to},
                                                  .regrow = p.regrow,
                                                  .data = train_,
                                                  .batches = p.batches,
                                                  .seed = seed_});
  }

  /// The network as it is ("start"), as an earlier stage left it, or of a file or run; in evaluation mode.
  ModulePtr find_network(const std::string& name) const {
    ModulePtr found;
    if (name == "start") {
      found = network_->clone();
    } else {
      std::string path = name;
      for (const Stage& stage : recipe_.stages)
        if (stage.name == name) path = stage_file(stage);
      found = load_model(find_model(path));
    }
    found->eval();
    return found;
  }

  void fit(const Stage& stage, const std::shared_ptr<Pruner>& pruner, const ModulePtr& teacher) {
    TrainerOptions trainer = trainer_options(stage.train);
    trainer.seed = seed_;
    trainer.validation_fraction = 0;
    trainer.restore_best = stage.keep_best;
    trainer.run_folder = stage_folder(stage);
    trainer.resume = options_.resume;
    trainer.overwrite = !options_.resume;
    trainer.device = options_.device;
    if (output_.quiet()) {
      trainer.progress = ProgressMode::silent;
    } else if (isatty(STDERR_FILENO) == 0) {
      trainer.progress = ProgressMode::lines;
      trainer.log = [this](const std::string& line) { output_.say("    {}", line); };
    }
    if (teacher) {
      const KnowledgeDistillationOptions kd{.temperature = stage.distill->temperature,
                                            .alpha = stage.distill->alpha,
                                            .label_smoothing = trainer.label_smoothing};
      trainer.label_smoothing = 0;
      trainer = with_distillation(
          std::move(trainer),
          std::make_shared<Distillation>(network_, teacher, train_,
                                         DistillationOptions{.terms = {{.term = knowledge_distillation(kd)}}}));
    }
    if (stage.slimming > 0)
      trainer.callbacks.push_back(std::make_shared<SlimmingPenalty>(SlimmingOptions{.strength = stage.slimming}));
    if (stage.sparse_training) {
      const SparseTrainingSettings& s = *stage.sparse_training;
      trainer.callbacks.push_back(std::make_shared<SparseTraining>(
          weight_sites(*network_), SparseTrainingOptions{.growth = parse_growth(s.growth),
                                                         .sparsity = s.sparsity,
                                                         .allocation = {.scope = parse_scope(s.scope)},
                                                         .fraction = s.fraction,
                                                         .every = s.every,
                                                         .end = s.end,
                                                         .seed = seed_}));
    }
    if (stage.surgery)
      trainer.callbacks.push_back(std::make_shared<NetworkSurgery>(
          weight_sites(*network_),
          SurgeryOptions{
              .c = stage.surgery->c, .c_of = stage.surgery->c_of, .harden = stage.surgery->harden, .seed = seed_}));
    const auto sequential = std::dynamic_pointer_cast<Sequential>(network_);
    if (stage.variational) {
      check(sequential != nullptr, "variational", "expected a network that is a Sequential, got a {}",
            network_->type());
      const VariationalSettings& s = *stage.variational;
      make_variational(*sequential, {.initial_log_sigma2 = s.initial_log_sigma2, .threshold = s.threshold});
      trainer.callbacks.push_back(std::make_shared<VariationalPenalty>(
          network_,
          VariationalPenaltyOptions{.weight = s.kl_weight, .warmup_end = s.warmup, .examples = train_.size()}));
    }
    if (pruner) {
      const PruneSettings& p = *stage.prune;
      trainer.callbacks.push_back(
          std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = p.sparsity,
                                                                  .curve = parse_sparsity_curve(p.curve),
                                                                  .begin = p.begin,
                                                                  .end = p.end,
                                                                  .every = p.every}));
    }
    Trainer(network_, build_optimizer(stage.train, *network_), std::move(trainer)).fit(train_, validation_);
    if (stage.variational && !InterruptGuard::requested()) {
      const SparsityCount count = remove_variational(*sequential);
      output_.say("    {} of {} weights are left", grouped(count.weights - count.masked), grouped(count.weights));
    }
  }

  const Recipe& recipe_;
  uint64_t seed_;
  std::string folder_;
  const PipelineOptions& options_;
  const Output& output_;
  Dataset train_, validation_, test_;
  Tensor example_;
  ModulePtr network_;
  IndexMap index_map_;  ///< of the network's last compaction
};

std::string seed_folder(const Recipe& recipe, const std::string& out, uint64_t seed) {
  return recipe.seeds == 1 ? out : fmt::format("{}/seed-{}", out, seed);
}

/// What an older run left: its stages would be taken for this one's. Nothing else in the folder is touched.
void forget_older_run(const Recipe& recipe, const std::string& out) {
  std::error_code ignored;
  fs::remove(out + "/result.json", ignored);
  for (int64_t i = 0; i < recipe.seeds; ++i) {
    const std::string folder = seed_folder(recipe, out, recipe.seed + static_cast<uint64_t>(i));
    for (const Stage& stage : recipe.stages)
      for (const char* name :
           {"done", "checkpoint.safetensors", "best.safetensors", "metrics.jsonl", "budget.json", "compaction.json"})
        fs::remove(fmt::format("{}/{}/{}", folder, stage.name, name), ignored);
  }
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
    open_model(find_model(name));
  }
}

/// Takes recipe.toml back when a run fails before its first epoch or stage is saved: the folder holds no run then.
class RunMark {
 public:
  RunMark(const Recipe& recipe, const std::string& out, bool armed) : recipe_(recipe), out_(out), armed_(armed) {}
  ~RunMark() {
    if (!armed_ || std::uncaught_exceptions() == 0) return;
    const std::string folder = seed_folder(recipe_, out_, recipe_.seed) + "/" + recipe_.stages.front().name;
    std::error_code ignored;
    if (!fs::exists(folder + "/done", ignored) && !fs::exists(folder + "/checkpoint.safetensors", ignored))
      fs::remove(out_ + "/recipe.toml", ignored);
  }
  RunMark(const RunMark&) = delete;
  RunMark& operator=(const RunMark&) = delete;

 private:
  const Recipe& recipe_;
  const std::string& out_;
  bool armed_;
};

struct MeanAndDeviation {
  double mean = 0, deviation = 0;  ///< deviation: divided by n - 1; 0 for one value
};
template <class F>
MeanAndDeviation over(const std::vector<SeedResult>& results, F&& value) {
  MeanAndDeviation m;
  const auto n = static_cast<double>(results.size());
  for (const SeedResult& r : results) m.mean += value(r) / n;
  for (const SeedResult& r : results) m.deviation += std::pow(value(r) - m.mean, 2);
  m.deviation = results.size() > 1 ? std::sqrt(m.deviation / (n - 1)) : 0;
  return m;
}

nlohmann::json to_json(const SeedResult& r) {
  return {{"seed", r.seed},
          {"folder", r.folder},
          {"before", r.before ? to_json(*r.before) : nlohmann::json()},
          {"after", to_json(r.after)},
          {"validation_accuracy", r.validation_accuracy},
          {"seconds", r.seconds}};
}

void say_results(const Output& output, const std::vector<SeedResult>& results) {
  std::vector<std::pair<std::string, ModelReport>> rows;
  for (const SeedResult& r : results) {
    const std::string name = results.size() > 1 ? fmt::format("seed {} ", r.seed) : "";
    if (r.before) rows.emplace_back(name + "before", *r.before);
    rows.emplace_back(name + "after", r.after);
  }
  output.result("\n{}", report_table(rows));
  if (results.size() > 1) {
    const auto after = over(results, [](const SeedResult& r) { return 100 - 100 * r.after.accuracy; });
    std::string text = fmt::format("test error {:.2f} +- {:.2f} %", after.mean, after.deviation);
    if (results.front().before) {
      const auto before = over(results, [](const SeedResult& r) { return 100 - 100 * r.before->accuracy; });
      text += fmt::format(", before {:.2f} +- {:.2f} %", before.mean, before.deviation);
    }
    output.result("{} (mean and standard deviation of {} seeds)", text, results.size());
  }
}

}  // namespace

std::string report_table(const std::vector<std::pair<std::string, ModelReport>>& rows) {
  std::vector<std::vector<std::string>> cells = {
      {"network", "accuracy", "error", "macro F1", "sparsity", "parameters", "ratio", "MACs", "ratio", "file"}};
  for (const auto& [name, r] : rows) {
    const auto ratio = [](int64_t all, int64_t left) {
      return fmt::format("{:.1f}x", static_cast<double>(all) / static_cast<double>(std::max<int64_t>(left, 1)));
    };
    // The reference for ratios is the first row: a compacted network no longer knows what it was.
    const ModelReport& first = rows.front().second;
    cells.push_back({name, fmt::format("{:.2f} %", 100 * r.accuracy), fmt::format("{:.2f} %", 100 - 100 * r.accuracy),
                     fmt::format("{:.4f}", r.macro_f1), fmt::format("{:.2f} %", 100 * r.sparsity),
                     grouped(r.remaining_parameters), ratio(first.parameters, r.remaining_parameters),
                     grouped(r.remaining_macs), ratio(first.macs, r.remaining_macs), bytes_text(r.bytes)});
  }
  return table(cells, {1, 2, 3, 4, 5, 6, 7, 8, 9});
}

std::optional<SeedResult> run_seed(const Recipe& recipe, uint64_t seed, const Splits& data, const std::string& folder,
                                   const PipelineOptions& options, const Output& output) {
  return SeedRun(recipe, seed, data, folder, options, output).run();
}

int run_recipe(const Recipe& recipe, const PipelineOptions& options, Output& output) {
  const std::string resolved = to_toml(recipe), kept = options.out + "/recipe.toml";
  if (options.resume) {
    if (!fs::exists(kept))
      fail<FileError>("run", "{}: expected a run to resume, found none; start it without --resume", kept);
    check(read_text(kept) == resolved, "run",
          "{} was started with another recipe; choose another --out, or --overwrite", options.out);
  }
  check_teachers(recipe);
  const InterruptGuard guard;
  const Splits data = load_dataset(recipe.data, {.data_dir = recipe.data_dir});
  std::error_code error;
  fs::create_directories(options.out, error);
  if (error) fail<FileError>("run", "cannot write to {}: {}", options.out, error.message());
  if (!options.resume) {
    forget_older_run(recipe, options.out);
    write_file_atomically(kept, resolved);
  }

  const RunMark mark(recipe, options.out, !options.resume);
  output.say("{}", recipe.title.empty() ? recipe.source : recipe.title);
  output.say("  {} on {}, {} stage{}, {} seed{}, {} thread{}, in {}\n", recipe.model, recipe.data, recipe.stages.size(),
             recipe.stages.size() == 1 ? "" : "s", recipe.seeds, recipe.seeds == 1 ? "" : "s", num_threads(),
             num_threads() == 1 ? "" : "s", options.out);
  std::vector<SeedResult> results;
  for (int64_t i = 0; i < recipe.seeds; ++i) {
    const uint64_t seed = recipe.seed + static_cast<uint64_t>(i);
    const std::string folder = seed_folder(recipe, options.out, seed);
    if (recipe.seeds > 1) output.say("seed {}", seed);
    const std::optional<SeedResult> result = run_seed(recipe, seed, data, folder, options, output);
    if (!result) {
      output.result("Stopped. Go on with: espalier run {} --resume --out {}", recipe.source, options.out);
      output.finish({{"command", "run"}, {"interrupted", true}, {"folder", options.out}, {"error", "interrupted"}});
      return kInterrupted;
    }
    results.push_back(*result);
  }
  const auto error_after = over(results, [](const SeedResult& r) { return 1 - r.after.accuracy; });
  nlohmann::json list = nlohmann::json::array();
  for (const SeedResult& r : results) list.push_back(to_json(r));
  const nlohmann::json json = {{"command", "run"},
                               {"recipe", recipe.source},
                               {"folder", options.out},
                               {"test_error", error_after.mean},
                               {"test_error_std", error_after.deviation},
                               {"runs", list}};
  write_file_atomically(options.out + "/result.json", json.dump(2) + "\n");
  say_results(output, results);
  output.finish(json);
  return kSuccess;
}

}  // namespace espalier::tools
