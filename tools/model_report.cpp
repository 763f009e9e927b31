#include "tools/model_report.h"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

#include "core/kernels.h"
#include "core/random.h"
#include "pruning/structure/costs.h"
#include "pruning/structure/graph.h"
#include "training/evaluate.h"

namespace espalier::tools {

ModelReport measure(Module& module, const Shape& image, int64_t bytes, const Dataset* data) {
  ModelReport report;
  report.bytes = bytes;
  const Tensor example = Tensor::zeros({1, image[0], image[1], image[2]}, DType::f32, module.device());
  const Costs costs = count_costs(module, DependencyGraph::trace(module, example), example);
  report.parameters = costs.parameters;
  report.remaining_parameters = costs.remaining_parameters;
  report.macs = costs.macs;
  report.remaining_macs = costs.remaining_macs;
  int64_t weights = 0, masked = 0;
  for (const Parameter& parameter : module.parameters()) {
    if (parameter.shape().rank() < 2) continue;
    weights += parameter.numel();
    if (parameter.mask().defined()) masked += parameter.numel() - parameter.mask().count_elements();
  }
  report.sparsity = weights == 0 ? 0 : static_cast<double>(masked) / static_cast<double>(weights);
  if (data != nullptr) {
    const Evaluation result = evaluate(module, *data);
    report.accuracy = result.accuracy();
    report.loss = result.loss;
    report.macro_f1 = result.confusion.macro_f1();
  }
  return report;
}

nlohmann::json to_json(const ModelReport& r) {
  return {{"sparsity", r.sparsity},
          {"parameters", r.parameters},
          {"remaining_parameters", r.remaining_parameters},
          {"macs", r.macs},
          {"remaining_macs", r.remaining_macs},
          {"bytes", r.bytes},
          {"accuracy", r.accuracy},
          {"loss", r.loss},
          {"macro_f1", r.macro_f1}};
}

ModelReport model_report_from_json(const nlohmann::json& json) {
  return {.sparsity = json.at("sparsity"),
          .parameters = json.at("parameters"),
          .remaining_parameters = json.at("remaining_parameters"),
          .macs = json.at("macs"),
          .remaining_macs = json.at("remaining_macs"),
          .bytes = json.at("bytes"),
          .accuracy = json.at("accuracy"),
          .loss = json.at("loss"),
          .macro_f1 = json.at("macro_f1")};
}

std::vector<Latency> latencies(const std::vector<ModulePtr>& modules, const std::vector<Shape>& images, int64_t batch,
                               int64_t rounds) {
  using Clock = std::chrono::steady_clock;
  const NoGrad no_grad;
  std::vector<Tensor> inputs;
  std::vector<std::vector<double>> seconds(modules.size());
  Generator generator(0);
  for (size_t i = 0; i < images.size(); ++i)
    inputs.push_back(randn({batch, images[i][0], images[i][1], images[i][2]}, generator).to(modules[i]->device()));
  constexpr int64_t kWarmUp = 3;
  for (int64_t round = -kWarmUp; round < rounds; ++round)
    for (size_t i = 0; i < modules.size(); ++i) {
      const EvalMode eval(*modules[i]);
      const Clock::time_point start = Clock::now();
      const Variable outputs = (*modules[i])(inputs[i]);
      synchronize(outputs.device());
      if (round >= 0) seconds[i].push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  std::vector<Latency> result;
  for (std::vector<double>& times : seconds) {
    std::sort(times.begin(), times.end());
    const auto at = [&](double q) { return times[static_cast<size_t>(q * static_cast<double>(times.size() - 1))]; };
    result.push_back({.p50 = at(0.5), .p95 = at(0.95)});
  }
  return result;
}

}  // namespace espalier::tools
