#include "layers/residual.h"

#include "layers/config_reader.h"
#include "layers/containers.h"

namespace espalier {

namespace {
Variable joined(const Module& module, const Variable& body, const Variable& shortcut) {
  if (body.shape() != shortcut.shape())
    fail(module.label(), "the branches differ: body {}, shortcut {}; give the shortcut the body's channels and stride",
         body.shape(), shortcut.shape());
  return body + shortcut;
}
}  // namespace

Residual::Residual(ModulePtr body, ModulePtr shortcut, ResidualOptions options)
    : body_(add_child("body", std::move(body))), options_(options) {
  if (shortcut) shortcut_ = add_child("shortcut", std::move(shortcut));
}

Variable Residual::forward(const Variable& x) {
  const Variable body = (*body_)(x);
  const Variable y = joined(*this, body, shortcut_ ? (*shortcut_)(x) : x);
  return options_.relu ? relu(y) : y;
}

nlohmann::json Residual::config() const {
  nlohmann::json result = {{"type", type()}, {"body", body_->config()}, {"relu", options_.relu}};
  if (shortcut_) result["shortcut"] = shortcut_->config();
  return result;
}

ModulePtr Residual::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  ModulePtr body = reader.module("body");
  ModulePtr shortcut = reader.has("shortcut") ? reader.module("shortcut") : nullptr;
  const ResidualOptions options{.relu = reader.boolean("relu", true)};
  reader.finish();
  return std::make_shared<Residual>(std::move(body), std::move(shortcut), options);
}

PadShortcut::PadShortcut(int64_t in_channels, int64_t out_channels, PadShortcutOptions options)
    : in_channels_(in_channels), out_channels_(out_channels), options_(options) {
  check(in_channels > 0 && out_channels >= in_channels, "PadShortcut",
        "expected 0 < in_channels <= out_channels, got {} and {}; use a projection to lose channels", in_channels,
        out_channels);
  check(options.stride > 0, "PadShortcut", "expected a positive stride, got {}", options.stride);
}

Variable PadShortcut::forward(const Variable& x) {
  if (x.rank() != 4 || x.size(1) != in_channels_)
    fail(label(), "expected images (N,{},H,W), got {}", in_channels_, x.shape());
  Variable y = x;
  if (options_.stride > 1) y = slice(slice(x, 2, 0, x.size(2), options_.stride), 3, 0, x.size(3), options_.stride);
  const int64_t added = out_channels_ - in_channels_, before = added / 2;
  return added == 0 ? y : pad(y, {{0, 0}, {before, added - before}, {0, 0}, {0, 0}});
}

nlohmann::json PadShortcut::config() const {
  return {
      {"type", type()}, {"in_channels", in_channels_}, {"out_channels", out_channels_}, {"stride", options_.stride}};
}

ModulePtr PadShortcut::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t in_channels = reader.integer("in_channels"), out_channels = reader.integer("out_channels");
  const PadShortcutOptions options{.stride = reader.integer("stride", 2)};
  reader.finish();
  return std::make_shared<PadShortcut>(in_channels, out_channels, options);
}

BasicBlock::BasicBlock(int64_t in, int64_t out, const BasicBlockOptions& options) : options_(options) {
  const int64_t width = options.width == 0 ? out : options.width;
  conv1_ = add_child("conv1",
                     kaiming_conv2d(in, width, {.kernel = 3, .stride = options.stride, .padding = 1, .bias = false}));
  bn1_ = add_child("bn1", BatchNorm2d(width));
  conv2_ = add_child("conv2", kaiming_conv2d(width, out, {.kernel = 3, .padding = 1, .bias = false}));
  bn2_ = add_child("bn2", BatchNorm2d(out));
  if (in == out && options.stride == 1) return;
  if (options.shortcut == Shortcut::pad) {
    shortcut_ = add_child("shortcut", ModulePtr(share(PadShortcut(in, out, {.stride = options.stride}))));
    return;
  }
  auto projection = std::make_shared<Sequential>();
  projection->add("conv", kaiming_conv2d(in, out, {.kernel = 1, .stride = options.stride, .bias = false}));
  projection->add("bn", BatchNorm2d(out));
  shortcut_ = add_child("shortcut", ModulePtr(projection));
}

Variable BasicBlock::forward(const Variable& x) {
  const Variable inner = relu((*bn1_)((*conv1_)(x)));
  const Variable body = (*bn2_)((*conv2_)(inner));
  return relu(joined(*this, body, shortcut_ ? (*shortcut_)(x) : x));
}

nlohmann::json BasicBlock::config() const {
  return {{"type", type()},
          {"in_channels", conv1_->in_channels()},
          {"out_channels", conv2_->out_channels()},
          {"width", conv1_->out_channels()},
          {"stride", options_.stride},
          {"shortcut", options_.shortcut == Shortcut::pad ? "pad" : "projection"}};
}

ModulePtr BasicBlock::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t in_channels = reader.integer("in_channels"), out_channels = reader.integer("out_channels");
  BasicBlockOptions options{.stride = reader.integer("stride", 1), .width = reader.integer("width", 0)};
  if (reader.has("shortcut")) {
    const std::string shortcut = reader.text("shortcut");
    check(shortcut == "pad" || shortcut == "projection", "module_from_config",
          "\"shortcut\" of BasicBlock must be \"pad\" or \"projection\", got \"{}\"{}", shortcut,
          did_you_mean(shortcut, {"pad", "projection"}));
    if (shortcut == "projection") options.shortcut = Shortcut::projection;
  }
  reader.finish();
  return std::make_shared<BasicBlock>(in_channels, out_channels, options);
}

}  // namespace espalier
