// The kernels of sparse variational dropout on the device against the CPU's.
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::epsilon;
using testing::expect_same;
using testing::RandomTensors;

using Tensors = std::vector<Tensor>;

TEST(CudaVariational, AgreesWithTheCpu) {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const Shape& shape : {Shape{0}, Shape{1}, Shape{7, 33}, Shape{5, 3, 3, 3}}) {
      RandomTensors random(dtype);
      Tensor weight = random(shape), log_sigma2 = random(shape, -2, 6), dy = random(shape), noise = random(shape);
      if (shape.numel() > 1) weight.reshape({shape.numel()}).slice(0, 0, 1).fill_(0);  // without a slope
      const double bound = 64 * epsilon(dtype);
      Tensor log_alpha = Tensor::empty(shape, dtype), variance = Tensor::empty(shape, dtype);
      testing::cpu().log_alpha(weight, log_sigma2, log_alpha);
      dispatch_floating(dtype, "test", [&]<class T>(T) {
        for (int64_t i = 0; i < shape.numel(); ++i) {
          const T w = weight.data<T>()[i];
          variance.data<T>()[i] = std::exp(log_alpha.data<T>()[i]) * w * w;
        }
      });
      expect_same(
          {.inputs = {weight, log_sigma2}, .outputs = {log_alpha.clone()}, .absolute = bound, .relative = bound},
          [](const Kernels& k, const Tensors& in, Tensors& out) { k.log_alpha(in[0], in[1], out[0]); });
      expect_same({.inputs = {dy, weight, log_alpha, variance},
                   .outputs = {Tensor::empty(shape, dtype), Tensor::empty(shape, dtype)},
                   .absolute = bound,
                   .relative = bound},
                  [](const Kernels& k, const Tensors& in, Tensors& out) {
                    k.variance_grad(in[0], in[1], in[2], in[3], out[0], out[1]);
                  });
      expect_same(
          {.inputs = {dy, variance},
           .outputs = {noise.clone(), Tensor::zeros(shape, dtype)},
           .absolute = bound,
           .relative = bound,
           .accumulates = true},
          [](const Kernels& k, const Tensors& in, Tensors& out) { k.gaussian_sample(in[0], in[1], out[0], out[1]); });
      expect_same({.inputs = {weight, log_alpha},
                   .outputs = {dy.clone(), noise.clone()},
                   .absolute = 8 * bound,
                   .relative = bound,
                   .accumulates = true},
                  [](const Kernels& k, const Tensors& in, Tensors& out) {
                    k.variational_kl_grad(0.25, in[0], in[1], out[0], out[1]);
                  });
    }
}

}  // namespace
}  // namespace espalier
