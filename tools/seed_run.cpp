// One seed of a recipe: its stages on one network.
#include "tools/pipeline.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <utility>

#include <fmt/ranges.h>

#include "core/json.h"
#include "layers/models/zoo.h"
#include "pruning/criteria/woodfisher.h"
#include "pruning/distillation/distillation.h"
#include "pruning/learned/variational.h"
#include "pruning/recovery/reconstruct.h"
#include "pruning/recovery/regrow.h"
#include "pruning/recovery/statistics.h"
#include "pruning/schedules/adaptive.h"
#include "pruning/schedules/lottery.h"
#include "pruning/structure/blocks.h"
#include "pruning/structure/compact.h"
#include "tools/model_file.h"
#include "tools/run_places.h"
#include "tools/stage_pruning.h"
#include "training/checkpoint.h"
#include "training/interrupt.h"
#include "training/run_folder.h"

namespace espalier::tools {

namespace fs = std::filesystem;

namespace {

/// One seed on its way through the stages.
class SeedRun {
 public:
  SeedRun(const Recipe& recipe, uint64_t seed, const Splits& data, std::string folder, const PipelineOptions& options,
          const Output& output)
      : recipe_(recipe),
        seed_(seed),
        folder_(std::move(folder)),
        options_(options),
        output_(output),
        all_(data.train),
        test_(data.test) {
    if (recipe.validation > 0) {
      TrainValidation parts = split_validation(data.train, recipe.validation, recipe.validation_seed.value_or(seed));
      train_ = std::move(parts.train);
      validation_ = std::move(parts.validation);
    } else {
      train_ = data.train;
    }
    example_ = Tensor::zeros({1, train_.channels(), train_.height(), train_.width()}, DType::f32, options.device);
  }

  /// Goes through the stages with a network that nobody trains: names that fit no layer, patterns that divide no weight
  /// and budgets out of reach are told before hours of training. Ends with the first stage whose masks only its
  /// training knows.
  void rehearse() {
    begin();
    for (const Stage& stage : recipe_.stages) {
      try {
        if (!rehearse(stage)) return;
      } catch (const Error& error) {
        fail("run", "{}: stage '{}': {}", recipe_.source, stage.name, error.what());
      }
    }
  }

  std::optional<SeedResult> run() {
    const auto started = std::chrono::steady_clock::now();
    SeedResult result;
    result.seed = seed_;
    result.folder = folder_;
    begin();
    std::optional<Answers> before;
    const auto note_before = [&](const std::string& file) {
      result.before = report(file);
      result.before_file = file;
      before = answers(*network_, test_);
    };
    if (!recipe_.start.empty()) note_before(find_model(recipe_.start));
    for (size_t i = 0; i < recipe_.stages.size(); ++i) {
      const Stage& stage = recipe_.stages[i];
      if (stage.include_validation) {
        train_ = all_;
        validation_ = {};
      }
      const bool done_before = options_.resume && read_back(stage);
      if (!done_before) {
        output_.say("  {}/{} {}", i + 1, recipe_.stages.size(), describe(stage));
        run_stage(stage);
        if (InterruptGuard::requested()) return std::nullopt;
      }
      if (stage.trains && stage.type != "teacher") settings_ = settings_of(stage);
      if (!done_before) save_stage(stage);
      if (!result.before && stage.type == "train" && i + 1 < recipe_.stages.size()) note_before(stage_file(stage));
    }
    const std::string file = fmt::format("{}/{}", folder_, kModelFile);
    save_network(file);
    result.after = report(file);
    if (before) result.changes = changes(*before, answers(*network_, test_), test_.num_classes());
    result.class_names = test_.class_names;
    if (validation_.size() > 0) result.validation_accuracy = evaluate(*network_, validation_).accuracy();
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    return result;
  }

