// Lesson 11: dynamic sparse training. The network is sparse from the first step to the last; what moves is where its
// weights are.
//
// All lessons before trained the dense network first. Here it never exists: random masks say which weights there are,
// and every few steps the weakest connections are dropped and as many others grow. SET grows at random (Mocanu et al.
// 2018), RigL where the gradient says that a weight is missing most (Evci et al. 2020).
//
//   cmake --build build/release --target 11_dynamic_sparse_training &&
//   build/release/examples/11_dynamic_sparse_training
#include <optional>

#include <espalier/espalier.h>

using namespace espalier;

constexpr int kSeeds = 3;

// Mean test accuracy of networks of this sparsity. Without a growth the first, random masks stay.
double train_networks(const Splits& digits, double sparsity, std::optional<Growth> growth) {
  Average accuracy;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    set_seed(seed);
    const ModulePtr network =
        share(Sequential(Flatten(), Linear(64, 200), ReLU(), Linear(200, 100), ReLU(), Linear(100, 10)));
    TrainerOptions options{.epochs = 20, .batch_size = 32, .schedule = cosine_schedule(), .seed = seed};
    options.progress = ProgressMode::silent;

    if (sparsity > 0) {
      // ERK gives small layers higher densities than large ones, all together `sparsity`. Every 20 steps 30 % of the
      // connections move, fewer and fewer until three quarters of the training.
      const auto sparse = std::make_shared<SparseTraining>(
          weight_sites(*network), SparseTrainingOptions{.growth = growth.value_or(Growth::random),
                                                        .sparsity = sparsity,
                                                        .allocation = {.scope = Scope::erk},
                                                        .fraction = 0.3,
                                                        .every = 20,
                                                        .seed = seed});
      if (growth)
        options.callbacks = {sparse};  // it makes the first masks and moves them
      else
        sparse->start();  // the first masks, and nobody who moves them
    }
    Trainer trainer(network, std::make_shared<Sgd>(*network, SgdOptions{.lr = 0.05, .momentum = 0.9}), options);
    trainer.fit(digits.train);
    accuracy.add(trainer.evaluate(digits.test).accuracy(), 1);

    const double density = 1 - count_sparsity(weight_sites(*network)).sparsity();
    check(density <= 1 - sparsity + 1e-3, "lesson", "expected a density of at most {}, got {}", 1 - sparsity, density);
  }
  return accuracy.value();
}

int lesson() {
  const Splits digits = load_dataset("digits");
  fmt::print("test accuracy, mean of {} networks\n\n", kSeeds);
  fmt::print("dense                               {:7.2f} %\n\n", 100 * train_networks(digits, 0, {}));

  constexpr double kSparsities[] = {0.95, 0.98};
  double still[2], random[2], gradient[2];
  for (int i = 0; i < 2; ++i) {
    still[i] = train_networks(digits, kSparsities[i], {});
    random[i] = train_networks(digits, kSparsities[i], Growth::random);
    gradient[i] = train_networks(digits, kSparsities[i], Growth::gradient);
  }
  fmt::print("weights that exist at any time           5 %      2 %\n");
  fmt::print("random masks that stay              {:7.2f} %{:7.2f} %\n", 100 * still[0], 100 * still[1]);
  fmt::print("SET: grow at random                 {:7.2f} %{:7.2f} %\n", 100 * random[0], 100 * random[1]);
  fmt::print("RigL: grow where gradients are large{:7.2f} %{:7.2f} %\n", 100 * gradient[0], 100 * gradient[1]);

  // The claims of this lesson: at the same budget moving masks beat masks that stay, and gradients beat chance.
  for (int i = 0; i < 2; ++i)
    if (random[i] < still[i] + 0.01 || gradient[i] < random[i] + 0.01) {
      fmt::print(stderr, "expected masks that stay, SET and RigL to differ by at least a point each, got {}, {}, {}\n",
                 still[i], random[i], gradient[i]);
      return 1;
    }
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
