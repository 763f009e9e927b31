// cuDNN's pooling of 4-d tensors. Where the library leaves open which of several equal maxima receives the gradient,
// the last one does here, so that nobody relies on the first; CUDNN_POOLING_MAX_DETERMINISTIC takes the first.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cuda/emulation/cudnn_descriptors.h"

namespace espalier::emulation {
namespace {

int64_t output_size(int64_t in, int window, int pad, int stride) {
  const int64_t room = in + 2 * int64_t{pad} - window;
  return room < 0 ? 0 : room / stride + 1;
}

bool is_max(const cudnnPoolingStruct& pool) {
  return pool.mode == CUDNN_POOLING_MAX || pool.mode == CUDNN_POOLING_MAX_DETERMINISTIC;
}

/// The part of an output pixel's window that lies inside the image.
struct Window {
  int64_t h_begin, h_end, w_begin, w_end;

  Window(const cudnnPoolingStruct& pool, const Layout& x, int64_t p, int64_t q) {
    const int64_t top = p * pool.stride[0] - pool.pad[0], left = q * pool.stride[1] - pool.pad[1];
    h_begin = std::max<int64_t>(top, 0), h_end = std::min<int64_t>(top + pool.window[0], x.h);
    w_begin = std::max<int64_t>(left, 0), w_end = std::min<int64_t>(left + pool.window[1], x.w);
  }
  template <class F>
  void for_each(F f) const {
    for (int64_t h = h_begin; h < h_end; ++h)
      for (int64_t w = w_begin; w < w_end; ++w) f(h, w);
  }
  /// By what an average divides.
  double count(const cudnnPoolingStruct& pool) const {
    if (pool.mode == CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING) return double(pool.window[0]) * pool.window[1];
    return double(std::max<int64_t>(h_end - h_begin, 0)) * double(std::max<int64_t>(w_end - w_begin, 0));
  }
};

template <class T>
void forward(const cudnnPoolingStruct& pool, const Layout& from, const T* x, const Layout& to, const Output<T>& out) {
  for_each(to, [&](int64_t n, int64_t c, int64_t p, int64_t q) {
    const Window window(pool, from, p, q);
    if (is_max(pool)) {
      T best = -std::numeric_limits<T>::infinity();
      window.for_each([&](int64_t h, int64_t w) {
        const T value = x[from.at(n, c, h, w)];
        if (std::isnan(value) ? pool.nan == CUDNN_PROPAGATE_NAN : value > best) best = value;
      });
      out.put(to.at(n, c, p, q), best);
    } else {
      double sum = 0;
      window.for_each([&](int64_t h, int64_t w) { sum += x[from.at(n, c, h, w)]; });
      out.put(to.at(n, c, p, q), sum / window.count(pool));
    }
  });
}

/// `to` is the layout of x and dx, `from` that of y and dy.
template <class T>
void backward(const cudnnPoolingStruct& pool, const Layout& to, const T* x, const Layout& from, const T* y, const T* dy,
              const Output<T>& dx) {
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t n = 0; n < to.n; ++n)
    for (int64_t c = 0; c < to.c; ++c) {
      std::vector<double> sums(static_cast<size_t>(to.h * to.w));
      for (int64_t p = 0; p < from.h; ++p)
        for (int64_t q = 0; q < from.w; ++q) {
          const double gradient = dy[from.at(n, c, p, q)];
          const Window window(pool, to, p, q);
          if (is_max(pool)) {
            const T largest = y[from.at(n, c, p, q)];
            int64_t chosen = -1;
            window.for_each([&](int64_t h, int64_t w) {
              const T value = x[to.at(n, c, h, w)];
              const bool equal = value == largest || (std::isnan(value) && std::isnan(largest));
              if (equal && (chosen < 0 || pool.mode == CUDNN_POOLING_MAX)) chosen = h * to.w + w;
            });
            if (chosen >= 0) sums[static_cast<size_t>(chosen)] += gradient;
          } else {
            window.for_each([&](int64_t h, int64_t w) {
              sums[static_cast<size_t>(h * to.w + w)] += gradient / window.count(pool);
            });
          }
        }
      for (int64_t h = 0; h < to.h; ++h)
        for (int64_t w = 0; w < to.w; ++w) dx.put(to.at(n, c, h, w), sums[static_cast<size_t>(h * to.w + w)]);
    }
}

/// Whether y has the size that pooling x gives.
bool fits(const cudnnPoolingStruct& pool, const cudnnTensorStruct& x, const cudnnTensorStruct& y) {
  return x.rank == 4 && y.rank == 4 && x.dims[0] == y.dims[0] && x.dims[1] == y.dims[1] && pool.stride[0] > 0 &&
         y.dims[2] == output_size(x.dims[2], pool.window[0], pool.pad[0], pool.stride[0]) &&
         y.dims[3] == output_size(x.dims[3], pool.window[1], pool.pad[1], pool.stride[1]);
}

}  // namespace
}  // namespace espalier::emulation

namespace emulation = espalier::emulation;

