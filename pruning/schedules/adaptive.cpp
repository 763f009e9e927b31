#include "pruning/schedules/adaptive.h"

#include <cmath>

#include "core/fields.h"
#include "core/json.h"
#include "layers/snapshot.h"
#include "pruning/identity.h"
#include "pruning/schedules/search_folder.h"

namespace espalier {

namespace {

nlohmann::json to_json(const AdaptiveRound& r) {
  return {{"round", r.round},
          {"sparsity", r.sparsity},
          {"step", r.step},
          {"validation_loss", r.validation_loss},
          {"validation_accuracy", json_or_null(r.validation_accuracy)},
          {"accepted", r.accepted}};
}

AdaptiveRound adaptive_round(const nlohmann::json& json) {
  return {.round = json.at("round").get<int64_t>(),
          .sparsity = json.at("sparsity").get<double>(),
          .step = json.at("step").get<double>(),
          .validation_loss = json.at("validation_loss").get<double>(),
          .validation_accuracy = json.at("validation_accuracy").is_null()
                                     ? std::nullopt
                                     : std::optional<double>(json.at("validation_accuracy").get<double>()),
          .accepted = json.at("accepted").get<bool>()};
}

void save(const SearchFolder& folder, const AdaptiveResult& search) {
  nlohmann::json list = nlohmann::json::array();
  for (const AdaptiveRound& round : search.rounds) list.push_back(to_json(round));
  folder.save({{"start_loss", search.start_loss}, {"rounds", list}});
}

void check_options(const AdaptiveOptions& o) {
  check(o.retrain > 0 && o.retrain <= 1, "prune_adaptively",
        "expected retrain in (0,1], a share of the training, got {}", o.retrain);
  check(0 < o.smallest_step && o.smallest_step <= o.step && o.step < 1, "prune_adaptively",
        "expected 0 < smallest_step <= step < 1, got {} and {}", o.smallest_step, o.step);
  check(o.tolerance >= 0 && std::isfinite(o.tolerance) && o.rounds >= 0, "prune_adaptively",
        "expected tolerance >= 0 and rounds >= 0, got {} and {}", o.tolerance, o.rounds);
  check(o.largest_sparsity > 0 && o.largest_sparsity < 1, "prune_adaptively",
        "expected largest_sparsity in (0,1), got {}", o.largest_sparsity);
}

/// Why no round follows; "" when one does.
std::string end_of_search(int64_t rounds, double step, double removed, double wanted, const AdaptiveOptions& options) {
  if (rounds >= options.rounds) return fmt::format("{} rounds, as many as were asked for", rounds);
  if (step < options.smallest_step)
    return fmt::format("the step {:.4g} is below the smallest, {:.4g}", step, options.smallest_step);
  if (wanted <= removed)
    return fmt::format("{:.4g} is the largest sparsity that was asked for", options.largest_sparsity);
  return "";
}

}  // namespace

void fields(FieldVisitor& f, AdaptiveOptions& o) {
  f("step", o.step, between_zero_and_one(), "Share of the remaining weights that the first round removes");
  f("smallest_step", o.smallest_step, between_zero_and_one(), "Below it the search ends");
  f("tolerance", o.tolerance, at_least(0), "How much the validation loss may rise");
  f("retrain", o.retrain, share_above_zero(), "The last share of the training that follows each round");
  f("largest_sparsity", o.largest_sparsity, between_zero_and_one(), "Where the search ends");
  f("rounds", o.rounds, at_least(0), "At most");
}

AdaptiveResult prune_adaptively(Pruner& pruner, const Dataset& train, const Dataset& validation,
                                const AdaptiveOptions& options) {
  check_options(options);
  const TrainValidation data = training_data(options.training, train, validation);
  check(data.validation.size() > 0, "prune_adaptively",
        "the validation loss decides, so it needs a validation set; pass one or set validation_fraction");
  const ModulePtr& network = pruner.module();
  const int64_t total = total_steps(options.training.options, data.train);
  const int64_t first = total - std::max<int64_t>(1, std::llround(options.retrain * static_cast<double>(total)));
  const auto measure = [&] {
    return evaluate(*network, data.validation,
                    {.batch_size = options.training.options.validation_batch_size,
                     .device = options.training.options.device,
                     .loss = options.training.options.loss});
  };
  SearchFolder folder("prune_adaptively", options.folder);
  nlohmann::json identity;
  if (folder.is_used())
    identity = {{"step", options.step},
                {"smallest_step", options.smallest_step},
                {"tolerance", options.tolerance},
                {"retrain", options.retrain},
                {"pruner", identity_of(pruner)},
                {"largest_sparsity", options.largest_sparsity},
                {"training", identity_of(options.training, network, data)}};
  AdaptiveResult search;
  const bool goes_on = folder.go_on(identity, {}, [&](const nlohmann::json& list) {
    search.start_loss = list.at("start_loss").get<double>();
    for (const nlohmann::json& round : list.at("rounds")) search.rounds.push_back(adaptive_round(round));
  });
  if (goes_on) {
    int64_t accepted = 0;
    for (const AdaptiveRound& round : search.rounds)
      if (round.accepted) accepted = round.round;
    folder.load_network(accepted, *network);
  } else {
    search.start_loss = measure().loss;
    folder.save_network(0, *network);
    save(folder, search);
  }
  double step = options.step;
  for (const AdaptiveRound& round : search.rounds) step = round.accepted ? round.step : round.step / 2;

  for (;;) {
    // Of what went with its units: single weights that are masked inside of them have no part in it.
    const double removed = pruner.removed_share();
    const double wanted = std::min(options.largest_sparsity, 1 - (1 - removed) * (1 - step));
    search.end = end_of_search(static_cast<int64_t>(search.rounds.size()), step, removed, wanted, options);
    if (!search.end.empty()) break;
    const Snapshot before(*network);
    AdaptiveRound round{.round = static_cast<int64_t>(search.rounds.size()) + 1, .step = step};
    try {
      pruner.prune(wanted);
    } catch (const ArgumentError& error) {
      // What is protected or has to stay leaves less to remove; before the first round that is a mistake in the
      // options.
      if (search.rounds.empty()) throw;
      search.end = error.what();
      break;
    }
    if (pruner.removed_share() == removed) {
      before.restore();
      search.end = fmt::format(
          "{:.4g} of what is left is less than half a unit: nothing to remove; take a larger step or smaller units",
          step);
      break;
    }
    TrainingPlan plan = options.training;
    plan.options.validation_fraction = 0;
    plan.options.run_folder = folder.training(round.round);
    if (!retrain(network, plan, data.train, data.validation, first).finished) {
      search.finished = false;
      break;
    }
    const Evaluation result = measure();
    round.sparsity = pruner.sparsity();
    round.validation_loss = result.loss;
    round.validation_accuracy = result.maybe_accuracy();
    round.accepted = result.loss <= search.start_loss + options.tolerance;
    search.rounds.push_back(round);
    if (!round.accepted) {
      before.restore();
      step /= 2;
    }
    if (round.accepted) folder.save_network(round.round, *network);
    save(folder, search);
  }
  search.sparsity = pruner.sparsity();
  return search;
}

}  // namespace espalier
