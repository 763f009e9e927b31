// Shapes, errors and first values of the layers. Numbers against PyTorch are in tests/torch.
#include <nlohmann/json.hpp>

#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "layers/pooling.h"
#include "layers/residual.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

Variable zeros(const Shape& shape) { return Tensor::zeros(shape); }

TEST(Linear, ShapesAndErrors) {
  Linear layer(784, 10);
  EXPECT_EQ(layer(zeros({32, 784})).shape(), (Shape{32, 10}));
  EXPECT_EQ(layer(zeros({4, 5, 784})).shape(), (Shape{4, 5, 10}));
  expect_error([&] { layer(zeros({32, 1, 28, 28})); }, {"[Linear]", "(...,784)", "(32,1,28,28)", "put a Flatten"});
  expect_error([&] { layer(zeros({32, 100})); }, {"(32,100)", "in_features=100"});
  EXPECT_FALSE(Linear(3, 2, {.bias = false}).bias().defined());
}

TEST(Linear, ComputesTheProduct) {
  Linear layer(2, 2);
  Tensor weight = layer.weight().data(), bias = layer.bias().data();
  weight.copy_(Tensor::from(std::vector<float>{1, 2, 3, 4}, {2, 2}));
  bias.copy_(Tensor::from(std::vector<float>{10, 20}, {2}));
  EXPECT_EQ(layer(Tensor::from(std::vector<float>{5, 7}, {1, 2})).data().to_vector<float>(),
            (std::vector<float>{29, 63}));
}

TEST(Layers, FirstValuesFillTheDefaultRange) {
  set_seed(1);
  const auto expect_uniform = [](const Tensor& x, double bound) {
    const double n = static_cast<double>(x.numel());
    EXPECT_LE(max(abs(x)).item(), bound);
    EXPECT_GE(max(abs(x)).item(), bound * (1 - 20 / n));
    EXPECT_NEAR(mean(square(x)).item(), bound * bound / 3, bound * bound * 5 / std::sqrt(n));
  };
  const Linear linear(400, 100);
  expect_uniform(linear.weight().data(), 1 / std::sqrt(400.0));
  expect_uniform(linear.bias().data(), 1 / std::sqrt(400.0));
  const Conv2d conv(16, 64, {.kernel = {3, 5}, .groups = 2});
  expect_uniform(conv.weight().data(), 1 / std::sqrt(8.0 * 15));
  expect_uniform(conv.bias().data(), 1 / std::sqrt(8.0 * 15));
  const Embedding table(200, 50);
  EXPECT_NEAR(mean(square(table.weight().data())).item(), 1, 5 * std::sqrt(2 / 1e4));
}

TEST(Layers, OneSeedOneNetwork) {
  set_seed(9);
  const Conv2d a(3, 8);
  set_seed(9);
  const Conv2d b(3, 8), c(3, 8);
  EXPECT_TRUE(identical(a.weight().data(), b.weight().data()));
  EXPECT_FALSE(identical(b.weight().data(), c.weight().data()));
}

TEST(Conv2d, Shapes) {
  EXPECT_EQ(Conv2d(3, 8)(zeros({2, 3, 9, 9})).shape(), (Shape{2, 8, 7, 7}));
  EXPECT_EQ(Conv2d(3, 8, {.kernel = {1, 3}, .stride = {2, 1}, .padding = {0, 1}})(zeros({2, 3, 9, 8})).shape(),
            (Shape{2, 8, 5, 8}));
  EXPECT_EQ(Conv2d(4, 8, {.kernel = 3, .dilation = 2, .groups = 4})(zeros({1, 4, 9, 9})).shape(), (Shape{1, 8, 5, 5}));
}

