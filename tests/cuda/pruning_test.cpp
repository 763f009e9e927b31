// Pruning, compaction, recovery and distillation on the device: the same masks and the same networks as on the CPU.
#include "tests/training/support.h"

#include "core/ops.h"
#include "core/ranks.h"
#include "layers/conv.h"
#include "layers/linear.h"
#include "layers/models/lstm_rows.h"
#include "layers/pooling.h"
#include "layers/residual.h"
#include "pruning/distillation/distillation.h"
#include "pruning/learned/hard_concrete.h"
#include "pruning/learned/learned_masks.h"
#include "pruning/learned/movement.h"
#include "pruning/learned/variational.h"
#include "pruning/pruner.h"
#include "pruning/recovery/reconstruct.h"
#include "pruning/recovery/regrow.h"
#include "pruning/recovery/statistics.h"
#include "pruning/schedules/adaptive.h"
#include "pruning/schedules/gradual.h"
#include "pruning/schedules/lottery.h"
#include "pruning/schedules/sparse_training.h"
#include "pruning/schedules/surgery.h"
#include "pruning/structure/compact.h"
#include "tests/cuda/difference.h"

namespace espalier {
namespace {

using namespace testing_support;

const Device kCuda = Device::cuda();

/// Convolutions, BatchNorm, a residual block and a flattened map: every kind of coupling that channels have.
ModulePtr small_convnet() {
  set_seed(21);
  return share(Sequential(Conv2d(1, 6, {.kernel = 3, .padding = 1, .bias = false}), BatchNorm2d(6), ReLU(),
                          BasicBlock(6, 6), BasicBlock(6, 8, {.stride = 2, .shortcut = Shortcut::projection}),
                          MaxPool2d(), Flatten(), Linear(32, 10)));
}

std::shared_ptr<Sgd> sgd(const Module& net, double lr = 0.05) {
  return std::make_shared<Sgd>(net, SgdOptions{.lr = lr, .momentum = 0.9});
}

TrainerOptions options_on(Device device, std::vector<std::shared_ptr<Callback>> callbacks = {}, int64_t epochs = 2) {
  return {.epochs = epochs,
          .batch_size = 16,
          .device = device,
          .progress = ProgressMode::silent,
          .callbacks = std::move(callbacks)};
}

Tensor outputs_of(Module& net, const Tensor& images) {
  const EvalMode mode(net);
  const NoGrad no_grad;
  return net(images).data();
}

TEST(CudaMasks, EveryPatternHasTheSameBitsAndAppliesThem) {
  Generator generator(2);
  const std::vector<std::pair<Shape, Pattern>> cases = {
      {{12, 20}, Pattern::element()},    {{12, 20}, Pattern::block(4, 1)},    {{12, 20}, Pattern::block(3, 5)},
      {{12, 20}, Pattern::n_of_m(2, 4)}, {{12, 20}, Pattern::channel(0)},     {{12, 20}, Pattern::channel(1)},
      {{6, 4, 3, 3}, Pattern::kernel()}, {{6, 4, 3, 3}, Pattern::channel(1)}, {{12, 20}, Pattern::channel(0, 4)},
      {{20, 5}, Pattern::recurrent()},   {{7}, Pattern::channel(0)},          {{300, 500}, Pattern::element()}};
  for (const auto& [shape, pattern] : cases) {
    const Tensor scores = rand({mask_layout(shape, pattern).units()}, generator), weight = randn(shape, generator);
    const int64_t keep = scores.numel() / 3;
    const Mask here = Mask::from_scores(shape, pattern, scores, keep);
    const Mask there = Mask::from_scores(shape, pattern, scores.to(kCuda), keep).to(kCuda);
    EXPECT_EQ(there.device(), kCuda);
    EXPECT_TRUE(identical(there.packed(), here.packed())) << pattern.to_string();
    EXPECT_TRUE(here == there.to(Device::cpu())) << pattern.to_string();
    for (DType dtype : {DType::f32, DType::f64})
      EXPECT_TRUE(identical(there.apply(weight.to(dtype).to(kCuda)), here.apply(weight.to(dtype))))
          << pattern.to_string();
    EXPECT_TRUE(identical(there.expand(), here.expand())) << pattern.to_string();
    EXPECT_TRUE((there & there).as_elements() == there.as_elements());
    if (pattern.kind() != Pattern::Kind::recurrent) {
      EXPECT_EQ((~there).device(), kCuda);
    }
    EXPECT_TRUE(identical(Mask::sum_over_units(weight.to(kCuda), pattern), Mask::sum_over_units(weight, pattern)));
  }
}

/// Masks of a network on a device after pruning events, and what of it came to the host.
struct Pruned {
  std::vector<Mask> masks;
  uint64_t bytes_to_host = 0;
};
Pruned pruned_on(Device device, const Pattern& pattern, const AllocationOptions& allocation) {
  set_seed(8);
  const ModulePtr net = share(Sequential(Linear(200, 500), ReLU(), Linear(500, 20)));
  net->to(device);
  Pruner pruner(net, weight_sites(*net, pattern), {.allocation = allocation});
  Pruned result;
  const uint64_t before = bytes_copied_to_host();
  for (const double sparsity : {0.3, 0.5}) pruner.prune(sparsity);
  result.bytes_to_host = bytes_copied_to_host() - before;
  for (const Site& site : pruner.sites()) result.masks.push_back(site.members[0].parameter.mask());
  return result;
}

TEST(CudaPruning, ChoosesTheCpusMasksAndBringsNoScoresToTheHost) {
  const std::vector<std::pair<Pattern, AllocationOptions>> cases = {
      {Pattern::element(), {.scope = Scope::global}},
      {Pattern::element(), {.scope = Scope::global, .normalize = true}},
      {Pattern::element(), {.scope = Scope::layer, .round_to = 64}},
      {Pattern::block(4, 1), {.scope = Scope::global}},
      {Pattern::n_of_m(2, 4), {.scope = Scope::layer, .as_far_as_possible = true}}};
  for (const auto& [pattern, allocation] : cases) {
    SCOPED_TRACE(pattern.to_string());
    const Pruned here = pruned_on(Device::cpu(), pattern, allocation), there = pruned_on(kCuda, pattern, allocation);
    ASSERT_EQ(here.masks.size(), there.masks.size());
    for (size_t i = 0; i < here.masks.size(); ++i) {
      EXPECT_EQ(there.masks[i].device(), kCuda);
      EXPECT_TRUE(here.masks[i] == there.masks[i].to(Device::cpu()));
      EXPECT_GT(here.masks[i].sparsity(), 0);
    }
    EXPECT_EQ(here.bytes_to_host, 0u);
    EXPECT_GT(there.bytes_to_host, 0u);
    if (allocation.normalize || pattern != Pattern::element()) continue;  // f64 ranks have six digits
    // Two events with two layers: 880 kB of scores, 393 kB of histograms and some counts; rounding chooses again.
    const uint64_t choices = allocation.round_to > 1 ? 2 : 1;
    EXPECT_LT(there.bytes_to_host, choices * 2 * 2 * 3 * 8 * RankBins::kCount + 2000);
  }
}

class CudaCriteria : public testing::TestWithParam<std::string> {};
/// Those that score a network as it is; movement watches a training first.
std::vector<std::string> scoring_names() {
  std::vector<std::string> names = criterion_names();
  std::erase_if(names, [](const std::string& name) { return make_criterion(name)->watcher() != nullptr; });
  return names;
}
INSTANTIATE_TEST_SUITE_P(Names, CudaCriteria, testing::ValuesIn(scoring_names()), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
});

TEST_P(CudaCriteria, ScoresAreTheCpus) {
  const Dataset data = digits(48);
  const auto score = [&](Device device) {
    const ModulePtr net = small_convnet();
    net->to(device);
    const DependencyGraph graph = DependencyGraph::trace(*net, Tensor::zeros({1, 1, 8, 8}, DType::f32, device));
    const std::vector<Site> sites = channel_sites(graph);
    std::vector<std::vector<double>> result;
    Pruner pruner(net, sites, {.criterion = make_criterion(GetParam()), .data = data, .batch_size = 16, .batches = 2});
    return pruner.scores();
  };
  const auto expected = score(Device::cpu()), got = score(kCuda);
  ASSERT_EQ(got.size(), expected.size());
  double largest = 0;
  for (const auto& site : expected)
    for (double value : site) largest = std::max(largest, std::fabs(value));
  EXPECT_GT(largest, 0);
  for (size_t s = 0; s < got.size(); ++s) {
    ASSERT_EQ(got[s].size(), expected[s].size());
    // Curvature is a difference of second derivatives, and ranks may change by one where a pivot is at the threshold.
    for (size_t i = 0; i < got[s].size(); ++i)
      EXPECT_NEAR(got[s][i], expected[s][i], 2e-3 * std::max(largest * 0.05, std::fabs(expected[s][i])))
          << "site " << s << " unit " << i;
  }
}

/// Trains on both devices with a callback that `make` builds, and compares losses and what is left.
template <class Make>
void expect_same_training(const Make& make, int64_t epochs = 2) {
  struct Result {
    TrainingResult trained;
    NamedTensors tensors;
    std::vector<Mask> masks;
  };
  const auto run = [&](Device device) {
    const ModulePtr net = small_convnet();
    auto [callbacks, optimizer] = make(net);  // on the CPU: the trainer moves the network
    Trainer trainer(net, optimizer, options_on(device, callbacks, epochs));
    Result result{trainer.fit(digits(96)), {}, {}};
    callbacks.clear();  // they detach from the parameters
    for (const auto& [name, parameter] : net->named_parameters()) {
      EXPECT_EQ(parameter.data().device(), device);
      result.tensors.emplace_back(name, parameter.data());
      result.masks.push_back(parameter.mask().defined() ? parameter.mask().to(Device::cpu()) : Mask());
    }
    return result;
  };
  const Result here = run(Device::cpu()), there = run(kCuda);
  for (size_t i = 0; i < here.trained.history.size(); ++i)
    EXPECT_NEAR(there.trained.history[i].train_loss, here.trained.history[i].train_loss,
                1e-3 * here.trained.history[i].train_loss);
  for (size_t i = 0; i < here.tensors.size(); ++i) {
    EXPECT_TRUE(there.masks[i] == here.masks[i]) << here.tensors[i].first;
    EXPECT_LT(difference(there.tensors[i].second, here.tensors[i].second), 1e-2) << here.tensors[i].first;
    if (!there.masks[i].defined()) continue;
    const Tensor weight = there.tensors[i].second.to(Device::cpu());
    EXPECT_TRUE(identical(there.masks[i].apply(weight), weight)) << here.tensors[i].first << ": masked, but not 0";
  }
}

using Callbacks = std::vector<std::shared_ptr<Callback>>;
using Ready = std::pair<Callbacks, std::shared_ptr<Optimizer>>;

TEST(CudaSchedules, GradualChannels) {
  expect_same_training([](const ModulePtr& net) -> Ready {
    const DependencyGraph graph = DependencyGraph::trace(*net, Tensor::zeros({1, 1, 8, 8}));
    const auto pruner = std::make_shared<Pruner>(
        net, channel_sites(graph), PrunerOptions{.criterion = make_criterion("taylor"), .data = digits(96)});
    return {{std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.4, .every = 3})}, sgd(*net)};
  });
}

