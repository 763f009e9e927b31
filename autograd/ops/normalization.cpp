#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

/// x (N,C) or (N,C,H,W), weight and bias (C).
std::vector<TracedTensor> batch_norm_axes(const AxisCall& c) {
  TracedTensor y{.kind = TracedTensor::Kind::data, .axes = {}};
  for (size_t a = 0; a < c.in(0).axes.size(); ++a) {
    y.axes.push_back(axes::as_data(c.in(0).axes[a]));
    // In training all axes but the channels'. The tape of layer_norm has its examples there.
    if (a != 1) c.trace.fix(y.axes[a], "normalised over, by mean and variance");
  }
  axes::use_as_data(c.trace, c.in(0), 1);
  for (const auto& [operand, roles] : {std::pair(size_t{1}, kScales), std::pair(size_t{2}, kShifts)}) {
    if (!c.has(operand)) continue;
    c.trace.unite(y.axes[1], c.in(operand).axes[0]);
    c.trace.declare(c.in(operand).axes[0], roles);
  }
  return {y};
}

constexpr Operation kBatchNorm{"batch_norm", batch_norm_axes}, kBatchNormEval{"batch_norm_eval", batch_norm_axes};

/// All axes but the channels.
Axes statistics_axes(const Variable& x) { return x.rank() == 2 ? Axes{0} : Axes{0, 2, 3}; }

/// A value for each channel, shaped to broadcast over x.
Variable by_channel(const Variable& values, const Variable& x) {
  return x.rank() == 2 ? reshape(values, {1, -1}) : reshape(values, {1, -1, 1, 1});
}

void check_batch(const Variable& x, const Variable& weight, const Variable& bias, const char* operation) {
  check((x.rank() == 2 || x.rank() == 4) && is_floating(x.dtype()), operation,
        "expected f32 or f64 of shape (N,C) or (N,C,H,W), got {}", describe(x.data()));
  for (const Variable& scale : {weight, bias})
    check(!scale.defined() || (scale.shape() == Shape{x.size(1)} && scale.dtype() == x.dtype()), operation,
          "expected weight and bias {} ({}), one value for each channel, got {}", name_of(x.dtype()), x.size(1),
          scale.defined() ? describe(scale.data()) : "");
}

/// As kernels want it: contiguous, or undefined.
Tensor contiguous_or_undefined(const Variable& x) { return x.defined() ? x.data().contiguous() : Tensor(); }

/// (x - mean) / sqrt(var + epsilon) * weight + bias from differentiable operations.
Variable composed_batch_norm(const Variable& x, const Variable& weight, const Variable& bias, double epsilon) {
  const Axes axes = statistics_axes(x);
  const Variable centred = x - mean(x, axes, true);
  Variable y = centred / sqrt(mean(square(centred), axes, true) + epsilon);
  if (weight.defined()) y = y * by_channel(weight, x);
  if (bias.defined()) y = y + by_channel(bias, x);
  return y;
}

/// batch_norm of checked arguments.
Variable normalized_by_batch(const Variable& x, const Variable& weight, const Variable& bias, double epsilon,
                             BatchStats* stats) {
  const Kernels& k = kernels(x.device());
  const Tensor data = x.data().contiguous();
  Tensor mean = Tensor::empty({x.size(1)}, x.dtype(), x.device()), variance = Tensor::empty_like(mean);
  Tensor inv_std = Tensor::empty_like(mean);
  k.batch_norm_stats(data, epsilon, mean, variance, inv_std);
  Tensor y = Tensor::empty_like(data);
  k.batch_norm(data, mean, inv_std, contiguous_or_undefined(weight), contiguous_or_undefined(bias), y);
  if (stats) *stats = {mean, variance};

  return record(
      kBatchNorm, y, {x, weight, bias},
      [xs = Saved(x), ws = Saved(weight), bs = Saved(bias), ms = Saved(mean), inv_std,
       epsilon](const BackwardContext& c) {
        if (grad_enabled())
          return gradients_by_recomputing(
              [epsilon](const Variables& in) -> Variables {
                return {composed_batch_norm(in[0], in[1], in[2], epsilon)};
              },
              {xs, ws, bs}, c);
        const Tensor input = xs.unpack(c).data().contiguous(), dy = c.grad().data().contiguous();
        const Tensor& center = ms.unpack(c).data();
        Tensor dx = Tensor::empty_like(input), dweight = Tensor::empty_like(center), dbias = Tensor::empty_like(center);
        kernels(input.device())
            .batch_norm_grad(dy, input, center, inv_std, contiguous_or_undefined(ws.unpack(c)), dx, dweight, dbias);
        return Variables{dx, dweight, dbias};
      });
}

}  // namespace

