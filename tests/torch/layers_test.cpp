// Layers against PyTorch: parameters are found by PyTorch's names, so a state dict means the same in both.
#include <functional>
#include <memory>

#include <gtest/gtest.h>

#include "layers/conv.h"
#include "layers/lstm.h"
#include "layers/norm.h"
#include "tests/torch/reference.h"

namespace espalier::torch_reference {
namespace {

class TorchLayers : public testing::TestWithParam<DType> {};

INSTANTIATE_TEST_SUITE_P(DTypes, TorchLayers, testing::Values(DType::f64, DType::f32),
                         [](const auto& dtype) { return std::string(name_of(dtype.param)); });

/// Gives a module the case's parameters; every one of them must be there. Buffers as `buffers` renames them.
void load(Module& module, const Case& c, const std::vector<std::pair<std::string, std::string>>& buffers = {}) {
  module.to(c.dtype());
  std::vector<std::pair<std::string, Tensor>> state;
  for (const auto& [name, parameter] : module.named_parameters()) state.emplace_back(name, c.tensor(name));
  for (const auto& [name, buffer] : module.named_buffers()) {
    Tensor value = buffer;
    for (const auto& [to, from] : buffers) {
      if (to == name) value = c.tensor(from);
    }
    state.emplace_back(name, value);
  }
  load_state(module, state);
}

void expect_parameter_grads(const Module& module, const Case& c, int64_t terms) {
  for (const auto& [name, parameter] : module.named_parameters()) {
    ASSERT_TRUE(c.has("d" + name)) << c.name() << " lacks d" << name;
    c.expect_grad(name, parameter, terms);
  }
}

TEST_P(TorchLayers, Lstm) {
  for (const std::string& name : cases("lstm")) {
    const Case c(name, GetParam());
    const nlohmann::json& o = c.options();
    LSTM net(o["input_size"], o["hidden_size"],
             {.num_layers = o["layers"],
              .bidirectional = o["bidirectional"],
              .batch_first = o["batch_first"],
              .bias = o["bias"]});
    load(net, c);
    const Variable x = c.leaf("x");
    LstmInputs inputs{.h0 = c.leaf("h0"), .c0 = c.leaf("c0")};
    if (const std::vector<int64_t> lengths = o["lengths"]; !lengths.empty()) {
      inputs.lengths = Tensor::from(lengths, Shape{static_cast<int64_t>(lengths.size())});
    }
    const LstmResult result = net(x, inputs);
    const int64_t terms = 8 * x.numel();
    c.expect("output", result.output.data(), terms);
    c.expect("h", result.h.data(), terms);
    c.expect("c", result.c.data(), terms);
    (sum(result.output * c.tensor("doutput")) + sum(result.h * c.tensor("dh")) + sum(result.c * c.tensor("dc")))
        .backward();
    c.expect_grad("x", x, terms);
    if (o["initial_state"]) {
      c.expect_grad("h0", inputs.h0, terms);
      c.expect_grad("c0", inputs.c0, terms);
    }
    expect_parameter_grads(net, c, terms);
  }
}

TEST_P(TorchLayers, Conv2d) {
  for (const std::string& name : cases("conv2d")) {
    const Case c(name, GetParam());
    const nlohmann::json& o = c.options();
    const auto size = [&](const char* key) { return Size2d(o[key][0], o[key][1]); };
    const Variable x = c.leaf("x");
    const Shape filters = c.tensor("weight").shape();
    Conv2d conv(x.size(1), filters[0],
                {.kernel = {filters[2], filters[3]},
                 .stride = size("stride"),
                 .padding = size("padding"),
                 .dilation = size("dilation"),
                 .groups = o["groups"],
                 .bias = o["bias"]});
    load(conv, c);
    const Variable y = conv(x);
    const int64_t terms = y.numel() + filters.numel();
    c.expect("y", y.data(), terms);
    y.backward(c.tensor("dy"));
    c.expect_grad("x", x, terms);
    expect_parameter_grads(conv, c, terms);
  }
}

TEST_P(TorchLayers, BatchNorm) {
  for (const std::string name : {"batch_norm.1d", "batch_norm.2d"}) {
    const Case c(name, GetParam()), eval(name + ".eval", GetParam());
    const BatchNormOptions options{.epsilon = c.options()["epsilon"],
                                   .momentum = c.options()["momentum"].get<double>()};
    const int64_t channels = c.tensor("weight").numel();
    std::shared_ptr<BatchNorm> norm;
    if (name == "batch_norm.1d") norm = std::make_shared<BatchNorm1d>(channels, options);
    if (name == "batch_norm.2d") norm = std::make_shared<BatchNorm2d>(channels, options);
    load(*norm, c, {{"running_mean", "running_mean0"}, {"running_var", "running_var0"}});

    const Variable x = c.leaf("x");
    Variable y = (*norm)(x);
    c.expect("y", y.data(), x.numel());
    c.expect("running_mean", norm->running_mean(), x.numel());
    c.expect("running_var", norm->running_var(), x.numel());
    y.backward(c.tensor("dy"));
    c.expect_grad("x", x, x.numel());
    expect_parameter_grads(*norm, c, x.numel());

    norm->eval();
    norm->zero_grad();
    const Variable x_eval = eval.leaf("x");
    y = (*norm)(x_eval);
    eval.expect("y", y.data(), x.numel());
    y.backward(eval.tensor("dy"));
    eval.expect_grad("x", x_eval, x.numel());
    expect_parameter_grads(*norm, eval, x.numel());
    eval.expect("running_mean", norm->running_mean(), x.numel());  // evaluation doesn't move them
  }
}

TEST_P(TorchLayers, LayerNorm) {
  for (const std::string& name : cases("layer_norm")) {
    const Case c(name, GetParam());
    const Tensor weight = c.tensor("weight");
    LayerNorm norm(weight.shape(), {.epsilon = c.options()["epsilon"]});
    load(norm, c);
    const Variable x = c.leaf("x");
    const Variable y = norm(x);
    c.expect("y", y.data(), x.numel());
    y.backward(c.tensor("dy"));
    c.expect_grad("x", x, x.numel());
    expect_parameter_grads(norm, c, x.numel());
  }
}

}  // namespace
}  // namespace espalier::torch_reference
