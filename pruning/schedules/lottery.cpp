#include "pruning/schedules/lottery.h"

#include <filesystem>
#include <fstream>

#include "core/json.h"
#include "layers/snapshot.h"
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

nlohmann::json optional_json(const std::optional<double>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}
std::optional<double> optional_of(const nlohmann::json& json) {
  return json.is_null() ? std::nullopt : std::optional<double>(json.get<double>());
}

nlohmann::json to_json(const LotteryRound& r) {
  return {{"round", r.round},
          {"sparsity", r.sparsity},
          {"validation_loss", optional_json(r.validation_loss)},
          {"validation_accuracy", optional_json(r.validation_accuracy)},
          {"test_loss", optional_json(r.test_loss)},
          {"test_accuracy", optional_json(r.test_accuracy)}};
}

LotteryRound lottery_round(const nlohmann::json& json) {
  return {.round = json.at("round").get<int64_t>(),
          .sparsity = json.at("sparsity").get<double>(),
          .validation_loss = optional_of(json.at("validation_loss")),
          .validation_accuracy = optional_of(json.at("validation_accuracy")),
          .test_loss = optional_of(json.at("test_loss")),
          .test_accuracy = optional_of(json.at("test_accuracy"))};
}

/// The files of a search.
struct Files {
  std::string folder;
  bool used() const { return !folder.empty(); }
  std::string of(const std::string& name) const { return used() ? folder + "/" + name : ""; }
  std::string network(int64_t round) const { return of(fmt::format("round-{}.safetensors", round)); }

  std::vector<LotteryRound> load(const nlohmann::json& settings) const {
    std::vector<LotteryRound> rounds;
    if (!used() || !std::filesystem::exists(of("rounds.json"))) return rounds;
    std::ifstream file(of("rounds.json"));
    try {
      const nlohmann::json saved = parse_json(std::string(std::istreambuf_iterator<char>(file), {}));
      if (saved.at("settings") != settings)
        fail<FileError>("find_lottery_ticket", "{} was made with other settings: {}, now {}", of("rounds.json"),
                        saved.at("settings").dump(), settings.dump());
      for (const nlohmann::json& round : saved.at("rounds")) rounds.push_back(lottery_round(round));
    } catch (const nlohmann::json::exception& error) {
      fail<FileError>("find_lottery_ticket", "{} is not what a search writes: {}", of("rounds.json"), error.what());
    }
    return rounds;
  }
  void save(const nlohmann::json& settings, const std::vector<LotteryRound>& rounds) const {
    if (!used()) return;
    nlohmann::json list = nlohmann::json::array();
    for (const LotteryRound& round : rounds) list.push_back(to_json(round));
    write_file_atomically(of("rounds.json"), nlohmann::json{{"settings", settings}, {"rounds", list}}.dump(2) + "\n");
  }
};

void prune_round(const ModulePtr& network, const std::vector<Site>& sites, const Dataset& train,
                 const LotteryOptions& options) {
  PrunerOptions pruning{.criterion = options.criterion, .allocation = {.scope = options.scope}};
  if (options.criterion->needs_data()) pruning.data = train;
  pruning.loss = options.training.options.loss;
  // Of what went with its units: single weights that are masked inside of them have no part in it.
  const auto after = [&](const std::vector<Site>& of, double rate) {
    return 1 - (1 - Pruner(network, of, pruning).removed_share()) * (1 - rate);
  };
  double sparsity = 0;
  std::map<std::string, double> sparsity_of;
  if (options.scope == Scope::layer) {
    for (size_t i = 0; i < sites.size(); ++i) {
      const auto own = options.rate_of.find(sites[i].name);
      const double rate = own != options.rate_of.end() ? own->second
                          : i + 1 == sites.size()      ? options.rate * options.output_rate
                                                       : options.rate;
      sparsity_of[sites[i].name] = after({sites[i]}, rate);
    }
  } else {
    sparsity = after(sites, options.rate);
  }
  pruning.allocation.sparsity_of = std::move(sparsity_of);
  Pruner(network, sites, pruning).prune(sparsity);
}

}  // namespace

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
        "expected rewind_step in [0,{}), the steps of a training, got {}", total, options.rewind_step);

  std::vector<std::string> names;
  for (const Site& site : sites) names.push_back(site.name);
  const nlohmann::json settings = {{"rate", options.rate},
                                   {"rate_of", options.rate_of},
                                   {"output_rate", options.output_rate},
                                   {"scope", name_of(options.scope)},
                                   {"criterion", options.criterion->name()},
                                   {"rewind_step", options.rewind_step},
                                   {"seed", options.training.options.seed},
                                   {"steps", total},
                                   {"sites", names}};
  const Files files{options.folder};
  if (files.used()) std::filesystem::create_directories(options.folder);
  LotteryResult search{.rounds = files.load(settings)};
  const auto start = std::make_shared<Capture>(options.rewind_step, files.of("rewind.safetensors"));
  if (!search.rounds.empty())
    restore(load_checkpoint(files.network(search.rounds.back().round)), *network);
  else if (options.rewind_step == 0 && (!files.used() || !std::filesystem::exists(files.of("rewind.safetensors"))))
    start->take(*network);
  else if (options.rewind_step == 0)
    load_state(*network, start->values());  // stopped in the first training

  for (auto round = static_cast<int64_t>(search.rounds.size()); round <= options.rounds; ++round) {
    if (round > 0) {
      prune_round(network, sites, data.train, options);
      load_state(*network, start->values());
    }
    TrainingPlan plan = options.training;
    plan.options.validation_fraction = 0;
    plan.options.run_folder = files.of(fmt::format("round-{}", round));
    std::vector<std::shared_ptr<Callback>> callbacks;
    if (round == 0 && options.rewind_step > 0) callbacks.push_back(start);
    const Retraining trained =
        retrain(network, plan, data.train, data.validation, round == 0 ? 0 : options.rewind_step, callbacks);
    if (!trained.finished) {
      search.finished = false;
      return search;
    }
    LotteryRound record{.round = round, .sparsity = count_sparsity(sites).sparsity()};
    const EvaluateOptions how{
        .batch_size = plan.options.validation_batch_size, .device = plan.options.device, .loss = plan.options.loss};
    if (data.validation.size() > 0) {
      const Evaluation result = evaluate(*network, data.validation, how);
      record.validation_loss = result.loss;
      record.validation_accuracy = result.accuracy();
    }
    if (test.size() > 0) {
      const Evaluation result = evaluate(*network, test, how);
      record.test_loss = result.loss;
      record.test_accuracy = result.accuracy();
    }
    search.rounds.push_back(record);
    if (files.used()) save_checkpoint(files.network(round), *network);
    files.save(settings, search.rounds);
  }
  return search;
}

}  // namespace espalier
