#include "layers/lstm.h"

#include <algorithm>

#include "layers/config_reader.h"
#include "layers/init.h"

namespace espalier {

LSTM::LSTM(int64_t input_size, int64_t hidden_size, const LstmOptions& options) : options_(options) {
  check(input_size > 0 && hidden_size > 0, "LSTM", "expected positive sizes, got input_size={}, hidden_size={}",
        input_size, hidden_size);
  constexpr int64_t kMostLayers = 1024;  // a number in a file must not make parameters for hours
  check(options.num_layers > 0 && options.num_layers <= kMostLayers, "LSTM",
        "expected 1 to {} layers, got num_layers={}", kMostLayers, options.num_layers);
  check(options.dropout >= 0 && options.dropout < 1, "LSTM", "expected 0 <= dropout < 1, got {}", options.dropout);
  constexpr int64_t kLargest = int64_t{1} << 30;  // so that 4H and D*H do not overflow
  check(input_size <= kLargest && hidden_size <= kLargest, "LSTM", "sizes {} and {} are more than memory can address",
        input_size, hidden_size);
  const int64_t slots = options.num_layers * num_directions();
  check(options.hidden_sizes.empty() || static_cast<int64_t>(options.hidden_sizes.size()) == slots, "LSTM",
        "expected a hidden size for each of {} layers and directions, got {}", slots, options.hidden_sizes.size());
  for (const int64_t size : options.hidden_sizes)
    check(size > 0 && size <= kLargest, "LSTM", "expected positive hidden sizes that memory can address, got {}", size);
  int64_t inputs = input_size;
  for (int64_t layer = 0; layer < options.num_layers; ++layer) {
    int64_t outputs = 0;
    for (int64_t direction = 0; direction < num_directions(); ++direction) {
      const size_t slot = static_cast<size_t>(layer * num_directions() + direction);
      const int64_t hidden = options.hidden_sizes.empty() ? hidden_size : options.hidden_sizes[slot];
      const int64_t gates = 4 * hidden;
      const double bound = 1 / std::sqrt(static_cast<double>(hidden));
      const auto add = [&](const char* name, const Shape& shape, bool wanted = true) {
        return &add_parameter(name + suffix(layer, direction),
                              wanted ? uniform_tensor("LSTM", shape, bound) : Tensor());
      };
      Direction d{};
      d.w_ih = add("weight_ih", {gates, inputs});
      d.w_hh = add("weight_hh", {gates, hidden});
      d.b_ih = add("bias_ih", {gates}, options.bias);
      d.b_hh = add("bias_hh", {gates}, options.bias);
      directions_.push_back(d);
      outputs += hidden;
    }
    inputs = outputs;
  }
}

std::vector<int64_t> LSTM::hidden_sizes() const {
  std::vector<int64_t> sizes;
  for (const Direction& d : directions_) sizes.push_back(d.w_hh->size(1));
  return sizes;
}

std::string LSTM::suffix(int64_t layer, int64_t direction) {
  return fmt::format("_l{}{}", layer, direction == 1 ? "_reverse" : "");
}

bool LSTM::has_one_size() const {
  return std::all_of(directions_.begin(), directions_.end(),
                     [&](const Direction& d) { return d.w_hh->size(1) == hidden_size(); });
}

void LSTM::check_input(const Variable& x, const LstmInputs& inputs) const {
  const char* order = options_.batch_first ? "(B,T,I)" : "(T,B,I)";
  if (x.rank() != 3 || x.size(2) != input_size())
    fail(label(), "expected a sequence {} with I={}, got {}", order, input_size(), x.shape());
  const int64_t steps = x.size(options_.batch_first ? 1 : 0), batch = x.size(options_.batch_first ? 0 : 1);
  if (steps == 0) fail(label(), "expected at least one step, got {} {}", order, x.shape());
  const auto check_state = [&](const char* name, const Variable& state) {
    if (!state.defined()) return;
    if (!has_one_size())
      fail(label(), "{} is one tensor for all layers and directions, whose hidden sizes are {}; start from zeros", name,
           fmt::join(hidden_sizes(), ", "));
    const Shape expected{static_cast<int64_t>(directions_.size()), batch, hidden_size()};
    if (state.shape() != expected)
      fail(label(), "{} must be (layers*directions, batch, hidden) = {}, got {}", name, expected, state.shape());
  };
  check_state("h0", inputs.h0);
  check_state("c0", inputs.c0);
  if (!inputs.lengths.defined()) return;
  if (inputs.lengths.dtype() != DType::i64 || inputs.lengths.shape() != Shape{batch})
    fail(label(), "lengths must be i64 ({}), one for each sequence; got {}", batch, describe(inputs.lengths));
  for (int64_t length : inputs.lengths.to_vector<int64_t>())
    if (length < 1 || length > steps)
      fail(label(), "a length of {} is outside [1,{}] for input {} {}", length, steps, order, x.shape());
}

LstmResult LSTM::forward(const Variable& input, const LstmInputs& inputs) {
  check_input(input, inputs);
  Variable x = options_.batch_first ? transpose(input, 0, 1) : input;  // (T,B,I)
  const int64_t batch = x.size(1);
  const Tensor lengths = inputs.lengths.defined() ? inputs.lengths.to(Device::cpu()) : Tensor();
  Variables h, c;
  for (int64_t layer = 0; layer < options_.num_layers; ++layer) {
    if (layer > 0 && options_.dropout > 0 && is_training()) x = dropout(x, options_.dropout);
    Variables outputs;
    for (int64_t direction = 0; direction < num_directions(); ++direction) {
      const int64_t slot = layer * num_directions() + direction;
      const Direction& d = directions_[static_cast<size_t>(slot)];
      const auto start = [&](const Variable& states) {
        return states.defined() ? select(states, 0, slot)
                                : Variable(Tensor::zeros({batch, d.w_hh->size(1)}, x.dtype(), x.device()));
      };
      const Variable h0 = start(inputs.h0);
      LstmStates states = lstm(x, h0, start(inputs.c0), *d.w_ih, *d.w_hh, *d.b_ih, *d.b_hh, lengths, direction == 1);
      if (reads_are_observed()) observe_reads(slot, x, h0, states.output);
      outputs.push_back(std::move(states.output));
      h.push_back(std::move(states.h));
      c.push_back(std::move(states.c));
    }
    x = outputs.size() == 1 ? outputs[0] : cat(outputs, 2);
  }
  LstmResult result{options_.batch_first ? transpose(x, 0, 1) : x, {}, {}, std::move(h), std::move(c)};
  if (has_one_size()) {
    result.h = stack(result.last_h, 0);
    result.c = stack(result.last_c, 0);
  }
  return result;
}

/// A step reads the state that the step before it left: the first one h0, the others all outputs but the last.
void LSTM::observe_reads(int64_t slot, const Variable& x, const Variable& h0, const Variable& output) {
  const int64_t layer = slot / num_directions(), direction = slot % num_directions(), steps = output.size(0);
  const std::string own = suffix(layer, direction);
  if (layer > 0) observe_read("weight_ih" + own, x);
  observe_read("weight_hh" + own, h0);
  if (steps > 1) observe_read("weight_hh" + own, slice(output, 0, direction, steps - 1 + direction));
}

LstmResult LSTM::operator()(const Variable& x, const LstmInputs& inputs) {
  LstmResult result = forward(x, inputs);
  result.output = finish(x, result.output);
  return result;
}

int64_t LSTM::macs(const Shape& input, const Shape&) const {
  int64_t weights = 0;
  for (const Direction& d : directions_) weights += d.w_ih->numel() + d.w_hh->numel();
  return input[0] * input[1] * weights;
}

ChannelAccount LSTM::channels() const {
  ChannelAccount account{.axis = ChannelAxis::last};
  for (int64_t layer = 0; layer < options_.num_layers; ++layer)
    for (int64_t direction = 0; direction < num_directions(); ++direction)
      for (const char* kind : {"ih", "hh"}) {
        const std::string name = kind + suffix(layer, direction);
        const bool reads_input = layer == 0 && kind == std::string("ih");
        (reads_input ? account.readers : account.inner_readers)
            .push_back({.weight = "weight_" + name, .bias = options_.bias ? "bias_" + name : ""});
      }
  return account;
}

nlohmann::json LSTM::config() const {
  nlohmann::json result = {{"type", type()},
                           {"input_size", input_size()},
                           {"hidden_size", hidden_size()},
                           {"num_layers", options_.num_layers},
                           {"bidirectional", options_.bidirectional},
                           {"dropout", options_.dropout},
                           {"batch_first", options_.batch_first},
                           {"bias", options_.bias}};
  if (!has_one_size()) result["hidden_sizes"] = hidden_sizes();
  return result;
}

ModulePtr LSTM::from_config(const nlohmann::json& config) {
  ConfigReader reader(config);
  const int64_t input_size = reader.integer("input_size"), hidden_size = reader.integer("hidden_size");
  LstmOptions options{.num_layers = reader.integer("num_layers", 1),
                      .bidirectional = reader.boolean("bidirectional", false),
                      .dropout = reader.number("dropout", 0),
                      .batch_first = reader.boolean("batch_first", false),
                      .bias = reader.boolean("bias", true)};
  if (reader.has("hidden_sizes")) options.hidden_sizes = reader.integers("hidden_sizes");
  reader.finish();
  return std::make_shared<LSTM>(input_size, hidden_size, options);
}

}  // namespace espalier