 private:
  /// False when nobody knows the masks that the stage leaves.
  bool rehearse(const Stage& stage) {
    if (stage.type == "distill") network_ = placed(zoo_network(stage.model));
    if (stage.type == "compact") compact(*network_, example_);
    if (stage.type == "blocks") {
      const std::vector<ResidualBlock> blocks = blocks_to_drop(stage);
      for (int64_t i = 0; i < stage.drop; ++i) mask_block(blocks[static_cast<size_t>(i)].module);
    }
    if (stage.regrow) regrowing_sites(*network_, example_, *stage.regrow);
    if (stage.lottery) {
      check_lottery(*network_, sites_of(*network_, example_, stage.lottery->pattern), lottery_options(stage, nullptr));
      return false;
    }
    if (stage.adaptive) {
      make_rehearsal_pruner(stage.adaptive->units, {})->prune(stage.adaptive->smallest_step);
      return false;
    }
    if (stage.trains && stage.type != "teacher") {
      const StageCallbacks own = callbacks_of(stage, network_, example_, train_.size(), seed_);
      if (!own.sites.empty() || stage.variational) return false;
    }
    if (!stage.prune) return true;
    const PruneSettings& p = *stage.prune;
    const auto pruner = make_rehearsal_pruner(p.units, p.sparsity_of);
    if (p.budget == name_of(BudgetKind::milliseconds)) return false;  // takes too long to measure twice
    if (p.budget.empty())
      pruner->prune(p.sparsity);
    else
      prune_to_budget(*pruner, budget_of(p, cost_function(parse_budget_kind(p.budget), example_)(*network_)), example_);
    return true;
  }

  /// Criteria that look at data, or at a training, make way for magnitude: which units go makes no difference to what
  /// can go.
  std::shared_ptr<Pruner> make_rehearsal_pruner(UnitSettings units, const std::map<std::string, double>& sparsity_of) {
    const bool watches = units.criterion == "movement";
    const CriterionPtr asked_for = watches ? nullptr : make_criterion(units.criterion);
    if (watches || asked_for->needs_data()) units.criterion = "magnitude";
    auto pruner = pruner_of(network_, {.units = std::move(units), .sparsity_of = sparsity_of});
    if (asked_for) {
      asked_for->check_fits(*network_, pruner->sites());
      asked_for->check_state(pruner->input());
    }
    return pruner;
  }

  /// The network before the first stage.
  void begin() {
    set_seed(seed_);
    if (recipe_.start.empty()) {
      network_ = placed(zoo_network(recipe_.model));
      return;
    }
    const ModelFile start = open_model(find_model(recipe_.start));
    network_ = placed(start.module);
    index_map_ = index_map_of(start);
    if (const auto settings = start.metadata.find("settings"); settings != start.metadata.end())
      settings_ = settings->second;
  }
  ModulePtr zoo_network(const std::string& name) const {
    return make_model(name, {.classes = train_.num_classes(),
                             .in_channels = train_.channels(),
                             .height = train_.height(),
                             .width = train_.width()});
  }
  std::string stage_folder(const Stage& stage) const { return folder_ + "/" + stage.name; }
  std::string stage_file(const Stage& stage) const { return fmt::format("{}/{}", stage_folder(stage), kModelFile); }
  /// Of the searches that train many times.
  std::string rounds_folder(const Stage& stage) const {
    return fmt::format("{}/{}", stage_folder(stage), kRoundsFolder);
  }
  std::string compaction_file(const Stage& stage) const { return stage_folder(stage) + "/compaction.json"; }
  ModelReport report(const std::string& file) const {
    const ModelReport report = measure(*network_, static_cast<int64_t>(fs::file_size(file)), test_);
    check_finite(file, report.loss);
    return report;
  }
  void save_network(const std::string& path) const {
    std::map<std::string, std::string> metadata = {{"data", to_text(description_of(train_))}};
    if (!index_map_.empty()) metadata["compaction"] = nlohmann::json{{"kept", espalier::to_json(index_map_)}}.dump();
    if (!settings_.empty()) metadata["settings"] = settings_;
    save_checkpoint(path, *network_, nullptr, metadata);
  }
  /// As `espalier train` writes them, and which images the network was not trained on: none where the network that the
  /// recipe starts from knew some of the validation set.
  std::string settings_of(const Stage& stage) const {
    TrainSettings settings = stage.train;
    settings.seed = seed_;
    settings.validation = stage.include_validation || !validates_on_unseen_images(recipe_) ? 0 : recipe_.validation;
    nlohmann::json json = to_json(settings);
    if (recipe_.validation_seed) json["validation_seed"] = *recipe_.validation_seed;
    return json.dump();
  }

