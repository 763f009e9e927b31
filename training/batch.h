// Batches and the networks that take them.
#pragma once

#include "datasets/data_loader.h"
#include "layers/module.h"

namespace espalier {

/// The batch with its tensors on `device`; the same one if they are there already.
Batch to(const Batch& batch, Device device);
/// What a network takes of a batch: its images, then its other inputs.
Bundle inputs_of(const Batch& batch);
/// What a network answers to a batch: one Variable for each of its targets.
Bundle outputs_of(Module& module, const Batch& batch);

}  // namespace espalier
