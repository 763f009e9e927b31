// Lesson 6: unstructured pruning. A network learns, then loses 95 % of its weights while it goes on learning.
//
// What it takes: sites (what may go), a criterion (what a weight is worth), an allocation (how much each layer loses)
// and a schedule (when).
//
//   cmake --build build/release --target 06_unstructured && build/release/examples/06_unstructured
#include <espalier/espalier.h>

using namespace espalier;

int lesson() {
  set_seed(0);
  const Splits digits = load_dataset("digits");
  const ModulePtr network =
      share(Sequential(Flatten(), Linear(64, 128), ReLU(), Linear(128, 64), ReLU(), Linear(64, 10)));
  const auto optimizer = [&](double lr) {
    return std::make_shared<Sgd>(*network, SgdOptions{.lr = lr, .momentum = 0.9, .nesterov = true});
  };

  // 1. The dense network, the yardstick of all that follows. Sites are its weights; biases are never pruned.
  Trainer dense(network, optimizer(0.05),
                {.epochs = 15, .batch_size = 32, .schedule = one_cycle_schedule(), .progress = ProgressMode::silent});
  dense.fit(digits.train);
  const double before = dense.evaluate(digits.test).accuracy();
  fmt::print("dense: {} weights, test accuracy {:.2f} %\n\n", count_sparsity(weight_sites(*network)).weights,
             100 * before);

  // 2. All at once, without training on: what a criterion alone can do. The magnitude |w| needs nothing but the
  // weights;
  //    Taylor (Molchanov et al. 2019) estimates from gradients how much the loss would change, and gets examples. Every
  //    criterion has to beat chance. A clone leaves the network as it is.
  constexpr double kSparsities[] = {0.5, 0.7, 0.9, 0.95};
  double by_chance = 0, by_magnitude = 0;  // at 70 %
  fmt::print("test accuracy after    50 %    70 %    90 %    95 %  of the weights went at once\n");
  for (const char* name : {"random", "magnitude", "taylor"}) {
    fmt::print("  by {:<16}", name);
    for (const double sparsity : kSparsities) {
      const ModulePtr copy = network->clone();
      Pruner(copy, weight_sites(*copy), {.criterion = make_criterion(name), .data = digits.train}).prune(sparsity);
      const double accuracy = evaluate(*copy, digits.test).accuracy();
      fmt::print("{:8.2f}", 100 * accuracy);
      if (sparsity == 0.7 && std::string(name) == "random") by_chance = accuracy;
      if (sparsity == 0.7 && std::string(name) == "magnitude") by_magnitude = accuracy;
    }
    fmt::print("\n");
  }

  // 3. Gradually, while it trains: the sparsity rises along a cubic curve, fast while there is redundancy, slowly at
  // the
  //    end (Zhu & Gupta 2017), and the last part of the training is left to the weights that remain. Global scope: the
  //    smallest weights of the whole network go, so layers that need their weights keep more of them.
  const auto pruner = std::make_shared<Pruner>(network, weight_sites(*network),
                                               PrunerOptions{.allocation = {.scope = Scope::global, .min_units = 10}});
  const auto schedule = std::make_shared<GradualPruning>(
      pruner, GradualOptions{.sparsity = 0.95, .curve = SparsityCurve::cubic, .end = 0.6});
  Trainer trainer(network, optimizer(0.02),
                  {.epochs = 30,
                   .batch_size = 32,
                   .schedule = cosine_schedule(),
                   .progress = ProgressMode::silent,
                   .callbacks = {schedule}});
  trainer.fit(digits.train);
  const double after = trainer.evaluate(digits.test).accuracy();
  const SparsityCount count = count_sparsity(pruner->sites());
  const int64_t left = count.weights - count.masked;
  fmt::print("\ngradually, in 30 epochs: {} of {} weights left ({:.1f}x), test accuracy {:.2f} %\n", left,
             count.weights, static_cast<double>(count.weights) / static_cast<double>(left), 100 * after);
  // The first layer shows where digits have no ink: no weight reads pixels at the rim (columns 0, 7, 8, 15, ...).
  for (const auto& [name, parameter] : network->named_parameters())
    if (parameter.mask().defined())
      fmt::print("  {}: {:.1f} % left\n{}", name, 100 * parameter.mask().density(), parameter.mask().draw(64, 6));

  // The claims of this lesson.
  if (by_magnitude < by_chance + 0.1 || pruner->sparsity() < 0.949 || after < before - 0.03) {
    fmt::print(stderr,
               "expected |w| to choose better than chance, and a sparsity of 0.95 within 3 points of the dense ");
    fmt::print(stderr, "network's accuracy; got {} and {}, {}, {} after {}\n", by_magnitude, by_chance,
               pruner->sparsity(), after, before);
    return 1;
  }
  fmt::print("\nNext: 07_structured, where whole channels go and the network gets smaller\n");
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
