#include "pruning/learned/variational_ops.h"

#include "autograd/axes.h"
#include "autograd/ops.h"
#include "core/ops.h"
#include "core/random.h"

namespace espalier {

namespace {

/// Throws unless both have one shape, type and device.
void check_alike(const char* operation, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype() && a.device() == b.device(), operation,
        "expected two tensors of one kind, got {} and {}", describe(a), describe(b));
}

Tensor empty_like_contiguous(const Tensor& x) { return Tensor::empty(x.shape(), x.dtype(), x.device()); }

}  // namespace

Tensor log_alpha_of(const Tensor& weight, const Tensor& log_sigma2) {
  check_alike("log_alpha", weight, log_sigma2);
  Tensor result = empty_like_contiguous(weight);
  kernels(weight.device()).log_alpha(weight.contiguous(), log_sigma2.contiguous(), result);
  return result;
}

Variable variational_variance(const Variable& weight, const Variable& log_sigma2) {
  const Tensor w = weight.data().contiguous();
  const Tensor log_alpha = log_alpha_of(w, log_sigma2.data());
  const Tensor variance = exp(log_alpha) * square(w);
  return record({"variational_variance", axes::stay_whole}, variance, {weight, log_sigma2},
                [w, log_alpha, variance](const BackwardContext& c) -> Variables {
                  require_first_derivative_only(c);
                  Tensor dw = empty_like_contiguous(w), ds = empty_like_contiguous(w);
                  kernels(w.device()).variance_grad(c.grad().data().contiguous(), w, log_alpha, variance, dw, ds);
                  return {dw, ds};
                });
}

Variable gaussian_sample(const Variable& mean, const Variable& variance) {
  check_alike("gaussian_sample", mean.data(), variance.data());
  Tensor noise = empty_like_contiguous(mean.data()), sample = empty_like_contiguous(mean.data());
  normal_(noise);
  kernels(noise.device()).gaussian_sample(mean.data().contiguous(), variance.data().contiguous(), noise, sample);
  return record({"gaussian_sample", axes::elementwise}, sample, {mean, variance},
                [noise](const BackwardContext& c) -> Variables {
                  require_first_derivative_only(c);
                  Variables grads(2);
                  if (c.needs(0)) grads[0] = c.grad();
                  if (c.needs(1)) grads[1] = Variable(c.grad().data() * noise);
                  return grads;
                });
}

namespace {
/// Adds scale * d(KL)/dw and scale * d(KL)/d(log sigma^2).
void add_kl_gradient(const Tensor& weight, const Tensor& log_sigma2, double scale, Tensor& dw, Tensor& ds) {
  kernels(weight.device()).variational_kl_grad(scale, weight.contiguous(), log_alpha_of(weight, log_sigma2), dw, ds);
}
}  // namespace

Variable variational_kl(const Variable& weight, const Variable& log_sigma2) {
  const Tensor w = weight.data(), s = log_sigma2.data();
  const Tensor la = log_alpha_of(w, s);
  using Kl = KlApproximation;
  const Tensor gate = unary(UnaryOp::sigmoid, la * Kl::kK3 + Kl::kK2), tail = unary(UnaryOp::log1p, exp(-la));
  const Tensor value = sum(tail * 0.5 - gate * Kl::kK1) + Kl::kK1 * static_cast<double>(w.numel());
  return record({"variational_kl", axes::stay_whole}, value, {weight, log_sigma2},
                [w, s](const BackwardContext& c) -> Variables {
                  require_first_derivative_only(c);
                  Tensor dw = Tensor::zeros_like(w), ds = Tensor::zeros_like(s);
                  add_kl_gradient(w, s, c.grad().item(), dw, ds);
                  return {dw, ds};
                });
}

void add_variational_kl_gradient(Variable weight, Variable log_sigma2, double scale) {
  const auto gradient_of = [](Variable& leaf) {
    // A gradient may be shared with whoever produced it: ours is a copy.
    Tensor g = leaf.grad().defined() ? leaf.grad().data().contiguous().clone()
                                     : Tensor::zeros(leaf.shape(), leaf.dtype(), leaf.device());
    leaf.set_grad(Variable(g));
    return g;
  };
  Tensor dw = gradient_of(weight), ds = gradient_of(log_sigma2);
  add_kl_gradient(weight.data(), log_sigma2.data(), scale, dw, ds);
}

}  // namespace espalier
