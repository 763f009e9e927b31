// What a network costs and how good it is: the numbers that every comparison of compressed networks should give.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "datasets/dataset.h"
#include "layers/module.h"
#include "training/latency.h"
#include "training/metric.h"

namespace espalier {

/// What needs no data.
struct NetworkSize {
  double sparsity = 0;  ///< masked share of the prunable weights (parameters of two axes or more)
  int64_t parameters = 0, remaining_parameters = 0;
  int64_t macs = 0, remaining_macs = 0;  ///< of one image; remaining: without masked weights and dead channels
  int64_t bytes = 0;                     ///< of its file
};

/// Of one network. Blalock et al. 2020, "What is the state of neural network pruning?", section 6: parameters and
/// MACs and measured time, next to accuracy.
struct ModelReport : NetworkSize {
  double loss = 0, macro_f1 = 0;          ///< F1: of data that asks for a class
  std::vector<MetricValue> metrics = {};  ///< the primary one first

  bool is_classification() const { return metrics.size() == 1 && metrics.front().name == "accuracy"; }
  double accuracy() const { return value_of("accuracy"); }
  /// Of a metric; NaN where the data has none of that name.
  double value_of(const std::string& metric) const;
};

/// Throws NumericError when the loss of the network in `file` is NaN or infinite: its other figures mean nothing then.
void check_finite(const std::string& file, double loss);

/// Size of a network whose file has `bytes` bytes, for an example of its inputs (batch 1).
NetworkSize measure_size(Module& module, const Bundle& example, int64_t bytes);
/// The same, and how good it is on `data`.
ModelReport measure(Module& module, int64_t bytes, const Dataset& data);
nlohmann::json to_json(const NetworkSize& size);
nlohmann::json to_json(const ModelReport& report);

}  // namespace espalier
