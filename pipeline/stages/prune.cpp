// [[stage]] type = "prune": units go, at once or while the network trains, to a sparsity or a budget.
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/text.h"
#include "pipeline/run_places.h"
#include "pipeline/seed_run.h"
#include "pipeline/stages.h"
#include "pipeline/training_stage.h"
#include "pipeline/units.h"
#include "pruning/schedules/gradual.h"
#include "training/interrupt.h"

namespace espalier {

namespace {

constexpr const char* kBudgetFile = "budget.json";

/// "1,234,567"; "0.5": of shares and milliseconds a few digits are enough.
std::string amount_text(double amount) {
  return amount >= 1000 ? grouped(std::llround(amount)) : fmt::format("{:.6g}", amount);
}

class PruneStage : public TrainingStage {
 public:
  std::vector<std::string> files() const override { return {kBudgetFile, kRemovalsFile}; }

  bool rehearse(SeedRun& run) override {
    rehearse_lesson(run);
    // Criteria that look at data, or at a training, make way for magnitude: which units go makes no difference to what
    // can go.
    ScoredUnitOptions units = units_;
    const CriterionPtr asked_for = make_criterion(units.criterion);
    if (asked_for->watcher() != nullptr || asked_for->needs_data()) units.criterion = {.name = "magnitude"};
    const auto pruner = make_pruner(run.network(), units, pruner_options(run), run.example());
    asked_for->check_fits(*run.network(), pruner->sites());
    asked_for->check_state(pruner->input());
    const auto kind = budget_kind();
    if (kind == BudgetKind::milliseconds) return false;  // takes too long to measure twice
    if (kind)
      prune_to_budget(*pruner, budget_of(cost_function(*kind, run.example())(*run.network())), run.example());
    else
      pruner->prune(*sparsity_);
    return true;
  }

  void read_back(SeedRun& run) override {
    TrainingStage::read_back(run);
    const RunFolder folder(run.folder_of(*this));
    if (budget_kind()) number_in(folder, folder.read_json(kBudgetFile), "left");
    if (folder.has(kRemovalsFile)) RemovalRecord::load(folder.file(kRemovalsFile));  // throws when it is damaged
  }

  void run(SeedRun& run) override {
    const ModulePtr teacher = find_teacher(run);
    const auto pruner = make_pruner(run.network(), units_, pruner_options(run), run.example());
    pruner->record_to(
        std::make_shared<RemovalRecord>(pruner->options().criterion->name(), *units_.scope, pruner->sites()));
    const double gone_before = pruner->removed_share();
    if (budget_kind())
      run_to_budget(run, pruner, teacher);
    else if (trains())
      fit(run, teacher, schedule(pruner, nullptr));
    else
      pruner->prune(*sparsity_);
    if (update_) pruner->options().criterion->update();
    if (InterruptGuard::requested()) return;
    if (const auto record = pruner->record()) record->save(fmt::format("{}/{}", run.folder_of(*this), kRemovalsFile));
    run.say_what_is_left(pruner->sites(), units_.min_units);
    // What comes back for what goes leaves the share; a budget may have been met before.
    if (!regrow_ && !budget_kind() && pruner->removed_share() == gone_before)
      run.warn(
          "    warning: nothing was removed: {:.4g} % of the weights had gone before, and what was asked for is not "
          "half a unit more; ask for more, or prune smaller units",
          100 * gone_before);
  }

 protected:
  void own_fields(FieldVisitor& f) override {
    f("sparsity", sparsity_, share_below_one(), "Share of the weights that go: 0.9");
    f("ratio", ratio_, at_least(1), "Instead of it: 10, a tenth of the weights stays");
    f("parameters", parameters_, above(0), "Instead of it: 0.5, half of the parameters that there are, or a number");
    f("macs", macs_, above(0), "The same with MACs");
    f("bytes", bytes_, above(0), "The same with bytes of weights and masks");
    f("milliseconds", milliseconds_, above(0), "Time of one image on this machine, compacted");
    f("rank_by", rank_by_, "By what a budget puts units in order");
    espalier::fields(f, units_);
    espalier::fields(f, gradual_);
    f("regrow", regrow_, "Removed units may come back");
    f.unless_default("update", update_, "With woodfisher, at once: the weights that remain make up for those that go");
    f("sparsity_of", sparsity_of_, share_below_one(), "Of single layers, in place of the common one");
  }

  void settle_own(const Recipe&) override {
    int given = 0;
    for (const auto* amount : {&sparsity_, &ratio_, &parameters_, &macs_, &bytes_, &milliseconds_})
      given += amount->has_value() ? 1 : 0;
    if (given != 1)
      refuse(
          "expected either sparsity (0.9: 90 % of the weights go), ratio (10: a tenth stays), or a budget: "
          "parameters, macs, bytes (0.5: half of what there is) or milliseconds");
    if (ratio_) sparsity_ = 1 - 1 / *ratio_;
    ratio_.reset();
    if (sparsity_ && !(*sparsity_ < 1))
      refuse("expected a ratio of which something is left, got one that is too large");
    if (rank_by_ && !budget_kind()) refuse("rank_by belongs to a budget: parameters, macs, bytes or milliseconds");
    if (budget_kind()) rank_by_ = rank_by_.value_or(Budget{}.ranking);
    espalier::settle(units_);
    if (const double least = least_sparsity(units_.pattern); sparsity_ && *sparsity_ < least)
      refuse("pattern \"{}\": expected a sparsity of at least {:.4g}, which it removes at once, got {}", units_.pattern,
             least, *sparsity_);
    if (update_ && !make_criterion(units_.criterion)->has_update())
      refuse("the update belongs to criterion = \"woodfisher\", got \"{}\"", units_.criterion.name);
    if (update_ && !asks_for_no_epochs())
      refuse("the update follows a pruning at once; expected epochs = 0, then a stage that trains");
    GradualPruning::check_options(gradual_);
    if (budget_kind()) refuse_watcher(units_.criterion, "expected a sparsity or ratio, got a budget");
    if ((gradual_.curve == SparsityCurve::one_shot ? gradual_.begin : gradual_.end) == 0)
      refuse_watcher(units_.criterion, "expected an end above 0 (one-shot: a begin)");
  }

