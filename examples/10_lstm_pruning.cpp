// Lesson 10: pruning a recurrent network. The units are hidden units of an LSTM, and each of them is in many places.
//
// An LSTM of H units has stacked weights for its four gates: weight_ih (4H,I) reads the input, weight_hh (4H,H) the
// state of the last step, and there are biases (4H). Hidden unit u is four rows of all of them and, because its state
// is read in the next step, a column of weight_hh; and a column of whatever reads the output. Whoever removes the rows
// of one gate only, or forgets the column, saves nothing (Wen et al. 2018, "Learning intrinsic sparse structures within
// long short-term memory").
//
//   cmake --build build/release --target 10_lstm_pruning && build/release/examples/10_lstm_pruning
#include <algorithm>
#include <string>

#include <espalier/espalier.h>

using namespace espalier;

int lesson() {
  set_seed(0);
  const Splits digits = load_dataset("digits");
  // The network of lesson 4, from the library: an LSTM reads the rows of an image, a Linear its last state.
  const ModulePtr network = make_model("lstm-rows:64", {.classes = 10, .in_channels = 1, .height = 8, .width = 8});
  const auto train = [&](int64_t epochs, double lr, std::vector<std::shared_ptr<Callback>> callbacks) {
    Trainer trainer(network, std::make_shared<Adam>(*network, AdamOptions{.lr = lr}),
                    {.epochs = epochs,
                     .batch_size = 32,
                     .schedule = cosine_schedule(),
                     .clip_norm = 1,
                     .progress = ProgressMode::silent,
                     .callbacks = std::move(callbacks)});
    trainer.fit(digits.train);
    return trainer.evaluate(digits.test).accuracy();
  };
  const double dense = train(15, 5e-3, {});
  const int64_t parameters = network->num_parameters();
  fmt::print("dense: {} parameters, test accuracy {:.2f} %\n\n", parameters, 100 * dense);

  // 1. The tape of one forward pass knows which slices belong to a hidden unit.
  const Tensor example = Tensor::zeros({1, 1, 8, 8});
  const DependencyGraph graph = DependencyGraph::trace(*network, example);
  fmt::print("{}\n", graph.explain("lstm"));

  // 2. Units go while the network trains. Sparsity counts weights: half of the units are three quarters of weight_hh.
  const auto pruner = std::make_shared<Pruner>(network, channel_sites(graph));
  const auto schedule = std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.85, .end = 0.5});
  const double masked = train(25, 5e-3, {schedule});
  std::string units;
  for (const bool exists : existing_units(pruner->sites().front())) units += exists ? '@' : '.';
  const auto left = std::count(units.begin(), units.end(), '@');
  fmt::print("{} of 64 units left: {}\n{:.1f} % of the weights are masked, test accuracy {:.2f} %\n\n", left, units,
             100 * pruner->sparsity(), 100 * masked);

  // 3. What is masked goes, rows, columns and biases together, and the Linear reads fewer features.
  const CompactionReport report = compact(*network, example);
  for (const auto& [name, parameter] : network->named_parameters())
    fmt::print("  {:<20} {}\n", name, parameter.shape());
  const double compacted = evaluate(*network, digits.test).accuracy();
  fmt::print("compacted: {} parameters, {:.1f} times fewer; test accuracy {:.2f} %; outputs differ by {:.0e}\n",
             report.parameters_after,
             static_cast<double>(report.parameters_before) / static_cast<double>(report.parameters_after),
             100 * compacted, report.error);

  // 4. It is an ordinary network: its configuration, from which clone() and checkpoints rebuild it, has the new sizes.
  const ModulePtr copy = network->clone();
  const double cloned = evaluate(*copy, digits.test).accuracy();

  // The claims of this lesson.
  if (masked < dense - 0.03 || compacted < masked - 1e-9 || cloned != compacted ||
      report.parameters_after * 5 > parameters) {
    fmt::print(stderr,
               "expected an accuracy within 3 points of {}, the same after compaction and with the copy, and a ",
               dense);
    fmt::print(stderr, "fifth of {} parameters; got {}, {}, {} and {}\n", parameters, masked, compacted, cloned,
               report.parameters_after);
    return 1;
  }
  fmt::print("\nNext: 11_dynamic_sparse_training\n");
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
