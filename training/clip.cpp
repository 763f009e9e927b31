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

}  // namespace

double clip_grad_norm(const std::vector<Parameter>& parameters, double max_norm) {
  check(max_norm > 0, "clip_grad_norm", "expected max_norm > 0, got {}", max_norm);
  Tensor squares;  // stays where the gradients are until it is complete: one wait for a GPU, not one a parameter
  for (const Parameter& p : parameters)
    if (const Tensor grad = p.grad(); grad.defined()) {
      const Tensor own = sum(square(grad)).to(DType::f64);
      squares = squares.defined() ? squares.to(own.device()) + own : own;
    }
  const double norm = squares.defined() ? std::sqrt(squares.item()) : 0;
  if (!std::isfinite(norm) || norm <= max_norm) return norm;
  for (const Parameter& p : parameters)
    if (const Tensor grad = p.grad(); grad.defined()) replace_grad(p, grad * (max_norm / norm));
  return norm;
}

void clip_grad_value(const std::vector<Parameter>& parameters, double limit) {
  check(limit > 0, "clip_grad_value", "expected limit > 0, got {}", limit);
  for (const Parameter& p : parameters)
    if (const Tensor grad = p.grad(); grad.defined()) replace_grad(p, clamp(grad, -limit, limit));
}

}  // namespace espalier
