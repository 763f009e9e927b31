// What the tests of the CPU's kernels and of the GPU's try: geometries, layouts and indices.
#pragma once

#include <fmt/format.h>

#include "core/ops.h"
#include "tests/core/strided_testing.h"

namespace espalier::testing {

struct Pool2dCase {
  int64_t n, c, h, w;
  Pool2dShape shape;

  int64_t out_h() const { return (h + 2 * shape.padding_h - shape.kernel_h) / shape.stride_h + 1; }
  int64_t out_w() const { return (w + 2 * shape.padding_w - shape.kernel_w) / shape.stride_w + 1; }
  Shape x() const { return {n, c, h, w}; }
  Shape y() const { return {n, c, out_h(), out_w()}; }
  std::string name() const {
    return fmt::format("x {} kernel {},{} stride {},{} padding {},{}", x(), shape.kernel_h, shape.kernel_w,
                       shape.stride_h, shape.stride_w, shape.padding_h, shape.padding_w);
  }
};

struct Conv2dCase {
  int64_t n, c, h, w, f, kh, kw;
  Conv2dShape shape = {};

  int64_t out_h() const { return (h + 2 * shape.padding_h - shape.dilation_h * (kh - 1) - 1) / shape.stride_h + 1; }
  int64_t out_w() const { return (w + 2 * shape.padding_w - shape.dilation_w * (kw - 1) - 1) / shape.stride_w + 1; }
  Shape x() const { return {n, c, h, w}; }
  Shape weight() const { return {f, c / shape.groups, kh, kw}; }
  Shape y() const { return {n, f, out_h(), out_w()}; }
  std::string name() const {
    return fmt::format("x {} w {} stride {},{} padding {},{} dilation {},{} groups {}", x(), weight(), shape.stride_h,
                       shape.stride_w, shape.padding_h, shape.padding_w, shape.dilation_h, shape.dilation_w,
                       shape.groups);
  }
};

/// (B,R,C) matrices as BLAS can take them, and as it cannot.
inline std::vector<View> matrices(RandomTensors& random, int64_t batch, int64_t rows, int64_t cols) {
  return {{"contiguous", random({batch, rows, cols})},
          {"transposed", random({batch, cols, rows}).transpose(1, 2)},
          {"batch inside", random({rows, batch, cols}).transpose(0, 1)},
          {"columns of a wider matrix", random({batch, rows, cols + 3}).slice(2, 1, cols + 1)},
          {"rows of a wider transpose", random({batch, cols, rows + 2}).slice(2, 2, rows + 2).transpose(1, 2)},
          {"every second column", random({batch, rows, 2 * cols}).slice(2, 0, 2 * cols, 2)},
          {"one matrix for all", random({1, rows, cols}).expand({batch, rows, cols})},
          {"one column repeated", random({batch, rows, 1}).expand({batch, rows, cols})},
          {"one row repeated", random({batch, 1, cols}).expand({batch, rows, cols})}};
}

/// i64 indices below `size`.
inline Tensor random_index(RandomTensors& random, const Shape& shape, int64_t size) {
  const Tensor scaled = abs(random(shape)) * 1000.0;
  const auto n = static_cast<double>(std::max<int64_t>(size, 1));
  return unary(UnaryOp::floor, scaled - unary(UnaryOp::floor, scaled / n) * n).to(DType::i64);
}

}  // namespace espalier::testing
