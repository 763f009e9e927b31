// Every layer and every network of the zoo: outputs, gradients and buffers on the device are those on the CPU.
#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "core/ops.h"
#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/dropout.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/models/zoo.h"
#include "layers/norm.h"
#include "layers/pooling.h"
#include "layers/residual.h"
#include "tests/cuda/difference.h"

namespace espalier {
namespace {

const Device kCuda = Device::cuda();

/// One training pass on both devices, from the same parameters: outputs, gradients and buffers.
void expect_same(const ModulePtr& net, const Tensor& x, double tolerance = 2e-5) {
  const ModulePtr there = net->clone();
  there->to(kCuda);
  const auto run = [](Module& module, const Tensor& input) {
    set_seed(7);  // dropout draws the same numbers
    const Variable y = module(input);
    sum(square(y) * 0.5).backward();
    return y.data();
  };
  const Tensor expected = run(*net, x), got = run(*there, x.to(kCuda));
  EXPECT_EQ(got.device(), kCuda);
  EXPECT_LT(difference(got, expected), tolerance) << "outputs";
  const auto a = net->named_parameters(), b = there->named_parameters();
  ASSERT_EQ(a.size(), b.size());
  double largest = 0;
  for (const auto& [name, parameter] : a)
    if (parameter.grad().defined()) largest = std::max(largest, max(abs(parameter.grad())).item());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(b[i].second.data().device(), kCuda) << a[i].first;
    ASSERT_EQ(a[i].second.grad().defined(), b[i].second.grad().defined()) << a[i].first;
    if (!a[i].second.grad().defined()) continue;
    const Tensor expected_grad = a[i].second.grad(), grad = b[i].second.grad().to(Device::cpu());
    // Gradients that are 0 but for rounding, as those of a bias before BatchNorm, are measured by the others.
    const double size = std::max(max(abs(expected_grad)).item(), 1e-2 * largest);
    EXPECT_LT(max(abs(grad - expected_grad)).item(), 10 * tolerance * size) << "gradient of " << a[i].first;
  }
  const auto c = state_of(*net), d = state_of(*there);
  for (size_t i = 0; i < c.size(); ++i)
    EXPECT_LT(difference(d[i].second, c[i].second), tolerance) << "buffer or parameter " << c[i].first;
}

Tensor images(const Shape& shape) {
  Generator generator(11);
  return randn(shape, generator);
}

TEST(CudaLayers, ActivationsAndContainers) {
  set_seed(1);
  expect_same(share(Sequential(Flatten(), Linear(48, 12), ReLU(), Linear(12, 9), GELU(), Linear(9, 8), SiLU(),
                               Linear(8, 7), Tanh(), Linear(7, 6), Sigmoid(), Linear(6, 5), LeakyReLU(), Softmax())),
              images({5, 3, 4, 4}));
}

TEST(CudaLayers, Convolutions) {
  set_seed(2);
  expect_same(
      share(Sequential(Conv2d(4, 8, {.kernel = 3, .padding = 1}), BatchNorm2d(8), ReLU(), MaxPool2d(),
                       Conv2d(8, 8, {.kernel = 3, .stride = 2, .padding = 2, .dilation = 2, .groups = 8}), AvgPool2d(),
                       Conv2d(8, 6, {.kernel = 1, .bias = false}), AdaptiveAvgPool2d(), Flatten(), Linear(6, 3))),
      images({3, 4, 16, 12}));
}

TEST(CudaLayers, NormsDropoutAndResiduals) {
  set_seed(3);
  expect_same(share(Sequential(Flatten(), Linear(20, 16), BatchNorm1d(16), Dropout({.p = 0.3}), LayerNorm({16}),
                               Linear(16, 4))),
              images({6, 20}));
  set_seed(4);
  expect_same(share(Sequential(BasicBlock(8, 8), BasicBlock(8, 16, {.stride = 2, .shortcut = Shortcut::projection}),
                               BasicBlock(16, 24, {.stride = 2}), AdaptiveAvgPool2d(), Flatten(), Linear(24, 4))),
              images({2, 8, 8, 8}));
}

TEST(CudaLayers, EmbeddingAndLstm) {
  set_seed(5);
  Embedding embedding(11, 6);
  const Tensor ids = Tensor::from<int64_t>({1, 10, 0, 3, 3, 7, 1, 1}, {4, 2});
  LSTM lstm(6, 5, {.num_layers = 2, .bidirectional = true});
  const auto run = [&](Device device) {
    embedding.to(device);
    lstm.to(device);
    const LstmResult result =
        lstm(Variable(embedding(Variable(ids.to(device)))), LstmInputs{.lengths = Tensor::from<int64_t>({4, 2}, {2})});
    sum(square(result.output)).backward();
    std::vector<Tensor> all = {result.output.data().to(Device::cpu())};
    for (Module* module : {static_cast<Module*>(&embedding), static_cast<Module*>(&lstm)})
      for (auto& [name, parameter] : module->named_parameters()) {
        all.push_back(parameter.grad().to(Device::cpu()));
        Parameter(parameter).zero_grad();
      }
    return all;
  };
  const std::vector<Tensor> expected = run(Device::cpu()), got = run(kCuda);
  ASSERT_EQ(expected.size(), got.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(difference(got[i], expected[i]), 2e-5) << i;
}

class CudaZoo : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, CudaZoo,
                         testing::Values("lenet300", "lenet5", "resnet20", "vgg16", "lstm-rows:32", "mlp:24,16"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name)
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           return name;
                         });

TEST_P(CudaZoo, SameOutputsAndGradients) {
  set_seed(6);
  const Shape image = model_image(GetParam());
  expect_same(make_model(GetParam()), images({2, image[0], image[1], image[2]}), 1e-4);
}

}  // namespace
}  // namespace espalier
