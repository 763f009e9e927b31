// cuDNN's batch normalisation (Ioffe and Szegedy, 2015), per channel or per activation. Statistics are summed in
// double.
#include <algorithm>
#include <cmath>

#include "cuda/emulation/cudnn_descriptors.h"

namespace espalier::emulation {
namespace {

/// Elements that share a mean: those of a channel, or those of one place in every image.
struct Groups {
  Layout x;
  bool spatial;

  int64_t count() const { return spatial ? x.c : x.c * x.h * x.w; }
  int64_t members() const { return spatial ? x.n * x.h * x.w : x.n; }
  /// Where group g's parameter lies.
  int64_t parameter(const Layout& l, int64_t g) const {
    return spatial ? l.at(0, g, 0, 0) : l.at(0, g / (x.h * x.w), g / x.w % x.h, g % x.w);
  }
  /// Calls f(n, c, h, w) for the elements of group g.
  template <class F>
  void for_each(int64_t g, F f) const {
    for (int64_t n = 0; n < x.n; ++n) {
      if (!spatial) {
        f(n, g / (x.h * x.w), g / x.w % x.h, g % x.w);
        continue;
      }
      for (int64_t h = 0; h < x.h; ++h)
        for (int64_t w = 0; w < x.w; ++w) f(n, g, h, w);
    }
  }
};

struct Moments {
  double mean, variance;  ///< of the group; the variance is the biased one
};

template <class T>
Moments moments(const Groups& groups, int64_t g, const T* x) {
  double sum = 0, squares = 0;
  groups.for_each(g, [&](auto... i) { sum += x[groups.x.at(i...)]; });
  const double mean = sum / double(groups.members());
  groups.for_each(g, [&](auto... i) {
    const double distance = x[groups.x.at(i...)] - mean;
    squares += distance * distance;
  });
  return {mean, squares / double(groups.members())};
}

/// What all of them check; p is the descriptor of scale, bias, mean and variance.
cudnnStatus_t check(cudnnBatchNormMode_t mode, const cudnnTensorStruct* x, const cudnnTensorStruct* y,
                    const cudnnTensorStruct* p, double epsilon) {
  if (!x || !y || !p || mode < CUDNN_BATCHNORM_PER_ACTIVATION || mode > CUDNN_BATCHNORM_SPATIAL_PERSISTENT ||
      !same_dims(*x, *y) || x->type != y->type || !(epsilon >= CUDNN_BN_MIN_EPSILON))
    return CUDNN_STATUS_BAD_PARAM;
  const bool spatial = mode != CUDNN_BATCHNORM_PER_ACTIVATION;
  if (!has_dims(*p, 1, x->dims[1], spatial ? 1 : x->dims[2], spatial ? 1 : x->dims[3]) || p->type != x->type)
    return CUDNN_STATUS_BAD_PARAM;
  return supported(*x) && supported(*y) && supported(*p) ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}

/// A parameter tensor that the call writes, if the caller wants it.
template <class T>
T* optional_output(cudnnHandle_t handle, const cudnnTensorStruct& d, void* p, bool reads, const char* call) {
  if (!p) return nullptr;
  if (reads) read<T>(handle, d, p, call);
  return static_cast<T*>(device_write(p, static_cast<size_t>(span(d)) * sizeof(T), handle->stream, call));
}

}  // namespace
}  // namespace espalier::emulation

namespace emulation = espalier::emulation;

