// How much of the saved multiplications a compacted network gives back as time.
//   compaction_speed [MODEL=vgg16] [BATCH=32] [ROUNDS=15]
// Channels go in equal shares from all layers, down to a half and a quarter of the MACs; the networks are timed in
// turns, so that all meet the same disturbances. The weights are fresh: time doesn't depend on them.
#include <algorithm>
#include <chrono>
#include <cstdlib>

#include <espalier/espalier.h>

#include "benchmarks/program.h"

using namespace espalier;

namespace {

struct Entry {
  const char* name;
  ModulePtr network;
  int64_t macs = 0;
  std::vector<double> seconds = {};
};

ModulePtr compacted(const Module& dense, const Tensor& example, double share) {
  const ModulePtr network = dense.clone();
  Pruner pruner(network, channel_sites(DependencyGraph::trace(*network, example)),
                {.allocation = {.scope = Scope::layer, .round_to = 8}});
  const double all = cost_function(BudgetKind::macs, example)(*network);
  prune_to_budget(pruner, {.kind = BudgetKind::macs, .amount = share * all}, example);
  compact(*network, example);
  return network;
}

int run(int argc, char** argv) {
  const std::string model = argc > 1 ? argv[1] : "vgg16";
  const int64_t batch = argc > 2 ? std::atoll(argv[2]) : 32, rounds = argc > 3 ? std::atoll(argv[3]) : 15;
  set_seed(0);
  const ModulePtr dense = make_model(model);
  const Shape image = model_image(model);
  const Tensor example = Tensor::zeros({1, image[0], image[1], image[2]});
  std::vector<Entry> entries = {
      {"dense", dense}, {"1/2", compacted(*dense, example, 0.5)}, {"1/4", compacted(*dense, example, 0.25)}};
  const Tensor images = randn({batch, image[0], image[1], image[2]});
  const NoGrad no_grad;
  for (Entry& entry : entries) {
    entry.network->eval();
    entry.macs = summarize(*entry.network, example.shape()).macs;
  }
  constexpr int64_t kWarmUp = 2;
  for (int64_t round = -kWarmUp; round < rounds; ++round)
    for (Entry& entry : entries) {
      const auto start = std::chrono::steady_clock::now();
      const Variable outputs = (*entry.network)(images);
      if (round >= 0)
        entry.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  fmt::print("{}, batch {}, {} rounds, {} threads\n", model, batch, rounds, num_threads());
  fmt::print("{:<8}{:>14}{:>11}{:>10}{:>12}{:>12}{:>10}\n", "MACs", "an image", "min ms", "median ms", "MAC ratio",
             "time ratio", "share");
  for (Entry& entry : entries) {
    std::sort(entry.seconds.begin(), entry.seconds.end());
    const auto median = [](const Entry& e) { return e.seconds[e.seconds.size() / 2]; };
    const double macs = static_cast<double>(entries[0].macs) / static_cast<double>(entry.macs);
    const double time = median(entries[0]) / median(entry);
    fmt::print("{:<8}{:>14}{:>11.2f}{:>10.2f}{:>11.2f}x{:>11.2f}x{:>9.0f}%\n", entry.name, entry.macs,
               1e3 * entry.seconds.front(), 1e3 * median(entry), macs, time, 100 * time / macs);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return espalier::run_program(run, argc, argv); }
