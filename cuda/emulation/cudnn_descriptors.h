// What cuDNN's opaque descriptors hold here, and how its operations reach their tensors.
#pragma once

#include <cudnn.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include "cuda/emulation/library.h"

struct cudnnContext {
  cudaStream_t stream = nullptr;
};
struct cudnnTensorStruct {
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  int rank = 0;  ///< 0: not set yet
  std::array<int, CUDNN_DIM_MAX> dims{}, strides{};
};
struct cudnnFilterStruct {
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnTensorFormat_t format = CUDNN_TENSOR_NCHW;
  std::array<int, 4> dims{};  ///< k, c, h, w
};
struct cudnnConvolutionStruct {
  std::array<int, 2> pad{}, stride{}, dilation{};  ///< of h and w
  cudnnConvolutionMode_t mode = CUDNN_CONVOLUTION;
  cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  cudnnMathType_t math = CUDNN_DEFAULT_MATH;
  int groups = 1;
};
struct cudnnPoolingStruct {
  cudnnPoolingMode_t mode = CUDNN_POOLING_MAX;
  cudnnNanPropagation_t nan = CUDNN_NOT_PROPAGATE_NAN;
  std::array<int, 2> window{}, pad{}, stride{};  ///< of h and w
};
struct cudnnActivationStruct {
  cudnnActivationMode_t mode = CUDNN_ACTIVATION_SIGMOID;
  cudnnNanPropagation_t nan = CUDNN_NOT_PROPAGATE_NAN;
  double coef = 0;
};

namespace espalier::emulation {

/// A 4-d tensor's sizes and strides, in elements.
struct Layout {
  int64_t n, c, h, w;
  int64_t n_stride, c_stride, h_stride, w_stride;

  explicit Layout(const cudnnTensorStruct& d)
      : n(d.dims[0]),
        c(d.dims[1]),
        h(d.dims[2]),
        w(d.dims[3]),
        n_stride(d.strides[0]),
        c_stride(d.strides[1]),
        h_stride(d.strides[2]),
        w_stride(d.strides[3]) {}

  int64_t at(int64_t in, int64_t ic, int64_t ih, int64_t iw) const {
    return in * n_stride + ic * c_stride + ih * h_stride + iw * w_stride;
  }
};

inline bool same_dims(const cudnnTensorStruct& a, const cudnnTensorStruct& b) {
  return a.rank == b.rank && a.dims == b.dims;
}
inline bool has_dims(const cudnnTensorStruct& d, int n, int c, int h, int w) {
  return d.rank == 4 && d.dims[0] == n && d.dims[1] == c && d.dims[2] == h && d.dims[3] == w;
}

/// The operations here take 4-d tensors of float or double without negative strides.
inline bool supported(const cudnnTensorStruct& d) {
  if (d.rank != 4 || (d.type != CUDNN_DATA_FLOAT && d.type != CUDNN_DATA_DOUBLE)) return false;
  for (int axis = 0; axis < d.rank; ++axis)
    if (d.strides[axis] < 0) return false;
  return true;
}

/// Elements from a tensor's first to its last.
inline int64_t span(const cudnnTensorStruct& d) {
  int64_t last = 0;
  for (int axis = 0; axis < d.rank; ++axis) last += int64_t{d.dims[axis] - 1} * std::abs(d.strides[axis]);
  return last + 1;
}

/// Calls run(T{}) for the tensor's element type, which is float or double. A fault in it, which
/// cudaGetLastError() also tells, is the call's failure, as an illegal address in a library's kernel would be.
template <class Run>
cudnnStatus_t with_type(cudnnDataType_t type, Run run) {
  try {
    type == CUDNN_DATA_DOUBLE ? run(double{}) : run(float{});
    return CUDNN_STATUS_SUCCESS;
  } catch (const Fault&) {
    return CUDNN_STATUS_EXECUTION_FAILED;
  }
}

/// A scaling factor: float for float tensors, double for double ones.
template <class T>
T factor(const void* p) {
  return *static_cast<const T*>(p);
}

template <class T>
const T* read(cudnnHandle_t handle, const cudnnTensorStruct& d, const void* p, const char* call) {
  return static_cast<const T*>(device_read(p, static_cast<size_t>(span(d)) * sizeof(T), handle->stream, call));
}

/// An operation's result: the output becomes alpha * result + beta * output, where beta 0 means that what the output
/// holds is not read.
template <class T>
class Output {
 public:
  Output(cudnnHandle_t handle, int64_t elements, void* p, T alpha, T beta, const char* call)
      : alpha_(alpha), beta_(beta) {
    const size_t bytes = static_cast<size_t>(elements) * sizeof(T);
    if (beta != T{0}) device_read(p, bytes, handle->stream, call);
    data_ = static_cast<T*>(device_write(p, bytes, handle->stream, call));
  }
  Output(cudnnHandle_t handle, const cudnnTensorStruct& d, void* p, const void* alpha, const void* beta,
         const char* call)
      : Output(handle, span(d), p, factor<T>(alpha), factor<T>(beta), call) {}

  void put(int64_t offset, double result) const {
    T& element = data_[offset];
    const double scaled = alpha_ * result;
    element = static_cast<T>(beta_ == T{0} ? scaled : scaled + double{beta_} * element);
  }

 private:
  T alpha_, beta_;
  T* data_;
};

/// Calls f(n, c, h, w) for every element; f of different (n, c) may run at the same time.
template <class F>
void for_each(const Layout& l, F f) {
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t n = 0; n < l.n; ++n)
    for (int64_t c = 0; c < l.c; ++c)
      for (int64_t h = 0; h < l.h; ++h)
        for (int64_t w = 0; w < l.w; ++w) f(n, c, h, w);
}

/// The value of an activation with the settings of a descriptor.
double activate(const cudnnActivationStruct& activation, double x);

}  // namespace espalier::emulation
