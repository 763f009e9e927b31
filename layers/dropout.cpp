#include "layers/dropout.h"

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

}  // namespace espalier