TEST(CudaSchedules, SparseTraining) {
  for (Growth growth : {Growth::random, Growth::gradient})
    expect_same_training([growth](const ModulePtr& net) -> Ready {
      return {{std::make_shared<SparseTraining>(weight_sites(*net),
                                                SparseTrainingOptions{.growth = growth, .sparsity = 0.6, .every = 4})},
              sgd(*net)};
    });
}

TEST(CudaSchedules, NetworkSurgery) {
  expect_same_training([](const ModulePtr& net) -> Ready {
    return {{std::make_shared<NetworkSurgery>(weight_sites(*net), SurgeryOptions{.c = 0.3})}, sgd(*net)};
  });
}

TEST(CudaLearned, MasksMovementAndGates) {
  expect_same_training([](const ModulePtr& net) -> Ready {
    const auto masks = std::make_shared<LearnedMasks>(
        net, weight_sites(*net), LearnedMaskOptions{.initial = InitialScores::magnitude, .sparsity = 0.5, .every = 4});
    NamedParameters all = net->named_parameters();
    for (const auto& score : masks->scores()) all.push_back(score);
    return {{masks}, std::make_shared<Sgd>(all, SgdOptions{.lr = 0.02})};
  });
  expect_same_training([](const ModulePtr& net) -> Ready {
    const auto movement = std::make_shared<MovementCriterion>(net->parameters());
    const auto pruner = std::make_shared<Pruner>(net, weight_sites(*net), PrunerOptions{.criterion = movement});
    return {{movement, std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.5, .begin = 0.2})},
            sgd(*net)};
  });
  expect_same_training([](const ModulePtr& net) -> Ready {
    const auto gates =
        std::make_shared<HardConcreteGates>(net, weight_sites(*net, Pattern::channel(0)), HardConcreteOptions{});
    NamedParameters all = net->named_parameters();
    for (const auto& gate : gates->log_alphas()) all.push_back(gate);
    return {{gates}, std::make_shared<Sgd>(all, SgdOptions{.lr = 0.02})};
  });
}

