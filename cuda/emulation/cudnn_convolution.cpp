// cuDNN's convolutions in both directions: the input is lowered to a matrix with a column for each output pixel
// (im2col) and multiplied by OpenBLAS, several images at a time. All algorithms compute this; those that are not
// deterministic sum in an order that changes from call to call.
#include "cuda/emulation/cudnn_convolution.h"

#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "cuda/emulation/rounding.h"

namespace espalier::emulation {
namespace {

void multiply(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float* a, const float* b, float beta, float* c) {
  // (M,K)(K,N) -> (M,N) row-major and packed: lda = K or M, ldb = N or K, ldc = N
  cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, static_cast<int>(m),
              static_cast<int>(n), static_cast<int>(k), 1, a, static_cast<int>(ta ? m : k), b,
              static_cast<int>(tb ? k : n), beta, c, static_cast<int>(n));
}
void multiply(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const double* a, const double* b, double beta,
              double* c) {
  // (M,K)(K,N) -> (M,N) row-major and packed, as above
  cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, static_cast<int>(m),
              static_cast<int>(n), static_cast<int>(k), 1, a, static_cast<int>(ta ? m : k), b,
              static_cast<int>(tb ? k : n), beta, c, static_cast<int>(n));
}

/// What the tensor cores make of float inputs: the default allows TF32 ("cudnnMathType_t" in the documentation), and
/// only CUDNN_FMA_MATH rules them out.
Precision precision_of(const Convolution& conv) {
  switch (conv.math) {
    case CUDNN_FMA_MATH: return Precision::full;
    case CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION: return Precision::fp16;
    default: return Precision::tf32;
  }
}

/// A different number for every call of a non-deterministic algorithm.
unsigned turn() {
  static std::atomic<unsigned> calls{0};
  return ++calls;
}

/// Output columns [begin, end) of one row whose input column begin * stride + offset lies inside [0, width).
struct Inside {
  int64_t begin, end;
  Inside(int64_t offset, int64_t stride, int64_t width, int64_t columns)
      : begin(std::clamp<int64_t>((std::max<int64_t>(0, -offset) + stride - 1) / stride, 0, columns)),
        end(std::clamp<int64_t>(width - offset <= 0 ? 0 : (width - offset + stride - 1) / stride, begin, columns)) {}
};

/// The three passes for one element type.
template <class T>
class Passes {
 public:
  Passes(const Convolution& conv, Layout x, Layout y)
      : c_(conv),
        x_(x),
        y_(y),
        precision_(precision_of(conv)),
        chunk_(std::clamp<int64_t>((int64_t{1} << 20) / (conv.rows() * conv.p * conv.q), 1, conv.n)),
        columns_(static_cast<size_t>(conv.rows() * chunk_ * conv.p * conv.q)),
        products_(static_cast<size_t>(conv.k / conv.groups * chunk_ * conv.p * conv.q)) {}

  /// finish(n, k, p, q, value) receives every element of the output.
  template <class Finish>
  void forward(const T* x, const T* w, Finish finish) {
    const int64_t filters = c_.k / c_.groups, pixels = c_.p * c_.q;
    for (int64_t group = 0; group < c_.groups; ++group) {
      const std::vector<T> weights = load_filters(w, group);
      for (int64_t first = 0; first < c_.n; first += chunk_) {
        const int64_t images = std::min(chunk_, c_.n - first);
        lower(x, group, first, images, 0);
        // (K,CRS)(CRS,images*PQ) -> (K,images*PQ)
        multiply(false, false, filters, images * pixels, c_.rows(), weights.data(), columns_.data(), T{0},
                 products_.data());
#pragma omp parallel for collapse(2) schedule(static)
        for (int64_t k = 0; k < filters; ++k)
          for (int64_t i = 0; i < images; ++i)
            for (int64_t p = 0; p < c_.p; ++p)
              for (int64_t q = 0; q < c_.q; ++q)
                finish(first + i, group * filters + k, p, q, products_[(k * images + i) * pixels + p * c_.q + q]);
      }
    }
  }

