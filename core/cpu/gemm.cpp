// Matrix products by OpenBLAS. Transposed views are passed as such; only views that BLAS can't express are copied.
#include <cblas.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "core/cpu/table.h"
#include "core/matrix_layout.h"
#include "core/threads.h"

namespace espalier::cpu {
namespace {

CBLAS_TRANSPOSE flag(bool transpose) { return transpose ? CblasTrans : CblasNoTrans; }

void call_gemm(bool ta, bool tb, int m, int n, int k, const float* a, int lda, const float* b, int ldb, float beta,
               float* c, int ldc) {
  // (M,K)(K,N) -> (M,N) row-major; stored rows are lda, ldb, ldc apart, a stored row of a transposed a is a column
  cblas_sgemm(CblasRowMajor, flag(ta), flag(tb), m, n, k, 1, a, lda, b, ldb, beta, c, ldc);
}
void call_gemm(bool ta, bool tb, int m, int n, int k, const double* a, int lda, const double* b, int ldb, double beta,
               double* c, int ldc) {
  // (M,K)(K,N) -> (M,N) row-major, as above
  cblas_dgemm(CblasRowMajor, flag(ta), flag(tb), m, n, k, 1, a, lda, b, ldb, beta, c, ldc);
}
void call_gemv(bool transpose, int rows, int cols, const float* a, int lda, const float* x, int step_x, float beta,
               float* y, int step_y) {
  // stored a (rows,cols), rows lda apart: (rows,cols)(cols) -> (rows), or transposed (cols,rows)(rows) -> (cols)
  cblas_sgemv(CblasRowMajor, flag(transpose), rows, cols, 1, a, lda, x, step_x, beta, y, step_y);
}
void call_gemv(bool transpose, int rows, int cols, const double* a, int lda, const double* x, int step_x, double beta,
               double* y, int step_y) {
  // stored a (rows,cols), as above
  cblas_dgemv(CblasRowMajor, flag(transpose), rows, cols, 1, a, lda, x, step_x, beta, y, step_y);
}

int blas_int(int64_t value) {
  check(value <= std::numeric_limits<int>::max(), "matmul",
        "expected sizes below 2^31 (the BLAS counts with 32 bits), got {}; split the product", value);
  return static_cast<int>(value);
}

/// c = op(a) op(b) + beta * c, row-major: op(a) (M,K), op(b) (K,N), c (M,N), none of them empty. op transposes when its
/// flag is set; lda, ldb, ldc are the distances of two stored rows. beta 0 overwrites c whatever it holds.
template <class T>
void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T beta,
          T* c, int64_t ldc) {
  // The BLAS asks OpenMP how many threads to use, and OpenMP answers for the calling thread.
  if (!omp_in_parallel() && omp_get_max_threads() != num_threads()) omp_set_num_threads(num_threads());
  const int M = blas_int(m), N = blas_int(n), K = blas_int(k);
  const int LDA = blas_int(lda), LDB = blas_int(ldb), LDC = blas_int(ldc);
  // One row or column: a matrix-vector product reads the matrix once, while gemm would pack it first.
  if (n == 1) {
    // op(a) (M,K) times the column b (K), whose elements are ldb apart unless b is stored as a row
    call_gemv(ta, ta ? K : M, ta ? M : K, a, LDA, b, tb ? 1 : LDB, beta, c, LDC);
  } else if (m == 1) {
    // op(b)^T (N,K) times the row a (K), whose elements are lda apart when a is stored as a column
    call_gemv(!tb, tb ? N : K, tb ? K : N, b, LDB, a, ta ? LDA : 1, beta, c, 1);
  } else {
    call_gemm(ta, tb, M, N, K, a, LDA, b, LDB, beta, c, LDC);
  }
}

template <class T>
void matmul_batch(const Tensor& a, const Tensor& b, MatrixLayout la, MatrixLayout lb, T beta, Tensor& out) {
  const int64_t batch = out.size(0), m = out.size(1), n = out.size(2), k = a.size(2);
  const T* pa = a.data<T>();
  const T* pb = b.data<T>();
  T* pc = out.data<T>();
  const bool rows_join = !la.transpose && (a.stride(0) == m * la.ld || batch == 1);
  if (batch == 1 || (b.stride(0) == 0 && rows_join)) {
    // (B*M,K)(K,N) -> (B*M,N); lda = distance of a's rows over all batches, ldc = N
    gemm(la.transpose, lb.transpose, batch * m, n, k, pa, la.ld, pb, lb.ld, beta, pc, n);
    return;
  }
  const auto one = [&](int64_t i) {
    // (M,K)(K,N) -> (M,N) of batch i; ldc = N
    gemm(la.transpose, lb.transpose, m, n, k, pa + i * a.stride(0), la.ld, pb + i * b.stride(0), lb.ld, beta,
         pc + i * m * n, n);
  };
  // Below this many multiplications the threads inside one product don't pay for their start.
  constexpr int64_t kSmall = int64_t{1} << 20;
  const int64_t work = m * n * std::max<int64_t>(k, 1);
  if (work >= kSmall && batch < 4 * num_threads()) {
    for (int64_t i = 0; i < batch; ++i) one(i);
  } else {
    const int64_t grain = std::max<int64_t>(1, kSmall / 16 / std::max<int64_t>(work, 1));
    parallel_for(batch, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) one(i);
    });
  }
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, bool accumulate, Tensor& out) {
  if (out.numel() == 0) return;
  if (a.size(2) == 0) {
    if (!accumulate) cpu::fill(out, 0);
    return;
  }
  const std::optional<MatrixLayout> la = matrix_layout(a), lb = matrix_layout(b);
  if (!la || !lb) {
    matmul(la ? a : a.contiguous(), lb ? b : b.contiguous(), accumulate, out);
    return;
  }
  dispatch_floating(out.dtype(), "matmul", [&](auto zero) {
    using T = decltype(zero);
    matmul_batch<T>(a, b, *la, *lb, accumulate ? T{1} : T{0}, out);
  });
}

}  // namespace espalier::cpu
