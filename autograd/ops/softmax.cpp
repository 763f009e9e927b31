#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

std::vector<TracedTensor> softmax_axes(const AxisCall& c) {
  c.trace.fix(c.in(0).axes.back(), "normalised over, by softmax");
  return {c.in(0)};
}

constexpr Operation kSoftmax{"softmax", softmax_axes, Zeros::none};
constexpr Operation kLogSoftmax{"log_softmax", softmax_axes, Zeros::none};

/// softmax or log-softmax over the last axis of a contiguous x.
Variable softmax_last(const Variable& x, bool log) {
  const Tensor data = x.data().contiguous();
  Tensor y = Tensor::empty_like(data);
  kernels(x.device()).softmax(data, log, y);
  return record(
      log ? kLogSoftmax : kSoftmax, y, {x},
      [log](const BackwardContext& c) -> Variables {
        const Variable &dy = c.grad(), out = c.output();
        if (grad_enabled())  // the kernel's formulas, recorded
          return {log ? dy - exp(out) * sum(dy, {-1}, true) : out * (dy - sum(dy * out, {-1}, true))};
        Tensor dx = Tensor::empty_like(out.data());
        kernels(out.device()).softmax_grad(dy.data().contiguous(), out.data(), log, dx);
        return {dx};
      },
      SaveOutputs::yes);
}

Variable softmax_along(const Variable& x, int axis, bool log) {
  const char* name = log ? "log_softmax" : "softmax";
  check(x.rank() >= 1 && is_floating(x.dtype()), name, "expected f32 or f64 with at least one axis, got {}",
        describe(x.data()));
  axis = normalize_axis(axis, x.rank(), name);
  if (axis == x.rank() - 1) return softmax_last(x, log);
  return transpose(softmax_last(transpose(x, axis, -1), log), axis, -1);
}

}  // namespace

Variable softmax(const Variable& x, int axis) { return softmax_along(x, axis, false); }
Variable log_softmax(const Variable& x, int axis) { return softmax_along(x, axis, true); }

}  // namespace espalier