  void backward_data(const T* w, const T* dy, unsigned shift, const Output<T>& dx) {
    const int64_t filters = c_.k / c_.groups, pixels = c_.p * c_.q;
    for (int64_t group = 0; group < c_.groups; ++group) {
      const std::vector<T> weights = load_filters(w, group);
      for (int64_t first = 0; first < c_.n; first += chunk_) {
        const int64_t images = std::min(chunk_, c_.n - first);
        load_products(dy, group, first, images, 0);
        // (K,CRS)^T(K,images*PQ) -> (CRS,images*PQ)
        multiply(true, false, c_.rows(), images * pixels, filters, weights.data(), products_.data(), T{0},
                 columns_.data());
        raise(group, first, images, shift, dx);
      }
    }
  }

  void backward_filter(const T* x, const T* dy, unsigned shift, const Output<T>& dw) {
    const int64_t filters = c_.k / c_.groups, pixels = c_.p * c_.q;
    std::vector<T> sums(static_cast<size_t>(filters * c_.rows()));
    for (int64_t group = 0; group < c_.groups; ++group) {
      for (int64_t first = 0; first < c_.n; first += chunk_) {
        const int64_t images = std::min(chunk_, c_.n - first);
        lower(x, group, first, images, shift);
        load_products(dy, group, first, images, shift);
        // (K,images*PQ)(CRS,images*PQ)^T -> (K,CRS), summed over the chunks
        multiply(false, true, filters, c_.rows(), images * pixels, products_.data(), columns_.data(),
                 first == 0 ? T{0} : T{1}, sums.data());
      }
      for (int64_t i = 0; i < filters * c_.rows(); ++i)
        dw.put(group * filters * c_.rows() + turned(i), sums[static_cast<size_t>(i)]);
    }
  }

 private:
  T rounded(T value) const { return round_to(precision_, value); }
  /// Image i of a sum over images that begins `shift` images later.
  int64_t image(int64_t i, unsigned shift) const { return (i + shift) % c_.n; }
  /// Where weight i of a (K,C,R,S) filter lies when its taps are counted as a cross-correlation meets them.
  int64_t turned(int64_t i) const {
    const int64_t taps = c_.r * c_.s;
    return c_.flipped ? i / taps * taps + (taps - 1 - i % taps) : i;
  }

  /// One group's filters, (K,CRS).
  std::vector<T> load_filters(const T* w, int64_t group) const {
    const int64_t count = c_.k / c_.groups * c_.rows();
    std::vector<T> out(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) out[static_cast<size_t>(i)] = rounded(w[group * count + turned(i)]);
    return out;
  }

  /// columns_ (CRS,images*PQ) = the input pixels that meet each weight.
  void lower(const T* x, int64_t group, int64_t first, int64_t images, unsigned shift) {
    const int64_t taps = c_.r * c_.s;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t row = 0; row < c_.rows(); ++row)
      for (int64_t i = 0; i < images; ++i) {
        const int64_t channel = group * (c_.c / c_.groups) + row / taps;
        const int64_t r = row % taps / c_.s, s = row % c_.s;
        const T* const plane = x + image(first + i, shift) * x_.n_stride + channel * x_.c_stride;
        const int64_t offset = s * c_.dilation[1] - c_.pad[1];
        const Inside inside(offset, c_.stride[1], c_.w, c_.q);
        T* out = columns_.data() + (row * images + i) * c_.p * c_.q;
        for (int64_t p = 0; p < c_.p; ++p, out += c_.q) {
          const int64_t h = p * c_.stride[0] + r * c_.dilation[0] - c_.pad[0];
          std::fill_n(out, c_.q, T{0});
          if (h < 0 || h >= c_.h) continue;
          const T* const line = plane + h * x_.h_stride;
          for (int64_t q = inside.begin; q < inside.end; ++q)
            out[q] = rounded(line[(q * c_.stride[1] + offset) * x_.w_stride]);
        }
      }
  }

  /// dx = the sum of the columns at each input pixel: the transpose of lower(). The sum over a filter's taps begins
  /// with tap `shift`.
  void raise(int64_t group, int64_t first, int64_t images, unsigned shift, const Output<T>& dx) const {
    const int64_t taps = c_.r * c_.s, channels = c_.c / c_.groups;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t i = 0; i < images; ++i)
      for (int64_t c = 0; c < channels; ++c) {
        std::vector<T> plane(static_cast<size_t>(c_.h * c_.w), T{0});
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t tap = (t + shift) % taps, r = tap / c_.s, s = tap % c_.s;
          const int64_t offset = s * c_.dilation[1] - c_.pad[1];
          const Inside inside(offset, c_.stride[1], c_.w, c_.q);
          const T* from = columns_.data() + ((c * taps + tap) * images + i) * c_.p * c_.q;
          for (int64_t p = 0; p < c_.p; ++p, from += c_.q) {
            const int64_t h = p * c_.stride[0] + r * c_.dilation[0] - c_.pad[0];
            if (h < 0 || h >= c_.h) continue;
            T* const line = plane.data() + h * c_.w;
            for (int64_t q = inside.begin; q < inside.end; ++q) line[q * c_.stride[1] + offset] += from[q];
          }
        }
        for (int64_t h = 0; h < c_.h; ++h)
          for (int64_t w = 0; w < c_.w; ++w)
            dx.put(x_.at(first + i, group * channels + c, h, w), plane[static_cast<size_t>(h * c_.w + w)]);
      }
  }

  /// products_ (K,images*PQ) = the gradients of one group's outputs.
  void load_products(const T* dy, int64_t group, int64_t first, int64_t images, unsigned shift) {
    const int64_t filters = c_.k / c_.groups;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t k = 0; k < filters; ++k)
      for (int64_t i = 0; i < images; ++i) {
        T* out = products_.data() + (k * images + i) * c_.p * c_.q;
        for (int64_t p = 0; p < c_.p; ++p)
          for (int64_t q = 0; q < c_.q; ++q)
            *out++ = rounded(dy[y_.at(image(first + i, shift), group * filters + k, p, q)]);
      }
  }

  const Convolution& c_;
  const Layout x_, y_;
  const Precision precision_;
  const int64_t chunk_;  ///< images that are lowered at a time
  std::vector<T> columns_, products_;
};

