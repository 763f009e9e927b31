#include "pruning/recovery/layer_data.h"

#include <cmath>
#include <map>

namespace espalier::recovery {

namespace {

/// For each element of one example's input whether it depends on the example. Maps count as (C,H,W); of sequences
/// (T,N,C) every step is an example.
std::vector<bool> varying(const Tensor& input) {
  const Tensor x = input.rank() == 4 ? input : input.contiguous().reshape({-1, input.size(-1)});
  const std::vector<double> lowest = min(x, {0}).to(Device::cpu()).to(DType::f64).to_vector<double>();
  const std::vector<double> highest = max(x, {0}).to(Device::cpu()).to(DType::f64).to_vector<double>();
  std::vector<bool> result(lowest.size());
  // A constant may come out different in the last digit where vectors end.
  for (size_t i = 0; i < result.size(); ++i)
    result[i] = highest[i] - lowest[i] > 1e-6 * std::max(std::abs(lowest[i]), std::abs(highest[i]));
  return result;
}

/// Of every affine layer which of its inputs vary, by name; and their names in the order of the calls.
std::map<std::string, std::vector<bool>> varying_inputs(Module& network, const Batch& batch,
                                                        std::vector<std::string>& order) {
  std::map<const Module*, std::string> names;
  for (const auto& [name, module] : network.named_modules())
    if (weight_layer(name, *module).defined()) names[module.get()] = name;
  std::map<std::string, std::vector<bool>> result;
  const EvalMode mode(network);
  const NoGrad no_grad;
  const ForwardObserver observer([&](Module& module, const Variable& input, const Variable&) {
    const auto name = names.find(&module);
    if (name == names.end()) return;
    std::vector<bool> now = varying(input.data());
    const auto [known, first] = result.emplace(name->second, now);
    if (first)
      order.push_back(name->second);
    else  // called again
      for (size_t i = 0; i < now.size() && i < known->second.size(); ++i)
        if (now[i]) known->second[i] = true;
  });
  outputs_of(network, batch);
  return result;
}

}  // namespace

std::vector<WeightLayer> layers_to_repair(const char* operation, Module& pruned, Module& dense, const Dataset& data,
                                          int64_t batch_size, uint64_t seed) {
  const Device device = pruned.device();
  dense.to(device);
  std::vector<std::string> order, ignored;
  std::map<std::string, std::vector<bool>> now, before;
  for_batches(operation, data, batch_size, 1, seed, device, [&](const Batch& batch) {
    now = varying_inputs(pruned, batch, order);
    before = varying_inputs(dense, batch, ignored);
  });
  std::vector<WeightLayer> layers;
  for (const std::string& name : order) {
    const WeightLayer layer = weight_layer(name, *pruned.find(name));
    bool lost = layer.is_masked();
    const std::vector<bool>&here = now[name], &there = before[name];
    for (size_t i = 0; i < here.size() && here.size() == there.size(); ++i) lost = lost || (there[i] && !here[i]);
    if (lost) layers.push_back(layer);
  }
  return layers;
}

}  // namespace espalier::recovery
