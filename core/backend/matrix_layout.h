// How a matrix lies in memory, as a BLAS sees it: what the products of every device ask first.
#pragma once

#include <optional>

#include "core/tensor.h"

namespace espalier::backend {

/// Stored rows are `ld` elements apart; with `transpose` a stored row is a column of the matrix.
struct MatrixLayout {
  bool transpose;
  int64_t ld;
};

/// The layout of the last two axes of a (B,R,C) tensor; none where neither axis has unit stride.
inline std::optional<MatrixLayout> matrix_layout(const Tensor& x) {
  const int64_t rows = x.size(1), cols = x.size(2), row_stride = x.stride(1), col_stride = x.stride(2);
  if ((col_stride == 1 || cols == 1) && (row_stride >= cols || rows == 1)) {
    return MatrixLayout{false, rows == 1 ? cols : row_stride};
  }
  if ((row_stride == 1 || rows == 1) && (col_stride >= rows || cols == 1)) {
    return MatrixLayout{true, cols == 1 ? rows : col_stride};
  }
  return std::nullopt;
}

}  // namespace espalier::backend
