// cuDNN's activation functions.
#include <algorithm>
#include <cmath>

#include "cuda/emulation/cudnn_descriptors.h"

namespace espalier::emulation {

double activate(const cudnnActivationStruct& activation, double x) {
  const bool keeps_nan = activation.nan == CUDNN_PROPAGATE_NAN && std::isnan(x);
  switch (activation.mode) {
    case CUDNN_ACTIVATION_SIGMOID: return 1 / (1 + std::exp(-x));
    case CUDNN_ACTIVATION_RELU: return keeps_nan || x > 0 ? x : 0;
    case CUDNN_ACTIVATION_TANH: return std::tanh(x);
    case CUDNN_ACTIVATION_CLIPPED_RELU: return keeps_nan ? x : x > 0 ? std::min(x, activation.coef) : 0;
    case CUDNN_ACTIVATION_ELU: return x > 0 ? x : activation.coef * std::expm1(x);
    case CUDNN_ACTIVATION_IDENTITY: return x;
  }
  return NAN;
}

namespace {

/// The derivative at x, where the function is y.
double slope(const cudnnActivationStruct& activation, double x, double y) {
  switch (activation.mode) {
    case CUDNN_ACTIVATION_SIGMOID: return y * (1 - y);
    case CUDNN_ACTIVATION_RELU: return x > 0 ? 1 : 0;
    case CUDNN_ACTIVATION_TANH: return 1 - y * y;
    case CUDNN_ACTIVATION_CLIPPED_RELU: return x > 0 && x <= activation.coef ? 1 : 0;
    case CUDNN_ACTIVATION_ELU: return x > 0 ? 1 : y + activation.coef;
    case CUDNN_ACTIVATION_IDENTITY: return 1;
  }
  return NAN;
}

}  // namespace
}  // namespace espalier::emulation

namespace emulation = espalier::emulation;

extern "C" {

cudnnStatus_t cudnnSetActivationDescriptor(cudnnActivationDescriptor_t desc, cudnnActivationMode_t mode,
                                           cudnnNanPropagation_t reluNanOpt, double coef) {
  if (!desc || mode < CUDNN_ACTIVATION_SIGMOID || mode > CUDNN_ACTIVATION_IDENTITY ||
      (reluNanOpt != CUDNN_NOT_PROPAGATE_NAN && reluNanOpt != CUDNN_PROPAGATE_NAN))
    return CUDNN_STATUS_BAD_PARAM;
  *desc = {mode, reluNanOpt, coef};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetActivationDescriptor(const cudnnActivationDescriptor_t desc, cudnnActivationMode_t* mode,
                                           cudnnNanPropagation_t* reluNanOpt, double* coef) {
  if (!desc || !mode || !reluNanOpt || !coef) return CUDNN_STATUS_BAD_PARAM;
  *mode = desc->mode;
  *reluNanOpt = desc->nan;
  *coef = desc->coef;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnActivationForward(cudnnHandle_t handle, cudnnActivationDescriptor_t activationDesc,
                                     const void* alpha, const cudnnTensorDescriptor_t xDesc, const void* x,
                                     const void* beta, const cudnnTensorDescriptor_t yDesc, void* y) {
  if (!handle || !activationDesc || !alpha || !xDesc || !x || !beta || !yDesc || !y) return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::same_dims(*xDesc, *yDesc) || xDesc->type != yDesc->type) return CUDNN_STATUS_BAD_PARAM;
  if (x == y && xDesc->strides != yDesc->strides) return CUDNN_STATUS_BAD_PARAM;
  if (activationDesc->mode == CUDNN_ACTIVATION_IDENTITY || !emulation::supported(*xDesc) ||
      !emulation::supported(*yDesc))
    return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(xDesc->type, [&]<class T>(T) {
    const emulation::Layout from(*xDesc), to(*yDesc);
    const T* const in = emulation::read<T>(handle, *xDesc, x, "cudnnActivationForward, x");
    const emulation::Output<T> out(handle, *yDesc, y, alpha, beta, "cudnnActivationForward, y");
    emulation::for_each(
        to, [&](auto... i) { out.put(to.at(i...), emulation::activate(*activationDesc, in[from.at(i...)])); });
  });
}

cudnnStatus_t cudnnActivationBackward(cudnnHandle_t handle, cudnnActivationDescriptor_t activationDesc,
                                      const void* alpha, const cudnnTensorDescriptor_t yDesc, const void* y,
                                      const cudnnTensorDescriptor_t dyDesc, const void* dy,
                                      const cudnnTensorDescriptor_t xDesc, const void* x, const void* beta,
                                      const cudnnTensorDescriptor_t dxDesc, void* dx) {
  if (!handle || !activationDesc || !alpha || !yDesc || !y || !dyDesc || !dy || !xDesc || !x || !beta || !dxDesc || !dx)
    return CUDNN_STATUS_BAD_PARAM;
  if (dy == dx && dyDesc->strides != dxDesc->strides) return CUDNN_STATUS_BAD_PARAM;
  const auto same = [&](const cudnnTensorStruct& a, const cudnnTensorStruct& b) {
    return emulation::same_dims(a, b) && a.type == b.type;
  };
  if (!same(*xDesc, *yDesc) || !same(*xDesc, *dxDesc) || !same(*xDesc, *dyDesc) || xDesc->strides != dxDesc->strides ||
      yDesc->strides != dyDesc->strides || !emulation::supported(*xDesc) || !emulation::supported(*yDesc) ||
      activationDesc->mode == CUDNN_ACTIVATION_IDENTITY)
    return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(xDesc->type, [&]<class T>(T) {
    const emulation::Layout inside(*xDesc), outside(*yDesc);
    const T* const input = emulation::read<T>(handle, *xDesc, x, "cudnnActivationBackward, x");
    const T* const result = emulation::read<T>(handle, *yDesc, y, "cudnnActivationBackward, y");
    const T* const gradient = emulation::read<T>(handle, *dyDesc, dy, "cudnnActivationBackward, dy");
    const emulation::Output<T> out(handle, *dxDesc, dx, alpha, beta, "cudnnActivationBackward, dx");
    emulation::for_each(inside, [&](auto... i) {
      const int64_t in = inside.at(i...), at = outside.at(i...);
      out.put(in, gradient[at] * emulation::slope(*activationDesc, input[in], result[at]));
    });
  });
}

}  // extern "C"