  /// A finished stage of an earlier start.
  bool read_back(const Stage& stage) {
    if (!RunFolder(stage_folder(stage)).is_done()) return false;
    if (stage.type != "teacher") network_ = placed(load_model(stage_file(stage)));
    if (stage.type == "compact") read_index_map(stage);
    if (stage.type == "distill") index_map_.clear();
    output_.say("  {}: done before", stage.name);
    return true;
  }

  /// What a finished compaction kept.
  void read_index_map(const Stage& stage) {
    const nlohmann::json report = RunFolder(stage_folder(stage)).read_json("compaction.json");
    if (report.is_null()) return;
    try {
      index_map_ = index_map_from_json(report.at("kept"));
    } catch (const std::exception& error) {  // of the JSON library, or of the map
      fail<FileError>("run", "{}: not what a compaction wrote: {}", compaction_file(stage), error.what());
    }
  }

  void save_stage(const Stage& stage) const {
    const RunFolder folder(stage_folder(stage));
    if (stage.type != "teacher") save_network(stage_file(stage));
    folder.mark_done(describe(stage));
    // Optimiser state is only needed to go on within the stage.
    folder.forget({kCheckpointFile, kBestFile});
    std::error_code ignored;
    for (const auto& round : fs::directory_iterator(rounds_folder(stage), ignored))
      if (round.is_directory()) RunFolder(round.path().string()).forget({kCheckpointFile, kBestFile});
  }

  void run_stage(const Stage& stage) {
    const RunFolder folder(stage_folder(stage));
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
    if (stage.type == "blocks") return drop_blocks(stage);
    if (stage.regrow) return bring_back(*stage.regrow);
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
      const IndexMap index_map = std::exchange(index_map_, {});
      set_seed(seed_);
      network_ = placed(zoo_network(stage.model));
      fit(stage, nullptr, teacher);
      if (!InterruptGuard::requested()) save_network(stage_file(stage));
      network_ = network;
      index_map_ = index_map;
      return;
    }
    if (stage.type == "distill") {
      index_map_.clear();
      set_seed(seed_);
      network_ = placed(zoo_network(stage.model));
    }
    if (stage.lottery) return find_ticket(stage, teacher);
    if (stage.adaptive) return search_adaptively(stage, teacher);
    std::shared_ptr<Pruner> pruner;
    if (stage.prune) {
      pruner = pruner_of(network_, *stage.prune);
      const UnitSettings& u = stage.prune->units;
      pruner->record_to(std::make_shared<RemovalRecord>(u.criterion, parse_scope(u.scope), pruner->sites()));
    }
    const double gone_before = pruner ? pruner->removed_share() : 0;
    if (pruner && !stage.prune->budget.empty()) {
      run_to_budget(stage, pruner, teacher);
    } else if (stage.trains) {
      fit(stage, pruner, teacher);
    } else if (pruner) {
      pruner->prune(stage.prune->sparsity);
    }
    if (pruner && stage.prune->update) std::dynamic_pointer_cast<BrainSurgeon>(pruner->options().criterion)->update();
    if (pruner && !InterruptGuard::requested()) {
      if (const auto record = pruner->record()) record->save(stage_folder(stage) + "/removals.safetensors");
      say_what_is_left(pruner->sites(), stage.prune->units.min_units);
      if (pruner->removed_share() == gone_before)
        output_.result(
            "    warning: nothing was removed: {:.4g} % of the weights had gone before, and what was asked for is not "
            "half a unit more; ask for more, or prune smaller units",
            100 * gone_before);
    }
  }