  std::string describe_own() const override {
    const std::string what = noun(units_.pattern);
    std::string text =
        sparsity_ ? fmt::format(" {:.4g} % of the {}{}", 100 * *sparsity_, sparsity_of_.empty() ? "" : "other ", what)
                  : fmt::format(" {} to {} {}", what, amount_text(amount()), name_of(*budget_kind()));
    for (const auto& [layer, sparsity] : sparsity_of_) text += fmt::format(", {:.4g} % of {}", 100 * sparsity, layer);
    if (!sparsity_of_.empty()) text += ",";
    text += fmt::format(" by {}, {}", units_.criterion.name, name_of(*units_.scope));
    return update_ ? text + ", the others updated" : text;
  }
  const char* before_epochs() const override { return ", over"; }
  bool has_to_train() const override { return make_criterion(units_.criterion)->watcher() != nullptr; }

 private:
  std::optional<BudgetKind> budget_kind() const {
    if (parameters_) return BudgetKind::parameters;
    if (macs_) return BudgetKind::macs;
    if (bytes_) return BudgetKind::bytes;
    if (milliseconds_) return BudgetKind::milliseconds;
    return std::nullopt;
  }
  double amount() const {
    return parameters_ ? *parameters_ : macs_ ? *macs_ : bytes_ ? *bytes_ : milliseconds_.value_or(0);
  }
  /// A share, an amount below 1, counts from what the network costs now; milliseconds are no share.
  Budget budget_of(double now) const {
    const bool share = amount() < 1 && !milliseconds_;
    return {.kind = *budget_kind(), .amount = share ? amount() * now : amount(), .ranking = *rank_by_};
  }

  PrunerOptions pruner_options(const SeedRun& run) const {
    return {.allocation = {.sparsity_of = sparsity_of_}, .regrow = regrow_, .data = run.train(), .seed = run.seed()};
  }

  std::vector<std::shared_ptr<Callback>> schedule(const std::shared_ptr<Pruner>& pruner,
                                                  const std::shared_ptr<BudgetPruner>& budget) const {
    std::vector<std::shared_ptr<Callback>> callbacks;
    // A criterion that watches the training does so before the schedule asks it.
    const CriterionPtr& criterion = pruner->options().criterion;
    if (Callback* watcher = criterion->watcher()) callbacks.emplace_back(criterion, watcher);
    GradualOptions gradual = gradual_;
    gradual.sparsity = sparsity_.value_or(0);
    callbacks.push_back(budget ? std::make_shared<GradualPruning>(budget, gradual)
                               : std::make_shared<GradualPruning>(pruner, gradual));
    return callbacks;
  }

  /// A number of budget.json. Throws FileError when it isn't there.
  static double number_in(const RunFolder& folder, const nlohmann::json& record, const char* key) {
    if (!record.is_object() || !record.contains(key) || !record.at(key).is_number())
      fail<FileError>("run", "{}: expected a number \"{}\", as a prune stage wrote it; start anew with --overwrite",
                      folder.file(kBudgetFile), key);
    return record.at(key);
  }

  void run_to_budget(SeedRun& run, const std::shared_ptr<Pruner>& pruner, const ModulePtr& teacher) {
    const std::string kind = name_of(*budget_kind());
    const CostFunction cost = cost_function(*budget_kind(), run.example());
    // A resumed run goes on to the budget that it began with: a share counts from the network as it was then.
    const RunFolder folder(run.folder_of(*this));
    nlohmann::json record = run.options().resume ? folder.read_json(kBudgetFile) : nlohmann::json();
    if (record.is_null()) {
      const double now = cost(*run.network());
      record = {{"budget", kind}, {"amount", budget_of(now).amount}, {"before", now}};
      folder.write_json(kBudgetFile, record);
    }
    Budget budget = budget_of(0);
    budget.amount = number_in(folder, record, "amount");
    const auto to_budget = std::make_shared<BudgetPruner>(pruner, budget, run.example());
    if (trains())
      fit(run, teacher, schedule(pruner, to_budget));
    else
      to_budget->at_once();
    if (InterruptGuard::requested()) return;
    record["left"] = cost(*run.network());
    folder.write_json(kBudgetFile, record);
    run.say("    {}: {} -> {}, budget {}", kind, amount_text(record.at("before")), amount_text(record.at("left")),
            amount_text(budget.amount));
  }

  std::optional<double> sparsity_, ratio_, parameters_, macs_, bytes_, milliseconds_;
  std::optional<Ranking> rank_by_;
  ScoredUnitOptions units_;
  GradualOptions gradual_;
  bool regrow_ = false, update_ = false;
  std::map<std::string, double> sparsity_of_;
};

}  // namespace

StagePtr make_prune_stage() { return std::make_shared<PruneStage>(); }

}  // namespace espalier
