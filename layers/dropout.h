// Noise that training adds: dropout, Gaussian noise.
#pragma once

#include "layers/module.h"

namespace espalier {

struct DropoutOptions {
  double p = 0.5;  ///< probability of zeroing an element
};

/// In training zeroes elements with probability p and scales the others by 1/(1-p), drawing from default_generator();
/// in evaluation the identity. Any shape. Throws unless 0 <= p < 1. Srivastava et al. 2014, section 4.
class Dropout : public Module {
 public:
  explicit Dropout(DropoutOptions options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "Dropout"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

 private:
  DropoutOptions options_;
};

struct NoiseOptions {
  double deviation = 0.1;  ///< of the noise on each element
};

/// In training adds normal noise, drawn from default_generator(); in evaluation the identity. Any shape. As a layer,
/// and as a transform of a parameter or an output. Throws unless the deviation is a number of at least 0.
class GaussianNoise : public Module {
 public:
  explicit GaussianNoise(NoiseOptions options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "GaussianNoise"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

 private:
  NoiseOptions options_;
};

}  // namespace espalier