  /// The residual blocks that are not masked yet. Throws when there are too few.
  std::vector<ResidualBlock> blocks_to_drop(const Stage& stage) const {
    std::vector<ResidualBlock> blocks = residual_blocks(*network_);
    std::erase_if(blocks, [](const ResidualBlock& block) { return is_masked_block(*block.module); });
    check(stage.drop <= static_cast<int64_t>(blocks.size()), "blocks",
          "expected to drop at most the {} residual blocks that this {} could do without, got {}", blocks.size(),
          network_->type(), stage.drop);
    return blocks;
  }

  /// Masks the blocks whose absence costs least; training goes on without them, compaction takes them out.
  void drop_blocks(const Stage& stage) const {
    const std::vector<ResidualBlock> blocks = blocks_to_drop(stage);
    constexpr int64_t kBatches = 20;  // of training images
    std::vector<BlockImportance> worth = validation_.size() > 0
                                             ? block_importances(*network_, validation_)
                                             : block_importances(*network_, train_, {.batches = kBatches});
    std::stable_sort(worth.begin(), worth.end(),
                     [](const BlockImportance& a, const BlockImportance& b) { return a.increase < b.increase; });
    int64_t left = stage.drop;
    for (const BlockImportance& block : worth) {
      const auto found = std::find_if(blocks.begin(), blocks.end(),
                                      [&](const ResidualBlock& other) { return other.name == block.name; });
      if (left == 0 || found == blocks.end()) continue;
      mask_block(found->module);
      --left;
      output_.say("    {}: the loss rises by {:.4f} without it", block.name, block.increase);
    }
  }

  /// Removed units return, at 0, where the dense gradient is largest.
  void bring_back(const RegrowSettings& settings) const {
    const std::vector<Site> sites = regrowing_sites(*network_, example_, settings);
    int64_t removed = 0;
    for (const Site& site : sites) {
      const std::vector<bool> exists = existing_units(site);
      removed += std::count(exists.begin(), exists.end(), false);
    }
    const Saliencies gradients =
        dense_gradients(*network_, sites, train_, {.batches = settings.batches, .seed = seed_});
    regrow(sites, gradients, std::llround(settings.share * static_cast<double>(removed)));
    say_sparsity(count_sparsity(sites));
  }

  void say_sparsity(const SparsityCount& count) const {
    output_.say(
        "    {:.2f} % of {} weights are masked: {:.1f}x", 100 * count.sparsity(), grouped(count.weights),
        static_cast<double>(count.weights) / static_cast<double>(std::max<int64_t>(count.weights - count.masked, 1)));
  }

  void say_what_is_left(const std::vector<Site>& sites, int64_t min_units) const {
    say_sparsity(count_sparsity(sites));
    warn_of_collapses(sites, min_units);
  }
  /// Also with --quiet.
  void warn_of_collapses(const std::vector<Site>& sites, int64_t min_units) const {
    for (const Collapse& layer : find_collapses(sites, min_units))
      output_.result(
          "    warning: next to nothing is left of {}; ask for less, set min_units or scope = \"layer\", or take "
          "another criterion",
          layer.to_string());
  }

  LotteryOptions lottery_options(const Stage& stage, const ModulePtr& teacher) {
    const LotterySettings& l = *stage.lottery;
    return {.training = plan_of(stage, teacher),
            .rounds = l.rounds,
            .rate = l.rate,
            .scope = parse_scope(l.scope),
            .output_rate = l.output_rate,
            .rate_of = l.rate_of,
            .criterion = make_criterion(l.criterion),
            .rewind_step = l.rewind_to,
            .folder = rounds_folder(stage)};
  }

  void find_ticket(const Stage& stage, const ModulePtr& teacher) {
    const std::vector<Site> sites = sites_of(*network_, example_, stage.lottery->pattern);
    const LotteryResult result =
        find_lottery_ticket(network_, sites, train_, validation_, {}, lottery_options(stage, teacher));
    for (const LotteryRound& round : result.rounds)
      output_.say("    round {}: {:.2f} % masked{}", round.round, 100 * round.sparsity,
                  round.validation_accuracy
                      ? fmt::format(", validation accuracy {:.2f} %", 100 * *round.validation_accuracy)
                      : "");
    for (const LotteryRound& round : result.rounds)
      if (!round.untouched.empty())
        output_.result(
            "    warning: round {} removed nothing of {}: the rate is less than half a unit of what is left; take a "
            "larger rate or smaller units",
            round.round, fmt::join(round.untouched, ", "));
    if (result.finished) warn_of_collapses(sites, 1);
  }

