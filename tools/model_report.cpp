#include "tools/model_report.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "pruning/structure/costs.h"
#include "pruning/structure/graph.h"
#include "training/evaluate.h"

namespace espalier::tools {

void check_finite(const std::string& file, double loss) {
  if (!std::isfinite(loss))
    fail<NumericError>(
        "evaluate",
        "{}: expected a loss that is a number, got {}; the network's outputs are NaN or infinite: train it "
        "again, with a lower learning rate or clip_norm",
        file, loss);
}

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

}  // namespace espalier::tools
