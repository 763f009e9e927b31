// Snapshot: a network's weights, buffers and masks, to go back to.
#pragma once

#include <vector>

#include "layers/module.h"

namespace espalier {

/// A copy of the state of a network, bound to it.
class Snapshot {
 public:
  explicit Snapshot(const Module& module);
  /// Weights, buffers and masks become what they were, to the bit. Gradients are forgotten.
  void restore() const;

 private:
  struct ParameterState {
    Parameter parameter;
    Tensor value;
    Mask mask;
    GradientFlow flow;
  };
  struct BufferState {
    Tensor buffer, value;
  };
  std::vector<ParameterState> parameters_;
  std::vector<BufferState> buffers_;
};

/// Copies of all weights and buffers by full name. load_state writes them back, and leaves masked weights 0.
NamedTensors values_of(const Module& module);

}  // namespace espalier
