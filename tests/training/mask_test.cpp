// What holds for masks, always (design, section 2): each test fails when its rule is broken.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>

#include <gtest/gtest.h>

#include "layers/conv.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/models/zoo.h"
#include "tests/training/support.h"
#include "training/checkpoint.h"
#include "training/optimizer.h"

namespace espalier {
namespace {

using testing_support::TemporaryFolder;

Mask random_mask(const Shape& shape, const Pattern& pattern, uint64_t seed) {
  Generator generator(seed);
  const int64_t units = mask_layout(shape, pattern).units();
  return Mask::from_scores(shape, pattern, rand({units}, generator), std::max<int64_t>(units / 3, 1));
}

/// Whether every masked weight is exactly 0.
bool is_masked(const Tensor& values, const Mask& mask) { return !any((values != 0) & ~mask.expand()).item(); }

/// The gradients of a loss that every weight has a part in.
void backward(Module& module, const Tensor& x) {
  module.zero_grad();
  sum(square(module(x) - 1.0)).backward();
}
void backward(Linear& layer, uint64_t seed) {
  Generator generator(seed);
  backward(layer, randn({5, 8}, generator));
}

std::vector<std::shared_ptr<Optimizer>> optimizers_for(const Module& module) {
  return {std::make_shared<Sgd>(module, SgdOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true}),
          std::make_shared<Adam>(module, AdamOptions{.lr = 0.1, .weight_decay = 0.1}),
          std::make_shared<AdamW>(module, AdamWOptions{.lr = 0.1, .weight_decay = 0.1}),
          std::make_shared<RmsProp>(module, RmsPropOptions{.lr = 0.1, .weight_decay = 0.1, .momentum = 0.9})};
}

/// Trains, masks the parameter, trains on and saves, with both gradient flows and one of optimizers_for.
void expect_never_revived(const std::function<ModulePtr()>& make, const std::string& name, const Pattern& pattern,
                          const std::function<Tensor(Generator&)>& input, int which) {
  for (GradientFlow flow : {GradientFlow::masked, GradientFlow::dense}) {
    SCOPED_TRACE(name + ", " + pattern.to_string());
    set_seed(1);
    const ModulePtr module = make();
    const auto optimizer = optimizers_for(*module)[static_cast<size_t>(which)];
    const auto parameter_of = [&](const Module& of) {
      for (const auto& [own, parameter] : of.named_parameters())
        if (own == name) return parameter;
      return Parameter();
    };
    Parameter weight = parameter_of(*module);
    ASSERT_TRUE(weight.defined());
    const auto step = [&](uint64_t seed) {
      Generator generator(seed);
      backward(*module, input(generator));
      optimizer->step();
    };
    for (uint64_t seed = 0; seed < 5; ++seed) step(seed);  // momentum builds up
    const Mask mask = random_mask(weight.shape(), pattern, 3);
    weight.set_mask(mask, flow);
    EXPECT_TRUE(is_masked(weight.data(), mask));
    for (const std::string& slot : optimizer->slots())
      EXPECT_TRUE(is_masked(*optimizer->state(weight, slot), mask)) << slot << " the moment the weight is masked";
    const Tensor before = weight.data().clone();
    for (uint64_t seed = 5; seed < 15; ++seed) {
      step(seed);
      EXPECT_EQ(is_masked(weight.grad(), mask), flow == GradientFlow::masked);
      ASSERT_TRUE(is_masked(weight.data(), mask)) << optimizer->type() << " step " << seed;
      for (const std::string& slot : optimizer->slots()) ASSERT_TRUE(is_masked(*optimizer->state(weight, slot), mask));
    }
    EXPECT_FALSE(identical(before, weight.data())) << "the other weights do learn";

    const TemporaryFolder folder;
    save_checkpoint(folder.file("module.safetensors"), *module, optimizer.get());
    const ModulePtr loaded = load_model(folder.file("module.safetensors"));
    const Parameter same = parameter_of(*loaded);
    EXPECT_TRUE(same.mask() == mask);
    EXPECT_EQ(same.gradient_flow(), flow);
    EXPECT_TRUE(identical(same.data(), weight.data()));
    const auto other = optimizers_for(*loaded)[static_cast<size_t>(which)];
    restore(load_checkpoint(folder.file("module.safetensors")), *loaded, other.get());
    for (const std::string& slot : optimizer->slots())
      EXPECT_TRUE(identical(*other->state(same, slot), *optimizer->state(weight, slot))) << slot;
  }
}

class EveryOptimizer : public testing::TestWithParam<int> {};

TEST_P(EveryOptimizer, NeverRevivesAMaskedWeight) {
  for (const Pattern& pattern : {Pattern::element(), Pattern::block(3, 2), Pattern::channel(0), Pattern::n_of_m(2, 4)})
    expect_never_revived([] { return share(Linear(8, 6)); }, "weight", pattern,
                         [](Generator& generator) {
                           return randn({5, 8}, generator);
                         },
                         GetParam());
}

TEST_P(EveryOptimizer, NeverRevivesAMaskedConvolution) {
  const Conv2dOptions options{.stride = 2, .padding = 2, .dilation = 2, .groups = 2};
  for (const Pattern& pattern : {Pattern::element(), Pattern::kernel(), Pattern::channel(0), Pattern::channel(1)})
    expect_never_revived([&] { return share(Conv2d(4, 6, options)); }, "weight", pattern,
                         [](Generator& generator) {
                           return randn({2, 4, 9, 9}, generator);
                         },
                         GetParam());
}

TEST_P(EveryOptimizer, NeverRevivesAMaskedLstm) {
  const std::vector<std::pair<std::string, Pattern>> cases = {{"weight_ih_l0", Pattern::element()},
                                                              {"weight_ih_l0", Pattern::channel(0, 4)},
                                                              {"weight_hh_l0", Pattern::element()},
                                                              {"weight_hh_l0", Pattern::recurrent()},
                                                              {"bias_hh_l0", Pattern::channel(0, 4)}};
  for (const auto& [name, pattern] : cases)
    expect_never_revived([] { return share(LSTM(3, 5)); }, name, pattern,
                         [](Generator& generator) {
                           return randn({4, 2, 3}, generator);
                         },
                         GetParam());
}

TEST_P(EveryOptimizer, NeverRevivesAMaskedEmbedding) {
  // Every row is looked up, some twice, so that every weight has a gradient.
  for (const Pattern& pattern : {Pattern::element(), Pattern::channel(0), Pattern::channel(1)})
    expect_never_revived([] { return share(Embedding(7, 4)); }, "weight", pattern,
                         [](Generator&) {
                           return Tensor::from<int64_t>({0, 1, 2, 3, 4, 5, 6, 5, 0}, {9});
                         },
                         GetParam());
}

TEST(MaskedParameter, WhatIsLookedUpIsWhatExists) {
  Embedding table(7, 4);
  const Mask mask = random_mask(table.weight().shape(), Pattern::channel(1), 3);
  Parameter(table.weight()).set_mask(mask);
  EXPECT_TRUE(is_masked(table(Tensor::arange(0, 7)).data(), mask));
}

INSTANTIATE_TEST_SUITE_P(Optimizers, EveryOptimizer, testing::Range(0, 4));

TEST(MaskedParameter, DenseFlowGivesTheGradientOfTheWholeWeight) {
  set_seed(2);
  Linear layer(8, 6);
  Parameter weight = layer.named_parameters().front().second;
  const Mask mask = random_mask(weight.shape(), Pattern::block(3, 2), 5);
  weight.set_mask(mask, GradientFlow::dense);
  backward(layer, 1);
  const Tensor dense = weight.grad().clone();
  weight.set_mask(mask, GradientFlow::masked);
  backward(layer, 1);
  EXPECT_FALSE(is_masked(dense, mask));
  EXPECT_TRUE(identical(weight.grad(), mask.apply(dense)));
}

TEST(MaskedParameter, SecondDerivativesAreMaskedToo) {
  Parameter weight("weight", Tensor::from<double>({1, 2, 3}, {3}));
  weight.set_mask(Mask::from_units({3}, Pattern::element(), {true, false, true}));
  const Variable x = weight;
  const Variable first = grad({sum(x * x * x)}, {weight.variable()}, {.create_graph = true})[0];
  EXPECT_EQ(first.data().to_vector<double>(), std::vector<double>({3, 0, 27}));
  const Variable second = grad({sum(first)}, {weight.variable()})[0];
  EXPECT_EQ(second.data().to_vector<double>(), std::vector<double>({6, 0, 18}));
}

TEST(MaskedParameter, TheGradientIsMaskedInPlaceOnlyWhereNothingElseSeesIt) {
  Parameter a("a", Tensor::ones({3})), b("b", Tensor::ones({3}));
  a.set_mask(Mask::from_units({3}, Pattern::element(), {true, false, true}));
  b.set_mask(Mask::from_units({3}, Pattern::element(), {false, true, true}));
  const Tensor given = Tensor::full({3}, 2);
  // Both operands of a sum get the very tensor that backward was given.
  (a.operand() + b.operand()).backward(given);
  EXPECT_EQ(a.grad().to_vector<float>(), std::vector<float>({2, 0, 2}));
  EXPECT_EQ(b.grad().to_vector<float>(), std::vector<float>({0, 2, 2}));
  EXPECT_EQ(given.to_vector<float>(), std::vector<float>({2, 2, 2}));

  // A gradient that is asked for by name beside one that is masked behind it.
  const Variable masked = a.operand();
  const Variables both = grad({sum(masked * 3.0)}, {masked, a.variable()});
  EXPECT_EQ(both[0].data().to_vector<float>(), std::vector<float>({3, 3, 3}));
  EXPECT_EQ(both[1].data().to_vector<float>(), std::vector<float>({3, 0, 3}));
}

TEST(MaskedParameter, MasksTheGradientThatIsThere) {
  Parameter weight("weight", Tensor::ones({4}));
  sum(weight.operand() * 3.0).backward();
  weight.set_mask(Mask::from_units({4}, Pattern::element(), {true, false, false, true}));
  EXPECT_EQ(weight.grad().to_vector<float>(), std::vector<float>({3, 0, 0, 3}));
  weight.clear_mask();
  sum(weight.operand() * 3.0).backward();
  EXPECT_EQ(weight.grad().to_vector<float>(), std::vector<float>({6, 3, 3, 6}));
}

TEST(MaskedParameter, KeepsItsZerosWhenItsValuesAreReplaced) {
  Parameter weight("weight", Tensor::ones({4}));
  weight.set_mask(Mask::from_units({4}, Pattern::element(), {true, false, false, true}));
  weight.set_data(Tensor::full({4}, 7));
  EXPECT_EQ(weight.data().to_vector<float>(), std::vector<float>({7, 0, 0, 7}));
  EXPECT_THROW(weight.set_data(Tensor::ones({5})), ArgumentError);
  EXPECT_THROW(weight.set_mask(Mask::all({5})), ArgumentError);
}

/// A network with a mask of every kind.
ModulePtr masked_network() {
  set_seed(4);
  const ModulePtr network = make_model("lenet5");
  const std::vector<Pattern> patterns = {Pattern::kernel(), Pattern::channel(0), Pattern::n_of_m(2, 4),
                                         Pattern::element()};
  size_t i = 0;
  for (Parameter& parameter : network->parameters()) {
    if (parameter.shape().rank() < 2) continue;
    const GradientFlow flow = i % 2 == 0 ? GradientFlow::masked : GradientFlow::dense;
    parameter.set_mask(random_mask(parameter.shape(), patterns[i % patterns.size()], i), flow);
    ++i;
  }
  return network;
}

void expect_same_masks(const Module& a, const Module& b) {
  const auto left = a.named_parameters(), right = b.named_parameters();
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    EXPECT_TRUE(left[i].second.mask() == right[i].second.mask()) << left[i].first;
    EXPECT_EQ(left[i].second.gradient_flow(), right[i].second.gradient_flow()) << left[i].first;
    EXPECT_TRUE(identical(left[i].second.data(), right[i].second.data())) << left[i].first;
  }
}

