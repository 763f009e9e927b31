// Strided operands of one shape, as a kernel argument: element i of the shape, in row-major order, lies at
// offset(i)[k] of operand k.
#pragma once

#include <array>

#include "core/tensor.h"

namespace espalier::cuda {

/// The common index space of N operands, made on the host and passed to kernels by value. Axes of size 1 are dropped
/// and neighbours joined where every operand steps over them seamlessly, so that the usual cases have one or two axes.
/// The order of the axes stays: element i is element i of the tensors in row-major order.
template <int N>
struct Strided {
  int rank = 0;
  int64_t numel = 0;
  int64_t size[kMaxRank] = {};
  int64_t stride[kMaxRank][N] = {};

  Strided(const Shape& shape, const std::array<Strides, N>& strides) : numel(shape.numel()) {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == 1) continue;
      bool seamless = rank > 0;
      for (int k = 0; seamless && k < N; ++k) seamless = stride[rank - 1][k] == strides[k][axis] * shape[axis];
      if (!seamless) size[rank++] = 1;
      size[rank - 1] *= shape[axis];
      for (int k = 0; k < N; ++k) stride[rank - 1][k] = strides[k][axis];
    }
  }

  /// One row of unit steps in every operand: element i lies at i.
  bool contiguous() const {
    if (rank == 0) return true;
    if (rank > 1) return false;
    for (int k = 0; k < N; ++k)
      if (stride[0][k] != 1) return false;
    return true;
  }

  /// Where element i lies in each operand.
  __host__ __device__ void offsets(int64_t i, int64_t (&at)[N]) const {
    for (int k = 0; k < N; ++k) at[k] = 0;
    for (int axis = rank - 1; axis > 0; --axis) {
      const int64_t next = i / size[axis], index = i - next * size[axis];
      for (int k = 0; k < N; ++k) at[k] += index * stride[axis][k];
      i = next;
    }
    if (rank > 0)
      for (int k = 0; k < N; ++k) at[k] += i * stride[0][k];
  }
};

}  // namespace espalier::cuda
