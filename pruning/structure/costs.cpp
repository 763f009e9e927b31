#include "pruning/structure/costs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include <nlohmann/json.hpp>

#include "pruning/structure/compaction_plan.h"

namespace espalier {

namespace {

double ratio(int64_t all, int64_t remaining) {
  return remaining == 0 ? std::numeric_limits<double>::infinity()
                        : static_cast<double>(all) / static_cast<double>(remaining);
}

/// Weights that exist in rows and columns that stay.
int64_t remaining(const Parameter& parameter, const DependencyGraph& graph, const DeadUnits& dead) {
  const AxisRefs refs = axis_refs(graph, parameter);
  const auto goes = [&](const ChannelRef& ref) { return dead.goes(ref); };
  const auto rows = static_cast<int64_t>(refs.rows.size()), columns = static_cast<int64_t>(refs.columns.size());
  const int64_t each = parameter.numel() / std::max<int64_t>(rows * columns, 1);
  if (!parameter.mask().defined())
    return (rows - std::count_if(refs.rows.begin(), refs.rows.end(), goes)) *
           (columns - std::count_if(refs.columns.begin(), refs.columns.end(), goes)) * each;
  const std::vector<uint8_t> exists = parameter.mask().to(Device::cpu()).expand(DType::u8).to_vector<uint8_t>();
  int64_t count = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (goes(refs.rows[static_cast<size_t>(row)])) continue;
    for (int64_t column = 0; column < columns; ++column) {
      if (goes(refs.columns[static_cast<size_t>(column)])) continue;
      const auto first = exists.begin() + (row * columns + column) * each;
      count += std::count(first, first + each, uint8_t{1});
    }
  }
  return count;
}

/// all * part / whole, exact where whole divides all.
int64_t share(int64_t all, int64_t part, int64_t whole) {
  if (whole == 0) return 0;
  if (all % whole == 0) return all / whole * part;
  return std::llround(static_cast<double>(all) * static_cast<double>(part) / static_cast<double>(whole));
}

}  // namespace

Costs count_costs(Module& net, const DependencyGraph& graph, const Bundle& example) {
  const DeadUnits dead = find_dead_units(net, graph, example);
  std::unordered_map<const void*, int64_t> left;
  for (const Parameter& parameter : net.parameters()) left[parameter.id()] = remaining(parameter, graph, dead);
  std::unordered_map<std::string, int64_t> new_biases;  // by module
  for (const PlannedParameter& planned :
       plan_compaction(net, graph, dead, [](const std::string&) { return false; }).parameters)
    if (planned.is_new()) new_biases[planned.name.substr(0, planned.name.rfind('.') + 1)] += planned.value.numel();

  Costs costs;
  std::unordered_set<const void*> counted;
  const auto bytes_of = [](const Parameter& p, int64_t count) {
    return count * static_cast<int64_t>(size_of(p.data().dtype()));
  };
  std::unordered_map<const Module*, std::string> names;
  for (const auto& [name, module] : net.named_modules()) names.emplace(module.get(), name);
  const ForwardObserver observer([&](Module& module, const Variable& input, const Variable& output) {
    const auto name = names.find(&module);
    LayerCosts row{.name = name == names.end() ? "?" : name->second, .type = module.type()};
    int64_t weights = 0, weights_left = 0;  // what the MACs are made of
    for (const auto& [own, parameter] : module.named_parameters()) {
      if (own.find('.') != std::string::npos) continue;
      const int64_t stays = left.at(parameter.id());
      if (parameter.shape().rank() >= 2) {
        weights += parameter.numel();
        weights_left += stays;
      }
      if (!counted.insert(parameter.id()).second) continue;
      row.parameters += parameter.numel();
      row.remaining_parameters += stays;
      costs.bytes += bytes_of(parameter, parameter.numel());
      costs.remaining_bytes += bytes_of(parameter, stays);
    }
    if (const auto bias = new_biases.find(row.name.empty() ? "" : row.name + "."); bias != new_biases.end()) {
      row.remaining_parameters += bias->second;
      costs.remaining_bytes += bytes_of(module.parameters().front(), bias->second);
      new_biases.erase(bias);
    }
    row.macs = module.macs(input.shape(), output.shape());
    row.remaining_macs = share(row.macs, weights_left, weights);
    if (row.parameters != 0 || row.macs != 0) costs.layers.push_back(std::move(row));
  });
  {
    const EvalMode eval(net);
    const NoGrad no_grad;
    net.call(example);
  }
  for (const Parameter& parameter : net.parameters()) {  // of layers that are not called with ()
    if (!counted.insert(parameter.id()).second) continue;
    const int64_t stays = left.at(parameter.id());
    costs.layers.push_back(
        {.name = parameter.name(), .type = "", .parameters = parameter.numel(), .remaining_parameters = stays});
    costs.bytes += bytes_of(parameter, parameter.numel());
    costs.remaining_bytes += bytes_of(parameter, stays);
  }
  for (const LayerCosts& layer : costs.layers) {
    costs.parameters += layer.parameters;
    costs.remaining_parameters += layer.remaining_parameters;
    costs.macs += layer.macs;
    costs.remaining_macs += layer.remaining_macs;
  }
  return costs;
}

double Costs::compression() const { return ratio(parameters, remaining_parameters); }
double Costs::theoretical_speedup() const { return ratio(macs, remaining_macs); }

std::string Costs::to_table() const {
  size_t width = 5;
  for (const LayerCosts& layer : layers) width = std::max(width, layer.name.size());
  const auto line = [&](const LayerCosts& row) {
    return fmt::format("{:<{}}  {:<12}  {:>12}  {:>12}  {:>14}  {:>14}\n", row.name, width, row.type, row.parameters,
                       row.remaining_parameters, row.macs, row.remaining_macs);
  };
  std::string text = fmt::format("{:<{}}  {:<12}  {:>12}  {:>12}  {:>14}  {:>14}\n", "layer", width, "type",
                                 "parameters", "remaining", "MACs", "remaining");
  for (const LayerCosts& layer : layers) text += line(layer);
  return text + line({.name = "total",
                      .type = "",
                      .parameters = parameters,
                      .remaining_parameters = remaining_parameters,
                      .macs = macs,
                      .remaining_macs = remaining_macs});
}

nlohmann::json Costs::to_json() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const LayerCosts& layer : layers)
    rows.push_back({{"name", layer.name},
                    {"type", layer.type},
                    {"parameters", layer.parameters},
                    {"remaining_parameters", layer.remaining_parameters},
                    {"macs", layer.macs},
                    {"remaining_macs", layer.remaining_macs}});
  return {{"layers", std::move(rows)},
          {"parameters", parameters},
          {"remaining_parameters", remaining_parameters},
          {"macs", macs},
          {"remaining_macs", remaining_macs},
          {"bytes", bytes},
          {"remaining_bytes", remaining_bytes}};
}

}  // namespace espalier