  void search_adaptively(const Stage& stage, const ModulePtr& teacher) {
    const AdaptiveSettings& a = *stage.adaptive;
    const auto pruner = pruner_of(network_, {.units = a.units});
    const AdaptiveResult result = prune_adaptively(*pruner, train_, validation_,
                                                   {.training = plan_of(stage, teacher),
                                                    .retrain = a.retrain,
                                                    .step = a.step,
                                                    .smallest_step = a.smallest_step,
                                                    .tolerance = a.tolerance,
                                                    .largest_sparsity = a.largest_sparsity,
                                                    .rounds = a.rounds,
                                                    .folder = rounds_folder(stage)});
    for (const AdaptiveRound& round : result.rounds)
      output_.say("    round {}: {:.2f} % masked, validation loss {:.4f} (it was {:.4f}): {}", round.round,
                  100 * round.sparsity, round.validation_loss, result.start_loss,
                  round.accepted ? "accepted" : "taken back");
    if (!result.finished) return;
    output_.say("    the search ended: {}", result.end);
    say_what_is_left(pruner->sites(), a.units.min_units);
  }

  void run_to_budget(const Stage& stage, const std::shared_ptr<Pruner>& pruner, const ModulePtr& teacher) {
    const PruneSettings& p = *stage.prune;
    const CostFunction cost = cost_function(parse_budget_kind(p.budget), example_);
    // A resumed run goes on to the budget that it began with: a share counts from the network as it was then.
    const RunFolder folder(stage_folder(stage));
    nlohmann::json record = options_.resume ? folder.read_json("budget.json") : nlohmann::json();
    if (record.is_null()) {
      const double now = cost(*network_);
      record = {{"budget", p.budget}, {"amount", budget_of(p, now).amount}, {"before", now}};
      folder.write_json("budget.json", record);
    }
    Budget budget = budget_of(p, 0);
    budget.amount = record.at("amount");
    const auto to_budget = std::make_shared<BudgetPruner>(pruner, budget, example_);
    if (stage.trains)
      fit(stage, pruner, teacher, to_budget);
    else
      to_budget->at_once();
    if (InterruptGuard::requested()) return;
    record["left"] = cost(*network_);
    folder.write_json("budget.json", record);
    const double before = record.at("before"), left = record.at("left");
    output_.say("    {}: {:.6g} -> {:.6g}, budget {:.6g}", p.budget, before, left, budget.amount);
  }

  std::shared_ptr<Pruner> pruner_of(const ModulePtr& network, const PruneSettings& p) const {
    return make_pruner(network, p, example_, train_, seed_);
  }

  /// The network on the run's device.
  ModulePtr placed(ModulePtr network) const {
    network->to(options_.device);
    return network;
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
      found = placed(load_model(find_model(path)));
    }
    found->eval();
    return found;
  }

  static DistillationTermPtr make_term(const TermSettings& term) {
    if (term.type == "hint") return hint(term.student, term.teacher);
    if (term.type == "attention") return attention_transfer({{term.student, term.teacher}});
    const RelationalOptions layers{.student_layer = term.student, .teacher_layer = term.teacher};
    return term.type == "relational-angle" ? relational_angle(layers) : relational_distance(layers);
  }

