// Small dense matrices in double, row-major: what criteria, recovery and initialisation solve on the host. Products of
// large matrices are matmul's (core/ops.h).
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace espalier {

/// Factors the symmetric positive definite a (n,n), of which the lower triangle is read and overwritten with L,
/// a = L L^T. Returns false, with `a` half overwritten, when a pivot is not positive.
bool cholesky(std::span<double> a, int64_t n);

/// Solves L L^T x = b (n) in place, with the L that cholesky left.
void cholesky_solve(std::span<const double> l, int64_t n, std::span<double> b);

/// Makes the `count` rows of length n orthonormal, in order. Returns false when one depends on those before it, to
/// rounding.
bool orthonormalize(std::span<double> rows, int64_t count, int64_t n);

/// The rank of a (rows,columns), which is destroyed, by Gaussian elimination with complete pivoting: pivots above
/// tolerance * max(rows,columns) * the largest element count.
int64_t rank_in_place(std::span<double> a, int64_t rows, int64_t columns, double tolerance);
/// The same of a tensor (M,N). Throws when it is no matrix.
int64_t matrix_rank(const Tensor& matrix, double tolerance = 1e-6);

}  // namespace espalier
