// Operations against PyTorch: values and gradients, in f64 and f32.
#include <functional>
#include <map>

#include <gtest/gtest.h>

#include "tests/torch/reference.h"

namespace espalier::torch_reference {
namespace {

class TorchOps : public testing::TestWithParam<DType> {
 protected:
  /// Runs `test` on every case of a prefix.
  void each(const std::string& prefix, const std::function<void(const Case&)>& test) const {
    for (const std::string& name : cases(prefix)) test(Case(name, GetParam()));
  }
  Case one(const std::string& name) const { return {name, GetParam()}; }
};

INSTANTIATE_TEST_SUITE_P(DTypes, TorchOps, testing::Values(DType::f64, DType::f32),
                         [](const auto& dtype) { return std::string(name_of(dtype.param)); });

/// Checks y and, after backward from the stored dy, the gradients of the named leaves.
void expect_all(const Case& c, const Variable& y, const std::map<std::string, Variable>& leaves, int64_t terms) {
  c.expect("y", y.data(), terms);
  y.backward(c.tensor("dy"));
  for (const auto& [field, leaf] : leaves) {
    if (leaf.defined()) c.expect_grad(field, leaf, terms);
  }
}

Conv2dShape conv2d_shape(const nlohmann::json& o) {
  return {o["stride"][0],   o["stride"][1],   o["padding"][0], o["padding"][1],
          o["dilation"][0], o["dilation"][1], o["groups"]};
}

Pool2dShape pool2d_shape(const nlohmann::json& o) {
  return {o["kernel"], o["kernel"], o["stride"], o["stride"], o["padding"], o["padding"]};
}

Reduction reduction_of(const nlohmann::json& o) {
  const std::string name = o["reduction"];
  return name == "none" ? Reduction::none : name == "sum" ? Reduction::sum : Reduction::mean;
}

TEST_P(TorchOps, Conv2d) {
  each("conv2d", [](const Case& c) {
    const Variable x = c.leaf("x"), weight = c.leaf("weight"), bias = c.leaf("bias");
    const Variable y = conv2d(x, weight, bias, conv2d_shape(c.options()));
    // The longest sums: a filter's window for y, one channel of a batch of images for the weight's gradient.
    expect_all(c, y, {{"x", x}, {"weight", weight}, {"bias", bias}}, y.numel() + weight.numel());
  });
}

TEST_P(TorchOps, Pooling) {
  each("max_pool2d", [](const Case& c) {
    const Variable x = c.leaf("x");
    expect_all(c, max_pool2d(x, pool2d_shape(c.options())), {{"x", x}}, 9);
  });
  each("avg_pool2d", [](const Case& c) {
    const Variable x = c.leaf("x");
    expect_all(c, avg_pool2d(x, pool2d_shape(c.options())), {{"x", x}}, 9);
  });
  each("adaptive_avg_pool2d", [](const Case& c) {
    const Variable x = c.leaf("x");
    expect_all(c, adaptive_avg_pool2d(x, c.options()["out"][0], c.options()["out"][1]), {{"x", x}}, x.numel());
  });
}

TEST_P(TorchOps, BatchNorm) {
  for (const std::string name : {"batch_norm.1d", "batch_norm.2d"}) {
    const Case train = one(name), eval = one(name + ".eval");
    Variable x = train.leaf("x"), weight = train.leaf("weight"), bias = train.leaf("bias");
    BatchStats stats;
    const Variable y = batch_norm(x, weight, bias, train.options()["epsilon"], &stats);
    const int64_t n = x.numel() / x.size(1);
    expect_all(train, y, {{"x", x}, {"weight", weight}, {"bias", bias}}, n);
    // PyTorch's running variance is unbiased, ours of one batch is not.
    const double momentum = train.options()["momentum"];
    train.expect("running_mean", train.tensor("running_mean0") * (1 - momentum) + stats.mean * momentum, n);
    train.expect("running_var",
                 train.tensor("running_var0") * (1 - momentum) +
                     stats.variance * (momentum * static_cast<double>(n) / static_cast<double>(n - 1)),
                 n);

    x = eval.leaf("x"), weight = eval.leaf("weight"), bias = eval.leaf("bias");
    expect_all(eval,
               batch_norm_eval(x, eval.tensor("running_mean"), eval.tensor("running_var"), weight, bias,
                               eval.options()["epsilon"]),
               {{"x", x}, {"weight", weight}, {"bias", bias}}, n);
  }
}

TEST_P(TorchOps, LayerNorm) {
  each("layer_norm", [](const Case& c) {
    const Variable x = c.leaf("x"), weight = c.leaf("weight"), bias = c.leaf("bias");
    expect_all(c, layer_norm(x, c.options()["axes"], weight, bias, c.options()["epsilon"]),
               {{"x", x}, {"weight", weight}, {"bias", bias}}, x.numel());
  });
}

TEST_P(TorchOps, Activations) {
  const std::map<std::string, std::function<Variable(const Variable&)>> functions = {
      {"relu", [](const Variable& x) { return relu(x); }},
      {"leaky_relu", [](const Variable& x) { return leaky_relu(x, 0.01); }},
      {"gelu", [](const Variable& x) { return gelu(x); }},
      {"silu", [](const Variable& x) { return silu(x); }},
      {"tanh", [](const Variable& x) { return tanh(x); }},
      {"sigmoid", [](const Variable& x) { return sigmoid(x); }},
      {"softplus", [](const Variable& x) { return softplus(x); }},
      {"erf", [](const Variable& x) { return erf(x); }},
      {"softmax", [](const Variable& x) { return softmax(x); }},
      {"log_softmax", [](const Variable& x) { return log_softmax(x); }},
      {"log_softmax_large", [](const Variable& x) { return log_softmax(x); }},
      {"logsumexp", [](const Variable& x) { return logsumexp(x, -1); }},
      {"variance", [](const Variable& x) { return variance(x, {-1}); }},
  };
  size_t tested = 0;
  each("activation", [&](const Case& c) {
    const Variable x = c.leaf("x");
    expect_all(c, functions.at(c.name().substr(std::string("activation.").size()))(x), {{"x", x}}, 25);
    ++tested;
  });
  EXPECT_EQ(tested, functions.size());
}

CrossEntropyOptions cross_entropy_options(const Case& c) {
  return {.label_smoothing = c.options()["label_smoothing"],
          .class_weights = c.has("class_weights") ? c.tensor("class_weights") : Tensor(),
          .reduction = reduction_of(c.options())};
}

TEST_P(TorchOps, CrossEntropyAndNll) {
  each("cross_entropy", [](const Case& c) {
    const Variable x = c.leaf("x");
    expect_all(c, cross_entropy(x, c.tensor("targets"), cross_entropy_options(c)), {{"x", x}}, x.numel());
  });
  each("nll", [](const Case& c) {
    const Variable x = c.leaf("x");
    expect_all(c, nll_loss(x, c.tensor("targets"), cross_entropy_options(c)), {{"x", x}}, x.numel());
  });
}

TEST_P(TorchOps, OtherLosses) {
  each("bce_with_logits", [](const Case& c) {
    const Variable x = c.leaf("x"), target = c.leaf("target");
    expect_all(c, bce_with_logits(x, target, reduction_of(c.options())), {{"x", x}, {"target", target}}, x.numel());
  });
  each("mse", [](const Case& c) {
    const Variable x = c.leaf("x"), target = c.leaf("target");
    expect_all(c, mse_loss(x, target, reduction_of(c.options())), {{"x", x}, {"target", target}}, x.numel());
  });
  each("l1", [](const Case& c) {
    const Variable x = c.leaf("x"), target = c.leaf("target");
    expect_all(c, l1_loss(x, target, reduction_of(c.options())), {{"x", x}, {"target", target}}, x.numel());
  });
  const Case c = one("kl_div");
  const Variable log_q = c.leaf("log_q"), log_p = c.leaf("log_p");
  expect_all(c, kl_divergence(log_q, log_p), {{"log_q", log_q}, {"log_p", log_p}}, log_q.numel());
}

/// One layer of an LSTM case from the operation: both directions run and joined.
TEST_P(TorchOps, Lstm) {
  each("lstm", [](const Case& c) {
    const nlohmann::json& o = c.options();
    if (o["layers"] != 1 || o["batch_first"] || !o["initial_state"]) return;  // the layer's test has all cases
    const Variable x = c.leaf("x"), h0 = c.leaf("h0"), c0 = c.leaf("c0");
    std::map<std::string, Variable> leaves = {{"x", x}, {"h0", h0}, {"c0", c0}};
    const std::vector<int64_t> lengths = o["lengths"];
    const Tensor length_tensor =
        lengths.empty() ? Tensor() : Tensor::from(lengths, Shape{static_cast<int64_t>(lengths.size())});
    Variables outputs, hs, cs;
    for (int direction = 0; direction < (o["bidirectional"] ? 2 : 1); ++direction) {
      const std::string suffix = direction == 1 ? "_l0_reverse" : "_l0";
      Variables weights;
      for (const std::string field : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}) {
        weights.push_back(c.leaf(field + suffix));
        leaves[field + suffix] = weights.back();
      }
      const LstmStates states = lstm(x, select(h0, 0, direction), select(c0, 0, direction), weights[0], weights[1],
                                     weights[2], weights[3], length_tensor, direction == 1);
      outputs.push_back(states.output);
      hs.push_back(states.h);
      cs.push_back(states.c);
    }
    const Variable output = cat(outputs, 2), h = stack(hs, 0), cell = stack(cs, 0);
    const int64_t terms = x.numel() * 4;
    c.expect("output", output.data(), terms);
    c.expect("h", h.data(), terms);
    c.expect("c", cell.data(), terms);
    (sum(output * Variable(c.tensor("doutput"))) + sum(h * Variable(c.tensor("dh"))) +
     sum(cell * Variable(c.tensor("dc"))))
        .backward();
    for (const auto& [field, leaf] : leaves) {
      if (leaf.defined()) c.expect_grad(field, leaf, terms);
    }
  });
}

}  // namespace
}  // namespace espalier::torch_reference
