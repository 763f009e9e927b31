// The common index space of operands of one shape: the fewest axes that step through all of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "core/tensor.h"

namespace espalier::backend {

/// In which order axes are kept.
enum class AxisOrder : uint8_t {
  row_major,  ///< element i of the space is element i of the tensors
  memory,     ///< by operand 0, its longest stride outermost, strides of 0 before all: neighbours are neighbours there
};

/// Axes of size 1 are dropped and neighbours joined where every operand steps over them seamlessly, so that the usual
/// cases have one or two axes. Plain data: kernels of a GPU take it by value.
template <int N>
struct IndexSpace {
  int rank = 0;
  int64_t numel = 0;
  int64_t size[kMaxRank] = {};
  int64_t stride[kMaxRank][N] = {};

  /// strides[k]: those of operand k, in elements, one for each axis of `shape`.
  IndexSpace(const Shape& shape, const std::array<Strides, N>& strides, AxisOrder order = AxisOrder::row_major)
      : numel(shape.numel()) {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == 1) continue;
      int at = rank++;
      if (order == AxisOrder::memory)
        for (; at > 0 && length(stride[at - 1][0]) < length(strides[0][axis]); --at) move(at - 1, at);
      size[at] = shape[axis];
      for (int k = 0; k < N; ++k) stride[at][k] = strides[static_cast<size_t>(k)][axis];
    }
    join();
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
  constexpr void offsets(int64_t i, int64_t (&at)[N]) const {
    for (int k = 0; k < N; ++k) at[k] = 0;
    for (int axis = rank - 1; axis > 0; --axis) {
      const int64_t next = i / size[axis], index = i - next * size[axis];
      for (int k = 0; k < N; ++k) at[k] += index * stride[axis][k];
      i = next;
    }
    if (rank > 0)
      for (int k = 0; k < N; ++k) at[k] += i * stride[0][k];
  }

  /// The smallest distance between neighbours of operand 0, of those that move at all.
  int64_t closest() const {
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int axis = 0; axis < rank; ++axis) {
      const int64_t step = std::abs(stride[axis][0]);
      if (size[axis] > 1 && step > 0) least = std::min(least, step);
    }
    return least;
  }

 private:
  static uint64_t length(int64_t step) { return static_cast<uint64_t>(std::abs(step)) - 1; }

  void move(int from, int to) {
    size[to] = size[from];
    for (int k = 0; k < N; ++k) stride[to][k] = stride[from][k];
  }

  void join() {
    int kept = 0;
    for (int axis = 1; axis < rank; ++axis) {
      bool seamless = true;
      for (int k = 0; k < N; ++k) seamless = seamless && stride[kept][k] == stride[axis][k] * size[axis];
      if (seamless) {
        const int64_t outer = size[kept];
        move(axis, kept);
        size[kept] *= outer;
      } else {
        move(axis, ++kept);
      }
    }
    if (rank > 0) rank = kept + 1;
  }
};

/// Axes in the order of operand 0 in memory: for what doesn't ask for row-major order.
template <int N>
IndexSpace<N> in_memory_order(const Shape& shape, const std::array<Strides, N>& strides) {
  return IndexSpace<N>(shape, strides, AxisOrder::memory);
}

/// x's shape with one axis of size 1, the index space of the lines along that axis.
inline Shape shape_without(const Tensor& x, int axis) {
  Shape shape = x.shape();
  shape[axis] = 1;
  return shape;
}
/// Strides of x, standing still along one axis.
inline Strides strides_without(const Tensor& x, int axis) {
  Strides strides = x.strides();
  strides[axis] = 0;
  return strides;
}
/// The rank-1 index of an axis, seen as a tensor of x's rank: it moves along that axis only.
inline Strides strides_along(const Tensor& index, int axis, int rank) {
  Strides strides;
  for (int i = 0; i < rank; ++i) strides.push_back(i == axis ? index.strides()[0] : 0);
  return strides;
}

}  // namespace espalier::backend
