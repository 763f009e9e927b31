#include "layers/embedding.h"

#include "core/random.h"
#include "layers/config_reader.h"
#include "layers/init.h"

namespace espalier {

namespace {
Tensor initial_table(int64_t count, int64_t dim) {
  Tensor table = checked_empty("Embedding", {count, dim});
  normal_(table);
  return table;
}
}  // namespace

Embedding::Embedding(int64_t count, int64_t dim) : weight_(add_parameter("weight", initial_table(count, dim))) {}

Variable Embedding::forward(const Variable& ids) {
  if (ids.dtype() != DType::i64)
    fail(label(), "expected i64 ids, got {} {}; convert them with .to(DType::i64)", name_of(ids.dtype()), ids.shape());
  return embedding(weight_, ids.data());
}

nlohmann::json Embedding::config() const { return {{"type", type()}, {"count", count()}, {"dim", dim()}}; }

ModulePtr Embedding::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t count = reader.integer("count"), dim = reader.integer("dim");
  reader.finish();
  return std::make_shared<Embedding>(count, dim);
}

}  // namespace espalier
