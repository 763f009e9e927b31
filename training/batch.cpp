#include "training/batch.h"

namespace espalier {

Batch to(const Batch& batch, Device device) {
  if (batch.images.device() == device) return batch;
  Batch moved = batch;  // `indices` stay: they are looked up on the host
  moved.images = batch.images.to(device);
  moved.labels = batch.labels.to(device);
  for (auto& [name, values] : moved.inputs) values = values.to(device);
  for (auto& [name, values] : moved.targets) values = values.to(device);
  return moved;
}

Bundle inputs_of(const Batch& batch) {
  Variables inputs = {batch.images};
  for (const auto& [name, values] : batch.inputs) inputs.emplace_back(values);
  return inputs;
}

Bundle outputs_of(Module& module, const Batch& batch) { return module.call(inputs_of(batch)); }

}  // namespace espalier
