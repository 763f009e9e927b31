#include "layers/residual.h"

#include <algorithm>
#include <numeric>

#include "layers/config_reader.h"
#include "layers/containers.h"
#include "layers/input_selection.h"

namespace espalier {

namespace {
Variable joined(const Module& module, const Variable& body, const Variable& shortcut) {
  if (body.shape() != shortcut.shape())
    fail(module.label(), "the branches differ: body {}, shortcut {}; give the shortcut the body's channels and stride",
         body.shape(), shortcut.shape());
  return body + shortcut;
}
}  // namespace

const SkipConnection* skip_connection(const Module& module) { return dynamic_cast<const SkipConnection*>(&module); }

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
    : in_channels_(in_channels), out_channels_(out_channels), options_(std::move(options)) {
  check(in_channels > 0 && out_channels >= in_channels, "PadShortcut",
        "expected 0 < in_channels <= out_channels, got {} and {}; use a projection to lose channels", in_channels,
        out_channels);
  const std::vector<int64_t>& positions = options_.positions;
  check(options_.stride > 0, "PadShortcut", "expected a positive stride, got {}", options_.stride);
  check(positions.empty() || static_cast<int64_t>(positions.size()) == in_channels, "PadShortcut",
        "expected a position for each of {} input channels, got {}", in_channels, positions.size());
  count_inputs("PadShortcut", positions, out_channels);
}

std::vector<int64_t> PadShortcut::positions() const {
  if (!options_.positions.empty()) return options_.positions;
  std::vector<int64_t> centred(static_cast<size_t>(in_channels_));
  std::iota(centred.begin(), centred.end(), (out_channels_ - in_channels_) / 2);
  return centred;
}

void PadShortcut::keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs) {
  check(!inputs.empty(), label(), "expected at least one channel to keep, got none");
  count_inputs(label(), inputs, in_channels_);
  count_inputs(label(), outputs, out_channels_);
  const std::vector<int64_t> old = positions();
  std::vector<int64_t> kept;
  for (const int64_t input : inputs) {
    const auto place = std::lower_bound(outputs.begin(), outputs.end(), old[static_cast<size_t>(input)]);
    check(place != outputs.end() && *place == old[static_cast<size_t>(input)], label(),
          "input channel {} stays, but output channel {}, where it lands, goes", input,
          old[static_cast<size_t>(input)]);
    kept.push_back(place - outputs.begin());
  }
  in_channels_ = static_cast<int64_t>(inputs.size());
  out_channels_ = static_cast<int64_t>(outputs.size());
  options_.positions.clear();
  if (kept != positions()) options_.positions = std::move(kept);
}

Variable PadShortcut::forward(const Variable& x) {
  if (x.rank() != 4 || x.size(1) != in_channels_)
    fail(label(), "expected images (N,{},H,W), got {}", in_channels_, x.shape());
  Variable y = x;
  if (options_.stride > 1) y = slice(slice(x, 2, 0, x.size(2), options_.stride), 3, 0, x.size(3), options_.stride);
  const int64_t added = out_channels_ - in_channels_, before = added / 2;
  if (added == 0) return y;
  if (options_.positions.empty()) return pad(y, {{0, 0}, {before, added - before}, {0, 0}, {0, 0}});
  // x's channels, then the zeros, each of them a channel of its own.
  std::vector<int64_t> source;
  int64_t next = 0, zero = in_channels_;
  for (int64_t output = 0; output < out_channels_; ++output) {
    const bool is_input = next < in_channels_ && options_.positions[static_cast<size_t>(next)] == output;
    source.push_back(is_input ? next++ : zero++);
  }
  return selected(pad(y, {{0, 0}, {0, added}, {0, 0}, {0, 0}}), 1, source);
}

nlohmann::json PadShortcut::config() const {
  nlohmann::json result = {
      {"type", type()}, {"in_channels", in_channels_}, {"out_channels", out_channels_}, {"stride", options_.stride}};
  if (!options_.positions.empty()) result["positions"] = options_.positions;
  return result;
}

ModulePtr PadShortcut::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t in_channels = reader.integer("in_channels"), out_channels = reader.integer("out_channels");
  PadShortcutOptions options{.stride = reader.integer("stride", 2)};
  if (reader.has("positions")) options.positions = reader.integers("positions");
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
  nlohmann::json result = {{"type", type()},
                           {"in_channels", conv1_->in_channels()},
                           {"out_channels", conv2_->out_channels()},
                           {"width", conv1_->out_channels()},
                           {"stride", options_.stride},
                           {"shortcut", options_.shortcut == Shortcut::pad ? "pad" : "projection"}};
  if (!is_regular())
    for (const auto& [name, part] : children()) result["parts"][name] = part->config();
  return result;
}

/// Whether the sizes alone say what the block is made of.
bool BasicBlock::is_regular() const {
  const auto is_plain = [](const Conv2d& conv) {
    const ChannelReader reader = conv.channels().readers[0];
    return reader.inputs.empty() && !conv.buffer(reader.border).defined() && !conv.bias().defined();
  };
  if (!is_plain(*conv1_) || !is_plain(*conv2_)) return false;
  const int64_t in = conv1_->in_channels(), out = conv2_->out_channels();
  if (!shortcut_ || (in == out && options_.stride == 1)) return !shortcut_ && in == out && options_.stride == 1;
  if (const auto* padded = dynamic_cast<const PadShortcut*>(shortcut_.get()))
    return options_.shortcut == Shortcut::pad && !padded->config().contains("positions");
  const auto* conv =
      shortcut_->children().empty() ? nullptr : dynamic_cast<const Conv2d*>(shortcut_->children()[0].second.get());
  return options_.shortcut == Shortcut::projection && conv != nullptr && is_plain(*conv);
}

namespace {
template <class M>
std::shared_ptr<M> part(ConfigReader& parts, const std::string& name) {
  const ModulePtr module = parts.module(name);
  std::shared_ptr<M> typed = std::dynamic_pointer_cast<M>(module);
  check(typed != nullptr, "module_from_config", "part \"{}\" of BasicBlock cannot be a {}", name, module->type());
  return typed;
}
}  // namespace

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
  if (!reader.has("parts")) {
    reader.finish();
    return std::make_shared<BasicBlock>(in_channels, out_channels, options);
  }
  ConfigReader parts(reader.at("parts"));
  reader.finish();
  const std::shared_ptr<BasicBlock> block(new BasicBlock());
  block->options_ = options;
  block->conv1_ = block->add_child("conv1", part<Conv2d>(parts, "conv1"));
  block->bn1_ = block->add_child("bn1", part<BatchNorm2d>(parts, "bn1"));
  block->conv2_ = block->add_child("conv2", part<Conv2d>(parts, "conv2"));
  block->bn2_ = block->add_child("bn2", part<BatchNorm2d>(parts, "bn2"));
  if (parts.has("shortcut")) block->shortcut_ = block->add_child("shortcut", parts.module("shortcut"));
  parts.finish();
  return block;
}

}  // namespace espalier
