// What a network consists of: layers, shapes, parameters, MACs.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "layers/module.h"

namespace espalier {

/// One call of one layer.
struct LayerSummary {
  std::string name;
  std::string type;
  Shape output;
  int64_t parameters = 0;  ///< of this layer itself; 0 where they were counted in an earlier row
  int64_t macs = 0;        ///< multiply-accumulates of Linear, Conv2d, LSTM; FLOPs are twice that
};

struct ModelSummary {
  std::vector<LayerSummary> layers;  ///< in the order of execution; containers are left out
  Shape input, output;
  int64_t parameters = 0;
  int64_t trainable = 0;  ///< parameters that are not frozen
  int64_t macs = 0;       ///< for the whole input: give a batch of 1 to count as papers do

  /// Columns layer, type, output, parameters, MACs, and a line of totals.
  std::string to_table() const;
  nlohmann::json to_json() const;
};

/// Runs `module` once on zeros of `input_shape`, in evaluation mode without recording gradients, and notes what every
/// layer gives. Only layers that are called with () are seen. Throws what forward throws when the shape does not fit.
ModelSummary summarize(Module& module, const Shape& input_shape, DType input_dtype = DType::f32);
/// The same for an example of what goes into the network: several inputs, or numbers that mean something.
ModelSummary summarize(Module& module, const Bundle& example);

}  // namespace espalier
