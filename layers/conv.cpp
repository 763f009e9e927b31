#include "layers/conv.h"

#include <map>

#include "layers/config_reader.h"
#include "layers/init.h"
#include "layers/input_selection.h"

namespace espalier {

namespace {
Shape weight_shape(int64_t in, int64_t out, const Conv2dOptions& o) {
  check(in > 0 && out > 0, "Conv2d", "expected positive channels, got in_channels={}, out_channels={}", in, out);
  check(o.groups > 0 && in % o.groups == 0 && out % o.groups == 0, "Conv2d",
        "groups={} must divide in_channels={} and out_channels={}", o.groups, in, out);
  check(o.kernel.h > 0 && o.kernel.w > 0, "Conv2d", "expected a positive kernel, got {}", o.kernel.to_string());
  check(o.stride.h > 0 && o.stride.w > 0, "Conv2d", "expected a positive stride, got {}", o.stride.to_string());
  check(o.dilation.h > 0 && o.dilation.w > 0, "Conv2d", "expected a positive dilation, got {}", o.dilation.to_string());
  check(o.padding.h >= 0 && o.padding.w >= 0, "Conv2d", "expected padding of at least 0, got {}",
        o.padding.to_string());
  return {out, in / o.groups, o.kernel.h, o.kernel.w};
}

Tensor initial_bias(const Shape& weight, bool wanted) {
  if (!wanted) return {};
  return uniform_tensor("Conv2d", {weight[0]}, 1 / std::sqrt(static_cast<double>(fans_of(weight).in)));
}
}  // namespace

Conv2d::Conv2d(int64_t in_channels, int64_t out_channels, const Conv2dOptions& options)
    : options_(options),
      in_channels_(in_channels),
      weight_(add_parameter("weight", default_weight("Conv2d", weight_shape(in_channels, out_channels, options)))),
      bias_(add_parameter("bias", initial_bias(weight_.shape(), options.bias))),
      constant_(add_buffer("constant", Tensor())) {}

Conv2dShape Conv2d::geometry() const {
  const Conv2dOptions& o = options_;
  return {.stride_h = o.stride.h,
          .stride_w = o.stride.w,
          .padding_h = o.padding.h,
          .padding_w = o.padding.w,
          .dilation_h = o.dilation.h,
          .dilation_w = o.dilation.w,
          .groups = o.groups};
}

Variable Conv2d::forward(const Variable& x) {
  const Shape& w = weight_.shape();
  if (x.rank() != 4) fail(label(), "expected images (N,{},H,W), got {}", in_channels(), x.shape());
  if (x.size(1) != in_channels())
    fail(label(), "weight has {} input channels, input has {}: shapes {} and {}; {}build the layer with in_channels={}",
         in_channels(), x.size(1), x.shape(), w,
         in_channels() == 3 && x.size(1) == 1 ? "convert the image to RGB or " : "", x.size(1));
  const Conv2dOptions& o = options_;
  const int64_t window_h = o.dilation.h * (w[2] - 1) + 1, window_w = o.dilation.w * (w[3] - 1) + 1;
  if (x.size(2) + 2 * o.padding.h < window_h || x.size(3) + 2 * o.padding.w < window_w)
    fail(label(), "a window of {}x{} does not fit the input {} with padding {}; use larger images or more padding",
         window_h, window_w, x.shape(), o.padding.to_string());
  const Variable y = conv2d(selected(x, 1, inputs_), weight_, bias_, geometry());
  if (!constant_.defined()) return y;
  Conv2dShape one_group = geometry();
  one_group.groups = 1;
  const Variable image = Tensor::ones({1, 1, x.size(2), x.size(3)}, x.dtype(), x.device());
  return y + conv2d(image, constant_, {}, one_group);  // (N,out,OH,OW) + (1,out,OH,OW)
}

int64_t Conv2d::macs(const Shape&, const Shape& output) const {
  return output.numel() * (weight_.numel() / out_channels());
}

nlohmann::json Conv2d::config() const {
  nlohmann::json result = {{"type", type()},
                           {"in_channels", in_channels()},
                           {"out_channels", out_channels()},
                           {"kernel", to_json(Size2d(weight_.size(2), weight_.size(3)))},
                           {"stride", to_json(options_.stride)},
                           {"padding", to_json(options_.padding)},
                           {"dilation", to_json(options_.dilation)},
                           {"groups", options_.groups},
                           {"bias", bias_.defined()}};
  if (!inputs_.empty()) result["inputs"] = inputs_;
  if (constant_.defined()) result["constant"] = true;
  return result;
}

namespace {
/// How many groups still have input channels. Throws unless each of them lost as many: their weights are one rectangle.
int64_t groups_left(const std::string& where, const std::vector<int64_t>& kept, int64_t groups, int64_t columns) {
  std::map<int64_t, int64_t> counts;  // kept channels by group
  for (const int64_t channel : kept) ++counts[channel / columns];
  for (const auto& [group, count] : counts)
    check(count == counts.begin()->second, where,
          "of {} groups one would keep {} input channels and one {}; keep as many in each or drop whole groups", groups,
          counts.begin()->second, count);
  return static_cast<int64_t>(counts.size());
}
}  // namespace

void Conv2d::keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs) {
  std::vector<int64_t> selection = keep_inputs(label(), inputs_, in_channels(), inputs);
  const int64_t groups = options_.groups == 1 ? 1 : groups_left(label(), inputs, options_.groups, weight_.size(1));
  count_inputs(label(), outputs, out_channels());
  if (constant_.defined() && static_cast<int64_t>(outputs.size()) < out_channels()) {
    const Tensor index = Tensor::from(outputs, {static_cast<int64_t>(outputs.size())});
    constant_ = index_select(constant_, 0, index.to(constant_.device()));
  }
  options_.groups = groups;
  inputs_ = std::move(selection);
  in_channels_ = static_cast<int64_t>(inputs.size());
}

