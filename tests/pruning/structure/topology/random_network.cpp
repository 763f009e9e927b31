#include "tests/pruning/structure/topology/random_network.h"

#include <algorithm>

#include "core/ops.h"
#include "core/random.h"
#include "layers/conv.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/norm.h"
#include "layers/pooling.h"
#include "layers/residual.h"
#include "pruning/structure/graph.h"
#include "tests/pruning/own_layers.h"
#include "tests/pruning/structure/topology/program_network.h"

namespace espalier::topology {

namespace {

/// A value of the program: its place and its shape without the batch. Rank 1: features (F), 2: tokens (T,F),
/// 3: images (C,H,W).
struct Value {
  size_t place;
  Shape shape;
};

class Builder {
 public:
  explicit Builder(uint64_t seed) : random_(seed) {}
  RandomNetwork build();

 private:
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_.next_below(static_cast<uint64_t>(high - low + 1)));
  }
  bool chance(double p) { return random_.next_uniform() < p; }
  template <class T>
  const T& any(const std::vector<T>& values) {
    return values[random_.next_below(values.size())];
  }

  template <class Layer>
  std::string layer(Layer made) {
    program_.layers.emplace_back("l" + std::to_string(program_.layers.size()), share(std::move(made)));
    return program_.layers.back().first;
  }
  /// Appends a step with one result of that shape.
  Value add(const std::string& operation, const std::vector<Value>& operands, const Shape& shape,
            const std::string& layer = {}, std::vector<int64_t> sizes = {});
  Value apply(const std::string& layer, const Value& x, const Shape& shape) { return add("layer", {x}, shape, layer); }

  void start(RandomNetwork& network);
  void grow();
  bool grow_any(const Value& x);
  bool grow_features(const Value& x);
  bool grow_tokens(const Value& x);
  bool grow_image(const Value& x);
  bool use_a_layer_again(const Value& x);
  void finish(const RandomNetwork& network);
  Value to_features(const Value& x);
  /// Another value of that shape, or x itself.
  Value like(const Value& x);

  Generator random_;
  Program program_;
  std::vector<Value> values_;
  size_t places_ = 1;
};

Value Builder::add(const std::string& operation, const std::vector<Value>& operands, const Shape& shape,
                   const std::string& layer, std::vector<int64_t> sizes) {
  Step step{.operation = operation, .operands = {}, .layer = layer, .sizes = std::move(sizes)};
  for (const Value& operand : operands) step.operands.push_back(operand.place);
  program_.steps.push_back(std::move(step));
  values_.push_back({places_++, shape});
  return values_.back();
}

Value Builder::like(const Value& x) {
  std::vector<Value> same;
  for (const Value& value : values_)
    if (value.shape == x.shape) same.push_back(value);
  return any(same);
}

void Builder::start(RandomNetwork& network) {
  const int64_t kind = between(0, 3);
  if (kind == 0) network.input = {between(2, 5)};
  if (kind == 1) network.input = {between(2, 3), between(2, 4)};
  if (kind == 2) network.input = {between(1, 2), 4, 4};
  values_ = {{0, network.input}};
  if (kind != 3) return;
  network.input = {3};
  network.words = between(3, 7);
  const int64_t width = between(2, 5);
  values_ = {};
  apply(layer(Embedding(network.words, width)), {0, network.input}, {3, width});
}

void Builder::grow() {
  const Value x = values_[values_.size() - 1 - random_.next_below(std::min<size_t>(values_.size(), 3))];
  for (int attempt = 0; attempt < 20; ++attempt) {
    if (chance(0.3)           ? grow_any(x)
        : x.shape.rank() == 1 ? grow_features(x)
        : x.shape.rank() == 2 ? grow_tokens(x)
                              : grow_image(x))
      return;
  }
}

