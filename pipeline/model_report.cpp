#include "pipeline/model_report.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "pipeline/data.h"
#include "pruning/structure/costs.h"
#include "pruning/structure/graph.h"
#include "training/evaluate.h"

namespace espalier {

void check_finite(const std::string& file, double loss) {
  if (!std::isfinite(loss))
    fail<NumericError>(
        "evaluate",
        "{}: expected a loss that is a number, got {}; the network's outputs are NaN or infinite: train it "
        "again, with a lower learning rate or clip_norm",
        file, loss);
}

double ModelReport::value_of(const std::string& metric) const {
  for (const MetricValue& known : metrics)
    if (known.name == metric) return known.value;
  return std::nan("");
}

NetworkSize measure_size(Module& module, const Bundle& example, int64_t bytes) {
  NetworkSize size;
  size.bytes = bytes;
  const Costs costs = count_costs(module, DependencyGraph::trace(module, example), example);
  size.parameters = costs.parameters;
  size.remaining_parameters = costs.remaining_parameters;
  size.macs = costs.macs;
  size.remaining_macs = costs.remaining_macs;
  int64_t weights = 0, masked = 0;
  for (const Parameter& parameter : module.parameters()) {
    if (parameter.shape().rank() < 2) continue;
    weights += parameter.numel();
    if (parameter.mask().defined()) masked += parameter.numel() - parameter.mask().count_elements();
  }
  size.sparsity = weights == 0 ? 0 : static_cast<double>(masked) / static_cast<double>(weights);
  return size;
}

ModelReport measure(Module& module, int64_t bytes, const Dataset& data) {
  const NetworkSize size = measure_size(module, example_of(data, module.device()), bytes);
  const Evaluation result = evaluate(module, data);
  return {size, result.loss, data.is_classification() ? result.confusion.macro_f1() : 0, result.metrics};
}

nlohmann::json to_json(const NetworkSize& size) {
  return {{"sparsity", size.sparsity},
          {"parameters", size.parameters},
          {"remaining_parameters", size.remaining_parameters},
          {"macs", size.macs},
          {"remaining_macs", size.remaining_macs},
          {"bytes", size.bytes}};
}

nlohmann::json to_json(const ModelReport& r) {
  nlohmann::json json = to_json(static_cast<const NetworkSize&>(r));
  json["loss"] = r.loss;
  if (r.is_classification()) json["macro_f1"] = r.macro_f1;
  for (const MetricValue& metric : r.metrics) json[metric.name] = metric.value;
  return json;
}

}  // namespace espalier
