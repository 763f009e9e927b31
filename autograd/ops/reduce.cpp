#include <algorithm>
#include <limits>

#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

/// `shape` with the reduced axes as size 1.
Shape kept_shape(const Shape& shape, const Axes& axes) {
  Shape kept = shape;
  for (int i = 0; i < shape.rank(); ++i)
    if (axes.empty()) kept[i] = 1;
  for (int axis : axes) kept[normalize_axis(axis, shape.rank(), "reduce")] = 1;
  return kept;
}

/// The reduced axes, in order: what the tape keeps of a reduction.
Axes reduced_axes(const Shape& shape, const Axes& axes) {
  Axes reduced;
  for (int i = 0; i < shape.rank(); ++i)
    if (axes.empty() ||
        std::any_of(axes.begin(), axes.end(), [&](int a) { return normalize_axis(a, shape.rank(), "reduce") == i; }))
      reduced.push_back(i);
  return reduced;
}

double elements_per_result(const Shape& shape, const Axes& axes) {
  return static_cast<double>(shape.numel()) /
         static_cast<double>(std::max<int64_t>(kept_shape(shape, axes).numel(), 1));
}

std::vector<TracedTensor> reduction_axes(const AxisCall& c) {
  const TracedTensor& x = c.in(0);
  const Axes& reduced = c.node.attributes<Axes>();
  const bool keep_axes = c.shape().rank() == x.rank();
  TracedTensor y{.kind = x.kind, .axes = {}};
  for (int a = 0; a < x.rank(); ++a) {
    if (std::find(reduced.begin(), reduced.end(), a) == reduced.end()) {
      y.axes.push_back(x.axis(a));
      continue;
    }
    c.trace.fix(x.axis(a), fmt::format("reduced by {}", c.name()));
    if (keep_axes) y.axes.push_back(c.trace.fresh(1));
  }
  return {y};
}

constexpr Operation kSum{"sum", reduction_axes}, kMax{"max", reduction_axes}, kMin{"min", reduction_axes};
constexpr Operation kSumTo{"sum_to", axes::stay_whole};

/// max or min. Equal extremes share the gradient evenly, so the result does not depend on an order.
Variable extreme(ReduceOp op, const Variable& x, const Axes& axes, bool keep_axes) {
  const Tensor kept = reduce(op, x.data(), axes, true);
  const Axes reduced = reduced_axes(x.shape(), axes);
  Tensor value = kept;
  if (!keep_axes)
    for (auto axis = reduced.rbegin(); axis != reduced.rend(); ++axis) value = value.squeeze(*axis);
  return record(
      op == ReduceOp::max ? kMax : kMin, value, {x},
      [axes, s = Saved(x), extremes = Saved(kept)](const BackwardContext& c) -> Variables {
        const Tensor &data = s.unpack(c).data(), &best = extremes.unpack(c).data();
        const Tensor winners = (data == best).to(data.dtype());
        const Tensor share = winners / sum(winners, axes, true);
        return {expand(reshape(c.grad(), best.shape()), data.shape()) * Variable(share)};
      },
      SaveOutputs::no, reduced);
}

}  // namespace

Variable sum(const Variable& x, const Axes& axes, bool keep_axes) {
  return record(
      kSum, sum(x.data(), axes, keep_axes), {x},
      [shape = x.shape(), kept = kept_shape(x.shape(), axes)](const BackwardContext& c) -> Variables {
        return {expand(reshape(c.grad(), kept), shape)};
      },
      SaveOutputs::no, reduced_axes(x.shape(), axes));
}

Variable mean(const Variable& x, const Axes& axes, bool keep_axes) {
  return sum(x, axes, keep_axes) * (1 / elements_per_result(x.shape(), axes));
}

Variable variance(const Variable& x, const Axes& axes, bool keep_axes, int correction) {
  const Variable centred = x - mean(x, axes, true);
  // With a correction of the count or more nothing is left to divide by: infinite, or NaN where all are equal.
  const double degrees = std::max(elements_per_result(x.shape(), axes) - correction, 0.0);
  return sum(square(centred), axes, keep_axes) * (1 / degrees);
}

Variable max(const Variable& x, const Axes& axes, bool keep_axes) { return extreme(ReduceOp::max, x, axes, keep_axes); }

Variable min(const Variable& x, const Axes& axes, bool keep_axes) { return extreme(ReduceOp::min, x, axes, keep_axes); }

Variable sum_to(const Variable& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  return record(kSumTo, sum_to(x.data(), shape), {x},
                [from = x.shape()](const BackwardContext& c) -> Variables { return {expand(c.grad(), from)}; });
}

Variable logsumexp(const Variable& x, int axis, bool keep_axis) {
  // Shifted by the maximum, so that exp cannot overflow; the shift is a constant to the gradient.
  const Tensor largest = max(x.data(), {axis}, true);
  // An infinite maximum is no shift: infinity - infinity is NaN.
  const Tensor zero = Tensor::scalar(0, x.dtype(), x.device());
  const Variable shift = where(abs(largest) == std::numeric_limits<double>::infinity(), zero, largest);
  const Variable result = log(sum(exp(x - shift), {axis}, true)) + shift;
  return keep_axis ? result : squeeze(result, axis);
}

}  // namespace espalier
