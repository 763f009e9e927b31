// Layers' gradients in double against central differences, in the input and in every parameter.
#include <nlohmann/json.hpp>

#include "layers/containers.h"
#include "layers/models/zoo.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

void expect_gradients(const char* config, const Shape& input) {
  SCOPED_TRACE(config);
  set_seed(4);
  const ModulePtr module = module_from_config(nlohmann::json::parse(config));
  module->to(DType::f64);
  Variables variables = {Variable(noise(input, 21), true)};
  for (const Parameter& parameter : module->parameters()) variables.push_back(parameter);
  EXPECT_TRUE(gradcheck([&](const Variables& v) { return Variables{(*module)(v[0])}; }, variables));
}

TEST(LayerGradients, MatchDifferences) {
  expect_gradients(R"({"type":"Linear","in_features":3,"out_features":4})", {2, 3});
  expect_gradients(R"({"type":"Conv2d","in_channels":4,"out_channels":4,"kernel":[3,2],"stride":[1,2],"padding":1,
                      "groups":2})",
                   {2, 4, 4, 5});
  expect_gradients(R"({"type":"Conv2d","in_channels":3,"out_channels":3,"groups":3,"dilation":2})", {1, 3, 6, 6});
  expect_gradients(R"({"type":"BatchNorm2d","num_features":2})", {3, 2, 2, 3});
  expect_gradients(R"({"type":"BatchNorm1d","num_features":2})", {3, 2, 4});
  expect_gradients(R"({"type":"LayerNorm","shape":[2,3]})", {4, 2, 3});
  expect_gradients(R"({"type":"AvgPool2d","kernel":3,"stride":2,"padding":1})", {1, 2, 5, 5});
  expect_gradients(R"({"type":"AdaptiveAvgPool2d","output":[2,3]})", {1, 2, 5, 5});
  expect_gradients(R"({"type":"MaxPool2d","kernel":2})", {1, 2, 4, 4});
  expect_gradients(R"({"type":"GELU"})", {2, 3});
  expect_gradients(R"({"type":"SiLU"})", {2, 3});
  expect_gradients(R"({"type":"Softmax"})", {2, 3});
  expect_gradients(R"({"type":"BasicBlock","in_channels":2,"out_channels":4,"stride":2})", {2, 2, 4, 4});
  expect_gradients(R"({"type":"BasicBlock","in_channels":2,"out_channels":3,"shortcut":"projection"})", {2, 2, 3, 3});
  expect_gradients(R"({"type":"LstmRows","row_size":4,"classes":2,"hidden_size":3,"num_layers":2})", {2, 2, 3, 2});
}

/// A step against the gradient of each network of the zoo lowers its loss: everything is connected.
TEST(LayerGradients, EveryModelLearnsFromAStep) {
  for (const char* name : {"lenet300", "lenet5", "resnet20", "lstm-rows:16", "mlp:20,10"}) {
    SCOPED_TRACE(name);
    set_seed(2);
    const ModulePtr model = make_model(name);
    const Shape image = model_image(name);
    const Variable x = noise({8, image[0], image[1], image[2]}, 3, DType::f32);
    const Tensor targets = Tensor::from(std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}, {8});
    const Variable loss = cross_entropy((*model)(x), targets);
    loss.backward();
    double squares = 0;
    for (const auto& [parameter_name, parameter] : model->named_parameters()) {
      ASSERT_TRUE(parameter.grad().defined()) << parameter_name;
      squares += sum(square(parameter.grad())).item();
    }
    ASSERT_GT(squares, 0);
    for (const Parameter& parameter : model->parameters()) {
      Tensor weight = parameter.data();
      axpy_(-0.02 / std::sqrt(squares), parameter.grad(), weight);
    }
    const NoGrad no_grad;
    EXPECT_LT(cross_entropy((*model)(x), targets).item(), loss.item());
  }
}

}  // namespace
}  // namespace espalier
