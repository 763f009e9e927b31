// Iteration over strided operands of one shape: the fewest, longest rows, in several threads.
#pragma once

#include <algorithm>
#include <array>

#include "core/backend/dispatch.h"
#include "core/backend/index_space.h"
#include "core/tensor.h"
#include "core/threads.h"

namespace espalier::cpu {

/// Elements below which a second thread costs more than it gives.
constexpr int64_t kGrain = 32768;

/// Rows of the common index space of N operands, whose axes follow operand 0 in memory.
template <int N>
class Loop {
 public:
  using Offsets = std::array<int64_t, N>;

  /// strides[k]: those of operand k, in elements, one for each axis of `shape`.
  Loop(const Shape& shape, const std::array<Strides, N>& strides) : space_(shape, strides, backend::AxisOrder::memory) {
    if (space_.rank > 0) return;  // one element: call it a row with unit steps, for the fast paths
    space_.rank = 1;
    space_.size[0] = 1;
    std::fill_n(space_.stride[0], N, 1);
  }

  int rank() const { return space_.rank; }
  int64_t numel() const { return space_.numel; }
  int64_t size(int axis) const { return space_.size[axis]; }
  int64_t stride(int axis, int operand) const { return space_.stride[axis][operand]; }
  /// Distance of an operand's elements within a row.
  int64_t step(int operand) const { return stride(rank() - 1, operand); }
  const backend::IndexSpace<N>& space() const { return space_; }

  /// Calls f(offsets, n) for the rows that make up elements begin..end of the space, in order.
  template <class F>
  void run(int64_t begin, int64_t end, F&& f) const {
    if (begin >= end) return;
    const int inner = rank() - 1;
    std::array<int64_t, kMaxRank> index{};
    Offsets offsets{};
    int64_t rest = begin;
    for (int axis = inner; axis >= 0; --axis) {
      index[axis] = rest % size(axis);
      rest /= size(axis);
      for (int k = 0; k < N; ++k) offsets[k] += index[axis] * stride(axis, k);
    }
    int64_t left = end - begin;
    int64_t n = std::min(size(inner) - index[inner], left);
    f(static_cast<const Offsets&>(offsets), n);
    left -= n;
    // From here on every row starts at its beginning.
    for (int k = 0; k < N; ++k) offsets[k] -= index[inner] * stride(inner, k);
    while (left > 0) {
      for (int axis = inner - 1;; --axis) {
        for (int k = 0; k < N; ++k) offsets[k] += stride(axis, k);
        if (++index[axis] < size(axis)) break;
        for (int k = 0; k < N; ++k) offsets[k] -= size(axis) * stride(axis, k);
        index[axis] = 0;
      }
      n = std::min(size(inner), left);
      f(static_cast<const Offsets&>(offsets), n);
      left -= n;
    }
  }

  /// run() over the whole space, in several threads when that pays.
  template <class F>
  void parallel(F&& f, int64_t grain = kGrain) const {
    parallel_for(numel(), grain, [&](int64_t begin, int64_t end) { run(begin, end, f); });
  }

 private:
  backend::IndexSpace<N> space_;
};

}  // namespace espalier::cpu