ChannelAccount Conv2d::channels() const {
  return {.readers = {{.inputs = inputs_, .window = geometry(), .border = "constant"}},
          .is_affine = true,
          .selects_inputs = options_.groups == 1};
}

void Conv2d::select_inputs(int64_t channels, const std::vector<int64_t>& inputs) {
  check(options_.groups == 1, label(), "inputs can be selected with one group only, got groups={}", options_.groups);
  count_inputs(label(), inputs, channels);
  in_channels_ = channels;
  inputs_ = inputs;
}

ModulePtr Conv2d::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t in_channels = reader.integer("in_channels"), out_channels = reader.integer("out_channels");
  const Conv2dOptions options{.kernel = reader.size2d("kernel", 3),
                              .stride = reader.size2d("stride", 1),
                              .padding = reader.size2d("padding", 0),
                              .dilation = reader.size2d("dilation", 1),
                              .groups = reader.integer("groups", 1),
                              .bias = reader.boolean("bias", true)};
  const std::vector<int64_t> inputs = reader.has("inputs") ? reader.integers("inputs") : std::vector<int64_t>();
  const bool has_constant = reader.boolean("constant", false);
  reader.finish();
  auto layer = std::make_shared<Conv2d>(count_inputs("Conv2d", inputs, in_channels), out_channels, options);
  if (!inputs.empty()) layer->select_inputs(in_channels, inputs);
  if (has_constant)
    layer->set_buffer("constant", constant_tensor("Conv2d", {out_channels, 1, options.kernel.h, options.kernel.w}, 0));
  return layer;
}

Conv2d kaiming_conv2d(int64_t in_channels, int64_t out_channels, const Conv2dOptions& options) {
  Conv2d conv(in_channels, out_channels, options);
  kaiming_normal_(conv.weight().data(), {.fan = FanMode::out});
  return conv;
}

}  // namespace espalier
