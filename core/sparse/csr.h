// CSR: a sparse matrix by rows, the form in which all others are made and in which values are given and asked for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/mask.h"
#include "core/tensor.h"

namespace espalier {

/// A matrix (rows, columns) of which only some entries exist. Row i has the entries row_offsets[i] up to
/// row_offsets[i + 1]; their columns increase. An entry that exists may be 0.
struct Csr {
  int64_t rows = 0, columns = 0;
  std::vector<int64_t> row_offsets = {0};  ///< rows + 1
  std::vector<int32_t> column;             ///< of each entry
  std::vector<float> value;                ///< of each entry; empty: all 1, where only the structure counts

  int64_t nnz() const { return row_offsets.back(); }
  /// 1 - entries / all places; 0 of a matrix without places.
  double sparsity() const;
};

/// Throws ArgumentError in the name of `operation` unless offsets begin at 0, never fall and end at the entries'
/// number, columns increase within a row and lie in [0, columns), and there are as many values as entries, or none.
void check_csr(const char* operation, const Csr& a);

/// The weights that exist, in their order; the weight is seen as a matrix as in Pattern: axis 0 are its rows. weight:
/// f32, contiguous, on the CPU, in the mask's shape, which has at most 2^31 - 1 columns.
Csr csr_of(const Mask& mask, const Tensor& weight);
/// The entries of a matrix (rows, columns) that aren't 0. f32 on the CPU.
Csr csr_of(const Tensor& matrix);
/// The matrix (rows, columns), f32, 0 where no entry exists.
Tensor to_dense(const Csr& a);

/// The transposed matrix, and of each of its entries the one of `a` that it was: entry e has a.value[from[e]].
struct Transposed {
  Csr matrix;
  std::vector<int32_t> from;
};
Transposed transposed(const Csr& a);

}  // namespace espalier
