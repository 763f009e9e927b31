#include "layers/dropout.h"

#include <cmath>

#include "core/random.h"
#include "layers/config_reader.h"

namespace espalier {

Dropout::Dropout(DropoutOptions options) : options_(options) {
  check(options.p >= 0 && options.p < 1, "Dropout", "expected a probability p with 0 <= p < 1, got {}", options.p);
}

Variable Dropout::forward(const Variable& x) { return is_training() && options_.p > 0 ? dropout(x, options_.p) : x; }

nlohmann::json Dropout::config() const { return {{"type", type()}, {"p", options_.p}}; }

ModulePtr Dropout::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const DropoutOptions options{.p = reader.number("p", 0.5)};
  reader.finish();
  return std::make_shared<Dropout>(options);
}

GaussianNoise::GaussianNoise(NoiseOptions options) : options_(options) {
  check(options.deviation >= 0 && std::isfinite(options.deviation), "GaussianNoise",
        "expected a deviation of at least 0, got {}", options.deviation);
}

Variable GaussianNoise::forward(const Variable& x) {
  if (!is_training() || options_.deviation == 0) return x;
  Tensor noise = Tensor::empty(x.shape(), x.dtype(), x.device());
  normal_(noise, 0, options_.deviation);
  return x + Variable(noise);
}

nlohmann::json GaussianNoise::config() const { return {{"type", type()}, {"deviation", options_.deviation}}; }

ModulePtr GaussianNoise::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const NoiseOptions options{.deviation = reader.number("deviation", 0.1)};
  reader.finish();
  return std::make_shared<GaussianNoise>(options);
}

}  // namespace espalier
