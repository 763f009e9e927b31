#include "layers/snapshot.h"

namespace espalier {

Snapshot::Snapshot(const Module& module) {
  for (const Parameter& parameter : module.parameters())
    parameters_.push_back({parameter, parameter.data().clone(), parameter.mask(), parameter.gradient_flow()});
  for (const auto& [name, buffer] : module.named_buffers()) buffers_.push_back({buffer, buffer.clone()});
}

void Snapshot::restore() const {
  for (const ParameterState& state : parameters_) {
    Parameter parameter = state.parameter;
    parameter.clear_mask();
    parameter.zero_grad();
    Tensor value = parameter.data();
    value.copy_(state.value);
    if (state.mask.defined()) parameter.set_mask(state.mask, state.flow);
  }
  for (const BufferState& state : buffers_) {
    Tensor buffer = state.buffer;
    buffer.copy_(state.value);
  }
}

NamedTensors values_of(const Module& module) {
  NamedTensors values;
  for (const auto& [name, tensor] : state_of(module)) values.emplace_back(name, tensor.clone());
  return values;
}

}  // namespace espalier