/// What knows no rank.
bool Builder::grow_any(const Value& x) {
  const int channels = x.shape.rank() == 3 ? 1 : x.shape.rank();
  Shape joined = x.shape;
  joined[channels - 1] *= 2;
  switch (between(0, 7)) {
    case 0: add("relu", {x}, x.shape); return true;
    case 1: add("tanh", {x}, x.shape); return true;
    case 2: add("add", {x, like(x)}, x.shape); return true;
    case 3: add("gate", {x, like(x)}, x.shape); return true;
    case 4: add("reverse", {x}, x.shape, {}, {channels}); return true;
    case 5:
      if (joined[channels - 1] > 12) return false;
      add("cat", {x, like(x)}, joined, {}, {channels});
      return true;
    case 6: {
      Shape half = x.shape;
      if (half[channels - 1] % 2 != 0) return false;
      half[channels - 1] /= 2;
      add("chunk", {x}, half, {}, {channels, 2});
      values_.push_back({places_++, half});
      return true;
    }
    default: return use_a_layer_again(x);
  }
}

/// The same layer, or its weight without the layer, on another value.
bool Builder::use_a_layer_again(const Value& x) {
  if (program_.layers.empty()) return false;
  const auto& [name, layer] = any(program_.layers);
  Shape shape = x.shape;
  if (const auto* linear = dynamic_cast<const Linear*>(layer.get()); linear != nullptr && x.shape.rank() < 3) {
    int64_t& features = shape[x.shape.rank() - 1];
    if (features == linear->in_features() && chance(0.6)) {
      features = linear->out_features();
      const std::vector<std::string> ways = {
          "layer", "layer", "layer", "weight outside", "weight through exp", "weight through tanh"};
      add(any(ways), {x}, shape, name);
      return true;
    }
    if (features != linear->out_features()) return false;
    features = linear->in_features();
    add("weight backwards", {x}, shape, name);
    return true;
  }
  if (const auto* conv = dynamic_cast<const Conv2d*>(layer.get()); conv != nullptr && x.shape.rank() == 3) {
    if (x.shape[0] != conv->in_channels()) return false;
    shape[0] = conv->out_channels();
    apply(name, x, shape);
    return true;
  }
  return false;
}

bool Builder::grow_features(const Value& x) {
  const int64_t features = x.shape[0], wider = between(1, 6);
  switch (between(0, 11)) {
    case 0:
    case 1:
    case 2: apply(layer(Linear(features, wider, {.bias = chance(0.7)})), x, {wider}); return true;
    case 3: add("relu", {apply(layer(Linear(features, features)), x, x.shape)}, x.shape); return true;
    case 4: apply(layer(BatchNorm1d(features)), x, x.shape); return true;
    case 5: apply(layer(LayerNorm(features)), x, x.shape); return true;
    case 6:
      add("image", {apply(layer(Linear(features, wider * 4)), x, {wider * 4})}, {wider, 2, 2}, {}, {2, 2});
      return true;
    case 7: add("row", {x}, {1, 1, features}); return true;
    case 8:
      if (features % 2 != 0) return false;
      if (chance(0.5))
        add("tokens", {x}, {2, features / 2}, {}, {2});
      else
        add("columns", {x}, {features / 2, 2}, {}, {2});
      return true;
    case 9: add("bilinear", {x, like(x)}, {1}); return true;
    case 10: {
      const Value y = like(x);
      if (features > 4) return false;
      add("outer", {x, y}, {features, y.shape[0]});
      return true;
    }
    default: program_.steps.push_back({"in training", {x.place}, layer(Linear(features, 2)), {}}); return true;
  }
}