extern "C" {

cudnnStatus_t cudnnDeriveBNTensorDescriptor(cudnnTensorDescriptor_t derivedBnDesc, const cudnnTensorDescriptor_t xDesc,
                                            cudnnBatchNormMode_t mode) {
  if (!derivedBnDesc || !xDesc || xDesc->rank < 4) return CUDNN_STATUS_BAD_PARAM;
  if (mode < CUDNN_BATCHNORM_PER_ACTIVATION || mode > CUDNN_BATCHNORM_SPATIAL_PERSISTENT) return CUDNN_STATUS_BAD_PARAM;
  cudnnTensorStruct derived = *xDesc;
  derived.type = xDesc->type == CUDNN_DATA_DOUBLE ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
  derived.dims[0] = 1;
  if (mode != CUDNN_BATCHNORM_PER_ACTIVATION) std::fill_n(derived.dims.begin() + 2, derived.rank - 2, 1);
  for (int axis = derived.rank - 1, stride = 1; axis >= 0; stride *= derived.dims[axis--])
    derived.strides[axis] = stride;
  *derivedBnDesc = derived;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBatchNormalizationForwardTraining(cudnnHandle_t handle, cudnnBatchNormMode_t mode, const void* alpha,
                                                     const void* beta, const cudnnTensorDescriptor_t xDesc,
                                                     const void* x, const cudnnTensorDescriptor_t yDesc, void* y,
                                                     const cudnnTensorDescriptor_t bnScaleBiasMeanVarDesc,
                                                     const void* bnScale, const void* bnBias,
                                                     double exponentialAverageFactor, void* resultRunningMean,
                                                     void* resultRunningVariance, double epsilon, void* resultSaveMean,
                                                     void* resultSaveInvVariance) {
  if (!handle || !alpha || !beta || !x || !y || !bnScale || !bnBias) return CUDNN_STATUS_BAD_PARAM;
  if (!resultRunningMean != !resultRunningVariance || !resultSaveMean != !resultSaveInvVariance)
    return CUDNN_STATUS_BAD_PARAM;
  const cudnnStatus_t status = emulation::check(mode, xDesc, yDesc, bnScaleBiasMeanVarDesc, epsilon);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  return emulation::with_type(xDesc->type, [&]<class T>(T) {
    const auto& p = *bnScaleBiasMeanVarDesc;
    const emulation::Layout to(*yDesc), parameters(p);
    const emulation::Groups groups{emulation::Layout(*xDesc), mode != CUDNN_BATCHNORM_PER_ACTIVATION};
    // With a factor of 1 the running statistics are set: what they held is not read.
    const double factor = exponentialAverageFactor;
    const bool blends = factor != 1;
    const T* const from = emulation::read<T>(handle, *xDesc, x, "cudnnBatchNormalizationForwardTraining, x");
    const T* const scale = emulation::read<T>(handle, p, bnScale, "cudnnBatchNormalizationForwardTraining, bnScale");
    const T* const bias = emulation::read<T>(handle, p, bnBias, "cudnnBatchNormalizationForwardTraining, bnBias");
    T* const running_mean = emulation::optional_output<T>(handle, p, resultRunningMean, blends,
                                                          "cudnnBatchNormalizationForwardTraining, resultRunningMean");
    T* const running_variance = emulation::optional_output<T>(
        handle, p, resultRunningVariance, blends, "cudnnBatchNormalizationForwardTraining, resultRunningVariance");
    T* const saved_mean = emulation::optional_output<T>(handle, p, resultSaveMean, false,
                                                        "cudnnBatchNormalizationForwardTraining, resultSaveMean");
    T* const saved_inverse = emulation::optional_output<T>(
        handle, p, resultSaveInvVariance, false, "cudnnBatchNormalizationForwardTraining, resultSaveInvVariance");
    const emulation::Output<T> out(handle, *yDesc, y, alpha, beta, "cudnnBatchNormalizationForwardTraining, y");
#pragma omp parallel for schedule(static)
    for (int64_t g = 0; g < groups.count(); ++g) {
      const int64_t at = groups.parameter(parameters, g);
      const auto [mean, variance] = emulation::moments(groups, g, from);
      const double inverse = 1 / std::sqrt(variance + epsilon);
      groups.for_each(g, [&](auto... i) {
        out.put(to.at(i...), scale[at] * ((from[groups.x.at(i...)] - mean) * inverse) + bias[at]);
      });
      if (saved_mean) {
        saved_mean[at] = static_cast<T>(mean);
        saved_inverse[at] = static_cast<T>(inverse);
      }
      if (running_mean) {
        const auto m = static_cast<double>(groups.members());
        const double unbiased = variance * m / std::max(m - 1, 1.0);
        running_mean[at] = static_cast<T>(blends ? factor * mean + (1 - factor) * running_mean[at] : mean);
        running_variance[at] =
            static_cast<T>(blends ? factor * unbiased + (1 - factor) * running_variance[at] : unbiased);
      }
    }
  });
}

cudnnStatus_t cudnnBatchNormalizationForwardInference(
    cudnnHandle_t handle, cudnnBatchNormMode_t mode, const void* alpha, const void* beta,
    const cudnnTensorDescriptor_t xDesc, const void* x, const cudnnTensorDescriptor_t yDesc, void* y,
    const cudnnTensorDescriptor_t bnScaleBiasMeanVarDesc, const void* bnScale, const void* bnBias,
    const void* estimatedMean, const void* estimatedVariance, double epsilon) {
  if (!handle || !alpha || !beta || !x || !y || !bnScale || !bnBias || !estimatedMean || !estimatedVariance)
    return CUDNN_STATUS_BAD_PARAM;
  const cudnnStatus_t status = emulation::check(mode, xDesc, yDesc, bnScaleBiasMeanVarDesc, epsilon);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  return emulation::with_type(xDesc->type, [&]<class T>(T) {
    const auto& p = *bnScaleBiasMeanVarDesc;
    const emulation::Layout to(*yDesc), parameters(p);
    const emulation::Groups groups{emulation::Layout(*xDesc), mode != CUDNN_BATCHNORM_PER_ACTIVATION};
    const auto parameter = [&](const void* data, const char* call) {
      return emulation::read<T>(handle, p, data, call);
    };
    const T* const from = emulation::read<T>(handle, *xDesc, x, "cudnnBatchNormalizationForwardInference, x");
    const T* const scale = parameter(bnScale, "cudnnBatchNormalizationForwardInference, bnScale");
    const T* const bias = parameter(bnBias, "cudnnBatchNormalizationForwardInference, bnBias");
    const T* const mean = parameter(estimatedMean, "cudnnBatchNormalizationForwardInference, estimatedMean");
    const T* const variance =
        parameter(estimatedVariance, "cudnnBatchNormalizationForwardInference, estimatedVariance");
    const emulation::Output<T> out(handle, *yDesc, y, alpha, beta, "cudnnBatchNormalizationForwardInference, y");
#pragma omp parallel for schedule(static)
    for (int64_t g = 0; g < groups.count(); ++g) {
      const int64_t at = groups.parameter(parameters, g);
      const double inverse = 1 / std::sqrt(variance[at] + epsilon);
      groups.for_each(g, [&](auto... i) {
        out.put(to.at(i...), scale[at] * ((from[groups.x.at(i...)] - mean[at]) * inverse) + bias[at]);
      });
    }
  });
}

cudnnStatus_t cudnnBatchNormalizationBackward(
    cudnnHandle_t handle, cudnnBatchNormMode_t mode, const void* alphaDataDiff, const void* betaDataDiff,
    const void* alphaParamDiff, const void* betaParamDiff, const cudnnTensorDescriptor_t xDesc, const void* x,
    const cudnnTensorDescriptor_t dyDesc, const void* dy, const cudnnTensorDescriptor_t dxDesc, void* dx,
    const cudnnTensorDescriptor_t dBnScaleBiasDesc, const void* bnScale, void* dBnScaleResult, void* dBnBiasResult,
    double epsilon, const void* savedMean, const void* savedInvVariance) {
  if (!handle || !alphaDataDiff || !betaDataDiff || !alphaParamDiff || !betaParamDiff || !x || !dy || !dx || !bnScale ||
      !dBnScaleResult || !dBnBiasResult || !savedMean != !savedInvVariance)
    return CUDNN_STATUS_BAD_PARAM;
  const cudnnStatus_t status = emulation::check(mode, xDesc, dyDesc, dBnScaleBiasDesc, epsilon);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  if (!dxDesc || !emulation::same_dims(*xDesc, *dxDesc) || xDesc->type != dxDesc->type) return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*dxDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(xDesc->type, [&]<class T>(T) {
    const auto& p = *dBnScaleBiasDesc;
    const emulation::Layout from(*dyDesc), to(*dxDesc), parameters(p);
    const emulation::Groups groups{emulation::Layout(*xDesc), mode != CUDNN_BATCHNORM_PER_ACTIVATION};
    const T* const input = emulation::read<T>(handle, *xDesc, x, "cudnnBatchNormalizationBackward, x");
    const T* const gradient = emulation::read<T>(handle, *dyDesc, dy, "cudnnBatchNormalizationBackward, dy");
    const T* const scale = emulation::read<T>(handle, p, bnScale, "cudnnBatchNormalizationBackward, bnScale");
    const T *saved_mean = nullptr, *saved_inverse = nullptr;
    if (savedMean) {
      saved_mean = emulation::read<T>(handle, p, savedMean, "cudnnBatchNormalizationBackward, savedMean");
      saved_inverse =
          emulation::read<T>(handle, p, savedInvVariance, "cudnnBatchNormalizationBackward, savedInvVariance");
    }
    const emulation::Output<T> out(handle, *dxDesc, dx, alphaDataDiff, betaDataDiff,
                                   "cudnnBatchNormalizationBackward, dx");
    const emulation::Output<T> scale_out(handle, p, dBnScaleResult, alphaParamDiff, betaParamDiff,
                                         "cudnnBatchNormalizationBackward, dBnScaleResult");
    const emulation::Output<T> bias_out(handle, p, dBnBiasResult, alphaParamDiff, betaParamDiff,
                                        "cudnnBatchNormalizationBackward, dBnBiasResult");
#pragma omp parallel for schedule(static)
    for (int64_t g = 0; g < groups.count(); ++g) {
      const int64_t at = groups.parameter(parameters, g);
      double mean, inverse;
      if (saved_mean) {
        mean = saved_mean[at];
        inverse = saved_inverse[at];
      } else {
        const emulation::Moments m = emulation::moments(groups, g, input);
        mean = m.mean;
        inverse = 1 / std::sqrt(m.variance + epsilon);
      }
      double sum = 0, weighted = 0;  // of dy, and of dy times the normalised input
      groups.for_each(g, [&](auto... i) {
        const double passed = gradient[from.at(i...)];
        sum += passed;
        weighted += passed * (input[groups.x.at(i...)] - mean) * inverse;
      });
      const auto m = static_cast<double>(groups.members());
      const double factor = scale[at] * inverse;
      groups.for_each(g, [&](auto... i) {
        const double normalised = (input[groups.x.at(i...)] - mean) * inverse;
        out.put(to.at(i...), factor * (gradient[from.at(i...)] - sum / m - normalised * weighted / m));
      });
      scale_out.put(at, weighted);
      bias_out.put(at, sum);
    }
  });
}

}  // extern "C"
