#include "tests/pruning/structure/topology/program_network.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <unordered_set>

#include <nlohmann/json.hpp>

namespace espalier::topology {

namespace {

/// What an operation gets: its operands, and the layer that it names.
struct Call {
  const Variables& x;
  const Step& step;
  Module* layer;

  int64_t size(size_t i) const { return step.sizes.at(i); }
  int axis(size_t i) const { return static_cast<int>(step.sizes.at(i)); }
  const Parameter weight() const {
    for (const auto& [name, parameter] : layer->named_parameters())
      if (name == "weight") return parameter;
    fail("ProgramNetwork", "the {} has no weight", layer->type());
  }
};

/// Parts of equal size along an axis. The size is read off x: it may have become smaller.
Variables chunk(const Variable& x, int axis, int64_t parts) {
  Variables result;
  const int64_t each = x.size(axis) / parts;
  for (int64_t i = 0; i < parts; ++i) result.push_back(slice(x, axis, i * each, (i + 1) * each));
  return result;
}

Variable reversed(const Variable& x, int axis) {
  std::vector<int64_t> order(static_cast<size_t>(x.size(axis)));
  std::iota(order.rbegin(), order.rend(), 0);
  return index_select(x, axis, Tensor::from(order, {x.size(axis)}));
}

/// softmax(q k^T) v of (N,T,F), or without the softmax.
Variable attend(const Variables& x, bool normalised) {
  const Variable scores = matmul(x[0], transpose(x[1], 1, 2));
  return matmul(normalised ? softmax(scores) : scores, x[2]);
}

Axes axes_of(const std::vector<int64_t>& sizes) { return Axes(sizes.begin(), sizes.end()); }

using Operation = std::function<Variables(const Call&)>;

/// Shapes: features (N,F), tokens (N,T,F), images (N,C,H,W).
const std::map<std::string, Operation>& operations() {
  static const std::map<std::string, Operation> kOperations = {
      {"layer", [](const Call& c) { return Variables{(*c.layer)(c.x[0])}; }},
      {"weight outside", [](const Call& c) { return Variables{linear(c.x[0], c.weight())}; }},
      {"weight backwards", [](const Call& c) { return Variables{matmul(c.x[0], c.weight())}; }},
      {"weight through exp", [](const Call& c) { return Variables{linear(c.x[0], exp(c.weight()))}; }},
      {"weight through tanh", [](const Call& c) { return Variables{linear(c.x[0], tanh(c.weight()))}; }},
      {"relu", [](const Call& c) { return Variables{relu(c.x[0])}; }},
      {"tanh", [](const Call& c) { return Variables{tanh(c.x[0])}; }},
      {"add", [](const Call& c) { return Variables{c.x[0] + c.x[1]}; }},
      {"mul", [](const Call& c) { return Variables{c.x[0] * c.x[1]}; }},
      {"gate", [](const Call& c) { return Variables{c.x[0] * sigmoid(c.x[1])}; }},
      {"cat", [](const Call& c) { return Variables{cat(c.x, c.axis(0))}; }},
      {"chunk", [](const Call& c) { return chunk(c.x[0], c.axis(0), c.size(1)); }},
      {"reverse", [](const Call& c) { return Variables{reversed(c.x[0], c.axis(0))}; }},
      {"permute",
       [](const Call& c) {
         return Variables{permute(c.x[0], std::vector<int>(c.step.sizes.begin(), c.step.sizes.end()))};
       }},
      {"flatten", [](const Call& c) { return Variables{flatten(c.x[0])}; }},
      {"mean", [](const Call& c) { return Variables{mean(c.x[0], axes_of(c.step.sizes))}; }},
      {"last", [](const Call& c) { return Variables{select(c.x[0], 1, -1)}; }},
      {"first", [](const Call& c) { return Variables{select(c.x[0], 1, 0)}; }},
      {"positions",  // (N,C,H,W) -> (N,C,HW)
       [](const Call& c) { return Variables{flatten(c.x[0], 2, 3)}; }},
      {"image",  // (N,F) -> (N,F/(h*w),h,w)
       [](const Call& c) {
         const Variable& x = c.x[0];
         return Variables{reshape(x, {x.size(0), x.size(1) / (c.size(0) * c.size(1)), c.size(0), c.size(1)})};
       }},
      {"row",  // (N,F) -> (N,1,1,F)
       [](const Call& c) {
         return Variables{reshape(c.x[0], {c.x[0].size(0), 1, 1, c.x[0].size(1)})};
       }},
      {"tokens",  // (N,F) -> (N,t,F/t)
       [](const Call& c) {
         return Variables{reshape(c.x[0], {c.x[0].size(0), c.size(0), c.x[0].size(1) / c.size(0)})};
       }},
      {"columns",  // (N,F) -> (N,F/t,t)
       [](const Call& c) {
         return Variables{reshape(c.x[0], {c.x[0].size(0), c.x[0].size(1) / c.size(0), c.size(0)})};
       }},
      {"attend", [](const Call& c) { return Variables{attend(c.x, c.size(0) != 0)}; }},
      {"bilinear",  // (N,F) (N,F) -> (N,1)
       [](const Call& c) { return Variables{squeeze(matmul(unsqueeze(c.x[0], 1), unsqueeze(c.x[1], 2)), 2)}; }},
      {"outer",  // (N,F) (N,G) -> (N,F,G)
       [](const Call& c) { return Variables{matmul(unsqueeze(c.x[0], 2), unsqueeze(c.x[1], 1))}; }},
      {"excite",  // (N,C,H,W) (N,C) -> (N,C,H,W)
       [](const Call& c) {
         const Variable gates = sigmoid(c.x[1]);
         return Variables{c.x[0] * reshape(gates, {gates.size(0), gates.size(1), 1, 1})};
       }},
  };
  return kOperations;
}

}  // namespace

size_t Step::results() const {
  if (operation == "in training") return 0;
  return operation == "chunk" ? static_cast<size_t>(sizes.at(1)) : 1;
}

void Program::remove_unused() {
  size_t values = 1;
  for (const Step& step : steps) values += step.results();
  std::vector<bool> used(values, false);
  used.back() = true;
  std::vector<Step> kept;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {  // backwards: who needs a value stands behind it
    values -= step->results();
    const auto first = used.begin() + static_cast<std::ptrdiff_t>(values);
    const auto last = first + static_cast<std::ptrdiff_t>(step->results());
    if (step->results() > 0 && std::find(first, last, true) == last) continue;
    std::fill(first, last, true);
    for (const size_t operand : step->operands) used[operand] = true;
    kept.push_back(*step);
  }
  std::vector<size_t> places;
  for (size_t i = 0, next = 0; i < used.size(); ++i) places.push_back(used[i] || i == 0 ? next++ : next);
  std::unordered_set<std::string> layers_used;
  for (Step& step : kept) {
    layers_used.insert(step.layer);
    for (size_t& operand : step.operands) operand = places[operand];
  }
  for (const auto& [first, second] : ties) layers_used.insert({first, second});
  std::erase_if(layers, [&](const auto& layer) { return !layers_used.contains(layer.first); });
  steps.assign(kept.rbegin(), kept.rend());
}

const ModulePtr& Program::layer(const std::string& name) const {
  for (const auto& [own, layer] : layers)
    if (own == name) return layer;
  fail("ProgramNetwork", "no layer is called '{}'", name);
}

ProgramNetwork::ProgramNetwork(Program program) : program_(std::move(program)) {
  for (const auto& [name, layer] : program_.layers) add_child(name, layer);
  for (const auto& [first, second] : program_.ties)
    for (const auto& [name, parameter] : program_.layer(first)->named_parameters())
      if (name == "weight") program_.layer(second)->share_parameter("weight", parameter);
}

Variable ProgramNetwork::forward(const Variable& x) {
  Variables values = {x};
  Variable auxiliary;
  for (const Step& step : program_.steps) {
    Variables operands;
    for (const size_t operand : step.operands) operands.push_back(values.at(operand));
    Module* layer = step.layer.empty() ? nullptr : program_.layer(step.layer).get();
    if (step.operation == "in training") {  // a head that only training knows
      if (is_training()) auxiliary = mean(square((*layer)(operands[0])));
      continue;
    }
    for (Variable& result : operations().at(step.operation)({operands, step, layer}))
      values.push_back(std::move(result));
  }
  return auxiliary.defined() ? values.back() + auxiliary : values.back();
}

nlohmann::json ProgramNetwork::config() const {
  nlohmann::json layers = nlohmann::json::array(), steps = nlohmann::json::array();
  for (const auto& [name, layer] : program_.layers) layers.push_back({{"name", name}, {"module", layer->config()}});
  for (const Step& step : program_.steps) steps.push_back({step.operation, step.operands, step.layer, step.sizes});
  return {{"type", type()}, {"layers", layers}, {"ties", program_.ties}, {"steps", steps}};
}

ModulePtr ProgramNetwork::from_config(const nlohmann::json& config) {
  Program program;
  for (const nlohmann::json& layer : config.at("layers"))
    program.layers.emplace_back(layer.at("name"), module_from_config(layer.at("module")));
  for (const nlohmann::json& tie : config.at("ties")) program.ties.emplace_back(tie.at(0), tie.at(1));
  for (const nlohmann::json& step : config.at("steps"))
    program.steps.push_back({step.at(0), step.at(1), step.at(2), step.at(3)});
  return std::make_shared<ProgramNetwork>(std::move(program));
}

}  // namespace espalier::topology
