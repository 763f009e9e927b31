#include "layers/summary.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include <nlohmann/json.hpp>

namespace espalier {

namespace {
/// 1234567 -> "1,234,567"
std::string grouped(int64_t value) {
  std::string text = std::to_string(value);
  for (int64_t i = static_cast<int64_t>(text.size()) - 3; i > 0; i -= 3) text.insert(static_cast<size_t>(i), 1, ',');
  return text;
}

/// Elements of the parameters that `module` holds itself and that are not in `counted` yet.
int64_t own_parameters(const Module& module, std::unordered_set<const void*>& counted) {
  int64_t total = 0;
  for (const auto& [name, parameter] : module.named_parameters())
    if (name.find('.') == std::string::npos && counted.insert(parameter.id()).second) total += parameter.numel();
  return total;
}
}  // namespace

ModelSummary summarize(Module& module, const Shape& input_shape, DType input_dtype) {
  for (const Parameter& parameter : module.parameters())
    if (is_floating(input_dtype)) input_dtype = parameter.data().dtype();
  return summarize(module, Tensor::zeros(input_shape, input_dtype, module.device()));
}

ModelSummary summarize(Module& module, const Bundle& example) {
  ModelSummary summary;
  summary.input = example.first().shape();
  std::unordered_map<const Module*, std::string> names;
  for (const auto& [name, part] : module.named_modules()) names.emplace(part.get(), name);
  for (const Parameter& parameter : module.parameters()) {
    summary.parameters += parameter.numel();
    if (parameter.requires_grad()) summary.trainable += parameter.numel();
  }

  std::unordered_set<const void*> counted;
  const ForwardObserver observer([&](Module& layer, const Variable& input, const Variable& output) {
    LayerSummary row;
    row.parameters = own_parameters(layer, counted);
    row.macs = layer.macs(input.shape(), output.shape());
    summary.macs += row.macs;
    if (!layer.children().empty() && row.parameters == 0 && row.macs == 0) return;
    const auto known = names.find(&layer);
    row.name = known == names.end() ? "?" : known->second;
    row.type = layer.type();
    row.output = output.shape();
    summary.layers.push_back(std::move(row));
  });
  const EvalMode eval(module);
  const NoGrad no_grad;
  summary.output = module.call(example).first().shape();
  return summary;
}

std::string ModelSummary::to_table() const {
  using Row = std::array<std::string, 5>;
  std::vector<Row> rows = {{"layer", "type", "output", "parameters", "MACs"}};
  for (const LayerSummary& layer : layers)
    rows.push_back({layer.name, layer.type, layer.output.to_string(), layer.parameters ? grouped(layer.parameters) : "",
                    layer.macs ? grouped(layer.macs) : ""});
  rows.push_back({"total", "", output.to_string(), grouped(parameters), grouped(macs)});

  std::array<size_t, 5> width{};
  for (const Row& row : rows)
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  const auto line = [&](const Row& row) {
    return fmt::format("{:<{}}  {:<{}}  {:<{}}  {:>{}}  {:>{}}\n", row[0], width[0], row[1], width[1], row[2], width[2],
                       row[3], width[3], row[4], width[4]);
  };
  const std::string rule(width[0] + width[1] + width[2] + width[3] + width[4] + 8, '-');
  std::string text = line(rows.front()) + rule + "\n";
  for (size_t i = 1; i + 1 < rows.size(); ++i) text += line(rows[i]);
  return text + rule + "\n" + line(rows.back());
}

namespace {
nlohmann::json json_of(const Shape& shape) { return std::vector<int64_t>(shape.begin(), shape.end()); }
}  // namespace

nlohmann::json ModelSummary::to_json() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const LayerSummary& layer : layers)
    rows.push_back({{"name", layer.name},
                    {"type", layer.type},
                    {"output", json_of(layer.output)},
                    {"parameters", layer.parameters},
                    {"macs", layer.macs}});
  return {{"input", json_of(input)},
          {"output", json_of(output)},
          {"parameters", parameters},
          {"trainable", trainable},
          {"macs", macs},
          {"flops", 2 * macs},
          {"layers", std::move(rows)}};
}

}  // namespace espalier
