// cuDNN's softmax over the channels of each pixel, or over all of an image.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/emulation/cudnn_descriptors.h"

namespace espalier::emulation {
namespace {

/// Calls row(each) once for each softmax; each(f) calls f(n, c, h, w) for the elements of that softmax.
template <class Row>
void for_each_row(const Layout& l, cudnnSoftmaxMode_t mode, Row row) {
  if (mode == CUDNN_SOFTMAX_MODE_INSTANCE) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < l.n; ++n)
      row([&](auto f) {
        for (int64_t c = 0; c < l.c; ++c)
          for (int64_t h = 0; h < l.h; ++h)
            for (int64_t w = 0; w < l.w; ++w) f(n, c, h, w);
      });
  } else {
#pragma omp parallel for collapse(3) schedule(static)
    for (int64_t n = 0; n < l.n; ++n)
      for (int64_t h = 0; h < l.h; ++h)
        for (int64_t w = 0; w < l.w; ++w)
          row([&](auto f) {
            for (int64_t c = 0; c < l.c; ++c) f(n, c, h, w);
          });
  }
}

bool known(cudnnSoftmaxAlgorithm_t algo, cudnnSoftmaxMode_t mode) {
  return algo >= CUDNN_SOFTMAX_FAST && algo <= CUDNN_SOFTMAX_LOG &&
         (mode == CUDNN_SOFTMAX_MODE_INSTANCE || mode == CUDNN_SOFTMAX_MODE_CHANNEL);
}

}  // namespace
}  // namespace espalier::emulation

namespace emulation = espalier::emulation;

extern "C" {

cudnnStatus_t cudnnSoftmaxForward(cudnnHandle_t handle, cudnnSoftmaxAlgorithm_t algo, cudnnSoftmaxMode_t mode,
                                  const void* alpha, const cudnnTensorDescriptor_t xDesc, const void* x,
                                  const void* beta, const cudnnTensorDescriptor_t yDesc, void* y) {
  if (!handle || !alpha || !xDesc || !x || !beta || !yDesc || !y || !emulation::known(algo, mode))
    return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::same_dims(*xDesc, *yDesc) || xDesc->type != yDesc->type) return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*xDesc) || !emulation::supported(*yDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(xDesc->type, [&]<class T>(T) {
    const emulation::Layout from(*xDesc), to(*yDesc);
    const T* const in = emulation::read<T>(handle, *xDesc, x, "cudnnSoftmaxForward, x");
    const emulation::Output<T> out(handle, *yDesc, y, alpha, beta, "cudnnSoftmaxForward, y");
    emulation::for_each_row(from, mode, [&](auto each) {
      T largest = 0;  // what FAST leaves out: there, large inputs overflow as they do on the GPU
      if (algo != CUDNN_SOFTMAX_FAST) {
        largest = -std::numeric_limits<T>::infinity();
        each([&](auto... i) { largest = std::max(largest, in[from.at(i...)]); });
      }
      double sum = 0;
      each([&](auto... i) { sum += std::exp(in[from.at(i...)] - largest); });
      each([&](auto... i) {
        const T shifted = in[from.at(i...)] - largest;
        out.put(to.at(i...), algo == CUDNN_SOFTMAX_LOG ? shifted - std::log(sum) : std::exp(shifted) / sum);
      });
    });
  });
}

cudnnStatus_t cudnnSoftmaxBackward(cudnnHandle_t handle, cudnnSoftmaxAlgorithm_t algo, cudnnSoftmaxMode_t mode,
                                   const void* alpha, const cudnnTensorDescriptor_t yDesc, const void* y,
                                   const cudnnTensorDescriptor_t dyDesc, const void* dy, const void* beta,
                                   const cudnnTensorDescriptor_t dxDesc, void* dx) {
  if (!handle || !alpha || !yDesc || !y || !dyDesc || !dy || !beta || !dxDesc || !dx || !emulation::known(algo, mode))
    return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::same_dims(*yDesc, *dyDesc) || !emulation::same_dims(*yDesc, *dxDesc) ||
      yDesc->strides != dyDesc->strides || yDesc->type != dyDesc->type || yDesc->type != dxDesc->type)
    return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*yDesc) || !emulation::supported(*dxDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(yDesc->type, [&]<class T>(T) {
    const emulation::Layout from(*yDesc), to(*dxDesc);
    const T* const result = emulation::read<T>(handle, *yDesc, y, "cudnnSoftmaxBackward, y");
    const T* const gradient = emulation::read<T>(handle, *dyDesc, dy, "cudnnSoftmaxBackward, dy");
    const emulation::Output<T> out(handle, *dxDesc, dx, alpha, beta, "cudnnSoftmaxBackward, dx");
    emulation::for_each_row(from, mode, [&](auto each) {
      double sum = 0;
      each([&](auto... i) {
        const int64_t at = from.at(i...);
        sum += algo == CUDNN_SOFTMAX_LOG ? double{gradient[at]} : double{gradient[at]} * result[at];
      });
      each([&](auto... i) {
        const int64_t at = from.at(i...);
        const double value = result[at], passed = gradient[at];
        out.put(to.at(i...), algo == CUDNN_SOFTMAX_LOG ? passed - std::exp(value) * sum : value * (passed - sum));
      });
    });
  });
}

}  // extern "C"
