// cuDNN's descriptors for its tests.
#pragma once

#include <cudnn.h>

#include <array>
#include <cstdint>

#include "tests/cuda/emulation/device_array.h"

namespace espalier::testing {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class T>
constexpr cudnnDataType_t kDataType = sizeof(T) == 8 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;

class DnnHandle {
 public:
  DnnHandle() { EXPECT_EQ(cudnnCreate(&handle_), CUDNN_STATUS_SUCCESS); }
  ~DnnHandle() { EXPECT_EQ(cudnnDestroy(handle_), CUDNN_STATUS_SUCCESS); }
  operator cudnnHandle_t() const { return handle_; }

 private:
  cudnnHandle_t handle_ = nullptr;
};

/// Sizes n, c, h, w and the strides that go with them.
struct Shape4 {
  std::array<int, 4> dims, strides;

  Shape4(int n, int c, int h, int w) : dims{n, c, h, w}, strides{c * h * w, h * w, w, 1} {}
  Shape4(std::array<int, 4> d, std::array<int, 4> s) : dims(d), strides(s) {}

  size_t at(int n, int c, int h, int w) const {
    return static_cast<size_t>(n * strides[0] + c * strides[1] + h * strides[2] + w * strides[3]);
  }
  size_t span() const { return at(dims[0] - 1, dims[1] - 1, dims[2] - 1, dims[3] - 1) + 1; }
  template <class F>
  void for_each(F f) const {
    for (int n = 0; n < dims[0]; ++n)
      for (int c = 0; c < dims[1]; ++c)
        for (int h = 0; h < dims[2]; ++h)
          for (int w = 0; w < dims[3]; ++w) f(n, c, h, w);
  }
};

class TensorDescriptor {
 public:
  TensorDescriptor() { EXPECT_EQ(cudnnCreateTensorDescriptor(&desc_), CUDNN_STATUS_SUCCESS); }
  TensorDescriptor(cudnnDataType_t type, const Shape4& s) : TensorDescriptor() {
    EXPECT_EQ(cudnnSetTensor4dDescriptorEx(desc_, type, s.dims[0], s.dims[1], s.dims[2], s.dims[3], s.strides[0],
                                           s.strides[1], s.strides[2], s.strides[3]),
              CUDNN_STATUS_SUCCESS);
  }
  ~TensorDescriptor() { EXPECT_EQ(cudnnDestroyTensorDescriptor(desc_), CUDNN_STATUS_SUCCESS); }
  TensorDescriptor(const TensorDescriptor&) = delete;
  TensorDescriptor& operator=(const TensorDescriptor&) = delete;
  operator cudnnTensorDescriptor_t() const { return desc_; }

 private:
  cudnnTensorDescriptor_t desc_ = nullptr;
};

/// What lies in an output before a call: NaN where nothing of it is read, for a beta of 0.
template <class T>
std::vector<T> before(size_t size, double beta) {
  return beta == 0 ? std::vector<T>(size, static_cast<T>(kNaN)) : random_values<T>(size, 99);
}
/// alpha * result + beta * old.
inline double blend(double alpha, double result, double beta, double old) {
  return alpha * result + (beta == 0 ? 0 : beta * old);
}

}  // namespace espalier::testing
