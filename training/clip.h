// Gradient clipping. An optimiser never rewrites gradients; clipping is the explicit call that does, made by the
// Trainer between backward and step. Gradients read after it are the clipped ones.
#pragma once

#include <vector>

#include "layers/module.h"

namespace espalier {

/// Scales all gradients by max_norm / norm if their joint Euclidean norm exceeds max_norm; returns the norm before.
/// Undefined gradients are skipped. A NaN or infinite norm is returned and nothing is scaled.
double clip_grad_norm(const std::vector<Parameter>& parameters, double max_norm);

/// Clamps every gradient element to [-limit, limit].
void clip_grad_value(const std::vector<Parameter>& parameters, double limit);

}  // namespace espalier