bool Builder::grow_tokens(const Value& x) {
  const int64_t count = x.shape[0], features = x.shape[1], wider = between(1, 6);
  switch (between(0, 9)) {
    case 0:
    case 1: apply(layer(Linear(features, wider)), x, {count, wider}); return true;
    case 2: apply(layer(LayerNorm(features)), x, x.shape); return true;
    case 3:
      apply(layer(LSTM(features, wider, {.batch_first = chance(0.8), .bias = chance(0.8)})), x, {count, wider});
      return true;
    case 4: {
      const Value q = apply(layer(Linear(features, wider)), x, {count, wider});
      const Value k = apply(layer(Linear(features, wider)), x, {count, wider});
      const Value v = chance(0.5) ? q : apply(layer(Linear(features, features)), x, x.shape);
      add("attend", {q, k, v}, v.shape, {}, {chance(0.5)});
      return true;
    }
    case 5: add("mean", {x}, {features}, {}, {1}); return true;
    case 6: add("last", {x}, {features}); return true;
    case 7:
      if (count * features > 16) return false;
      add("flatten", {x}, {count * features});
      return true;
    case 8: add("permute", {x}, {features, count}, {}, {0, 2, 1}); return true;
    default: add("relu", {x}, x.shape); return true;
  }
}

bool Builder::grow_image(const Value& x) {
  const int64_t channels = x.shape[0], height = x.shape[1], width = x.shape[2], wider = between(1, 5);
  switch (between(0, 15)) {
    case 0:
    case 1:
      apply(layer(Conv2d(channels, wider, {.padding = 1, .bias = chance(0.6)})), x, {wider, height, width});
      return true;
    case 2: apply(layer(Conv2d(channels, wider, {.kernel = 1})), x, {wider, height, width}); return true;
    case 3:
      if (channels % 2 != 0 || channels > 6) return false;
      apply(layer(Conv2d(channels, 2 * channels, {.kernel = 1, .groups = chance(0.5) ? 2 : channels})), x,
            {2 * channels, height, width});
      return true;
    case 4: apply(layer(BatchNorm2d(channels)), x, x.shape); return true;
    case 5:
    case 6:
      if (channels * height * width > 32) return false;
      add("flatten", {x}, {channels * height * width});
      return true;
    case 7: add("mean", {x}, {channels}, {}, {2, 3}); return true;
    case 8: {
      const Value gates =
          apply(layer(Linear(channels, channels)), add("mean", {x}, {channels}, {}, {2, 3}), {channels});
      add("excite", {x, gates}, x.shape);
      return true;
    }
    case 9: add("permute", {x}, {height, channels, width}, {}, {0, 2, 1, 3}); return true;
    case 10: {
      const Value rows = add("positions", {x}, {channels, height * width});
      if (chance(0.5)) add("permute", {rows}, {height * width, channels}, {}, {0, 2, 1});
      return true;
    }
    case 11:
      apply(layer(PadShortcut(channels, channels + wider, {.stride = 1})), x, {channels + wider, height, width});
      return true;
    case 12: apply(layer(SqueezeExcite(channels, wider)), x, x.shape); return true;
    case 13: apply(layer(ChannelMix(channels, wider)), x, {wider, height, width}); return true;
    case 14: {
      const std::string gated = layer(Conv2d(channels, wider, {.kernel = 1}));
      program_.layers.back().second->set_output_transform(share(ChannelGate(wider)));
      apply(gated, x, {wider, height, width});
      return true;
    }
    default:
      if (height > 4 || width > 4) return false;
      apply(layer(MaxPool2d({.kernel = 2, .stride = 1, .padding = 1})), x, {channels, height + 1, width + 1});
      return true;
  }
}

Value Builder::to_features(const Value& x) {
  if (x.shape.rank() == 1) return x;
  if (x.shape.rank() == 2)
    return chance(0.5) ? add("mean", {x}, {x.shape[1]}, {}, {1}) : add("flatten", {x}, {x.shape.numel()});
  return chance(0.5) ? add("mean", {x}, {x.shape[0]}, {}, {2, 3}) : add("flatten", {x}, {x.shape.numel()});
}

