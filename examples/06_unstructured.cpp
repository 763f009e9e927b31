// Lesson 6: unstructured pruning. A network learns, then loses 95 % of its weights while it goes on learning.
//
// What it takes: sites (what may go), a criterion (what a weight is worth), an allocation (how much each layer loses)
// and a schedule (when). Gradual pruning raises the sparsity along a cubic curve: many weights at first, when there is
// redundancy, few at the end (Zhu & Gupta 2017).
//
//   cmake --build build/release --target 06_unstructured && build/release/examples/06_unstructured
#include <espalier/espalier.h>

using namespace espalier;

int lesson() {
  set_seed(0);
  const Splits digits = load_dataset("digits");
  const ModulePtr network =
      share(Sequential(Flatten(), Linear(64, 128), ReLU(), Linear(128, 64), ReLU(), Linear(64, 10)));
  auto optimizer = [&](double lr) {
    return std::make_shared<Sgd>(*network, SgdOptions{.lr = lr, .momentum = 0.9, .nesterov = true});
  };

  // 1. The dense network, the yardstick of all that follows.
  Trainer dense(network, optimizer(0.05),
                {.epochs = 15, .batch_size = 32, .schedule = one_cycle_schedule(), .progress = ProgressMode::silent});
  dense.fit(digits.train);
  const double before = dense.evaluate(digits.test).accuracy();
  fmt::print("dense: {} weights, test accuracy {:.2f} %\n", count_sparsity(weight_sites(*network)).weights,
             100 * before);

  // 2. All at once, without training on: what the criterion alone can do. A clone leaves the network as it is.
  for (const char* criterion : {"random", "magnitude"}) {
    const ModulePtr copy = network->clone();
    Pruner(copy, weight_sites(*copy), {.criterion = make_criterion(criterion)}).prune(0.7);
    fmt::print("70 % gone at once by {:<9}: {:.2f} %\n", criterion, 100 * evaluate(*copy, digits.test).accuracy());
  }

  // 3. Gradually, while it trains. Global scope: the smallest weights of the whole network go, so layers that need
  //    their weights keep more of them.
  auto pruner = std::make_shared<Pruner>(network, weight_sites(*network),
                                         PrunerOptions{.allocation = {.scope = Scope::global, .min_units = 10}});
  auto schedule = std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.95, .end = 0.6});
  Trainer trainer(network, optimizer(0.02),
                  {.epochs = 30,
                   .batch_size = 32,
                   .schedule = cosine_schedule(),
                   .progress = ProgressMode::silent,
                   .callbacks = {schedule}});
  trainer.fit(digits.train);
  const double after = trainer.evaluate(digits.test).accuracy();
  const SparsityCount count = count_sparsity(pruner->sites());
  fmt::print("gradually: {} of {} weights left ({:.1f}x), test accuracy {:.2f} %\n", count.weights - count.masked,
             count.weights, static_cast<double>(count.weights) / static_cast<double>(count.weights - count.masked),
             100 * after);
  for (const auto& [name, parameter] : network->named_parameters())
    if (parameter.mask().defined())
      fmt::print("  {:<10} {:5.1f} % left\n{}", name, 100 * parameter.mask().density(), parameter.mask().draw(64, 6));

  // The claims of this lesson.
  if (pruner->sparsity() < 0.949 || after < before - 0.05) {
    fmt::print(stderr, "expected a sparsity of 0.95 within 5 points of the dense network's accuracy\n");
    return 1;
  }
  fmt::print("\nNext: 07_structured, where whole neurons go and the network gets smaller\n");
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
