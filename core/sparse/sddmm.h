// SDDMM: a product of two dense matrices, of which only the entries of a sparse one are computed: the gradient of a
// sparse weight.
#pragma once

#include <cstdint>

#include "core/sparse/csr.h"

namespace espalier {

/// g[e] = sum over j of dy[i][j] * x[k][j] for each entry e of A at row i, column k; g (nnz) is assigned. dy (rows, n)
/// and x (columns, n), rows `stride` floats apart. Of A its structure counts.
///
/// A row of dy stays in registers while it meets the rows of x; each sum has a fixed order: the bits are the same for
/// any number of threads.
void sddmm(const Csr& a, const float* dy, int64_t dy_stride, const float* x, int64_t x_stride, int64_t n, float* g);
/// The same from the transposed matrices (n, rows) and (n, columns): gradients and inputs of a batch of n examples.
void sddmm_batch(const Csr& a, const float* dy, int64_t dy_stride, const float* x, int64_t x_stride, int64_t n,
                 float* g);

}  // namespace espalier