TEST(CudaLearned, SparseVariationalDropout) {
  const auto run = [](Device device) {
    set_seed(31);
    auto net = std::make_shared<Sequential>(Flatten(), Linear(64, 16), ReLU(), Linear(16, 10));
    make_variational(*net);
    const auto penalty = std::make_shared<VariationalPenalty>(net);
    Trainer trainer(net, std::make_shared<Adam>(*net, AdamOptions{.lr = 5e-3}), options_on(device, {penalty}));
    const double loss = trainer.fit(digits(96)).history.back().train_loss;
    return std::pair{loss, remove_variational(*net)};
  };
  const auto [here, removed_here] = run(Device::cpu());
  const auto [there, removed_there] = run(kCuda);
  EXPECT_NEAR(there, here, 1e-3 * here);
  EXPECT_EQ(removed_there.masked, removed_here.masked);
}

TEST(CudaSchedules, LotteryTicketAndAdaptive) {
  const Splits data = load_dataset("digits");
  const Dataset train = digits(96), validation = data.test.first(64);
  const auto run = [&](Device device) {
    const ModulePtr net = small_network(12);
    net->to(device);
    TrainingPlan plan{.optimizer = [](Module& network) { return sgd(network); }, .options = options_on(device)};
    const LotteryResult lottery = find_lottery_ticket(net, weight_sites(*net), train, validation, {},
                                                      {.training = plan, .rounds = 2, .rate = 0.3});
    Pruner pruner(net, weight_sites(*net));
    prune_adaptively(pruner, train, validation, {.training = plan, .tolerance = 1, .rounds = 2});
    return std::pair{lottery.rounds.back(), count_sparsity(weight_sites(*net)).sparsity()};
  };
  const auto [here, sparsity_here] = run(Device::cpu());
  const auto [there, sparsity_there] = run(kCuda);
  EXPECT_EQ(there.sparsity, here.sparsity);
  EXPECT_NEAR(*there.validation_loss, *here.validation_loss, 1e-2 * *here.validation_loss);
  EXPECT_EQ(sparsity_there, sparsity_here);
}

