#include "pruning/learned/variational_ops.h"

#include <cmath>
#include <type_traits>

#include "autograd/axes.h"
#include "autograd/ops.h"
#include "core/ops.h"
#include "core/random.h"
#include "core/threads.h"

namespace espalier {

namespace {

constexpr double kClip = 8, kEpsilon = 1e-8;
constexpr double kK1 = 0.63576, kK2 = 1.87320, kK3 = 1.48695;
constexpr int64_t kGrain = 1 << 14;

/// f(i) for every element; iterations are independent.
template <class F>
void for_each(int64_t n, F f) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

/// Calls f with a zero of the tensors' type.
template <class F>
void typed(const char* operation, const Tensor& a, const Tensor& b, F&& f) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), operation, "expected two tensors of one kind, got {} and {}",
        describe(a), describe(b));
  check(a.device().is_cpu() && b.device().is_cpu(), operation, "expected tensors on the cpu, got {} and {}",
        describe(a), describe(b));
  if (a.dtype() == DType::f32) return f(float{});
  check(a.dtype() == DType::f64, operation, "expected f32 or f64, got {}", name_of(a.dtype()));
  f(double{});
}

}  // namespace

// These loops run on the CPU. Tensors on another device take the way there and back; `to` is differentiable.

Tensor log_alpha_of(const Tensor& weight, const Tensor& log_sigma2) {
  const Device cpu = Device::cpu();
  if (weight.device() != cpu) return log_alpha_of(weight.to(cpu), log_sigma2.to(cpu)).to(weight.device());
  const Tensor w = weight.contiguous(), s = log_sigma2.contiguous();
  Tensor result = Tensor::empty(w.shape(), w.dtype());
  typed("log_alpha", w, s, [&](auto zero) {
    using T = decltype(zero);
    const T* from = w.data<T>();
    T* to = result.data<T>();
    for_each(w.numel(), [=](int64_t i) { to[i] = from[i] * from[i] + static_cast<T>(kEpsilon); });
    const Tensor logs = log(result);
    const T *log_w2 = logs.data<T>(), *log_s2 = s.data<T>();
    for_each(w.numel(), [=](int64_t i) {
      const T value = log_s2[i] - log_w2[i], low = static_cast<T>(-kClip), high = static_cast<T>(kClip);
      to[i] = value < low ? low : value > high ? high : value;
    });
  });
  return result;
}

Variable variational_variance(const Variable& weight, const Variable& log_sigma2) {
  const Device cpu = Device::cpu();
  if (weight.device() != cpu) return to(variational_variance(to(weight, cpu), to(log_sigma2, cpu)), weight.device());
  const Tensor w = weight.data().contiguous();
  const Tensor log_alpha = log_alpha_of(w, log_sigma2.data());
  Tensor variance = exp(log_alpha);
  typed("variational_variance", w, variance, [&](auto zero) {
    using T = decltype(zero);
    const T* from = w.data<T>();
    T* to = variance.data<T>();
    for_each(w.numel(), [=](int64_t i) { to[i] *= from[i] * from[i]; });
  });
  return record({"variational_variance", axes::stay_whole}, variance, {weight, log_sigma2},
                [w, log_alpha, variance](const BackwardContext& c) -> Variables {
                  require_first_derivative_only(c);
                  const Tensor g = c.grad().data().contiguous();
                  Tensor dw = Tensor::empty(w.shape(), w.dtype()), ds = Tensor::empty(w.shape(), w.dtype());
                  typed("variational_variance", w, g, [&](auto zero) {
                    using T = decltype(zero);
                    const T *x = w.data<T>(), *la = log_alpha.data<T>(), *v = variance.data<T>(), *up = g.data<T>();
                    T *to_w = dw.data<T>(), *to_s = ds.data<T>();
                    for_each(w.numel(), [=](int64_t i) {
                      const bool inside = la[i] > static_cast<T>(-kClip) && la[i] < static_cast<T>(kClip);
                      // alpha w^2 with alpha = exp(s)/(w^2 + e) has the derivative 2 alpha w e/(w^2 + e).
                      const T w2 = x[i] * x[i], slope = x[i] == 0 ? T{0} : 2 * v[i] / x[i];
                      to_w[i] =
                          up[i] * (inside ? slope * static_cast<T>(kEpsilon) / (w2 + static_cast<T>(kEpsilon)) : slope);
                      to_s[i] = inside ? up[i] * v[i] : T{0};
                    });
                  });
                  return {dw, ds};
                });
}

Variable gaussian_sample(const Variable& mean, const Variable& variance) {
  const Device cpu = Device::cpu();
  if (mean.device() != cpu) return to(gaussian_sample(to(mean, cpu), to(variance, cpu)), mean.device());
  const Tensor m = mean.data().contiguous(), v = variance.data().contiguous();
  Tensor noise = Tensor::empty(m.shape(), m.dtype(), m.device());
  normal_(noise);
  Tensor sample = Tensor::empty(m.shape(), m.dtype(), m.device());
  typed("gaussian_sample", m, v, [&](auto zero) {
    using T = decltype(zero);
    const T *centre = m.data<T>(), *spread = v.data<T>();
    T *to = sample.data<T>(), *slope = noise.data<T>();
    for_each(m.numel(), [=](int64_t i) {
      const T deviation = std::sqrt(spread[i] + static_cast<T>(kEpsilon));
      to[i] = centre[i] + deviation * slope[i];
      slope[i] /= 2 * deviation;  // what backward needs of it
    });
  });
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
  if (const Device cpu = Device::cpu(); weight.device() != cpu) {
    Tensor host_dw = dw.to(cpu), host_ds = ds.to(cpu);
    add_kl_gradient(weight.to(cpu), log_sigma2.to(cpu), scale, host_dw, host_ds);
    dw.copy_(host_dw);
    ds.copy_(host_ds);
    return;
  }
  const Tensor w = weight.contiguous(), la = log_alpha_of(w, log_sigma2);
  const Tensor gate = unary(UnaryOp::sigmoid, la * kK3 + kK2), rest = unary(UnaryOp::sigmoid, la);
  typed("variational_kl", w, dw, [&](auto zero) {
    using T = decltype(zero);
    const T *x = w.data<T>(), *a = la.data<T>(), *p = gate.data<T>(), *q = rest.data<T>();
    T *to_w = dw.data<T>(), *to_s = ds.data<T>();
    const T factor = static_cast<T>(scale);
    for_each(w.numel(), [=](int64_t i) {
      const bool inside = a[i] > static_cast<T>(-kClip) && a[i] < static_cast<T>(kClip);
      const T slope = -static_cast<T>(kK1 * kK3) * p[i] * (1 - p[i]) - static_cast<T>(0.5) * (1 - q[i]);
      const T g = inside ? factor * slope : T{0};
      to_s[i] += g;
      to_w[i] -= g * 2 * x[i] / (x[i] * x[i] + static_cast<T>(kEpsilon));
    });
  });
}
}  // namespace

Variable variational_kl(const Variable& weight, const Variable& log_sigma2) {
  const Tensor w = weight.data(), s = log_sigma2.data();
  const Tensor la = log_alpha_of(w, s);
  const Tensor gate = unary(UnaryOp::sigmoid, la * kK3 + kK2), tail = unary(UnaryOp::log1p, exp(-la));
  const Tensor value = sum(tail * 0.5 - gate * kK1) + kK1 * static_cast<double>(w.numel());
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