/// Checks what the three passes and their fused form have in common.
cudnnStatus_t check(Pass pass, int algorithm, const cudnnTensorStruct* x, const cudnnFilterStruct* w,
                    const cudnnConvolutionStruct* convolution, const cudnnTensorStruct* y, const void* workspace,
                    size_t workspace_size, Convolution& conv) {
  const cudnnStatus_t status = describe(x, w, convolution, y, conv);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  if (!takes(pass, algorithm, conv)) return CUDNN_STATUS_NOT_SUPPORTED;
  const size_t needed = workspace_bytes(pass, algorithm, conv);
  return needed > 0 && (!workspace || workspace_size < needed) ? CUDNN_STATUS_BAD_PARAM : CUDNN_STATUS_SUCCESS;
}

/// Fills the part of the workspace that the algorithm asked for, so that nothing else can be kept there.
void use_workspace(cudnnHandle_t handle, void* workspace, size_t bytes, const std::string& call) {
  if (bytes == 0) return;
  std::memset(device_write(workspace, bytes, handle->stream, (call + ", workSpace").c_str()), 0xff, bytes);
}

template <class T>
const T* read_filter(cudnnHandle_t handle, const cudnnFilterStruct& d, const void* p, const char* call) {
  const size_t count = static_cast<size_t>(d.dims[0]) * d.dims[1] * d.dims[2] * d.dims[3];
  return static_cast<const T*>(device_read(p, count * sizeof(T), handle->stream, call));
}

}  // namespace
}  // namespace espalier::emulation

namespace emulation = espalier::emulation;
using emulation::Pass;

extern "C" {

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void* alpha, const cudnnTensorDescriptor_t xDesc,
                                      const void* x, const cudnnFilterDescriptor_t wDesc, const void* w,
                                      const cudnnConvolutionDescriptor_t convDesc, cudnnConvolutionFwdAlgo_t algo,
                                      void* workSpace, size_t workSpaceSizeInBytes, const void* beta,
                                      const cudnnTensorDescriptor_t yDesc, void* y) {
  if (!handle || !alpha || !beta || !x || !w || !y) return CUDNN_STATUS_BAD_PARAM;
  emulation::Convolution conv;
  const cudnnStatus_t status =
      emulation::check(Pass::forward, algo, xDesc, wDesc, convDesc, yDesc, workSpace, workSpaceSizeInBytes, conv);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  return emulation::with_type(conv.type, [&]<class T>(T) {
    emulation::use_workspace(handle, workSpace, workspace_bytes(Pass::forward, algo, conv), "cudnnConvolutionForward");
    const T* const from = emulation::read<T>(handle, *xDesc, x, "cudnnConvolutionForward, x");
    const T* const filters = emulation::read_filter<T>(handle, *wDesc, w, "cudnnConvolutionForward, w");
    const emulation::Output<T> out(handle, *yDesc, y, alpha, beta, "cudnnConvolutionForward, y");
    const emulation::Layout to(*yDesc);
    emulation::Passes<T>(conv, emulation::Layout(*xDesc), to)
        .forward(from, filters,
                 [&](int64_t n, int64_t k, int64_t p, int64_t q, T value) { out.put(to.at(n, k, p, q), value); });
  });
}