TEST(CudaCompaction, IsTheSameSmallerNetworkOnTheDevice) {
  const Tensor images = rand({4, 1, 8, 8}).to(kCuda);
  const auto prune = [](const ModulePtr& net, const Tensor& example) {
    const DependencyGraph graph = DependencyGraph::trace(*net, example);
    Pruner(net, channel_sites(graph), {.allocation = {.scope = Scope::layer}}).prune(0.5);
  };
  for (const ModulePtr& net :
       {small_convnet(), ModulePtr(std::make_shared<LstmRows>(8, 10, LstmRowsOptions{.hidden_size = 12}))}) {
    const ModulePtr here = net->clone();
    net->to(kCuda);
    const auto optimizer = sgd(*net);
    Trainer(net, optimizer, options_on(kCuda, {}, 1)).fit(digits(48));
    load_state(*here, state_of(*net));
    prune(net, Tensor::zeros({1, 1, 8, 8}, DType::f32, kCuda));
    prune(here, Tensor::zeros({1, 1, 8, 8}));
    const Tensor before = outputs_of(*net, images);
    const CompactionReport there_report =
        compact(*net, Tensor::zeros({1, 1, 8, 8}, DType::f32, kCuda), {.optimizer = optimizer.get()});
    const CompactionReport here_report = compact(*here, Tensor::zeros({1, 1, 8, 8}));
    EXPECT_LT(there_report.parameters_after, there_report.parameters_before);
    EXPECT_EQ(there_report.parameters_after, here_report.parameters_after);
    EXPECT_EQ(there_report.kept, here_report.kept);
    EXPECT_LT(difference(outputs_of(*net, images), before), 1e-5);
    EXPECT_LT(difference(outputs_of(*net, images), outputs_of(*here, images.to(Device::cpu()))), 1e-4);
    for (const Parameter& parameter : net->parameters()) EXPECT_EQ(parameter.data().device(), kCuda);
    // The optimiser's state was made smaller with the weights: training goes on.
    Trainer(net, optimizer, options_on(kCuda, {}, 1)).fit(digits(48));
  }
}

