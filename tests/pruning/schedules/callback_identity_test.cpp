// A training goes on with the callbacks that it began with: another option of any of them is refused by name.
#include <nlohmann/json.hpp>

#include "layers/linear.h"
#include "pruning/criteria/slimming.h"
#include "pruning/distillation/distillation.h"
#include "pruning/learned/hard_concrete.h"
#include "pruning/learned/learned_masks.h"
#include "pruning/learned/movement.h"
#include "pruning/learned/variational.h"
#include "pruning/schedules/gradual.h"
#include "pruning/schedules/sparse_training.h"
#include "pruning/schedules/surgery.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

using CallbackPtr = std::shared_ptr<Callback>;

struct Changed {
  std::function<CallbackPtr(const ModulePtr&)> was, is;
  const char* difference;
};

CallbackPtr gradual(const ModulePtr& net, const GradualOptions& options, const AllocationOptions& allocation = {},
                    const CriterionPtr& criterion = magnitude_criterion()) {
  return std::make_shared<GradualPruning>(
      std::make_shared<Pruner>(net, weight_sites(*net),
                               PrunerOptions{.criterion = criterion, .allocation = allocation}),
      options);
}
CallbackPtr budgeted(const ModulePtr& net, double amount) {
  const auto pruner = std::make_shared<Pruner>(net, weight_sites(*net));
  return std::make_shared<GradualPruning>(
      std::make_shared<BudgetPruner>(pruner, Budget{.kind = BudgetKind::parameters, .amount = amount},
                                     Tensor::zeros({1, 64})),
      GradualOptions{});
}
CallbackPtr distilled(const ModulePtr& net, uint64_t teacher, double temperature) {
  return std::make_shared<Distillation>(
      net, small_network(teacher), digits(4),
      DistillationOptions{.terms = {{1, knowledge_distillation({.temperature = temperature})}}});
}
template <class C, class O>
std::function<CallbackPtr(const ModulePtr&)> of_sites(const O& options, const Pattern& pattern = Pattern::element()) {
  return [=](const ModulePtr& net) -> CallbackPtr {
    if constexpr (std::is_constructible_v<C, ModulePtr, std::vector<Site>, O>)
      return std::make_shared<C>(net, weight_sites(*net, pattern), options);
    else
      return std::make_shared<C>(weight_sites(*net, pattern), options);
  };
}

TEST(CallbackIdentity, AnotherOptionIsRefusedByName) {
  using Net = const ModulePtr&;
  const auto channels = Pattern::channel(0);
  const std::vector<Changed> changes = {
      {[](Net net) { return gradual(net, {.sparsity = 0.5}); }, [](Net net) { return gradual(net, {.sparsity = 0.6}); },
       "callbacks.0.sparsity: was 0.5, is 0.6"},
      {[](Net net) { return gradual(net, {}); }, [](Net net) { return gradual(net, {}, {.min_units = 2}); },
       "callbacks.0.pruner.allocation.min_units: was 1, is 2"},
      {[](Net net) { return gradual(net, {}); }, [](Net net) { return gradual(net, {}, {}, random_criterion()); },
       "callbacks.0.pruner.criterion: was \"magnitude\", is \"random\""},
      {[](Net net) { return budgeted(net, 1500); }, [](Net net) { return budgeted(net, 1400); },
       "callbacks.0.budget.amount: was 1500.0, is 1400.0"},
      {[](Net net) { return gradual(net, {}); }, [](Net) { return nullptr; },
       "callbacks.0.type: was \"GradualPruning\", is null"},
      {of_sites<NetworkSurgery>(SurgeryOptions{}), of_sites<NetworkSurgery>(SurgeryOptions{.c = 0.5}),
       "callbacks.0.c: was 1.0, is 0.5"},
      {of_sites<NetworkSurgery>(SurgeryOptions{}), of_sites<NetworkSurgery>(SurgeryOptions{}, channels),
       "callbacks.0.sites.1.weight: was \"1536 of element\", is \"24 of channel 0\""},
      {of_sites<SparseTraining>(SparseTrainingOptions{}),
       of_sites<SparseTraining>(SparseTrainingOptions{.growth = Growth::random}),
       "callbacks.0.growth: was \"gradient\", is \"random\""},
      {of_sites<LearnedMasks>(LearnedMaskOptions{}), of_sites<LearnedMasks>(LearnedMaskOptions{.sparsity = 0.8}),
       "callbacks.0.sparsity: was 0.9, is 0.8"},
      {of_sites<HardConcreteGates>(HardConcreteOptions{}),
       of_sites<HardConcreteGates>(HardConcreteOptions{.lambda = 0.2}), "callbacks.0.lambda: was 0.1, is 0.2"},
      {[](Net) { return std::make_shared<SlimmingPenalty>(SlimmingOptions{.strength = 0.5}); },
       [](Net) { return std::make_shared<SlimmingPenalty>(SlimmingOptions{.strength = 0.25}); },
       "callbacks.0.strength: was 0.5, is 0.25"},
      {[](Net net) { return distilled(net, 2, 4); }, [](Net net) { return distilled(net, 2, 5); },
       "callbacks.0.terms.0.options.temperature: was 4.0, is 5.0"},
      {[](Net net) { return distilled(net, 2, 4); }, [](Net net) { return distilled(net, 3, 4); },
       "callbacks.0.teacher: was "},
      {[](Net net) { return std::make_shared<MovementCriterion>(net->parameters()); },
       [](Net net) { return gradual(net, {}); }, "callbacks.0.parameters: was 6, is null"},
  };
  for (const Changed& changed : changes) {
    const TemporaryFolder folder;
    const auto train = [&](const auto& make, bool resume) {
      const ModulePtr net = small_network(1);
      const CallbackPtr callback = make(net);
      Trainer(net, std::make_shared<Sgd>(*net),
              {.epochs = 1,
               .batch_size = 32,
               .run_folder = folder.path(),
               .resume = resume,
               .progress = ProgressMode::silent,
               .callbacks = callback ? std::vector{callback} : std::vector<CallbackPtr>{}})
          .fit(digits(64));
    };
    train(changed.was, false);
    expect_contains(message_of<FileError>([&] { train(changed.is, true); }), changed.difference);
    EXPECT_NO_THROW(train(changed.was, true)) << changed.difference;
  }
}

TEST(CallbackIdentity, OfAVariationalPenalty) {
  const auto net = std::make_shared<Sequential>(Linear(4, 3));
  make_variational(*net);
  EXPECT_EQ(VariationalPenalty(net, {.weight = 0.5}).config(), (nlohmann::json{{"type", "VariationalPenalty"},
                                                                               {"weight", 0.5},
                                                                               {"warmup_begin", 0.0},
                                                                               {"warmup_end", 0.2},
                                                                               {"examples", 0}}));
}

}  // namespace
}  // namespace espalier
