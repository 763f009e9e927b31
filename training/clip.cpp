#include "training/clip.h"

#include <cmath>

#include "core/ops.h"

namespace espalier {

namespace {

// A gradient may share its storage with another one (both inputs of an addition), so it is replaced, not changed.
void replace_grad(const Parameter& parameter, Tensor grad) {
  Variable variable = parameter.variable();
  variable.set_grad(Variable(std::move(grad)));
}

/// Square root of the sum of all squares, which are formed and summed as they are or in double.
double norm_of(const std::vector<Parameter>& parameters, bool in_double) {
  Tensor squares;  // stays where the gradients are until it is complete: one wait for a GPU, not one a parameter
  for (const Parameter& p : parameters)
    if (const Tensor grad = p.grad(); grad.defined()) {
      const Tensor own = sum(square(in_double ? grad.to(DType::f64) : grad)).to(DType::f64);
      squares = squares.defined() ? squares.to(own.device()) + own : own;
    }
  return squares.defined() ? std::sqrt(squares.item()) : 0;
}

}  // namespace

double clip_grad_norm(const std::vector<Parameter>& parameters, double max_norm) {
  check(max_norm > 0, "clip_grad_norm", "expected max_norm > 0, got {}", max_norm);
  double norm = norm_of(parameters, false);
  // The square of a float above 1.8e19 is infinite, and that of one below 3e-23 is 0.
  const bool in_double = !std::isfinite(norm) || norm == 0;
  if (in_double) norm = norm_of(parameters, true);
  if (!std::isfinite(norm) || norm <= max_norm) return norm;
  const double factor = max_norm / norm;
  for (const Parameter& p : parameters)
    if (const Tensor grad = p.grad(); grad.defined())
      replace_grad(p, in_double ? (grad.to(DType::f64) * factor).to(grad.dtype()) : grad * factor);
  return norm;
}

void clip_grad_value(const std::vector<Parameter>& parameters, double limit) {
  check(limit > 0, "clip_grad_value", "expected limit > 0, got {}", limit);
  for (const Parameter& p : parameters)
    if (const Tensor grad = p.grad(); grad.defined()) replace_grad(p, clamp(grad, -limit, limit));
}

}  // namespace espalier
