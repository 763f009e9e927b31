#include "layers/linear.h"

#include "layers/config_reader.h"
#include "layers/init.h"
#include "layers/input_selection.h"

namespace espalier {

Linear::Linear(int64_t in_features, int64_t out_features, const LinearOptions& options)
    : in_features_(in_features),
      weight_(add_parameter("weight", default_weight("Linear", {out_features, in_features}))),
      bias_(add_parameter("bias", options.bias ? uniform_tensor("Linear", {out_features},
                                                                1 / std::sqrt(static_cast<double>(weight_.size(1))))
                                               : Tensor())) {}

Variable Linear::forward(const Variable& x) {
  if (x.rank() < 1 || x.size(-1) != in_features()) {
    const bool needs_flatten = x.rank() > 2 && x.size(0) > 0 && x.numel() / x.size(0) == in_features();
    fail(label(), "expected an input (...,{}), got {}; {}", in_features(), x.shape(),
         needs_flatten ? std::string("put a Flatten before it")
                       : fmt::format("build the layer with in_features={}", x.rank() ? x.size(-1) : 1));
  }
  return linear(selected(x, -1, inputs_), weight_, bias_);
}

int64_t Linear::macs(const Shape&, const Shape& output) const { return output.numel() * weight_.size(1); }

nlohmann::json Linear::config() const {
  nlohmann::json result = {
      {"type", type()}, {"in_features", in_features()}, {"out_features", out_features()}, {"bias", bias_.defined()}};
  if (!inputs_.empty()) result["inputs"] = inputs_;
  return result;
}

void Linear::keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>&) {
  inputs_ = keep_inputs(label(), inputs_, in_features(), inputs);
  in_features_ = static_cast<int64_t>(inputs.size());
}

ChannelAccount Linear::channels() const {
  return {.axis = ChannelAxis::last, .readers = {{.inputs = inputs_}}, .is_affine = true, .selects_inputs = true};
}

void Linear::select_inputs(int64_t channels, const std::vector<int64_t>& inputs) {
  count_inputs(label(), inputs, channels);
  in_features_ = channels;
  inputs_ = inputs;
}

ModulePtr Linear::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t in_features = reader.integer("in_features"), out_features = reader.integer("out_features");
  const LinearOptions options{.bias = reader.boolean("bias", true)};
  const std::vector<int64_t> inputs = reader.has("inputs") ? reader.integers("inputs") : std::vector<int64_t>();
  reader.finish();
  auto layer = std::make_shared<Linear>(count_inputs("Linear", inputs, in_features), out_features, options);
  if (!inputs.empty()) layer->select_inputs(in_features, inputs);
  return layer;
}

}  // namespace espalier
