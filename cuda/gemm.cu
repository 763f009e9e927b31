// Matrix products by cuBLAS. Transposed views are passed as such; only views that BLAS can't express are copied.
//
// cuBLAS gives the same bits on every run of one library version on one kind of GPU, as long as a handle serves one
// stream and atomics stay off ("Results Reproducibility" in its documentation): so it is here.

#include <limits>
#include <optional>
#include <type_traits>

#include "core/backend/matrix_layout.h"
#include "core/precision.h"
#include "cuda/context.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

int blas_int(int64_t value) {
  espalier::check(value <= std::numeric_limits<int>::max(), "matmul",
                  "expected sizes below 2^31 (cuBLAS counts with 32 bits), got {}; split the product", value);
  return static_cast<int>(value);
}

cublasOperation_t flag(bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; }

/// CUBLAS_COMPUTE_32F keeps at least the 24 bits of f32 in its default mode: TF32 comes only where it is asked for.
template <class T>
cublasComputeType_t compute_type() {
  if constexpr (std::is_same_v<T, double>) return CUBLAS_COMPUTE_64F;
  switch (matmul_precision()) {
    case MatmulPrecision::tf32: return CUBLAS_COMPUTE_32F_FAST_TF32;
    case MatmulPrecision::bf16: return CUBLAS_COMPUTE_32F_FAST_16BF;
    default: return CUBLAS_COMPUTE_32F;
  }
}

template <class T>
void matmul_batch(const Tensor& a, const Tensor& b, MatrixLayout la, MatrixLayout lb, bool accumulate, Tensor& out) {
  int64_t batch = out.size(0), m = out.size(1);
  const int64_t n = out.size(2), k = a.size(2);
  if (b.stride(0) == 0 && !la.transpose && a.stride(0) == m * la.ld) {
    m *= batch;  // (B*M,K)(K,N) -> (B*M,N): the rows of all batches are one matrix
    batch = 1;
  }
  constexpr cudaDataType kType = std::is_same_v<T, double> ? CUDA_R_64F : CUDA_R_32F;
  const T alpha = 1, beta = accumulate ? T{1} : T{0};
  // cuBLAS is column-major: a row-major (R,C) is to it a (C,R) whose columns are ld apart. So it is asked for the
  // transpose, out^T (N,M) = b^T (N,K) a^T (K,M), by giving b first:
  //   M := N, N := M, K := K; lda := distance of b's stored rows, ldb := of a's, ldc := N;
  //   a matrix stored transposed here is one to transpose there. Batch strides are in elements, out's is M*N.
  check(cublasGemmStridedBatchedEx(Context::of(out.device()).blas(), flag(lb.transpose), flag(la.transpose),
                                   blas_int(n), blas_int(m), blas_int(k), &alpha, b.data<T>(), kType, blas_int(lb.ld),
                                   b.stride(0), a.data<T>(), kType, blas_int(la.ld), a.stride(0), &beta, out.data<T>(),
                                   kType, blas_int(n), m * n, blas_int(batch), compute_type<T>(), CUBLAS_GEMM_DEFAULT),
        "cublasGemmStridedBatchedEx");
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, bool accumulate, Tensor& out) {
  if (out.numel() == 0) return;
  if (a.size(2) == 0) {
    if (!accumulate) cuda::fill(out, 0);
    return;
  }
  const std::optional<MatrixLayout> la = matrix_layout(a), lb = matrix_layout(b);
  if (!la || !lb) {
    matmul(la ? a : a.contiguous(), lb ? b : b.contiguous(), accumulate, out);
    return;
  }
  dispatch_floating(out.dtype(), "matmul", [&]<class T>(T) { matmul_batch<T>(a, b, *la, *lb, accumulate, out); });
}

}  // namespace espalier::cuda