TEST(Conv2d, Errors) {
  Conv2d conv(3, 20, {.kernel = 5});
  expect_error(
      [&] {
        conv(zeros({32, 1, 28, 28}));
      },
      {"[Conv2d] weight has 3 input channels, input has 1: shapes (32,1,28,28) and (20,3,5,5)",
       "convert the image to RGB or build the layer with in_channels=1"});
  expect_error([&] { conv(zeros({3, 28, 28})); }, {"(N,3,H,W)", "(3,28,28)"});
  expect_error([&] { conv(zeros({1, 3, 4, 8})); }, {"window of 5x5", "(1,3,4,8)"});
  expect_error([] { Conv2d(3, 8, {.groups = 2}); }, {"groups=2", "in_channels=3"});
  expect_error([] { Conv2d(0, 8); }, {"in_channels=0"});
  expect_error([] { Conv2d(3, 8, {.kernel = {3, 0}}); }, {"positive kernel", "3x0"});
  expect_error([] { Conv2d(3, 8, {.stride = 0}); }, {"positive stride"});
  expect_error([] { Conv2d(3, 8, {.padding = -1}); }, {"padding", "-1x-1"});
  Sequential net;
  net.add("conv1", Conv2d(3, 4));
  expect_error([&] { net(zeros({1, 2, 5, 5})); }, {"[Conv2d conv1]"});
}

TEST(Pooling, ShapesAndErrors) {
  EXPECT_EQ(MaxPool2d()(zeros({2, 3, 9, 8})).shape(), (Shape{2, 3, 4, 4}));
  EXPECT_EQ(MaxPool2d({.kernel = 3, .stride = 2, .padding = 1})(zeros({2, 3, 9, 8})).shape(), (Shape{2, 3, 5, 4}));
  EXPECT_EQ(AvgPool2d({.kernel = {2, 4}})(zeros({2, 3, 8, 8})).shape(), (Shape{2, 3, 4, 2}));
  EXPECT_EQ(AdaptiveAvgPool2d({.output = {2, 3}})(zeros({2, 5, 7, 7})).shape(), (Shape{2, 5, 2, 3}));
  EXPECT_EQ(AvgPool2d({.kernel = 2})(Tensor::from(std::vector<float>{1, 2, 3, 6}, {1, 1, 2, 2})).item(), 3);
  expect_error([] { MaxPool2d()(zeros({2, 3, 1, 8})); }, {"[MaxPool2d]", "2x2", "(2,3,1,8)"});
  expect_error([] { MaxPool2d()(zeros({3, 8})); }, {"(N,C,H,W)", "(3,8)"});
  expect_error([] { MaxPool2d({.kernel = 2, .padding = 2}); }, {"half the kernel"});
  expect_error([] { AdaptiveAvgPool2d({.output = 0}); }, {"positive output size"});
}

TEST(Flatten, JoinsAllButTheBatch) {
  EXPECT_EQ(Flatten()(zeros({2, 3, 4, 5})).shape(), (Shape{2, 60}));
  EXPECT_EQ(Flatten()(zeros({2})).shape(), (Shape{2, 1}));
  expect_error([] { Flatten()(zeros({})); }, {"[Flatten]", "scalar"});
}

TEST(Activations, KnownValues) {
  const Variable x(Tensor::from(std::vector<double>{-2, 0, 1.5}, {3}));
  const auto expect_values = [&](Module&& layer, const std::vector<double>& expected) {
    EXPECT_LT(max_difference(layer(x).data(), Tensor::from(expected, {3})), 1e-12) << layer.type();
  };
  const auto phi = [](double v) { return 0.5 * std::erfc(-v / std::sqrt(2.0)); };
  const auto logistic = [](double v) { return 1 / (1 + std::exp(-v)); };
  expect_values(ReLU(), {0, 0, 1.5});
  expect_values(LeakyReLU(), {-0.02, 0, 1.5});
  expect_values(LeakyReLU({.negative_slope = 0.5}), {-1, 0, 1.5});
  expect_values(GELU(), {-2 * phi(-2), 0, 1.5 * phi(1.5)});
  expect_values(SiLU(), {-2 * logistic(-2), 0, 1.5 * logistic(1.5)});
  expect_values(Tanh(), {std::tanh(-2), 0, std::tanh(1.5)});
  expect_values(Sigmoid(), {logistic(-2), 0.5, logistic(1.5)});
  const double z = std::exp(-2) + 1 + std::exp(1.5);
  expect_values(Softmax(), {std::exp(-2) / z, 1 / z, std::exp(1.5) / z});
}

