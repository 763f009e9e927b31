// Element-by-element access to tensors of any strides, and the views that kernels must cope with.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/core/kernel_testing.h"

namespace espalier::testing {

using Index = std::vector<int64_t>;

/// Calls f(index) for every index of a shape in row-major order.
inline void for_each_index(const Shape& shape, const std::function<void(const Index&)>& f) {
  if (shape.numel() == 0) return;
  Index index(static_cast<size_t>(shape.rank()), 0);
  for (;;) {
    f(index);
    int axis = shape.rank() - 1;
    for (; axis >= 0; --axis) {
      int64_t& i = index[static_cast<size_t>(axis)];
      if (++i < shape[axis]) break;
      i = 0;
    }
    if (axis < 0) return;
  }
}

/// The element at an index as T, read through the strides.
template <class T = double>
T value_at(const Tensor& x, const Index& index) {
  int64_t offset = 0;
  for (int axis = 0; axis < x.rank(); ++axis) offset += index[static_cast<size_t>(axis)] * x.strides()[axis];
  return dispatch(x.dtype(), [&](auto zero) { return static_cast<T>(x.data<decltype(zero)>()[offset]); });
}

struct View {
  std::string name;
  Tensor x;
};

/// The same shape by different roads: contiguous, axes reversed in memory, every second element of a larger tensor,
/// and the middle of a larger tensor. `make` creates a contiguous tensor.
inline std::vector<View> views(const Shape& shape, const std::function<Tensor(const Shape&)>& make) {
  const int rank = shape.rank();
  if (rank == 0) return {{"contiguous", make(shape)}};
  Shape reversed, doubled = shape, larger = shape;
  std::vector<int> axes;
  for (int i = rank - 1; i >= 0; --i) {
    reversed.push_back(shape[i]);
    axes.push_back(i);
  }
  doubled[rank - 1] *= 2;
  larger[0] += 2;
  return {{"contiguous", make(shape)},
          {"permuted", make(reversed).permute(axes)},
          {"stepped", make(doubled).slice(rank - 1, 0, doubled[rank - 1], 2)},
          {"sliced", make(larger).slice(0, 1, shape[0] + 1)}};
}

/// Shapes that reach every path: scalars, empty and single axes, rows shorter and longer than a vector, and enough
/// elements for a second thread.
inline std::vector<Shape> usual_shapes() {
  return {{}, {1}, {7}, {0}, {3, 0, 2}, {1, 1}, {5, 1}, {1, 33}, {17, 19}, {2, 3, 4, 5}, {300}, {3, 1, 70}, {130, 270}};
}

}  // namespace espalier::testing
