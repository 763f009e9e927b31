// Lesson 7: structured pruning. Whole channels go, and the network gets smaller: fewer parameters, less work, less
// time, without any special kernel.
//
// A channel belongs to several layers: the filter that makes it, the BatchNorm that scales it, every layer that reads
// it, and where outputs are added, all layers of the sum. The dependency graph finds these groups. Criteria, allocation
// and schedules are those of lesson 6, with channels in place of single weights; at the end compact() takes out what is
// masked.
//
//   cmake --build build/release --target 07_structured && build/release/examples/07_structured
#include <algorithm>
#include <chrono>

#include <espalier/espalier.h>

using namespace espalier;

// A small residual network.
ModulePtr make_network() {
  return share(Sequential(                                                                 // (N, 1,8,8)
      Conv2d(1, 32, {.kernel = 3, .padding = 1, .bias = false}), BatchNorm2d(32), ReLU(),  // (N,32,8,8)
      BasicBlock(32, 32),                                                                  // (N,32,8,8)  x + body(x)
      BasicBlock(32, 64, {.stride = 2, .shortcut = Shortcut::projection}),                 // (N,64,4,4)
      AdaptiveAvgPool2d(), Flatten(), Linear(64, 10)));                                    // (N,10)
}

// What the network says about images, without learning from it.
Tensor answers(Module& network, const Tensor& images) {
  const EvalMode mode(network);
  const NoGrad no_grad;
  return network(images).data();
}

// Milliseconds for the images, the best of several passes: other programs only ever make it slower.
double milliseconds(Module& network, const Tensor& images) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  for (int pass = 0; pass < 12; ++pass) {
    const Clock::time_point start = Clock::now();
    answers(network, images);
    best = std::min(best, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  return best;
}

int lesson() {
  set_seed(0);
  const Splits digits = load_dataset("digits");
  const ModulePtr network = make_network();
  const auto train = [&](int64_t epochs, double lr, std::vector<std::shared_ptr<Callback>> callbacks) {
    Trainer trainer(network, std::make_shared<Sgd>(*network, SgdOptions{.lr = lr, .momentum = 0.9, .nesterov = true}),
                    {.epochs = epochs,
                     .batch_size = 32,
                     .schedule = cosine_schedule(),
                     .progress = ProgressMode::silent,
                     .callbacks = std::move(callbacks)});
    trainer.fit(digits.train);
  };
  train(4, 0.05, {});
  const double dense = evaluate(*network, digits.test).accuracy();

  // 1. Groups. One example goes through the network, and the tape says which slices of which weights are one unit.
  const Tensor example = Tensor::zeros({1, 1, 8, 8});
  const DependencyGraph graph = DependencyGraph::trace(*network, example);
  fmt::print("{}\n{}\n", graph.to_table(), graph.explain(graph.groups()[1].name));

  // 2. Half of the channels of every group go while the network trains on. Criterion: how much the loss would change
  //    without the channel (Molchanov et al. 2019), added up over all its slices.
  const auto pruner = std::make_shared<Pruner>(
      network, channel_sites(graph),
      PrunerOptions{
          .criterion = make_criterion("taylor"), .allocation = {.scope = Scope::layer}, .data = digits.train});
  const auto schedule =
      std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.5, .end = 0.5, .every = 20});
  train(6, 0.02, {schedule});
  const double masked = evaluate(*network, digits.test).accuracy();

  // 3. So far the channels are only masked: every tensor is as large as before, and nothing is faster. compact() makes
  // a
  //    smaller dense network. It removes the columns that read a dead channel too: half of the rows and half of the
  //    columns of a weight leave a quarter of it.
  const Tensor images = Transform(digits.test.mean, digits.test.stddev).normalize(digits.test.images);
  const ModulePtr large = network->clone();
  const Tensor before = answers(*network, images);
  const CompactionReport report = compact(*network, example);
  const Tensor after = answers(*network, images);
  const double difference = max(abs(after - before)).item() / max(abs(before)).item();
  const double compacted = evaluate(*network, digits.test).accuracy();
  fmt::print("{}\n", report.to_table());

  // 4. The three networks side by side.
  const double time_large = milliseconds(*large, images), time_small = milliseconds(*network, images);
  const ModelSummary large_summary = summarize(*large, {1, 1, 8, 8}), summary = summarize(*network, {1, 1, 8, 8});
  fmt::print("            test accuracy  parameters       MACs  {} images\n", images.size(0));
  fmt::print("dense             {:5.2f} %  {:10}  {:9}  {:6.1f} ms\n", 100 * dense, large_summary.parameters,
             large_summary.macs, time_large);
  fmt::print("masked            {:5.2f} %  {:10}  {:9}  the same\n", 100 * masked, large_summary.parameters,
             large_summary.macs);
  fmt::print("compacted         {:5.2f} %  {:10}  {:9}  {:6.1f} ms: {:.1f} times as fast\n", 100 * compacted,
             summary.parameters, summary.macs, time_small, time_large / time_small);
  fmt::print("outputs of masked and compacted differ by {:.1e} of the largest\n", difference);

  // The claims of this lesson. Rounding differs, because sums are shorter now. Time is not claimed by more than "less":
  // it depends on what else the machine does.
  if (masked < dense - 0.02 || difference > 1e-5 || summary.parameters * 3 > large_summary.parameters ||
      summary.macs * 3 > large_summary.macs || time_small > time_large) {
    fmt::print(stderr, "expected a third of parameters and MACs at most, less time, the same outputs and an accuracy ");
    fmt::print(stderr, "within 2 points\n");
    return 1;
  }
  fmt::print("\nNext: 08_lottery_ticket, where a small network is found in a large one\n");
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
