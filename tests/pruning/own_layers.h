// Layers as a user would write them, outside of the library.
#pragma once

#include <nlohmann/json.hpp>

#include "core/random.h"
#include "layers/module.h"
#include "layers/registry.h"

namespace espalier {

/// Gates the channels of images by what all of them are on average: y = x * sigmoid(expand relu(squeeze mean(x) + b1) +
/// b2). x (N,C,H,W) -> the same. Hu, Shen & Sun 2018, "Squeeze-and-excitation networks", eq. 2 to 4.
class SqueezeExcite : public Module {
 public:
  SqueezeExcite(int64_t channels, int64_t hidden)
      : squeeze_(add_parameter("squeeze", randn({hidden, channels}))),
        squeeze_bias_(add_parameter("squeeze_bias", Tensor::zeros({hidden}))),
        expand_(add_parameter("expand", randn({channels, hidden}))),
        expand_bias_(add_parameter("expand_bias", Tensor::zeros({channels}))) {}

  Variable forward(const Variable& x) override {
    const Variable hidden = relu(linear(mean(x, {2, 3}), squeeze_, squeeze_bias_));
    observe_read("expand", hidden);
    const Variable gates = sigmoid(linear(hidden, expand_, expand_bias_));
    return x * reshape(gates, {x.size(0), x.size(1), 1, 1});
  }
  ChannelAccount channels() const override {
    return {.readers = {{.weight = "squeeze", .bias = "squeeze_bias"}},
            .inner_readers = {{.weight = "expand", .bias = "expand_bias"}}};
  }
  std::string type() const override { return "SqueezeExcite"; }
  nlohmann::json config() const override {
    return {{"type", type()}, {"channels", expand_.size(0)}, {"hidden", expand_.size(1)}};
  }

 private:
  Parameter &squeeze_, &squeeze_bias_, &expand_, &expand_bias_;
};

/// Mixes the channels at each position: x (N,C,H,W) -> (N,D,H,W).
class ChannelMix : public Module {
 public:
  ChannelMix(int64_t from, int64_t to)
      : mixing_(add_parameter("mixing", randn({to, from}))), offset_(add_parameter("offset", Tensor::zeros({to}))) {}

  Variable forward(const Variable& x) override {
    return permute(linear(permute(x, {0, 2, 3, 1}), mixing_, offset_), {0, 3, 1, 2});
  }
  ChannelAccount channels() const override { return {.readers = {{.weight = "mixing", .bias = "offset"}}}; }
  std::string type() const override { return "ChannelMix"; }
  nlohmann::json config() const override {
    return {{"type", type()}, {"from", mixing_.size(1)}, {"to", mixing_.size(0)}};
  }

 private:
  Parameter &mixing_, &offset_;
};

/// Scales the channels of images by learned numbers: x (N,C,H,W) -> the same.
class ChannelGate : public Module {
 public:
  explicit ChannelGate(int64_t channels) : gate_(add_parameter("gate", randn({channels}))) {}

  Variable forward(const Variable& x) override { return x * reshape(gate_, {1, x.size(1), 1, 1}); }
  std::string type() const override { return "ChannelGate"; }
  nlohmann::json config() const override { return {{"type", type()}, {"channels", gate_.size(0)}}; }

 private:
  Parameter& gate_;
};

inline void register_own_layers() {
  module_registry().replace(
      "ChannelGate", [](const nlohmann::json& config) { return std::make_shared<ChannelGate>(config.at("channels")); });
  module_registry().replace("SqueezeExcite", [](const nlohmann::json& config) {
    return std::make_shared<SqueezeExcite>(config.at("channels"), config.at("hidden"));
  });
  module_registry().replace("ChannelMix", [](const nlohmann::json& config) {
    return std::make_shared<ChannelMix>(config.at("from"), config.at("to"));
  });
}

}  // namespace espalier