  /// How a stage trains but for what it does beside: steps, data, teacher. `others`: gets what is trained along.
  TrainerOptions trainer_of(const Stage& stage, const ModulePtr& teacher, NamedParameters& others) {
    TrainerOptions trainer = trainer_options(stage.train);
    trainer.seed = seed_;
    trainer.validation_fraction = 0;
    trainer.restore_best = stage.keep_best;
    trainer.run_folder = stage_folder(stage);
    trainer.resume = options_.resume;
    trainer.overwrite = !options_.resume;
    trainer.device = options_.device;
    set_progress(trainer, output_, "    ");
    if (!teacher) return trainer;
    const KnowledgeDistillationOptions kd{.temperature = stage.distill->temperature,
                                          .alpha = stage.distill->alpha,
                                          .label_smoothing = trainer.label_smoothing};
    trainer.label_smoothing = 0;
    DistillationOptions distillation{.terms = {{.term = knowledge_distillation(kd)}}, .seed = seed_};
    for (const TermSettings& term : stage.distill->terms)
      distillation.terms.push_back({.weight = term.weight, .term = make_term(term)});
    const auto learning = std::make_shared<Distillation>(network_, teacher, train_, distillation);
    others = learning->projections();
    return with_distillation(std::move(trainer), learning);
  }

  /// For stages that train many times.
  TrainingPlan plan_of(const Stage& stage, const ModulePtr& teacher) {
    NamedParameters others;  // none: hints are refused
    TrainerOptions options = trainer_of(stage, teacher, others);
    return {.optimizer = [settings = stage.train](Module& network) -> std::shared_ptr<Optimizer> {
              return build_optimizer(settings, network);
            },
            .options = std::move(options)};
  }

  void fit(const Stage& stage, const std::shared_ptr<Pruner>& pruner, const ModulePtr& teacher,
           const std::shared_ptr<BudgetPruner>& budget = nullptr) {
    NamedParameters others;
    TrainerOptions trainer = trainer_of(stage, teacher, others);
    const StageCallbacks own = callbacks_of(stage, network_, example_, train_.size(), seed_);
    trainer.callbacks.insert(trainer.callbacks.end(), own.callbacks.begin(), own.callbacks.end());
    others.insert(others.end(), own.parameters.begin(), own.parameters.end());
    if (pruner) {
      // Movement watches the training, before the schedule asks it.
      if (const auto watcher = std::dynamic_pointer_cast<Callback>(pruner->options().criterion))
        trainer.callbacks.push_back(watcher);
      const PruneSettings& p = *stage.prune;
      const GradualOptions gradual{.sparsity = p.sparsity,
                                   .curve = parse_sparsity_curve(p.curve),
                                   .begin = p.begin,
                                   .end = p.end,
                                   .every = p.every};
      trainer.callbacks.push_back(budget ? std::make_shared<GradualPruning>(budget, gradual)
                                         : std::make_shared<GradualPruning>(pruner, gradual));
    }
    Trainer(network_, build_optimizer(stage.train, *network_, others), std::move(trainer)).fit(train_, validation_);
    if (InterruptGuard::requested()) return;
    if (!own.sites.empty()) say_what_is_left(own.sites, own.min_units);
    if (stage.variational) {
      const SparsityCount count = remove_variational(dynamic_cast<Sequential&>(*network_));
      output_.say("    {} of {} weights are left", grouped(count.weights - count.masked), grouped(count.weights));
      warn_of_collapses(weight_sites(*network_), 1);
    }
  }

  const Recipe& recipe_;
  uint64_t seed_;
  std::string folder_;
  const PipelineOptions& options_;
  const Output& output_;
  Dataset all_, train_, validation_, test_;  ///< all_: training and validation images
  Tensor example_;
  ModulePtr network_;
  IndexMap index_map_;    ///< of the network's last compaction
  std::string settings_;  ///< of the network's last training, as JSON; "": unknown
};

}  // namespace

void rehearse(const Recipe& recipe, const Splits& data, const PipelineOptions& options, const Output& output) {
  SeedRun(recipe, recipe.seed, data, options.out, options, output).rehearse();
}

std::optional<SeedResult> run_seed(const Recipe& recipe, uint64_t seed, const Splits& data, const std::string& folder,
                                   const PipelineOptions& options, const Output& output) {
  return SeedRun(recipe, seed, data, folder, options, output).run();
}

}  // namespace espalier::tools
