// Losses by name, and the loss that a batch asks for.
#pragma once

#include <functional>
#include <string>

#include "core/registry.h"
#include "training/batch.h"

namespace espalier {

/// The loss of a batch, as a mean over its examples. `outputs` is what the network made of the batch; a function of one
/// `const Variable&` sees its first output.
using LossFunction = std::function<Variable(const Bundle& outputs, const Batch& batch)>;

/// Losses of one head by name, as data sets and recipes name them: add() your own before. Each gives the mean over the
/// examples. `targets` has the outputs' number of elements, or names classes along their last axis.
///
/// "cross-entropy": of classes, i64 (N) for outputs (N,C), or of every step, (N,T) for (N,T,C), where those of class -1
/// don't count. "mse", "l1": squares and absolute values of what the outputs differ by. "bce": of values in [0,1], for
/// outputs that are logits.
Registry<Variable(const Variable& outputs, const Tensor& targets)>& loss_registry();

/// The loss that a batch's targets ask for: cross-entropy for classes, mse for values; for the first one the loss that
/// its data set names. Of several heads it is the sum. `label_smoothing` is of cross-entropy. Throws when the network
/// has fewer outputs than there are targets, or of another shape.
Variable batch_loss(const Bundle& outputs, const Batch& batch, double label_smoothing = 0);

/// The name of the loss of a target without one of its own.
const char* default_loss(const Tensor& targets);

}  // namespace espalier
