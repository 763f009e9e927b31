// Activations as layers: for Sequential. Each keeps the shape of its input and works on any.
#pragma once

#include "layers/module.h"

namespace espalier {

/// An activation without options: config() is the type alone.
class Activation : public Module {
 public:
  nlohmann::json config() const override;
};

/// max(x, 0).
class ReLU : public Activation {
 public:
  Variable forward(const Variable& x) override { return relu(x); }
  std::string type() const override { return "ReLU"; }
};

/// x * Phi(x), exact. Hendrycks & Gimpel 2016, section 2.
class GELU : public Activation {
 public:
  Variable forward(const Variable& x) override { return gelu(x); }
  std::string type() const override { return "GELU"; }
};

/// x * sigmoid(x). Elfwing, Uchibe & Doya 2017, eq. 2.
class SiLU : public Activation {
 public:
  Variable forward(const Variable& x) override { return silu(x); }
  std::string type() const override { return "SiLU"; }
};

/// tanh(x).
class Tanh : public Activation {
 public:
  Variable forward(const Variable& x) override { return tanh(x); }
  std::string type() const override { return "Tanh"; }
};

/// 1/(1 + exp(-x)).
class Sigmoid : public Activation {
 public:
  Variable forward(const Variable& x) override { return sigmoid(x); }
  std::string type() const override { return "Sigmoid"; }
};

struct LeakyReLUOptions {
  double negative_slope = 0.01;
};

/// x where positive, else negative_slope * x. Maas, Hannun & Ng 2013, section 2.
class LeakyReLU : public Module {
 public:
  explicit LeakyReLU(LeakyReLUOptions options = {}) : options_(options) {}
  Variable forward(const Variable& x) override { return leaky_relu(x, options_.negative_slope); }
  std::string type() const override { return "LeakyReLU"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

 private:
  LeakyReLUOptions options_;
};

struct SoftmaxOptions {
  int axis = -1;
};

/// exp(x) / sum(exp(x)) along an axis. Losses take logits: use it for showing probabilities. Throws when the input has
/// no such axis.
class Softmax : public Module {
 public:
  explicit Softmax(SoftmaxOptions options = {}) : options_(options) {}
  Variable forward(const Variable& x) override { return softmax(x, options_.axis); }
  std::string type() const override { return "Softmax"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

 private:
  SoftmaxOptions options_;
};

}  // namespace espalier
