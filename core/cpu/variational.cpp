// Sparse variational dropout by the formulas of core/backend/variational.h, one pass over the memory for each kernel.
#include "core/backend/variational.h"

#include "core/cpu/table.h"
#include "core/cpu/vector_math.h"
#include "core/threads.h"

namespace espalier::cpu {
namespace {

constexpr int64_t kGrainElements = 1 << 14;

/// f(i) for every element; iterations are independent.
template <class F>
void for_each(int64_t n, F f) {
  parallel_for(n, kGrainElements, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace

void log_alpha(const Tensor& weight, const Tensor& log_sigma2, Tensor& out) {
  dispatch_floating(weight.dtype(), "log_alpha", [&]<class T>(T) {
    const T *w = weight.data<T>(), *s = log_sigma2.data<T>();
    T* to = out.data<T>();
    for_each(out.numel(), [=](int64_t i) { to[i] = clipped_log_alpha(s[i], vector_math::log(squared(w[i]))); });
  });
}

void variance_grad(const Tensor& dy, const Tensor& weight, const Tensor& log_alpha, const Tensor& variance, Tensor& dw,
                   Tensor& ds) {
  dispatch_floating(weight.dtype(), "variance_grad", [&]<class T>(T) {
    const T *up = dy.data<T>(), *w = weight.data<T>(), *a = log_alpha.data<T>(), *v = variance.data<T>();
    T *to_w = dw.data<T>(), *to_s = ds.data<T>();
    for_each(dw.numel(), [=](int64_t i) {
      const VariationalGradient<T> g = variance_gradient(up[i], w[i], a[i], v[i]);
      to_w[i] = g.weight;
      to_s[i] = g.log_sigma2;
    });
  });
}

void gaussian_sample(const Tensor& mean, const Tensor& variance, Tensor& noise, Tensor& sample) {
  dispatch_floating(mean.dtype(), "gaussian_sample", [&]<class T>(T) {
    const T *m = mean.data<T>(), *v = variance.data<T>();
    T *slope = noise.data<T>(), *to = sample.data<T>();
    for_each(sample.numel(), [=](int64_t i) {
      const GaussianSample<T> drawn(m[i], v[i], slope[i]);
      to[i] = drawn.sample;
      slope[i] = drawn.slope;
    });
  });
}

void variational_kl_grad(double scale, const Tensor& weight, const Tensor& log_alpha, Tensor& dw, Tensor& ds) {
  dispatch_floating(weight.dtype(), "variational_kl_grad", [&]<class T>(T) {
    using Kl = KlApproximation;
    const T *w = weight.data<T>(), *a = log_alpha.data<T>();
    T *to_w = dw.data<T>(), *to_s = ds.data<T>();
    const T factor = static_cast<T>(scale), k2 = static_cast<T>(Kl::kK2), k3 = static_cast<T>(Kl::kK3);
    for_each(dw.numel(), [=](int64_t i) {
      const VariationalGradient<T> g =
          kl_gradient(factor, w[i], a[i], vector_math::sigmoid(a[i] * k3 + k2), vector_math::sigmoid(a[i]));
      to_w[i] += g.weight;
      to_s[i] += g.log_sigma2;
    });
  });
}

}  // namespace espalier::cpu