TEST(Embedding, PicksRows) {
  Embedding table(4, 3);
  const Variable ids(Tensor::from(std::vector<int64_t>{3, 0, 3, 1}, {2, 2}));
  const Variable y = table(ids);
  EXPECT_EQ(y.shape(), (Shape{2, 2, 3}));
  EXPECT_TRUE(identical(y.data().select(0, 0).select(0, 0).contiguous(), table.weight().data().select(0, 3).clone()));
  sum(y).backward();
  EXPECT_EQ(table.weight().grad().to_vector<float>(), (std::vector<float>{1, 1, 1, 1, 1, 1, 0, 0, 0, 2, 2, 2}));
  expect_error([&] { table(zeros({2})); }, {"[Embedding]", "i64 ids", "f32"});
  EXPECT_THROW(table(Tensor::from(std::vector<int64_t>{4}, {1})), Error);
}

TEST(Residual, AddsBranches) {
  Residual plain(share(Tanh()), nullptr, {.relu = false});
  const Variable x(Tensor::from(std::vector<double>{-1, 0.5}, {1, 2}));
  EXPECT_LT(max_difference(plain(x).data(),
                           Tensor::from(std::vector<double>{-1 + std::tanh(-1), 0.5 + std::tanh(0.5)}, {1, 2})),
            1e-12);
  Residual wrong(share(Linear(4, 6)));
  expect_error([&] { wrong(zeros({2, 4})); }, {"[Residual", "body (2,6), shortcut (2,4)"});
}

TEST(PadShortcut, KeepsEverySecondPixelBetweenZeroChannels) {
  PadShortcut shortcut(2, 5);
  const Tensor x = noise({1, 2, 3, 4}, 1);
  const Tensor y = shortcut(x).data();
  ASSERT_EQ(y.shape(), (Shape{1, 5, 2, 2}));
  for (int64_t c = 0; c < 5; ++c) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t w = 0; w < 2; ++w) {
        const double expected =
            c == 1 || c == 2 ? x.select(1, c - 1).select(1, 2 * h).select(1, 2 * w).item() : 0;  // 1 before, 2 after
        EXPECT_EQ(y.select(1, c).select(1, h).select(1, w).item(), expected);
      }
    }
  }
  expect_error([] { PadShortcut(4, 2); }, {"[PadShortcut]", "4 and 2"});
  expect_error([&] { shortcut(zeros({1, 3, 4, 4})); }, {"(N,2,H,W)", "(1,3,4,4)"});
}

TEST(BasicBlock, ShortcutsAndParameters) {
  BasicBlock same(8, 8), pad(8, 16, {.stride = 2}), projection(8, 16, {.stride = 2, .shortcut = Shortcut::projection});
  EXPECT_EQ(same(zeros({2, 8, 6, 6})).shape(), (Shape{2, 8, 6, 6}));
  EXPECT_EQ(pad(zeros({2, 8, 5, 5})).shape(), (Shape{2, 16, 3, 3}));
  EXPECT_EQ(projection(zeros({2, 8, 5, 5})).shape(), (Shape{2, 16, 3, 3}));
  EXPECT_EQ(pad.num_parameters(), 8 * 16 * 9 + 16 * 16 * 9 + 64);
  EXPECT_EQ(projection.num_parameters(), pad.num_parameters() + 8 * 16 + 32);
}

}  // namespace
}  // namespace espalier
