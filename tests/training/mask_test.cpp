// What holds for masks, always (design, section 2): each test fails when its rule is broken.
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>

#include "layers/embedding.h"
#include "layers/linear.h"
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
  return Mask::from_scores(shape, pattern, rand({units}, generator), units / 3);
}

/// Whether every masked weight is exactly 0.
bool is_masked(const Tensor& values, const Mask& mask) { return !any((values != 0) & ~mask.expand()).item(); }

void backward(Linear& layer, uint64_t seed) {
  Generator generator(seed);
  layer.zero_grad();
  sum(square(layer(randn({5, 8}, generator)) - 1.0)).backward();
}

std::vector<std::shared_ptr<Optimizer>> optimizers_for(const Module& module) {
  return {std::make_shared<Sgd>(module, SgdOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true}),
          std::make_shared<Adam>(module, AdamOptions{.lr = 0.1, .weight_decay = 0.1}),
          std::make_shared<AdamW>(module, AdamWOptions{.lr = 0.1, .weight_decay = 0.1}),
          std::make_shared<RmsProp>(module, RmsPropOptions{.lr = 0.1, .weight_decay = 0.1, .momentum = 0.9})};
}

/// Looks up every row of the table at least once, some twice, so that every weight has a gradient.
void backward(Embedding& table, uint64_t seed) {
  Generator generator(seed);
  table.zero_grad();
  const Tensor ids = Tensor::from<int64_t>({0, 1, 2, 3, 4, 5, 6, 5, 0}, {9});
  sum(square(table(ids) - randn({9, 4}, generator))).backward();
}

class EveryOptimizer : public testing::TestWithParam<int> {};

TEST_P(EveryOptimizer, NeverRevivesAMaskedWeight) {
  for (GradientFlow flow : {GradientFlow::masked, GradientFlow::dense}) {
    set_seed(1);
    Linear layer(8, 6);
    const auto optimizer = optimizers_for(layer)[static_cast<size_t>(GetParam())];
    Parameter weight = layer.named_parameters().front().second;
    for (uint64_t step = 0; step < 5; ++step) {  // momentum builds up
      backward(layer, step);
      optimizer->step();
    }
    const Mask mask = random_mask(weight.shape(), Pattern::element(), 3);
    weight.set_mask(mask, flow);
    EXPECT_TRUE(is_masked(weight.data(), mask));
    for (const std::string& slot : optimizer->slots())
      EXPECT_TRUE(is_masked(*optimizer->state(weight, slot), mask)) << slot << " the moment the weight is masked";
    const Tensor before = weight.data().clone();
    for (uint64_t step = 5; step < 15; ++step) {
      backward(layer, step);
      EXPECT_EQ(is_masked(weight.grad(), mask), flow == GradientFlow::masked);
      optimizer->step();
      ASSERT_TRUE(is_masked(weight.data(), mask)) << optimizer->type() << " step " << step;
      for (const std::string& slot : optimizer->slots()) ASSERT_TRUE(is_masked(*optimizer->state(weight, slot), mask));
    }
    EXPECT_FALSE(identical(before, weight.data())) << "the other weights do learn";
  }
}

TEST_P(EveryOptimizer, NeverRevivesAMaskedEmbedding) {
  const std::vector<Pattern> patterns = {Pattern::element(), Pattern::channel(0), Pattern::channel(1)};
  for (const Pattern& pattern : patterns)
    for (GradientFlow flow : {GradientFlow::masked, GradientFlow::dense}) {
      set_seed(1);
      Embedding table(7, 4);
      const auto optimizer = optimizers_for(table)[static_cast<size_t>(GetParam())];
      Parameter weight = table.weight();
      for (uint64_t step = 0; step < 5; ++step) {
        backward(table, step);
        optimizer->step();
      }
      const Mask mask = random_mask(weight.shape(), pattern, 3);
      weight.set_mask(mask, flow);
      EXPECT_TRUE(is_masked(table(Tensor::arange(0, 7)).data(), mask)) << "what is looked up is what exists";
      for (const std::string& slot : optimizer->slots())
        EXPECT_TRUE(is_masked(*optimizer->state(weight, slot), mask)) << slot << " the moment the weight is masked";
      const Tensor before = weight.data().clone();
      for (uint64_t step = 5; step < 15; ++step) {
        backward(table, step);
        EXPECT_EQ(is_masked(weight.grad(), mask), flow == GradientFlow::masked);
        optimizer->step();
        ASSERT_TRUE(is_masked(weight.data(), mask)) << optimizer->type() << " step " << step;
        for (const std::string& slot : optimizer->slots())
          ASSERT_TRUE(is_masked(*optimizer->state(weight, slot), mask));
      }
      EXPECT_FALSE(identical(before, weight.data())) << "the other weights do learn";

      const TemporaryFolder folder;
      save_checkpoint(folder.file("table.safetensors"), table, optimizer.get());
      const ModulePtr loaded = load_model(folder.file("table.safetensors"));
      const Parameter& same = dynamic_cast<const Embedding&>(*loaded).weight();
      EXPECT_TRUE(same.mask() == mask);
      EXPECT_EQ(same.gradient_flow(), flow);
      EXPECT_TRUE(identical(same.data(), weight.data()));
      const auto other = optimizers_for(*loaded)[static_cast<size_t>(GetParam())];
      restore(load_checkpoint(folder.file("table.safetensors")), *loaded, other.get());
      for (const std::string& slot : optimizer->slots())
        EXPECT_TRUE(identical(*other->state(same, slot), *optimizer->state(weight, slot))) << slot;
    }
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