Variable batch_norm(const Variable& x, const Variable& weight, const Variable& bias, double epsilon,
                    BatchStats* stats) {
  check_batch(x, weight, bias, "batch_norm");
  check(x.numel() > 0 && x.numel() / x.size(1) > 1, "batch_norm",
        "expected more than one value for each channel in training, got shape {}; use a larger batch or eval()",
        x.shape());
  return normalized_by_batch(x, weight, bias, epsilon, stats);
}

Variable batch_norm_eval(const Variable& x, const Tensor& mean, const Tensor& variance, const Variable& weight,
                         const Variable& bias, double epsilon) {
  check_batch(x, weight, bias, "batch_norm");
  check(mean.shape() == Shape{x.size(1)} && variance.shape() == mean.shape(), "batch_norm",
        "expected statistics of shape ({}), got {} and {}", x.size(1), mean.shape(), variance.shape());
  const Tensor inv_std = unary(UnaryOp::rsqrt, variance + epsilon);
  const Tensor data = x.data().contiguous();
  Tensor y = Tensor::empty_like(data);
  kernels(x.device())
      .batch_norm(data, mean.contiguous(), inv_std, contiguous_or_undefined(weight), contiguous_or_undefined(bias), y);
  return record(kBatchNormEval, y, {x, weight, bias},
                [xs = Saved(x), ws = Saved(weight), ms = Saved(mean), inv_std](const BackwardContext& c) {
                  const Variable &input = xs.unpack(c), &w = ws.unpack(c), &center = ms.unpack(c), &dy = c.grad();
                  const Variable scale = by_channel(inv_std, input);
                  Variables grads(3);
                  if (c.needs(0)) grads[0] = dy * (w.defined() ? scale * by_channel(w, input) : scale);
                  if (c.needs(1))
                    grads[1] = sum(dy * (input - by_channel(center, input)) * scale, statistics_axes(input));
                  if (c.needs(2)) grads[2] = sum(dy, statistics_axes(input));
                  return grads;
                });
}

Variable layer_norm(const Variable& x, int axes, const Variable& weight, const Variable& bias, double epsilon) {
  check(axes >= 1 && axes <= x.rank(), "layer_norm", "expected 1 to {} axes for shape {}, got {}", x.rank(), x.shape(),
        axes);
  const Shape normalized(x.shape().end() - axes, x.shape().end());
  for (const Variable& scale : {weight, bias})
    check(!scale.defined() || scale.shape() == normalized, "layer_norm", "expected weight and bias of shape {}, got {}",
          normalized, scale.defined() ? scale.shape() : Shape{});
  check(normalized.numel() > 0 && is_floating(x.dtype()), "layer_norm",
        "expected f32 or f64 with at least one feature, got {}", describe(x.data()));
  Variable y = x;  // of no examples
  if (x.numel() > 0) {
    // Each example is a channel of its own to batch normalisation: (rows, D) -> (1, rows, D, 1).
    const Variable rows = reshape(x, {1, x.numel() / normalized.numel(), normalized.numel(), 1});
    y = reshape(normalized_by_batch(rows, {}, {}, epsilon, nullptr), x.shape());
  }
  if (weight.defined()) y = y * weight;
  if (bias.defined()) y = y + bias;
  return y;
}

}  // namespace espalier
