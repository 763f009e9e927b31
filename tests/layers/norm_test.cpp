#include <nlohmann/json.hpp>

#include "layers/norm.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

TEST(BatchNorm, RunningStatisticsByHand) {
  BatchNorm1d layer(2);
  // Channel 0: 1, 3, 5, mean 3, unbiased variance 4, biased 8/3. Channel 1: constant 2.
  const Variable x(Tensor::from(std::vector<float>{1, 2, 3, 2, 5, 2}, {3, 2}));
  const std::vector<float> y = layer(x).data().to_vector<float>();
  const double scale = 1 / std::sqrt(8.0 / 3 + 1e-5);
  EXPECT_NEAR(y[0], -2 * scale, 1e-6);
  EXPECT_NEAR(y[2], 0, 1e-6);
  EXPECT_NEAR(y[4], 2 * scale, 1e-6);
  EXPECT_NEAR(y[1], 0, 1e-6);
  std::vector<float> mean = layer.running_mean().to_vector<float>(), var = layer.running_var().to_vector<float>();
  EXPECT_NEAR(mean[0], 0.3, 1e-6);
  EXPECT_NEAR(mean[1], 0.2, 1e-6);
  EXPECT_NEAR(var[0], 0.9 + 0.4, 1e-6);
  EXPECT_NEAR(var[1], 0.9, 1e-6);
  EXPECT_EQ(layer.num_batches_tracked().item(), 1);

  layer(x);
  EXPECT_NEAR(layer.running_mean().to_vector<float>()[0], 0.9 * 0.3 + 0.3, 1e-6);
  EXPECT_EQ(layer.num_batches_tracked().item(), 2);

  layer.eval();
  const Tensor before = layer.running_mean().clone();
  const double mean0 = layer.running_mean().to_vector<float>()[0], var0 = layer.running_var().to_vector<float>()[0];
  EXPECT_NEAR(layer(x).data().to_vector<float>()[0], (1 - mean0) / std::sqrt(var0 + 1e-5), 1e-6);
  EXPECT_TRUE(identical(layer.running_mean(), before));
  EXPECT_EQ(layer.num_batches_tracked().item(), 2);
}

TEST(BatchNorm, WithoutMomentumTheAverageOfAllBatches) {
  BatchNorm2d layer(3, {.momentum = std::nullopt, .affine = false});
  layer.to(DType::f64);
  EXPECT_EQ(layer.num_parameters(), 0);
  Tensor mean_sum = Tensor::zeros({3}, DType::f64), var_sum = Tensor::zeros({3}, DType::f64);
  for (uint64_t batch = 0; batch < 4; ++batch) {
    const Tensor x = noise({2, 3, 4, 5}, batch) * 2.0 + static_cast<double>(batch);
    layer(x);
    mean_sum = mean_sum + mean(x, {0, 2, 3});
    var_sum = var_sum + variance(x, {0, 2, 3});
  }
  EXPECT_LT(max_difference(layer.running_mean(), mean_sum / 4.0), 1e-12);
  EXPECT_LT(max_difference(layer.running_var(), var_sum / 4.0), 1e-12);
  layer.reset_running_stats();
  EXPECT_EQ(max_difference(layer.running_var(), Tensor::ones({3})), 0);
  EXPECT_EQ(layer.num_batches_tracked().item(), 0);
}

TEST(BatchNorm, InputsOfAnotherTypeThanItsStatisticsAreRefused) {
  BatchNorm2d layer(3, {.affine = false});
  const Tensor x = noise({2, 3, 4, 5}, 1);
  for (const bool training : {true, false}) {
    layer.train(training);
    expect_error([&] { layer(x); }, {"expected f32 on cpu", "got input f64 (2,3,4,5)", "to()"});
  }
  EXPECT_EQ(layer.num_batches_tracked().item(), 0);
}

TEST(BatchNorm, SequencesAreNormalisedOverBatchAndSteps) {
  BatchNorm1d layer(3);
  layer.to(DType::f64);
  const Tensor x = noise({4, 3, 5}, 1);
  const Tensor y = layer(x).data();
  ASSERT_EQ(y.shape(), x.shape());
  EXPECT_LT(max(abs(mean(y, {0, 2}))).item(), 1e-12);
  EXPECT_LT(max_difference(mean(square(y), {0, 2}), Tensor::ones({3})), 1e-3);
}

TEST(BatchNorm, StateKeepsItsHandles) {
  BatchNorm2d layer(2);
  const NamedTensors state = state_of(layer);
  ASSERT_EQ(state.size(), 5u);
  EXPECT_EQ(state[2].first, "running_mean");
  EXPECT_EQ(state[4].second.shape(), Shape{});
  layer(noise({3, 2, 2, 2}, 1, DType::f32));
  EXPECT_EQ(state[4].second.item(), 1);
  EXPECT_EQ(max_difference(state[2].second, layer.running_mean()), 0);
}

TEST(BatchNorm, Errors) {
  BatchNorm2d images(4);
  BatchNorm1d features(4);
  const auto zeros = [](const Shape& shape) { return Variable(Tensor::zeros(shape)); };
  expect_error([&] { images(zeros({2, 3, 5, 5})); }, {"[BatchNorm2d]", "4 channels, got 3", "(2,3,5,5)"});
  expect_error([&] { images(zeros({2, 4})); }, {"(N,4,H,W)", "BatchNorm1d"});
  expect_error([&] { features(zeros({2, 4, 5, 5})); }, {"[BatchNorm1d]", "BatchNorm2d"});
  expect_error([&] { features(zeros({1, 4})); }, {"more than one value", "(1,4)", "eval()"});
  features.eval();
  EXPECT_EQ(features(zeros({1, 4})).shape(), (Shape{1, 4}));
  expect_error([] { BatchNorm2d(0); }, {"[BatchNorm2d]", "got 0"});
  expect_error([] { BatchNorm2d(2, {.momentum = 1.5}); }, {"from 0 to 1", "1.5"});
}

TEST(LayerNorm, EachExampleHasMeanZeroAndVarianceOne) {
  LayerNorm layer(Shape{3, 4});
  layer.to(DType::f64);
  const Tensor y = layer(noise({5, 3, 4}, 2) * 3.0 + 1.0).data();
  EXPECT_LT(max(abs(mean(y, {1, 2}))).item(), 1e-12);
  EXPECT_LT(max_difference(mean(square(y), {1, 2}), Tensor::ones({5})), 1e-4);
  EXPECT_EQ(LayerNorm(4, {.affine = false}).num_parameters(), 0);
  expect_error([&] { layer(Tensor::zeros({5, 4, 3})); }, {"[LayerNorm]", "last axes are (3,4)", "(5,4,3)"});
  expect_error([] { LayerNorm(0); }, {"positive sizes"});
}

}  // namespace
}  // namespace espalier
