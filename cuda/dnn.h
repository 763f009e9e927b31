// cuDNN's descriptors as values, and its types and limits.
#pragma once

#include <cstdint>
#include <limits>

#include "core/shape.h"
#include "cuda/context.h"

namespace espalier::cuda {

/// A cuDNN descriptor that is destroyed with its scope.
template <class Handle, cudnnStatus_t (*Create)(Handle*), cudnnStatus_t (*Destroy)(Handle)>
class Descriptor {
 public:
  Descriptor() { check(Create(&handle_), "creating a cuDNN descriptor"); }
  ~Descriptor() { Destroy(handle_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator Handle() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};

using TensorDescriptor = Descriptor<cudnnTensorDescriptor_t, cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor>;
using FilterDescriptor = Descriptor<cudnnFilterDescriptor_t, cudnnCreateFilterDescriptor, cudnnDestroyFilterDescriptor>;

inline cudnnDataType_t dnn_type(DType dtype) { return dtype == DType::f64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT; }

/// A size as cuDNN takes it.
inline int dnn_int(int64_t value, const char* operation) {
  espalier::check(value <= std::numeric_limits<int>::max(), operation,
                  "expected sizes below 2^31 (cuDNN counts with 32 bits), got {}; use smaller batches", value);
  return static_cast<int>(value);
}

/// A contiguous (N,C,H,W).
inline void set(const TensorDescriptor& descriptor, DType dtype, const Shape& shape, const char* operation) {
  dnn_int(shape.numel(), operation);  // cuDNN's limit holds for all elements together
  check(cudnnSetTensor4dDescriptor(descriptor, CUDNN_TENSOR_NCHW, dnn_type(dtype), static_cast<int>(shape[0]),
                                   static_cast<int>(shape[1]), static_cast<int>(shape[2]), static_cast<int>(shape[3])),
        "cudnnSetTensor4dDescriptor");
}

/// Contiguous weights (F,C/groups,KH,KW).
inline void set(const FilterDescriptor& descriptor, DType dtype, const Shape& shape, const char* operation) {
  dnn_int(shape.numel(), operation);
  check(cudnnSetFilter4dDescriptor(descriptor, dnn_type(dtype), CUDNN_TENSOR_NCHW, static_cast<int>(shape[0]),
                                   static_cast<int>(shape[1]), static_cast<int>(shape[2]), static_cast<int>(shape[3])),
        "cudnnSetFilter4dDescriptor");
}

}  // namespace espalier::cuda
