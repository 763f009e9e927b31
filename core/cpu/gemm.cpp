// Matrix products by OpenBLAS. Transposed views are passed as such; only views that BLAS can't express are copied.
#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <optional>
#include <vector>

#include <sys/mman.h>

#include "core/backend/matrix_layout.h"
#include "core/cpu/table.h"
#include "core/matmul_memory.h"
#include "core/threads.h"

// OpenBLAS's own, exported but in no header of it.
extern "C" void* blas_memory_alloc(int position);
extern "C" void blas_memory_free(void* buffer);

namespace espalier {
namespace {

/// Whether so many buffers find room; they are given back.
bool have_room_for(int buffers) {
  std::vector<void*> taken;
  for (int i = 0; i < buffers; ++i) {
    void* address = mmap(nullptr, kMatmulBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) break;
    taken.push_back(address);
  }
  for (void* address : taken) munmap(address, kMatmulBufferBytes);
  return static_cast<int>(taken.size()) == buffers;
}

}  // namespace

void reserve_matmul_memory() {
  // Threads for which buffers were taken. OpenBLAS keeps a buffer for each thread that it may start (those of its first
  // number of threads since it was loaded) and one for each call that runs at a time; it gives none back.
  static std::atomic<int> reserved = 0;
  static std::mutex mutex;
  constexpr int kMost = 64;  // calls at a time that are prepared for; OpenBLAS has a table of so many
  const int threads = std::min(num_threads(), kMost);
  if (reserved.load(std::memory_order_acquire) >= threads) return;
  const std::lock_guard lock(mutex);
  if (reserved >= threads) return;
  const int own = std::max(0, threads - std::max<int>(openblas_get_num_threads(), reserved));
  const int buffers = own + threads - reserved;
  if (!have_room_for(buffers))
    fail<UnavailableError>(
        "matmul",
        "expected room for {} more buffer{} of {} MiB, which OpenBLAS needs for {} thread{}, found less: "
        "the limit of memory is too tight; raise it (ulimit -v), or take fewer threads "
        "(OMP_NUM_THREADS=1)",
        buffers, buffers == 1 ? "" : "s", kMatmulBufferBytes >> 20, threads, threads == 1 ? "" : "s");
  std::vector<void*> taken;
  for (int i = 0; i < threads; ++i) taken.push_back(blas_memory_alloc(0));
  for (void* buffer : taken) blas_memory_free(buffer);
  reserved = threads;
}

namespace cpu {
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
  reserve_matmul_memory();
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

}  // namespace cpu
}  // namespace espalier
