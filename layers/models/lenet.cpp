// LeNet-300-100 and other multilayer perceptrons, LeNet-5.
#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/init.h"
#include "layers/linear.h"
#include "layers/models/builders.h"
#include "layers/pooling.h"
#include "layers/size_budget.h"

namespace espalier {

namespace {
/// Throws when the weights are more than memory can hold.
void check_size(int64_t inputs, int64_t classes, const std::vector<int64_t>& hidden) {
  double elements = 0, before = static_cast<double>(inputs);
  for (const int64_t size : hidden) {
    elements += before * static_cast<double>(size);
    before = static_cast<double>(size);
  }
  elements += before * static_cast<double>(classes);
  SizeBudget::check_fits("mlp", fmt::format("a network of {}-{}-{}", inputs, fmt::join(hidden, "-"), classes),
                         elements * sizeof(float));
}
}  // namespace

ModulePtr build_mlp(const Shape& image, int64_t classes, const std::vector<int64_t>& hidden) {
  check_size(image.numel(), classes, hidden);  // of all layers, before the first takes any memory
  auto net = std::make_shared<Sequential>();
  net->add("flatten", Flatten());
  int64_t inputs = image.numel();
  for (size_t i = 0; i < hidden.size(); ++i) {
    Linear layer(inputs, hidden[i]);
    kaiming_uniform_(layer.weight().data());
    net->add(fmt::format("fc{}", i + 1), std::move(layer));
    net->add(fmt::format("relu{}", i + 1), ReLU());
    inputs = hidden[i];
  }
  net->add(fmt::format("fc{}", hidden.size() + 1), Linear(inputs, classes));
  return net;
}

namespace {
template <class Layer>
Layer xavier(Layer layer) {
  xavier_uniform_(layer.weight().data());
  Tensor bias = layer.bias().data();
  bias.zero_();
  return layer;
}

/// One side after a 5x5 convolution and a 2x2 pooling, twice.
int64_t lenet_side(int64_t side) { return ((side - 4) / 2 - 4) / 2; }
}  // namespace

ModulePtr build_lenet5(const Shape& image, int64_t classes) {
  const int64_t h = lenet_side(image[1]), w = lenet_side(image[2]);
  check(image[1] >= 16 && image[2] >= 16, "lenet5", "expected images of at least 16x16, got {}x{}", image[1], image[2]);
  auto net = std::make_shared<Sequential>();
  net->add("conv1", xavier(Conv2d(image[0], 20, {.kernel = 5})));
  net->add("pool1", MaxPool2d());
  net->add("relu1", ReLU());
  net->add("conv2", xavier(Conv2d(20, 50, {.kernel = 5})));
  net->add("pool2", MaxPool2d());
  net->add("relu2", ReLU());
  net->add("flatten", Flatten());
  net->add("fc1", xavier(Linear(50 * h * w, 500)));
  net->add("relu3", ReLU());
  net->add("fc2", xavier(Linear(500, classes)));
  return net;
}

}  // namespace espalier