TEST(MaskedNetwork, KeepsItsMasksInClonesAndMoves) {
  const ModulePtr network = masked_network();
  expect_same_masks(*network, *network->clone());
  const ModulePtr moved = network->clone();
  moved->to(DType::f64);
  moved->to(Device::cpu());
  moved->to(DType::f32);
  expect_same_masks(*network, *moved);
}

TEST(MaskedNetwork, KeepsItsMasksInCheckpoints) {
  const ModulePtr network = masked_network();
  const TemporaryFolder folder;
  const std::string path = folder.file("masked.safetensors");
  save_checkpoint(path, *network);
  expect_same_masks(*network, *load_model(path));

  const ModulePtr other = make_model("lenet5");  // one whose own masks must give way
  other->parameters().front().set_mask(Mask::from_scores(other->parameters().front().shape(), Pattern::element(),
                                                         randn({other->parameters().front().numel()}), 1));
  restore(load_checkpoint(path), *other);
  expect_same_masks(*network, *other);

  const ModulePtr dense = make_model("lenet5");
  save_checkpoint(path, *dense);
  restore(load_checkpoint(path), *other);
  expect_same_masks(*dense, *other);
}

TEST(MaskedNetwork, TakesOnlyTheRoomOfWhatRemains) {
  const ModulePtr network = masked_network();
  int64_t allowed = 64 * 1024;
  for (const auto& [name, parameter] : network->named_parameters()) {
    const Mask& mask = parameter.mask();
    allowed += 4 * (mask.defined() ? mask.count_elements() : parameter.numel());
    if (mask.defined()) allowed += (mask.num_units() + 7) / 8;
  }
  const TemporaryFolder folder;
  const std::string path = folder.file("masked.safetensors");
  save_checkpoint(path, *network);
  EXPECT_LE(static_cast<int64_t>(std::filesystem::file_size(path)), allowed);
}

TEST(MaskedNetwork, AMisfitLeavesMasksAndWeightsAsTheyWere) {
  const ModulePtr network = masked_network(), same = network->clone();
  const TemporaryFolder folder;
  const std::string path = folder.file("masked.safetensors");
  save_checkpoint(path, *make_model("lenet300"));
  EXPECT_THROW(restore(load_checkpoint(path), *network), FileError);
  expect_same_masks(*same, *network);
}

TEST(MaskedNetwork, TheMaskWinsOverALoadedState) {
  const ModulePtr network = masked_network();
  load_state(*network, state_of(*make_model("lenet5")));
  for (const auto& [name, parameter] : network->named_parameters())
    if (parameter.mask().defined()) {
      EXPECT_TRUE(is_masked(parameter.data(), parameter.mask())) << name;
    }
}

}  // namespace
}  // namespace espalier
