// The JSON from which networks are built.
#include <algorithm>
#include <new>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "layers/models/zoo.h"
#include "tests/fuzz/target.h"

namespace espalier::fuzz {

const char* const kName = "model_config";
void (*const kRepair)(std::string&, const std::string&) = nullptr;

std::vector<std::string> seeds() {
  std::vector<std::string> configs = {R"({"model": "lenet5"})", R"({"model": "mlp:4,3", "classes": 3})"};
  for (const char* model : {"lenet300", "lstm-rows:4", "mlp:4,3"})
    configs.push_back(make_model(model)->config().dump());
  return configs;
}

void read(const std::string& bytes, const std::string&) {
  constexpr size_t kDepth = 100;  // what the readers of files allow (core/safetensors.h)
  if (static_cast<size_t>(std::count(bytes.begin(), bytes.end(), '[') + std::count(bytes.begin(), bytes.end(), '{')) >
      kDepth)
    return;
  const nlohmann::json config = nlohmann::json::parse(bytes, nullptr, false);
  if (config.is_discarded()) return;
  try {
    module_from_config(config);
  } catch (const std::bad_alloc&) {  // a network may be as large as its configuration says
  }
}

}  // namespace espalier::fuzz
