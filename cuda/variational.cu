// Sparse variational dropout by the formulas of core/backend/variational.h, a thread for a weight.
#include "core/backend/variational.h"

#include "cuda/sigmoid.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;

/// f(i) for every i < n.
template <class F>
__global__ void for_each_kernel(int64_t n, F f) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) f(i);
}

template <class F>
void for_each(const char* name, const Tensor& like, const F& f) {
  if (like.numel() == 0) return;
  Context& context = Context::of(like.device());
  launch(context, {name, blocks_for(context, like.numel(), kThreads), kThreads}, for_each_kernel<F>, like.numel(), f);
}

template <class T>
struct LogAlpha {
  const T *weight, *log_sigma2;
  T* out;
  __device__ void operator()(int64_t i) const {
    out[i] = clipped_log_alpha(log_sigma2[i], std::log(squared(weight[i])));
  }
};

template <class T>
struct VarianceGrad {
  const T *dy, *weight, *log_alpha, *variance;
  T *dw, *ds;
  __device__ void operator()(int64_t i) const {
    const VariationalGradient<T> g = variance_gradient(dy[i], weight[i], log_alpha[i], variance[i]);
    dw[i] = g.weight;
    ds[i] = g.log_sigma2;
  }
};

template <class T>
struct Sample {
  const T *mean, *variance;
  T *noise, *sample;
  __device__ void operator()(int64_t i) const {
    const GaussianSample<T> drawn(mean[i], variance[i], noise[i]);
    sample[i] = drawn.sample;
    noise[i] = drawn.slope;
  }
};

template <class T>
struct KlGrad {
  T scale, k2, k3;
  const T *weight, *log_alpha;
  T *dw, *ds;
  __device__ void operator()(int64_t i) const {
    const T a = log_alpha[i];
    const VariationalGradient<T> g = kl_gradient(scale, weight[i], a, sigmoid(a * k3 + k2), sigmoid(a));
    dw[i] += g.weight;
    ds[i] += g.log_sigma2;
  }
};

}  // namespace

void log_alpha(const Tensor& weight, const Tensor& log_sigma2, Tensor& out) {
  dispatch_floating(weight.dtype(), "log_alpha", [&]<class T>(T) {
    for_each("log_alpha", out, LogAlpha<T>{weight.data<T>(), log_sigma2.data<T>(), out.data<T>()});
  });
}

void variance_grad(const Tensor& dy, const Tensor& weight, const Tensor& log_alpha, const Tensor& variance, Tensor& dw,
                   Tensor& ds) {
  dispatch_floating(weight.dtype(), "variance_grad", [&]<class T>(T) {
    for_each("variance_grad", dw,
             VarianceGrad<T>{dy.data<T>(), weight.data<T>(), log_alpha.data<T>(), variance.data<T>(), dw.data<T>(),
                             ds.data<T>()});
  });
}

void gaussian_sample(const Tensor& mean, const Tensor& variance, Tensor& noise, Tensor& sample) {
  dispatch_floating(mean.dtype(), "gaussian_sample", [&]<class T>(T) {
    for_each("gaussian_sample", sample,
             Sample<T>{mean.data<T>(), variance.data<T>(), noise.data<T>(), sample.data<T>()});
  });
}

void variational_kl_grad(double scale, const Tensor& weight, const Tensor& log_alpha, Tensor& dw, Tensor& ds) {
  dispatch_floating(weight.dtype(), "variational_kl_grad", [&]<class T>(T) {
    using Kl = KlApproximation;
    for_each("variational_kl_grad", dw,
             KlGrad<T>{static_cast<T>(scale), static_cast<T>(Kl::kK2), static_cast<T>(Kl::kK3), weight.data<T>(),
                       log_alpha.data<T>(), dw.data<T>(), ds.data<T>()});
  });
}

}  // namespace espalier::cuda
