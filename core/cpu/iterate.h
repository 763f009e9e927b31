// Iteration over strided operands of one shape: the fewest, longest rows, in several threads.
#pragma once

#include <array>
#include <cstdlib>

#include "core/tensor.h"
#include "core/threads.h"

namespace espalier::cpu {

/// Elements below which a second thread costs more than it gives.
constexpr int64_t kGrain = 32768;

/// The common index space of N operands. Axes of size 1 are dropped, the rest ordered by operand 0 (its longest
/// stride outermost, strides of 0 before all) and joined where all operands allow.
template <int N>
class Loop {
 public:
  using Offsets = std::array<int64_t, N>;

  /// strides[k]: those of operand k, in elements, one for each axis of `shape`.
  Loop(const Shape& shape, const std::array<Strides, N>& strides) : numel_(shape.numel()) {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == 1) continue;
      Axis added{shape[axis], {}};
      for (int k = 0; k < N; ++k) added.stride[k] = strides[k][axis];
      int at = rank_++;
      for (; at > 0 && order(axes_[at - 1]) < order(added); --at) axes_[at] = axes_[at - 1];
      axes_[at] = added;
    }
    join();
    if (rank_ == 0) {  // one element: call it a row with unit steps, for the fast paths
      rank_ = 1;
      axes_[0].size = 1;
      axes_[0].stride.fill(1);
    }
  }

  int rank() const { return rank_; }
  int64_t numel() const { return numel_; }
  int64_t size(int axis) const { return axes_[axis].size; }
  int64_t stride(int axis, int operand) const { return axes_[axis].stride[operand]; }
  /// Distance of an operand's elements within a row.
  int64_t step(int operand) const { return axes_[rank_ - 1].stride[operand]; }

  /// Calls f(offsets, n) for the rows that make up elements begin..end of the space, in order.
  template <class F>
  void run(int64_t begin, int64_t end, F&& f) const {
    if (begin >= end) return;
    const Axis& inner = axes_[rank_ - 1];
    std::array<int64_t, kMaxRank> index{};
    Offsets offsets{};
    int64_t rest = begin;
    for (int axis = rank_ - 1; axis >= 0; --axis) {
      index[axis] = rest % axes_[axis].size;
      rest /= axes_[axis].size;
      for (int k = 0; k < N; ++k) offsets[k] += index[axis] * axes_[axis].stride[k];
    }
    int64_t left = end - begin;
    int64_t n = std::min(inner.size - index[rank_ - 1], left);
    f(static_cast<const Offsets&>(offsets), n);
    left -= n;
    // From here on every row starts at its beginning.
    for (int k = 0; k < N; ++k) offsets[k] -= index[rank_ - 1] * inner.stride[k];
    while (left > 0) {
      for (int axis = rank_ - 2;; --axis) {
        for (int k = 0; k < N; ++k) offsets[k] += axes_[axis].stride[k];
        if (++index[axis] < axes_[axis].size) break;
        for (int k = 0; k < N; ++k) offsets[k] -= axes_[axis].size * axes_[axis].stride[k];
        index[axis] = 0;
      }
      n = std::min(inner.size, left);
      f(static_cast<const Offsets&>(offsets), n);
      left -= n;
    }
  }

  /// run() over the whole space, in several threads when that pays.
  template <class F>
  void parallel(F&& f, int64_t grain = kGrain) const {
    parallel_for(numel_, grain, [&](int64_t begin, int64_t end) { run(begin, end, f); });
  }

 private:
  struct Axis {
    int64_t size;
    Offsets stride;
  };

  static uint64_t order(const Axis& axis) { return static_cast<uint64_t>(std::abs(axis.stride[0])) - 1; }

  /// Joins an axis with the next one when every operand steps over it seamlessly.
  void join() {
    int kept = 0;
    for (int axis = 1; axis < rank_; ++axis) {
      bool seamless = true;
      for (int k = 0; k < N; ++k) seamless &= axes_[kept].stride[k] == axes_[axis].stride[k] * axes_[axis].size;
      if (seamless) {
        axes_[axis].size *= axes_[kept].size;
      } else {
        ++kept;
      }
      axes_[kept] = axes_[axis];
    }
    if (rank_ > 0) rank_ = kept + 1;
  }

  int rank_ = 0;
  int64_t numel_;
  std::array<Axis, kMaxRank> axes_{};
};

/// x's shape with one axis of size 1, the index space of the lines along that axis.
inline Shape shape_without(const Tensor& x, int axis) {
  Shape shape = x.shape();
  shape[axis] = 1;
  return shape;
}

/// Calls f(T{}) with an unsigned integer as wide as the dtype, for kernels that only move elements.
template <class F>
void dispatch_size(DType type, F&& f) {
  switch (size_of(type)) {
    case 1: return f(uint8_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

}  // namespace espalier::cpu
