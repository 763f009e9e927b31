// Random networks, masked, trained, compacted, saved and compacted again: the outputs stay, whatever the topology.
//
// ESPALIER_FUZZ_NETWORKS=10000 tries more of them, ESPALIER_FUZZ_SEED=17 that one alone.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "layers/registry.h"
#include "pruning/structure/compact.h"
#include "pruning/structure/costs.h"
#include "tests/layers/expect.h"
#include "tests/pruning/own_layers.h"
#include "tests/pruning/structure/topology/program_network.h"
#include "tests/pruning/structure/topology/random_network.h"
#include "training/checkpoint.h"

namespace espalier::topology {
namespace {

constexpr double kTolerance = 1e-8;  // of f64, relative to the largest output

/// The outputs in evaluation mode for batches of several sizes, none of which compaction has seen.
std::vector<Tensor> outputs(Module& net, const RandomNetwork& network) {
  const EvalMode eval(net);
  const NoGrad no_grad;
  std::vector<Tensor> all;
  for (const int64_t batch : {1, 3, 7}) all.push_back(net(Variable(network.inputs(batch, 1000 + batch))).data());
  return all;
}

double difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double worst = 0, largest = 1e-3;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, max_difference(a[i], b[i]));
    largest = std::max(largest, max(abs(a[i])).item());
  }
  return worst / largest;
}

void train(Module& net, Optimizer& optimizer, const Tensor& x) {
  net.train();
  for (int step = 0; step < 2; ++step) {
    optimizer.zero_grad();
    mean(square(net(Variable(x)) - 0.3)).backward();
    optimizer.step();
  }
}

/// Channel groups of all networks.
struct Seen {
  size_t smaller = 0, kept_whole = 0;
};

/// Compacts, and expects the outputs of before, and a network that can be traced and counted.
void compact_and_compare(Module& net, const RandomNetwork& network, Optimizer* optimizer, Seen& seen) {
  const std::vector<Tensor> before = outputs(net, network);
  const Tensor example = network.inputs(1, 5);
  count_costs(net, DependencyGraph::trace(net, example), example);
  const CompactionReport report = compact(net, example, {.optimizer = optimizer, .tolerance = 1e-9});
  for (const CompactedGroup& group : report.groups) seen.smaller += group.after < group.before ? 1 : 0;
  seen.kept_whole += report.kept_whole.size();
  EXPECT_LT(difference(before, outputs(net, network)), kTolerance);
  const DependencyGraph graph = DependencyGraph::trace(net, example);
  EXPECT_EQ(count_costs(net, graph, example).parameters, net.num_parameters());
}

/// Products of products can outgrow all numbers.
bool has_outgrown(const std::vector<Tensor>& outputs) {
  return !std::all_of(outputs.begin(), outputs.end(), [](const Tensor& y) { return max(abs(y)).item() < 1e6; });
}

void try_network(uint64_t seed, Seen& seen) {
  const RandomNetwork network = random_network(seed);
  Module& net = *network.net;
  Sgd optimizer(net, {.lr = 0.01, .momentum = 0.9});
  for (const uint64_t round : {1, 2}) {
    mask_at_random(network, seed + round);
    train(net, optimizer, network.inputs(4, seed + round));
    if (has_outgrown(outputs(net, network))) return;
    compact_and_compare(net, network, &optimizer, seen);
    train(net, optimizer, network.inputs(4, seed + round));
  }
  const std::string path = testing::TempDir() + "topology.safetensors";
  save_checkpoint(path, net, &optimizer);
  const Checkpoint checkpoint = load_checkpoint(path);
  const ModulePtr loaded = module_from_config(net.config());
  loaded->to(DType::f64);
  restore(checkpoint, *loaded);
  std::filesystem::remove(path);
  EXPECT_LT(difference(outputs(net, network), outputs(*loaded, network)), kTolerance);
  compact_and_compare(*loaded, network, nullptr, seen);
}

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

size_t failures() {
  return static_cast<size_t>(testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count());
}

/// Sanitizers make everything slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kNetworks = 100;
#else
constexpr uint64_t kNetworks = 1000;
#endif

TEST(TopologyFuzz, CompactionKeepsTheOutputsOfRandomNetworks) {
  module_registry().replace("ProgramNetwork", ProgramNetwork::from_config);
  register_own_layers();
  const bool one = std::getenv("ESPALIER_FUZZ_SEED") != nullptr;
  const uint64_t first = number_from("ESPALIER_FUZZ_SEED", 0);
  const uint64_t count = one ? 1 : number_from("ESPALIER_FUZZ_NETWORKS", kNetworks);
  Seen seen;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    const size_t before = failures();
    try {
      try_network(seed, seen);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    if (failures() > before) fmt::print("ESPALIER_FUZZ_SEED={}: {}\n", seed, random_network(seed).net->config().dump());
  }
  if (one) return;
  EXPECT_GT(seen.smaller, count / 2) << "compaction that does nothing is always right";
  EXPECT_LT(seen.kept_whole, seen.smaller / 4);
}

}  // namespace
}  // namespace espalier::topology
