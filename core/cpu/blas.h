// The two BLAS calls the CPU kernels make. The BLAS itself is included in gemm.cpp only.
#pragma once

#include <cstdint>

namespace espalier::cpu {

/// c = alpha * op(a) op(b) + beta * c, row-major: op(a) (M,K), op(b) (K,N), c (M,N).
/// op transposes when its flag is set; lda, ldb, ldc are the distances of two stored rows in elements.
/// beta 0 overwrites c whatever it holds. M, N, K of 0 are allowed: K = 0 leaves beta * c.
/// Inside a parallel region it runs on the calling thread.
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
          int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

}  // namespace espalier::cpu
