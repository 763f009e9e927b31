#include "layers/linear.h"

#include "layers/config_reader.h"
#include "layers/init.h"

namespace espalier {

Linear::Linear(int64_t in_features, int64_t out_features, LinearOptions options)
    : weight_(add_parameter("weight", default_weight("Linear", {out_features, in_features}))),
      bias_(add_parameter("bias", options.bias ? uniform_tensor("Linear", {out_features},
                                                                1 / std::sqrt(static_cast<double>(in_features)))
                                               : Tensor())) {}

Variable Linear::forward(const Variable& x) {
  if (x.rank() < 1 || x.size(-1) != in_features()) {
    const bool needs_flatten = x.rank() > 2 && x.size(0) > 0 && x.numel() / x.size(0) == in_features();
    fail(label(), "expected an input (...,{}), got {}; {}", in_features(), x.shape(),
         needs_flatten ? std::string("put a Flatten before it")
                       : fmt::format("build the layer with in_features={}", x.rank() ? x.size(-1) : 1));
  }
  return linear(x, weight_, bias_);
}

int64_t Linear::macs(const Shape&, const Shape& output) const { return output.numel() * in_features(); }

nlohmann::json Linear::config() const {
  return {
      {"type", type()}, {"in_features", in_features()}, {"out_features", out_features()}, {"bias", bias_.defined()}};
}

ModulePtr Linear::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t in_features = reader.integer("in_features"), out_features = reader.integer("out_features");
  const LinearOptions options{.bias = reader.boolean("bias", true)};
  reader.finish();
  return std::make_shared<Linear>(in_features, out_features, options);
}

}  // namespace espalier