extern "C" {

cudnnStatus_t cudnnSetPooling2dDescriptor(cudnnPoolingDescriptor_t desc, cudnnPoolingMode_t mode,
                                          cudnnNanPropagation_t maxpoolingNanOpt, int windowHeight, int windowWidth,
                                          int verticalPadding, int horizontalPadding, int verticalStride,
                                          int horizontalStride) {
  const bool known = mode >= CUDNN_POOLING_MAX && mode <= CUDNN_POOLING_MAX_DETERMINISTIC &&
                     (maxpoolingNanOpt == CUDNN_NOT_PROPAGATE_NAN || maxpoolingNanOpt == CUDNN_PROPAGATE_NAN);
  if (!desc || !known || windowHeight <= 0 || windowWidth <= 0 || verticalStride <= 0 || horizontalStride <= 0)
    return CUDNN_STATUS_BAD_PARAM;
  *desc = {mode,
           maxpoolingNanOpt,
           {windowHeight, windowWidth},
           {verticalPadding, horizontalPadding},
           {verticalStride, horizontalStride}};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetPooling2dDescriptor(const cudnnPoolingDescriptor_t desc, cudnnPoolingMode_t* mode,
                                          cudnnNanPropagation_t* maxpoolingNanOpt, int* windowHeight, int* windowWidth,
                                          int* verticalPadding, int* horizontalPadding, int* verticalStride,
                                          int* horizontalStride) {
  if (!desc || !mode || !maxpoolingNanOpt || !windowHeight || !windowWidth || !verticalPadding || !horizontalPadding ||
      !verticalStride || !horizontalStride)
    return CUDNN_STATUS_BAD_PARAM;
  *mode = desc->mode;
  *maxpoolingNanOpt = desc->nan;
  *windowHeight = desc->window[0], *windowWidth = desc->window[1];
  *verticalPadding = desc->pad[0], *horizontalPadding = desc->pad[1];
  *verticalStride = desc->stride[0], *horizontalStride = desc->stride[1];
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetPooling2dForwardOutputDim(const cudnnPoolingDescriptor_t poolingDesc,
                                                const cudnnTensorDescriptor_t inputTensorDesc, int* n, int* c, int* h,
                                                int* w) {
  if (!poolingDesc || !inputTensorDesc || !n || !c || !h || !w) return CUDNN_STATUS_BAD_PARAM;
  if (inputTensorDesc->rank != 4 || poolingDesc->stride[0] == 0) return CUDNN_STATUS_BAD_PARAM;
  const auto size = [&](int axis) {
    return static_cast<int>(emulation::output_size(inputTensorDesc->dims[axis + 2], poolingDesc->window[axis],
                                                   poolingDesc->pad[axis], poolingDesc->stride[axis]));
  };
  *n = inputTensorDesc->dims[0], *c = inputTensorDesc->dims[1], *h = size(0), *w = size(1);
  return *h > 0 && *w > 0 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnPoolingForward(cudnnHandle_t handle, const cudnnPoolingDescriptor_t poolingDesc, const void* alpha,
                                  const cudnnTensorDescriptor_t xDesc, const void* x, const void* beta,
                                  const cudnnTensorDescriptor_t yDesc, void* y) {
  if (!handle || !poolingDesc || !alpha || !xDesc || !x || !beta || !yDesc || !y) return CUDNN_STATUS_BAD_PARAM;
  if (xDesc->type != yDesc->type || !emulation::fits(*poolingDesc, *xDesc, *yDesc)) return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*xDesc) || !emulation::supported(*yDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  if (xDesc->strides[3] != 1 || yDesc->strides[3] != 1) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(xDesc->type, [&]<class T>(T) {
    const T* const from = emulation::read<T>(handle, *xDesc, x, "cudnnPoolingForward, x");
    const emulation::Output<T> out(handle, *yDesc, y, alpha, beta, "cudnnPoolingForward, y");
    emulation::forward<T>(*poolingDesc, emulation::Layout(*xDesc), from, emulation::Layout(*yDesc), out);
  });
}

cudnnStatus_t cudnnPoolingBackward(cudnnHandle_t handle, const cudnnPoolingDescriptor_t poolingDesc, const void* alpha,
                                   const cudnnTensorDescriptor_t yDesc, const void* y,
                                   const cudnnTensorDescriptor_t dyDesc, const void* dy,
                                   const cudnnTensorDescriptor_t xDesc, const void* x, const void* beta,
                                   const cudnnTensorDescriptor_t dxDesc, void* dx) {
  if (!handle || !poolingDesc || !alpha || !yDesc || !y || !dyDesc || !dy || !xDesc || !x || !beta || !dxDesc || !dx)
    return CUDNN_STATUS_BAD_PARAM;
  const auto same = [](const cudnnTensorStruct& a, const cudnnTensorStruct& b) {
    return emulation::same_dims(a, b) && a.strides == b.strides && a.type == b.type;
  };
  if (!same(*yDesc, *dyDesc) || !same(*xDesc, *dxDesc) || xDesc->type != yDesc->type ||
      !emulation::fits(*poolingDesc, *xDesc, *yDesc))
    return CUDNN_STATUS_BAD_PARAM;
  if (!emulation::supported(*xDesc) || !emulation::supported(*yDesc)) return CUDNN_STATUS_NOT_SUPPORTED;
  if (xDesc->strides[3] != 1 || yDesc->strides[3] != 1) return CUDNN_STATUS_NOT_SUPPORTED;
  return emulation::with_type(xDesc->type, [&]<class T>(T) {
    const emulation::Layout inside(*xDesc), outside(*yDesc);
    const T* const input = emulation::read<T>(handle, *xDesc, x, "cudnnPoolingBackward, x");
    const T* const result = emulation::read<T>(handle, *yDesc, y, "cudnnPoolingBackward, y");
    const T* const gradient = emulation::read<T>(handle, *dyDesc, dy, "cudnnPoolingBackward, dy");
    const emulation::Output<T> out(handle, *dxDesc, dx, alpha, beta, "cudnnPoolingBackward, dx");
    emulation::backward<T>(*poolingDesc, inside, input, outside, result, gradient, out);
  });
}

}  // extern "C"
