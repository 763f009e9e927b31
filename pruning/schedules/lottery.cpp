#include "pruning/schedules/lottery.h"

#include <algorithm>

#include "core/fields.h"
#include "core/json.h"
#include "layers/snapshot.h"
#include "pruning/identity.h"
#include "pruning/schedules/search_folder.h"
#include "training/checkpoint.h"

namespace espalier {

namespace {

/// Keeps the weights after a step; in a file too, because a resumed training may be past that step.
class Capture : public Callback {
 public:
  Capture(int64_t step, std::string path) : step_(step), path_(std::move(path)) {}
  void on_step_end(Trainer& trainer, const StepRecord& record) override {
    if (record.step == step_) take(*trainer.module());
  }
  void take(const Module& network) {
    values_ = values_of(network);
    if (!path_.empty()) save_checkpoint(path_, network);
  }
  const NamedTensors& values() {
    if (values_.empty() && !path_.empty()) values_ = load_checkpoint(path_).model;
    return values_;
  }

 private:
  int64_t step_;
  std::string path_;
  NamedTensors values_;
};

std::optional<double> optional_of(const nlohmann::json& json) {
  return json.is_null() ? std::nullopt : std::optional<double>(json.get<double>());
}

nlohmann::json to_json(const LotteryRound& r) {
  return {{"round", r.round},
          {"sparsity", r.sparsity},
          {"untouched", r.untouched},
          {"validation_loss", json_or_null(r.validation_loss)},
          {"validation_accuracy", json_or_null(r.validation_accuracy)},
          {"test_loss", json_or_null(r.test_loss)},
          {"test_accuracy", json_or_null(r.test_accuracy)}};
}

LotteryRound lottery_round(const nlohmann::json& json) {
  return {.round = json.at("round").get<int64_t>(),
          .sparsity = json.at("sparsity").get<double>(),
          .untouched = json.at("untouched").get<std::vector<std::string>>(),
          .validation_loss = optional_of(json.at("validation_loss")),
          .validation_accuracy = optional_of(json.at("validation_accuracy")),
          .test_loss = optional_of(json.at("test_loss")),
          .test_accuracy = optional_of(json.at("test_accuracy"))};
}

constexpr char kRewindFile[] = "rewind.safetensors";

void save(const SearchFolder& folder, const std::vector<LotteryRound>& rounds) {
  nlohmann::json list = nlohmann::json::array();
  for (const LotteryRound& round : rounds) list.push_back(to_json(round));
  folder.save({{"rounds", list}});
}

/// Units of each site that exist.
std::vector<int64_t> count_units(const std::vector<Site>& sites) {
  std::vector<int64_t> counts;
  for (const Site& site : sites) {
    const std::vector<bool> exists = existing_units(site);
    counts.push_back(std::count(exists.begin(), exists.end(), true));
  }
  return counts;
}

/// The sites that the rates should have made smaller and that lost no unit.
std::vector<std::string> prune_round(const ModulePtr& network, const std::vector<Site>& sites, const Dataset& train,
                                     const LotteryOptions& options) {
  PrunerOptions pruning{.criterion = options.criterion, .allocation = {.scope = options.scope}};
  if (options.criterion->needs_data()) pruning.data = train;
  pruning.loss = options.training.options.loss;
  // Of what went with its units: single weights that are masked inside of them have no part in it.
  const auto after = [&](const std::vector<Site>& of, double rate) {
    return 1 - (1 - Pruner(network, of, pruning).removed_share()) * (1 - rate);
  };
  double sparsity = 0;
  std::vector<double> rates(sites.size(), options.rate);
  std::map<std::string, double> sparsity_of;
  if (options.scope == Scope::layer) {
    rates.back() *= options.output_rate;
    for (size_t i = 0; i < sites.size(); ++i) {
      if (const auto own = options.rate_of.find(sites[i].name); own != options.rate_of.end()) rates[i] = own->second;
      sparsity_of[sites[i].name] = after({sites[i]}, rates[i]);
    }
  } else {
    sparsity = after(sites, options.rate);
  }
  pruning.allocation.sparsity_of = std::move(sparsity_of);
  const std::vector<int64_t> before = count_units(sites);
  Pruner(network, sites, pruning).prune(sparsity);
  const std::vector<int64_t> left = count_units(sites);
  if (options.scope == Scope::global && left != before) return {};
  std::vector<std::string> untouched;
  for (size_t i = 0; i < sites.size(); ++i)
    if (rates[i] > 0 && left[i] == before[i]) untouched.push_back(sites[i].name);
  return untouched;
}

}  // namespace

void fields(FieldVisitor& f, LotteryOptions& o) {
  f("rounds", o.rounds, at_least(1), "Prunings; there is one training more");
  f("rate", o.rate, between_zero_and_one(), "Share of the remaining weights that each round removes");
  f("output_rate", o.output_rate, at_least(0), "Times rate: for the last layer");
  f("rate_of", o.rate_of, share_below_one(), "Of single layers");
  f("rewind_to", o.rewind_step, at_least(0), "Step of the first training whose weights every round starts from");
  f("scope", o.scope, "layer: the same share of each; global: of all together (not erk)");
}

void check_lottery(const Module& network, const std::vector<Site>& sites, const LotteryOptions& options) {
  const auto is_rate = [](double rate) { return rate >= 0 && rate < 1; };
  check(!sites.empty() && options.criterion != nullptr, "find_lottery_ticket",
        "expected something to prune and a criterion, got {} sites and {}", sites.size(),
        options.criterion ? options.criterion->name() : "no criterion");
  options.criterion->check_fits(network, sites);
  check(options.rounds >= 0 && is_rate(options.rate), "find_lottery_ticket",
        "expected rounds >= 0 and a rate in [0,1), got {} and {}", options.rounds, options.rate);
  check(is_rate(options.rate * options.output_rate), "find_lottery_ticket",
        "expected output_rate * rate in [0,1), got {}", options.rate * options.output_rate);
  check(options.scope != Scope::erk, "find_lottery_ticket", "rounds remove shares by layer or globally, not by erk");
  std::vector<std::string> known;
  for (const Site& site : sites) known.push_back(site.name);
  for (const auto& [name, rate] : options.rate_of) {
    check(std::find(known.begin(), known.end(), name) != known.end(), "find_lottery_ticket", "no site is named '{}'{}",
          name, did_you_mean(name, known));
    check(is_rate(rate), "find_lottery_ticket", "expected a rate in [0,1) for '{}', got {}", name, rate);
  }
}

LotteryResult find_lottery_ticket(const ModulePtr& network, const std::vector<Site>& sites, const Dataset& train,
                                  const Dataset& validation, const Dataset& test, const LotteryOptions& options) {
  check(network != nullptr, "find_lottery_ticket", "expected a network, got a null pointer");
  check_lottery(*network, sites, options);
  const TrainValidation data = training_data(options.training, train, validation);
  const int64_t total = total_steps(options.training.options, data.train);
  check(options.rewind_step >= 0 && options.rewind_step < std::max<int64_t>(total, 1), "find_lottery_ticket",
        "expected rewind_to (rewind_step) in [0,{}), the steps of a training, got {}", total, options.rewind_step);

  SearchFolder folder("find_lottery_ticket", options.folder);
  nlohmann::json identity;
  LotteryResult search;
  if (folder.is_used())
    identity = {{"rate", options.rate},
                {"rate_of", options.rate_of},
                {"output_rate", options.output_rate},
                {"scope", name_of(options.scope)},
                {"criterion", options.criterion->name()},
                {"rewind_step", options.rewind_step},
                {"sites", identity_of(sites)},
                {"training", identity_of(options.training, network, data)}};
  const bool goes_on = folder.go_on(identity, {kRewindFile}, [&](const nlohmann::json& list) {
    for (const nlohmann::json& round : list.at("rounds")) search.rounds.push_back(lottery_round(round));
  });
  if (!goes_on) save(folder, search.rounds);
  const auto start = std::make_shared<Capture>(options.rewind_step, folder.file(kRewindFile));
  if (!search.rounds.empty())
    folder.load_network(search.rounds.back().round, *network);
  else if (options.rewind_step == 0 && !folder.has(kRewindFile))
    start->take(*network);
  else if (options.rewind_step == 0)
    load_state(*network, start->values());  // stopped in the first training

  for (auto round = static_cast<int64_t>(search.rounds.size()); round <= options.rounds; ++round) {
    std::vector<std::string> untouched;
    if (round > 0) {
      untouched = prune_round(network, sites, data.train, options);
      load_state(*network, start->values());
    }
    TrainingPlan plan = options.training;
    plan.options.validation_fraction = 0;
    plan.options.run_folder = folder.training(round);
    std::vector<std::shared_ptr<Callback>> callbacks;
    if (round == 0 && options.rewind_step > 0) callbacks.push_back(start);
    const Retraining trained =
        retrain(network, plan, data.train, data.validation, round == 0 ? 0 : options.rewind_step, callbacks);
    if (!trained.finished) {
      search.finished = false;
      return search;
    }
    LotteryRound record{
        .round = round, .sparsity = count_sparsity(sites).sparsity(), .untouched = std::move(untouched)};
    const EvaluateOptions how{
        .batch_size = plan.options.validation_batch_size, .device = plan.options.device, .loss = plan.options.loss};
    if (data.validation.size() > 0) {
      const Evaluation result = evaluate(*network, data.validation, how);
      record.validation_loss = result.loss;
      record.validation_accuracy = result.maybe_accuracy();
    }
    if (test.size() > 0) {
      const Evaluation result = evaluate(*network, test, how);
      record.test_loss = result.loss;
      record.test_accuracy = result.maybe_accuracy();
    }
    search.rounds.push_back(record);
    folder.save_network(round, *network);
    save(folder, search.rounds);
  }
  return search;
}

}  // namespace espalier