cudnnStatus_t cudnnConvolutionBiasActivationForward(
    cudnnHandle_t handle, const void* alpha1, const cudnnTensorDescriptor_t xDesc, const void* x,
    const cudnnFilterDescriptor_t wDesc, const void* w, const cudnnConvolutionDescriptor_t convDesc,
    cudnnConvolutionFwdAlgo_t algo, void* workSpace, size_t workSpaceSizeInBytes, const void* alpha2,
    const cudnnTensorDescriptor_t zDesc, const void* z, const cudnnTensorDescriptor_t biasDesc, const void* bias,
    const cudnnActivationDescriptor_t activationDesc, const cudnnTensorDescriptor_t yDesc, void* y) {
  if (!handle || !alpha1 || !alpha2 || !x || !w || !zDesc || !z || !biasDesc || !bias || !activationDesc || !y)
    return CUDNN_STATUS_BAD_PARAM;
  emulation::Convolution conv;
  const cudnnStatus_t status =
      emulation::check(Pass::forward, algo, xDesc, wDesc, convDesc, yDesc, workSpace, workSpaceSizeInBytes, conv);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  const bool relu = activationDesc->mode == CUDNN_ACTIVATION_RELU && activationDesc->nan == CUDNN_NOT_PROPAGATE_NAN;
  const bool identity =
      activationDesc->mode == CUDNN_ACTIVATION_IDENTITY && algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
  const bool bias_fits = biasDesc->type == conv.type && emulation::supported(*biasDesc) &&
                         emulation::has_dims(*biasDesc, 1, static_cast<int>(conv.k), 1, 1) && biasDesc->strides[1] == 1;
  const bool z_fits =
      emulation::same_dims(*zDesc, *yDesc) && zDesc->type == conv.type && zDesc->strides == yDesc->strides;
  if ((!relu && !identity) || !bias_fits || !z_fits) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(conv.type, [&]<class T>(T) {
    const std::string call = "cudnnConvolutionBiasActivationForward";
    emulation::use_workspace(handle, workSpace, workspace_bytes(Pass::forward, algo, conv), call);
    const T* const from = emulation::read<T>(handle, *xDesc, x, (call + ", x").c_str());
    const T* const filters = emulation::read_filter<T>(handle, *wDesc, w, (call + ", w").c_str());
    const T* const shift = emulation::read<T>(handle, *biasDesc, bias, (call + ", bias").c_str());
    const T factor1 = emulation::factor<T>(alpha1), factor2 = emulation::factor<T>(alpha2);
    const T* const added = factor2 == T{0} ? nullptr : emulation::read<T>(handle, *zDesc, z, (call + ", z").c_str());
    const emulation::Output<T> out(handle, emulation::span(*yDesc), y, T{1}, T{0}, (call + ", y").c_str());
    const emulation::Layout to(*yDesc);
    emulation::Passes<T>(conv, emulation::Layout(*xDesc), to)
        .forward(from, filters, [&](int64_t n, int64_t k, int64_t p, int64_t q, T value) {
          const int64_t at = to.at(n, k, p, q);
          const T sum = factor1 * value + (added ? factor2 * added[at] : T{0}) + shift[k];
          out.put(at, emulation::activate(*activationDesc, sum));
        });
  });
}

cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void* alpha, const cudnnFilterDescriptor_t wDesc,
                                           const void* w, const cudnnTensorDescriptor_t dyDesc, const void* dy,
                                           const cudnnConvolutionDescriptor_t convDesc,
                                           cudnnConvolutionBwdDataAlgo_t algo, void* workSpace,
                                           size_t workSpaceSizeInBytes, const void* beta,
                                           const cudnnTensorDescriptor_t dxDesc, void* dx) {
  if (!handle || !alpha || !beta || !w || !dy || !dx) return CUDNN_STATUS_BAD_PARAM;
  emulation::Convolution conv;
  const cudnnStatus_t status = emulation::check(Pass::backward_data, algo, dxDesc, wDesc, convDesc, dyDesc, workSpace,
                                                workSpaceSizeInBytes, conv);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  return emulation::with_type(conv.type, [&]<class T>(T) {
    emulation::use_workspace(handle, workSpace, workspace_bytes(Pass::backward_data, algo, conv),
                             "cudnnConvolutionBackwardData");
    const T* const filters = emulation::read_filter<T>(handle, *wDesc, w, "cudnnConvolutionBackwardData, w");
    const T* const from = emulation::read<T>(handle, *dyDesc, dy, "cudnnConvolutionBackwardData, dy");
    const emulation::Output<T> out(handle, *dxDesc, dx, alpha, beta, "cudnnConvolutionBackwardData, dx");
    const unsigned shift = is_deterministic(Pass::backward_data, algo) ? 0 : emulation::turn();
    emulation::Passes<T>(conv, emulation::Layout(*dxDesc), emulation::Layout(*dyDesc))
        .backward_data(filters, from, shift, out);
  });
}

cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void* alpha,
                                             const cudnnTensorDescriptor_t xDesc, const void* x,
                                             const cudnnTensorDescriptor_t dyDesc, const void* dy,
                                             const cudnnConvolutionDescriptor_t convDesc,
                                             cudnnConvolutionBwdFilterAlgo_t algo, void* workSpace,
                                             size_t workSpaceSizeInBytes, const void* beta,
                                             const cudnnFilterDescriptor_t dwDesc, void* dw) {
  if (!handle || !alpha || !beta || !x || !dy || !dw) return CUDNN_STATUS_BAD_PARAM;
  emulation::Convolution conv;
  const cudnnStatus_t status = emulation::check(Pass::backward_filter, algo, xDesc, dwDesc, convDesc, dyDesc, workSpace,
                                                workSpaceSizeInBytes, conv);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  return emulation::with_type(conv.type, [&]<class T>(T) {
    emulation::use_workspace(handle, workSpace, workspace_bytes(Pass::backward_filter, algo, conv),
                             "cudnnConvolutionBackwardFilter");
    const T* const from = emulation::read<T>(handle, *xDesc, x, "cudnnConvolutionBackwardFilter, x");
    const T* const gradients = emulation::read<T>(handle, *dyDesc, dy, "cudnnConvolutionBackwardFilter, dy");
    const emulation::Output<T> out(handle, conv.k * conv.rows(), dw, emulation::factor<T>(alpha),
                                   emulation::factor<T>(beta), "cudnnConvolutionBackwardFilter, dw");
    const unsigned shift = is_deterministic(Pass::backward_filter, algo) ? 0 : emulation::turn();
    emulation::Passes<T>(conv, emulation::Layout(*xDesc), emulation::Layout(*dyDesc))
        .backward_filter(from, gradients, shift, out);
  });
}

cudnnStatus_t cudnnConvolutionBackwardBias(cudnnHandle_t handle, const void* alpha,
                                           const cudnnTensorDescriptor_t dyDesc, const void* dy, const void* beta,
                                           const cudnnTensorDescriptor_t dbDesc, void* db) {
  if (!handle || !alpha || !beta || !dyDesc || !dy || !dbDesc || !db) return CUDNN_STATUS_BAD_PARAM;
  if (dyDesc->type != dbDesc->type || !emulation::has_dims(*dbDesc, 1, dyDesc->dims[1], 1, 1))
    return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*dyDesc) || !emulation::supported(*dbDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(dyDesc->type, [&]<class T>(T) {
    const emulation::Layout from(*dyDesc), to(*dbDesc);
    const T* const gradients = emulation::read<T>(handle, *dyDesc, dy, "cudnnConvolutionBackwardBias, dy");
    const emulation::Output<T> out(handle, *dbDesc, db, alpha, beta, "cudnnConvolutionBackwardBias, db");
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < from.c; ++c) {
      double sum = 0;
      for (int64_t n = 0; n < from.n; ++n)
        for (int64_t h = 0; h < from.h; ++h)
          for (int64_t w = 0; w < from.w; ++w) sum += gradients[from.at(n, c, h, w)];
      out.put(to.at(0, c, 0, 0), sum);
    }
  });
}

}  // extern "C"
