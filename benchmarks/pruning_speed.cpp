// What pruning costs beside training.
//   pruning_speed [MODEL=lenet300] [BATCH=128] [ROUNDS=15] [PATTERN=all]
// First a training step with masks against one without: the two networks step in turns, so that both meet the same
// disturbances. Masks are random: which weights exist makes no difference. Then pruning events (scores, choice, masks)
// to a sparsity and on the way to a budget, against the unmasked step.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>

#include <espalier/espalier.h>

#include "benchmarks/program.h"

using namespace espalier;

namespace {

double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
double least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

/// A network in training on one random batch.
struct Training {
  ModulePtr network;
  Sgd optimizer;
  Tensor images, labels;

  Training(ModulePtr module, const Tensor& x, const Tensor& y)
      : network(std::move(module)), optimizer(*network, {.lr = 1e-3, .momentum = 0.9}), images(x), labels(y) {}
  void step() {
    optimizer.zero_grad();
    cross_entropy((*network)(images), labels).backward();
    optimizer.step();
  }
};

/// Masks all weights that the pattern fits; the share of these that exists, 0 when it fits none.
double mask_weights(const Module& network, const Pattern& pattern, double density) {
  int64_t all = 0, existing = 0;
  for (Parameter& weight : network.parameters()) {
    const bool is_bias = weight.shape().rank() < 2;
    if (is_bias) continue;
    try {
      const int64_t units = mask_layout(weight.shape(), pattern).units();
      const auto keep = std::max<int64_t>(1, std::llround(density * static_cast<double>(units)));
      weight.set_mask(Mask::from_scores(weight.shape(), pattern, rand({units}), keep));
    } catch (const ArgumentError&) {
      continue;  // the pattern doesn't divide this weight
    }
    all += weight.numel();
    existing += weight.mask().count_elements();
  }
  return all == 0 ? 0 : static_cast<double>(existing) / static_cast<double>(all);
}

const std::vector<Pattern>& patterns() {
  static const std::vector<Pattern> kPatterns = {Pattern::element(),     Pattern::block(2, 1), Pattern::block(1, 4),
                                                 Pattern::n_of_m(2, 4),  Pattern::kernel(),    Pattern::channel(0),
                                                 Pattern::channel(0, 4), Pattern::channel(1),  Pattern::recurrent()};
  return kPatterns;
}

void time_masked_steps(Training& dense, int64_t rounds, const std::string& which) {
  fmt::print("{:<22}{:>9}{:>12}{:>12}{:>11}{:>11}\n", "pattern", "density", "unmasked ms", "masked ms", "min ratio",
             "median");
  for (const Pattern& pattern : patterns())
    for (const double density : {0.9, 0.5, 0.1}) {
      if (which != "all" && which != pattern.to_string()) continue;
      const ModulePtr network = dense.network->clone();
      const double existing = mask_weights(*network, pattern, density);
      if (existing == 0) continue;
      Training masked(network, dense.images, dense.labels);
      std::vector<double> without, with;
      constexpr int64_t kWarmUp = 2;
      for (int64_t round = -kWarmUp; round < rounds; ++round) {
        const double a = seconds_of([&] { dense.step(); }), b = seconds_of([&] { masked.step(); });
        if (round < 0) continue;
        without.push_back(a);
        with.push_back(b);
      }
      fmt::print("{:<22}{:>9.2f}{:>12.3f}{:>12.3f}{:>11.3f}{:>11.3f}\n", pattern.to_string(), existing,
                 1e3 * least(without), 1e3 * least(with), least(with) / least(without), median(with) / median(without));
    }
}

void time_events(Training& dense, int64_t rounds) {
  const Tensor example = dense.images.slice(0, 0, 1).contiguous();
  std::vector<double> steps;
  for (int64_t round = 0; round < rounds; ++round) steps.push_back(seconds_of([&] { dense.step(); }));
  fmt::print("{:<22}{:>9}{:>12}{:>12}{:>11}{:>11}\n", "event", "scope", "step ms", "event ms", "min ratio", "median");
  const auto print = [&](const std::string& name, const char* scope, const std::vector<double>& events) {
    fmt::print("{:<22}{:>9}{:>12.3f}{:>12.3f}{:>11.3f}{:>11.3f}\n", name, scope, 1e3 * least(steps),
               1e3 * least(events), least(events) / least(steps), median(events) / median(steps));
  };
  const auto time = [&](const char* name, bool channels, bool at_once) {
    for (const Scope scope : {Scope::global, Scope::layer}) {
      std::vector<double> events;
      for (int64_t round = 0; round < rounds; ++round) {
        const ModulePtr network = dense.network->clone();
        const std::vector<Site> sites =
            channels ? channel_sites(DependencyGraph::trace(*network, example)) : weight_sites(*network);
        Pruner pruner(network, sites, {.allocation = {.scope = scope}});
        if (!at_once) pruner.prune(0.7);
        events.push_back(seconds_of([&] { pruner.prune(0.75); }));
      }
      print(name, name_of(scope), events);
    }
  };
  // From 70 to 75 % of a cost, as on the way to a budget.
  const auto time_budget = [&](BudgetKind kind, Scope scope) {
    std::vector<double> events;
    for (int64_t round = 0; round < rounds; ++round) {
      const ModulePtr network = dense.network->clone();
      const auto pruner =
          std::make_shared<Pruner>(network, weight_sites(*network), PrunerOptions{.allocation = {.scope = scope}});
      const double all = cost_function(kind, example)(*network);
      BudgetPruner budget(pruner, {.kind = kind, .amount = 0.2 * all}, example);
      budget.begin();
      budget.prune(0.7);
      events.push_back(seconds_of([&] { budget.prune(0.75); }));
    }
    print(fmt::format("weights, {}", name_of(kind)), name_of(scope), events);
  };
  for (const BudgetKind kind : {BudgetKind::parameters, BudgetKind::macs})
    for (const Scope scope : {Scope::global, Scope::layer}) time_budget(kind, scope);
  time("weights, 0 to 75 %", false, true);
  time("weights, 70 to 75 %", false, false);
  time("channels, 0 to 75 %", true, true);
  time("channels, 70 to 75 %", true, false);
}

int run(int argc, char** argv) {
  const std::string model = argc > 1 ? argv[1] : "lenet300", which = argc > 4 ? argv[4] : "all";
  const int64_t batch = argc > 2 ? std::atoll(argv[2]) : 128, rounds = argc > 3 ? std::atoll(argv[3]) : 15;
  check(batch >= 1 && rounds >= 1, "pruning_speed", "expected a batch and rounds of at least 1, got {} and {}", batch,
        rounds);
  set_seed(0);
  const Shape image = model_image(model);
  Tensor labels = Tensor::zeros({batch}, DType::i64);
  for (int64_t i = 0; i < batch; ++i) labels.select(0, i).fill_(static_cast<double>(i % 10));
  Training dense(make_model(model), randn({batch, image[0], image[1], image[2]}), labels);
  fmt::print("{}, batch {}, {} rounds, {} threads\n", model, batch, rounds, num_threads());
  if (which != "events") time_masked_steps(dense, rounds, which);
  if (which == "all" || which == "events") time_events(dense, rounds);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return espalier::run_program(run, argc, argv); }
