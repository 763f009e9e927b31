// Lesson 8: lottery tickets. A big network contains a small one that, trained alone from its own initial weights, gets
// about as good; from other initial weights it does not (Frankle & Carbin 2019, "The lottery ticket hypothesis").
//
// To find it: train, remove the smallest weights, set those that are left back to what they were at the start, and
// again train, remove, set back. The ticket is the masks together with the initial weights.
//
//   cmake --build build/release --target 08_lottery_ticket && build/release/examples/08_lottery_ticket
#include <vector>

#include <espalier/espalier.h>

using namespace espalier;

// The initial weights come from the default generator: another seed, another network.
ModulePtr make_network(uint64_t seed) {
  set_seed(seed);
  return share(Sequential(Flatten(), Linear(64, 100), ReLU(), Linear(100, 50), ReLU(), Linear(50, 10)));
}

int lesson() {
  const Splits digits = load_dataset("digits");

  // 1. One training, to be repeated as it is: each time with a fresh optimiser, so that no state of the last one is
  // left.
  TrainingPlan plan;
  plan.optimizer = [](Module& network) { return std::make_shared<Adam>(network, AdamOptions{.lr = 2e-3}); };
  plan.options = {.epochs = 12, .batch_size = 60, .progress = ProgressMode::silent};

  // 2. Each round removes 40 % of the weights that are left, layer by layer (of the last layer half as much).
  LotteryOptions options;
  options.training = plan;
  options.rounds = 6;
  options.rate = 0.4;

  // 3. One ticket proves little: three networks, and for each a rival, the same masks over other initial weights.
  constexpr uint64_t kSeeds = 3;
  std::vector<double> density;   // by round
  std::vector<Average> tickets;  // by round; round 0 is the dense network
  Average rivals;                // of the last round
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const ModulePtr network = make_network(seed);
    const LotteryResult result =
        find_lottery_ticket(network, weight_sites(*network), digits.train, {}, digits.test, options);
    if (!result.finished) return 130;
    density.resize(result.rounds.size());
    tickets.resize(result.rounds.size());
    for (size_t i = 0; i < result.rounds.size(); ++i) {
      density[i] = 1 - result.rounds[i].sparsity;
      tickets[i].add(result.rounds[i].test_accuracy.value(), 1);
    }

    // After the search the network has the masks of the last round.
    const ModulePtr rival = make_network(seed + 100);
    const std::vector<Parameter> pruned = network->parameters();
    std::vector<Parameter> fresh = rival->parameters();
    for (size_t i = 0; i < pruned.size(); ++i)
      if (pruned[i].mask().defined()) fresh[i].set_mask(pruned[i].mask());
    if (!retrain(rival, plan, digits.train, {}).finished) return 130;
    rivals.add(evaluate(*rival, digits.test).accuracy(), 1);
  }

  fmt::print("mean of {} networks\n\nweights left   test accuracy\n", kSeeds);
  for (size_t i = 0; i < tickets.size(); ++i)
    fmt::print("{:10.1f} %   {:11.2f} %{}\n", 100 * density[i], 100 * tickets[i].value(), i == 0 ? "  dense" : "");
  fmt::print("{:10.1f} %   {:11.2f} %  the same masks, other initial weights\n", 100 * density.back(),
             100 * rivals.value());

  // The claims of this lesson.
  const double dense = tickets.front().value(), ticket = tickets.back().value();
  if (ticket < dense - 0.05 || ticket < rivals.value() + 0.02) {
    fmt::print(stderr,
               "expected tickets within 5 points of the dense networks ({}) and 2 points better than with other ",
               dense);
    fmt::print(stderr, "initial weights ({}), got {}\n", rivals.value(), ticket);
    return 1;
  }
  fmt::print("\nLarger networks need LotteryOptions::rewind_step: go back to an early step, not to the very start.\n");
  fmt::print("Next: 09_distillation, where a small network learns from a large one\n");
  return 0;
}

int main() {
  try {
    return lesson();
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
