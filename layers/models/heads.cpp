#include "layers/models/heads.h"

#include <numeric>

#include "layers/config_reader.h"

namespace espalier {

Heads::Heads(ModulePtr body, std::vector<int64_t> sizes)
    : body_(add_child("body", std::move(body))), sizes_(std::move(sizes)) {
  check(!sizes_.empty(), "Heads", "expected the size of at least one head, got none");
  for (const int64_t size : sizes_) check(size > 0, "Heads", "expected sizes above 0, got {}", fmt::join(sizes_, ", "));
}

Bundle Heads::forward_all(const Bundle& inputs) {
  const Variable outputs = body_->call(inputs).first();
  const int64_t width = std::accumulate(sizes_.begin(), sizes_.end(), int64_t{0});
  if (outputs.rank() != 2 || outputs.size(1) != width)
    fail(label(), "expected outputs (N,{}) of the body for heads of {}, got {}", width, fmt::join(sizes_, " + "),
         outputs.shape());
  Variables heads;
  int64_t begin = 0;
  for (const int64_t size : sizes_) {
    heads.push_back(slice(outputs, 1, begin, begin + size));
    begin += size;
  }
  return heads;
}

nlohmann::json Heads::config() const { return {{"type", type()}, {"body", body_->config()}, {"sizes", sizes_}}; }

ModulePtr Heads::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  ModulePtr body = reader.module("body");
  std::vector<int64_t> sizes = reader.integers("sizes");
  reader.finish();
  return std::make_shared<Heads>(std::move(body), std::move(sizes));
}

}  // namespace espalier