/// Joins the last values, and reads them with a Linear; words also with the table that made them.
void Builder::finish(const RandomNetwork& network) {
  const size_t joined = std::min<size_t>(values_.size(), static_cast<size_t>(between(1, 3)));
  const std::vector<Value> last(values_.end() - static_cast<std::ptrdiff_t>(joined), values_.end());
  std::vector<Value> parts;
  int64_t features = 0;
  for (const Value& value : last) {
    parts.push_back(to_features(value));
    features += parts.back().shape[0];
  }
  const Value all = parts.size() == 1 ? parts[0] : add("cat", parts, {features}, {}, {1});
  if (network.words == 0 || chance(0.3)) {
    apply(layer(Linear(features, 3)), all, {3});
    return;
  }
  const std::string table = program_.layers.front().first;
  const int64_t width = program_.layers.front().second->parameters().front().size(1);
  const Value hidden = add("relu", {apply(layer(Linear(features, width)), all, {width})}, {width});
  if (chance(0.5)) {
    add("weight outside", {hidden}, {network.words}, table);
    return;
  }
  const std::string output = layer(Linear(width, network.words, {.bias = false}));
  program_.ties.emplace_back(table, output);
  apply(output, hidden, {network.words});
}

RandomNetwork Builder::build() {
  const Generator before = default_generator();
  default_generator() = Generator(random_.next_u32());
  RandomNetwork network;
  start(network);
  const int64_t steps = between(2, 12);
  for (int64_t i = 0; i < steps; ++i) grow();
  finish(network);
  if (chance(0.9)) program_.remove_unused();
  network.net = std::make_shared<ProgramNetwork>(std::move(program_));
  network.net->to(DType::f64);
  for (Parameter& parameter : network.net->parameters()) {
    Tensor values = parameter.data();
    if (values.rank() == 1) values.copy_(randn(values.shape(), random_, DType::f64) * 0.5 + 0.3);
  }
  for (auto& [name, buffer] : network.net->named_buffers()) {
    if (name.ends_with("mean")) buffer.copy_(randn(buffer.shape(), random_, DType::f64) * 0.2);
    if (name.ends_with("var")) buffer.copy_(square(randn(buffer.shape(), random_, DType::f64)) + 0.5);
  }
  default_generator() = before;
  return network;
}

/// A mask of single weights, rows or columns; now and then of everything.
Mask random_mask(const Shape& shape, Generator& random) {
  const std::vector<Pattern> patterns = {Pattern::element(), Pattern::element(), Pattern::channel(0),
                                         Pattern::channel(1)};
  const Pattern pattern = patterns[random.next_below(patterns.size())];
  const double keep = random.next_below(6) == 0 ? 0 : 0.2 + 0.6 * random.next_uniform();
  std::vector<bool> units(static_cast<size_t>(mask_layout(shape, pattern).units()));
  for (size_t i = 0; i < units.size(); ++i) units[i] = random.next_uniform() < keep;
  return Mask::from_units(shape, pattern, units);
}

}  // namespace

Tensor RandomNetwork::inputs(int64_t batch, uint64_t seed) const {
  Generator random(seed);
  Shape shape = input;
  shape.insert(0, batch);
  if (words == 0) return randn(shape, random, DType::f64);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < shape.numel(); ++i)
    ids.push_back(i < words ? i : static_cast<int64_t>(random.next_below(static_cast<uint64_t>(words))));
  return Tensor::from(ids, shape);
}

RandomNetwork random_network(uint64_t seed) { return Builder(seed).build(); }

void mask_at_random(const RandomNetwork& network, uint64_t seed) {
  Generator random(seed);
  if (random.next_below(3) != 0)
    for (const Site& site : channel_sites(DependencyGraph::trace(*network.net, network.inputs(1, seed)))) {
      if (random.next_below(3) == 0) continue;
      std::vector<bool> exists = existing_units(site);
      for (size_t i = 0; i < exists.size(); ++i) exists[i] = exists[i] && random.next_uniform() < 0.6;
      set_existing_units(site, exists);
    }
  if (random.next_below(3) == 0) return;
  for (Parameter& parameter : network.net->parameters()) {
    if (parameter.shape().rank() < 2 || random.next_below(2) == 0) continue;
    const Mask mask = random_mask(parameter.shape(), random);
    parameter.set_mask(parameter.mask().defined() ? parameter.mask() & mask : mask);
  }
}

}  // namespace espalier::topology