TEST(CudaRecovery, RepairsAreTheCpus) {
  const Dataset data = digits(64);
  const auto run = [&](Device device) {
    const ModulePtr dense = small_convnet(), net = small_convnet();
    dense->to(device);
    net->to(device);
    const DependencyGraph graph = DependencyGraph::trace(*net, Tensor::zeros({1, 1, 8, 8}, DType::f32, device));
    const std::vector<Site> sites = channel_sites(graph);
    Pruner(net, sites).prune(0.4);
    regrow(sites, dense_gradients(*net, sites, data, {.batch_size = 16}), 2);
    recalibrate_batch_norm(*net, data, {.batch_size = 32});
    reconstruct(*net, *dense, data, {.batch_size = 32});
    compensate_bias(*net, *dense, data, {.batch_size = 32});
    return state_of(*net);
  };
  const NamedTensors here = run(Device::cpu()), there = run(kCuda);
  for (size_t i = 0; i < here.size(); ++i)
    EXPECT_LT(difference(there[i].second, here[i].second), 1e-3) << here[i].first;
}

TEST(CudaDistillation, EveryTermFollowsTheCpu) {
  const auto run = [](Device device) {
    const ModulePtr teacher = small_convnet();
    set_seed(41);
    const ModulePtr student = share(Sequential(Conv2d(1, 4, {.kernel = 3, .padding = 1}), BatchNorm2d(4), ReLU(),
                                               MaxPool2d(), Flatten(), Linear(64, 10)));
    teacher->to(device);
    student->to(device);
    const Dataset data = digits(64);
    const auto distillation =
        std::make_shared<Distillation>(student, teacher, data,
                                       DistillationOptions{.terms = {{1, knowledge_distillation()},
                                                                     {0.1, hint("2", "2")},
                                                                     {0.1, attention_transfer({{"2", "2"}})},
                                                                     {0.1, relational_distance()},
                                                                     {0.1, relational_angle()}}});
    const auto optimizer = std::make_shared<Sgd>(distillation->parameters(), SgdOptions{.lr = 0.02, .momentum = 0.9});
    Trainer trainer(student, optimizer, with_distillation(options_on(device), distillation));
    const double features = trainer.fit(data).history.back().train_loss;
    // Logits alone: the teacher's answers are kept and looked up.
    const auto cached = self_distillation(student, data);
    Trainer again(student, sgd(*student, 0.01), with_distillation(options_on(device), cached));
    return std::pair{features, again.fit(data).history.back().train_loss};
  };
  const auto here = run(Device::cpu()), there = run(kCuda);
  EXPECT_NEAR(there.first, here.first, 1e-3 * here.first);
  EXPECT_NEAR(there.second, here.second, 1e-3 * here.second);
}

}  // namespace
}  // namespace espalier
