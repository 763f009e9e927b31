#include "layers/activations.h"

#include "layers/config_reader.h"

namespace espalier {

nlohmann::json Activation::config() const { return {{"type", type()}}; }

nlohmann::json LeakyReLU::config() const { return {{"type", type()}, {"negative_slope", options_.negative_slope}}; }

ModulePtr LeakyReLU::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const LeakyReLUOptions options{.negative_slope = reader.number("negative_slope", 0.01)};
  reader.finish();
  return std::make_shared<LeakyReLU>(options);
}

nlohmann::json Softmax::config() const { return {{"type", type()}, {"axis", options_.axis}}; }

ModulePtr Softmax::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t axis = reader.integer("axis", -1);
  check(axis >= -kMaxRank && axis < kMaxRank, "module_from_config", "\"axis\" of Softmax must be an axis, got {}",
        axis);
  reader.finish();
  return std::make_shared<Softmax>(SoftmaxOptions{.axis = static_cast<int>(axis)});
}

}  // namespace espalier
