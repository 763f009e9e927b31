// The cuBLAS calls that <cublas_v2.h> declares, computed by OpenBLAS. Arguments are checked and the status chosen as
// the cuBLAS documentation says for each function; matrices are column-major. A pointer that is no device memory is a
// fault of the emulator's, as it would be on a GPU.
#include <cblas.h>
#include <cublas_v2.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/emulation/library.h"
#include "cuda/emulation/rounding.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  void* workspace = nullptr;  ///< the caller's; null: the library's own
  size_t workspace_bytes = 0;
};

namespace emulation = espalier::emulation;

namespace {

using emulation::Precision;

/// Runs a call. A fault in it, which cudaGetLastError() also tells, is its failure, as an illegal address in a
/// library's kernel would be.
template <class Run>
cublasStatus_t guarded(cublasHandle_t handle, Run run) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  try {
    return run();
  } catch (const emulation::Fault&) {
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
}

/// A column-major matrix in device memory, or a strided batch of them.
template <class T>
struct Matrix {
  T* data;
  int64_t rows, cols, ld, stride = 0;

  int64_t extent() const { return rows == 0 || cols == 0 ? 0 : (cols - 1) * ld + rows; }
};

/// The stored shape of an operand whose op() is (rows, cols).
template <class T>
Matrix<T> stored(cublasOperation_t op, int64_t rows, int64_t cols, T* data, int64_t ld, int64_t stride = 0) {
  return op == CUBLAS_OP_N ? Matrix<T>{data, rows, cols, ld, stride} : Matrix<T>{data, cols, rows, ld, stride};
}

bool valid(cublasOperation_t op) { return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C; }
template <class T>
bool valid(const Matrix<T>& m) {
  return m.ld >= std::max<int64_t>(1, m.rows);
}

CBLAS_TRANSPOSE flag(cublasOperation_t op) { return op == CUBLAS_OP_N ? CblasNoTrans : CblasTrans; }

/// A batch of matrices as the CPU reads it: batch i begins at first[i * stride].
template <class T>
struct Input {
  const T* first;
  std::vector<T> rounded;
};

/// The elements that a batch spans, from its lowest address.
template <class T>
int64_t batch_low(const Matrix<T>& m, int64_t batch) {
  return std::min<int64_t>(0, m.stride * (batch - 1));
}
template <class T>
size_t batch_bytes(const Matrix<T>& m, int64_t batch) {
  return sizeof(T) * static_cast<size_t>(std::abs(m.stride) * (batch - 1) + m.extent());
}

template <class T>
Input<T> read(const Matrix<const T>& m, int64_t batch, Precision precision, cublasHandle_t handle,
              const std::string& name) {
  const int64_t low = batch_low(m, batch);
  const size_t bytes = batch_bytes(m, batch);
  const T* lowest = static_cast<const T*>(emulation::device_read(m.data + low, bytes, handle->stream, name.c_str()));
  if (precision == Precision::full) return {lowest - low, {}};
  std::vector<T> rounded(bytes / sizeof(T));
  for (size_t i = 0; i < rounded.size(); ++i) rounded[i] = emulation::round_to(precision, lowest[i]);
  const T* first = rounded.data() - low;
  return {first, std::move(rounded)};  // moving a vector keeps its elements where they are
}

template <class T>
T* write(const Matrix<T>& m, int64_t batch, bool reads, cublasHandle_t handle, const std::string& name) {
  const int64_t low = batch_low(m, batch);
  const size_t bytes = batch_bytes(m, batch);
  if (reads) emulation::device_read(m.data + low, bytes, handle->stream, name.c_str());
  return static_cast<T*>(emulation::device_write(m.data + low, bytes, handle->stream, name.c_str())) - low;
}

/// alpha or beta, which lie where the pointer mode says.
template <class T>
T scalar(cublasHandle_t handle, const T* p, const std::string& name) {
  if (handle->pointer_mode == CUBLAS_POINTER_MODE_HOST) return *p;
  return *static_cast<const T*>(emulation::device_read(p, sizeof(T), handle->stream, name.c_str()));
}

/// What a caller's workspace holds after a call is the library's affair: fill its begin, so that data kept there by
/// mistake is lost here too.
void use_workspace(cublasHandle_t handle, const std::string& call) {
  const size_t bytes = std::min<size_t>(handle->workspace_bytes, 4096);
  if (handle->workspace && bytes > 0)
    std::memset(emulation::device_write(handle->workspace, bytes, handle->stream, (call + ", workspace").c_str()), 0xff,
                bytes);
}

/// Whether no element belongs to two matrices of the batch; matrices may lie side by side within the leading dimension.
template <class T>
bool disjoint(const Matrix<T>& c, int64_t batch) {
  const int64_t step = std::abs(c.stride);
  return batch < 2 || step >= c.extent() || (step >= c.rows && step * (batch - 1) + c.rows <= c.ld);
}

void multiply(cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, float alpha, const float* a, int lda,
              const float* b, int ldb, float beta, float* c, int ldc) {
  // (M,K)(K,N) -> (M,N), columns lda, ldb, ldc apart
  cblas_sgemm(CblasColMajor, flag(ta), flag(tb), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void multiply(cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, double alpha, const double* a, int lda,
              const double* b, int ldb, double beta, double* c, int ldc) {
  // (M,K)(K,N) -> (M,N), columns lda, ldb, ldc apart
  cblas_dgemm(CblasColMajor, flag(ta), flag(tb), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

template <class T>
cublasStatus_t gemm(const std::string& call, cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                    int n, int k, const T* alpha_at, const T* a_data, int lda, int64_t stride_a, const T* b_data,
                    int ldb, int64_t stride_b, const T* beta_at, T* c_data, int ldc, int64_t stride_c, int batch,
                    Precision precision) {
  if (m < 0 || n < 0 || k < 0 || batch < 0 || !valid(ta) || !valid(tb)) return CUBLAS_STATUS_INVALID_VALUE;
  const Matrix<const T> a = stored(ta, m, k, a_data, lda, stride_a), b = stored(tb, k, n, b_data, ldb, stride_b);
  const Matrix<T> c{c_data, m, n, ldc, stride_c};
  if (!valid(a) || !valid(b) || !valid(c) || !alpha_at || !beta_at) return CUBLAS_STATUS_INVALID_VALUE;
  if (m == 0 || n == 0 || batch == 0) return CUBLAS_STATUS_SUCCESS;
  if (!c_data || !disjoint(c, batch)) return CUBLAS_STATUS_INVALID_VALUE;
  const T alpha = scalar(handle, alpha_at, call + ", alpha"), beta = scalar(handle, beta_at, call + ", beta");
  use_workspace(handle, call);
  const bool reads_inputs = k > 0 && alpha != T{0};
  const Input<T> from_a = reads_inputs ? read(a, batch, precision, handle, call + ", A") : Input<T>{};
  const Input<T> from_b = reads_inputs ? read(b, batch, precision, handle, call + ", B") : Input<T>{};
  T* const to = write(c, batch, beta != T{0}, handle, call + ", C");
  const auto one = [&](int64_t i) {
    if (!reads_inputs) {
      for (int64_t col = 0; col < n; ++col)
        for (int64_t row = 0; row < m; ++row) {
          T& element = to[i * stride_c + col * ldc + row];
          element = beta == T{0} ? T{0} : beta * element;
        }
      return;
    }
    multiply(ta, tb, m, n, k, alpha, from_a.first + i * stride_a, lda, from_b.first + i * stride_b, ldb, beta,
             to + i * stride_c, ldc);
  };
  if (batch < 4) {
    for (int64_t i = 0; i < batch; ++i) one(i);
  } else {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < batch; ++i) one(i);
  }
  return CUBLAS_STATUS_SUCCESS;
}

/// What the handle's math mode makes of a float product; cublas<t>gemm and CUBLAS_COMPUTE_32F follow it.
Precision precision_of(cublasHandle_t handle) {
  switch (handle->math & 15) {
    case CUBLAS_TF32_TENSOR_OP_MATH: return Precision::tf32;
    case CUBLAS_TENSOR_OP_MATH: return Precision::fp16;
    default: return Precision::full;
  }
}

cublasStatus_t gemm_ex(const std::string& call, cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                       int m, int n, int k, const void* alpha, const void* a, cudaDataType type_a, int lda,
                       int64_t stride_a, const void* b, cudaDataType type_b, int ldb, int64_t stride_b,
                       const void* beta, void* c, cudaDataType type_c, int ldc, int64_t stride_c, int batch,
                       cublasComputeType_t compute, cublasGemmAlgo_t algo) {
  if (algo != CUBLAS_GEMM_DEFAULT && algo != CUBLAS_GEMM_DEFAULT_TENSOR_OP) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (type_a != type_b || type_a != type_c) return CUBLAS_STATUS_NOT_SUPPORTED;
  const auto run = [&]<class T>(T, Precision precision) {
    return gemm(call, handle, ta, tb, m, n, k, static_cast<const T*>(alpha), static_cast<const T*>(a), lda, stride_a,
                static_cast<const T*>(b), ldb, stride_b, static_cast<const T*>(beta), static_cast<T*>(c), ldc, stride_c,
                batch, precision);
  };
  if (type_a == CUDA_R_64F) {
    const bool supported = compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC;
    return supported ? run(double{}, Precision::full) : CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (type_a != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  switch (compute) {
    case CUBLAS_COMPUTE_32F: return run(float{}, precision_of(handle));
    case CUBLAS_COMPUTE_32F_PEDANTIC: return run(float{}, Precision::full);
    case CUBLAS_COMPUTE_32F_FAST_TF32: return run(float{}, Precision::tf32);
    case CUBLAS_COMPUTE_32F_FAST_16BF: return run(float{}, Precision::bf16);
    case CUBLAS_COMPUTE_32F_FAST_16F: return run(float{}, Precision::fp16);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

void multiply(cublasOperation_t op, int m, int n, float alpha, const float* a, int lda, const float* x, int incx,
              float beta, float* y, int incy) {
  // stored a (M,N), columns lda apart: (M,N)(N) -> (M), or transposed (N,M)(M) -> (N)
  cblas_sgemv(CblasColMajor, flag(op), m, n, alpha, a, lda, x, incx, beta, y, incy);
}
void multiply(cublasOperation_t op, int m, int n, double alpha, const double* a, int lda, const double* x, int incx,
              double beta, double* y, int incy) {
  // stored a (M,N), as above
  cblas_dgemv(CblasColMajor, flag(op), m, n, alpha, a, lda, x, incx, beta, y, incy);
}

template <class T>
cublasStatus_t gemv(const std::string& call, cublasHandle_t handle, cublasOperation_t op, int m, int n,
                    const T* alpha_at, const T* a_data, int lda, const T* x_data, int incx, const T* beta_at, T* y_data,
                    int incy) {
  const Matrix<const T> a{a_data, m, n, lda};
  if (m < 0 || n < 0 || !valid(op) || !valid(a) || incx == 0 || incy == 0 || !alpha_at || !beta_at)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  const T alpha = scalar(handle, alpha_at, call + ", alpha"), beta = scalar(handle, beta_at, call + ", beta");
  // A vector is a one-row matrix whose columns lie |inc| apart.
  const Matrix<const T> x{x_data, 1, op == CUBLAS_OP_N ? n : m, std::abs(incx)};
  const Matrix<T> y{y_data, 1, op == CUBLAS_OP_N ? m : n, std::abs(incy)};
  const bool reads_inputs = alpha != T{0};
  const Input<T> from_a = reads_inputs ? read(a, 1, Precision::full, handle, call + ", A") : Input<T>{};
  const Input<T> from_x = reads_inputs ? read(x, 1, Precision::full, handle, call + ", x") : Input<T>{};
  T* const to = write(y, 1, beta != T{0}, handle, call + ", y");
  for (int64_t i = 0; i < y.cols; ++i) {
    T& element = to[i * y.ld];
    element = beta == T{0} ? T{0} : beta * element;
  }
  if (reads_inputs) multiply(op, m, n, alpha, from_a.first, lda, from_x.first, incx, T{1}, to, incy);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t geam(const std::string& call, cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                    int n, const T* alpha_at, const T* a_data, int lda, const T* beta_at, const T* b_data, int ldb,
                    T* c_data, int ldc) {
  if (m < 0 || n < 0 || !valid(ta) || !valid(tb)) return CUBLAS_STATUS_INVALID_VALUE;
  const Matrix<const T> a = stored(ta, m, n, a_data, lda), b = stored(tb, m, n, b_data, ldb);
  const Matrix<T> c{c_data, m, n, ldc};
  const auto in_place_misfit = [&](const Matrix<const T>& input, cublasOperation_t op) {
    return input.data == c_data && (op != CUBLAS_OP_N || input.ld != ldc);
  };
  if (!valid(a) || !valid(b) || !valid(c) || !alpha_at || !beta_at) return CUBLAS_STATUS_INVALID_VALUE;
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  if (in_place_misfit(a, ta) || in_place_misfit(b, tb)) return CUBLAS_STATUS_INVALID_VALUE;
  const T alpha = scalar(handle, alpha_at, call + ", alpha"), beta = scalar(handle, beta_at, call + ", beta");
  const T* const from_a = alpha == T{0} ? nullptr : read(a, 1, Precision::full, handle, call + ", A").first;
  const T* const from_b = beta == T{0} ? nullptr : read(b, 1, Precision::full, handle, call + ", B").first;
  T* const to = write(c, 1, false, handle, call + ", C");
#pragma omp parallel for schedule(static)
  for (int64_t col = 0; col < n; ++col)
    for (int64_t row = 0; row < m; ++row) {
      T sum = 0;
      if (from_a) sum += alpha * from_a[ta == CUBLAS_OP_N ? col * lda + row : row * lda + col];
      if (from_b) sum += beta * from_b[tb == CUBLAS_OP_N ? col * ldb + row : row * ldb + col];
      to[col * ldc + row] = sum;
    }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion(cublasHandle_t handle, int* version) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!version) return CUBLAS_STATUS_INVALID_VALUE;
  *version = 130100;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, size_t bytes) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return CUBLAS_STATUS_INVALID_VALUE;
  handle->workspace = workspace;
  handle->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  handle->workspace = nullptr;  // as documented: a new stream means the default workspace
  handle->workspace_bytes = 0;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t* stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!stream) return CUBLAS_STATUS_INVALID_VALUE;
  *stream = handle->stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetPointerMode(cublasHandle_t handle, cublasPointerMode_t* mode) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!mode) return CUBLAS_STATUS_INVALID_VALUE;
  *mode = handle->pointer_mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (mode != CUBLAS_POINTER_MODE_HOST && mode != CUBLAS_POINTER_MODE_DEVICE) return CUBLAS_STATUS_INVALID_VALUE;
  handle->pointer_mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!mode) return CUBLAS_STATUS_INVALID_VALUE;
  *mode = handle->math;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  const int base = mode & ~CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
  if (base < CUBLAS_DEFAULT_MATH || base > CUBLAS_TF32_TENSOR_OP_MATH) return CUBLAS_STATUS_INVALID_VALUE;
  handle->math = mode;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR: return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR: return "CUBLAS_STATUS_LICENSE_ERROR";
  }
  return "unrecognized status";
}

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "the function requires an architectural feature absent from the device";
    case CUBLAS_STATUS_MAPPING_ERROR: return "an access to GPU memory space failed";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return emulation::last_fault().empty() ? "the function failed to launch on the GPU"
                                             : emulation::last_fault().c_str();
    case CUBLAS_STATUS_INTERNAL_ERROR: return "an internal operation failed";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "the requested functionality is not supported";
    case CUBLAS_STATUS_LICENSE_ERROR: return "the license check failed";
  }
  return "unrecognized status";
}

cublasStatus_t cublasSgemv(cublasHandle_t handle, cublasOperation_t trans, int m, int n, const float* alpha,
                           const float* A, int lda, const float* x, int incx, const float* beta, float* y, int incy) {
  return guarded(handle,
                 [&] { return gemv("cublasSgemv", handle, trans, m, n, alpha, A, lda, x, incx, beta, y, incy); });
}
cublasStatus_t cublasDgemv(cublasHandle_t handle, cublasOperation_t trans, int m, int n, const double* alpha,
                           const double* A, int lda, const double* x, int incx, const double* beta, double* y,
                           int incy) {
  return guarded(handle,
                 [&] { return gemv("cublasDgemv", handle, trans, m, n, alpha, A, lda, x, incx, beta, y, incy); });
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                           int k, const float* alpha, const float* A, int lda, const float* B, int ldb,
                           const float* beta, float* C, int ldc) {
  return guarded(handle, [&] {
    return gemm("cublasSgemm", handle, transa, transb, m, n, k, alpha, A, lda, 0, B, ldb, 0, beta, C, ldc, 0, 1,
                precision_of(handle));
  });
}
cublasStatus_t cublasDgemm(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                           int k, const double* alpha, const double* A, int lda, const double* B, int ldb,
                           const double* beta, double* C, int ldc) {
  return guarded(handle, [&] {
    return gemm("cublasDgemm", handle, transa, transb, m, n, k, alpha, A, lda, 0, B, ldb, 0, beta, C, ldc, 0, 1,
                Precision::full);
  });
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                         int m, int n, int k, const float* alpha, const float* A, int lda,
                                         long long strideA, const float* B, int ldb, long long strideB,
                                         const float* beta, float* C, int ldc, long long strideC, int batchCount) {
  return guarded(handle, [&] {
    return gemm("cublasSgemmStridedBatched", handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB,
                beta, C, ldc, strideC, batchCount, precision_of(handle));
  });
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                         int m, int n, int k, const double* alpha, const double* A, int lda,
                                         long long strideA, const double* B, int ldb, long long strideB,
                                         const double* beta, double* C, int ldc, long long strideC, int batchCount) {
  return guarded(handle, [&] {
    return gemm("cublasDgemmStridedBatched", handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB,
                beta, C, ldc, strideC, batchCount, Precision::full);
  });
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                            int k, const void* alpha, const void* A, cudaDataType Atype, int lda, const void* B,
                            cudaDataType Btype, int ldb, const void* beta, void* C, cudaDataType Ctype, int ldc,
                            cublasComputeType_t computeType, cublasGemmAlgo_t algo) {
  return guarded(handle, [&] {
    return gemm_ex("cublasGemmEx", handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C,
                   Ctype, ldc, 0, 1, computeType, algo);
  });
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                          int m, int n, int k, const void* alpha, const void* A, cudaDataType Atype,
                                          int lda, long long strideA, const void* B, cudaDataType Btype, int ldb,
                                          long long strideB, const void* beta, void* C, cudaDataType Ctype, int ldc,
                                          long long strideC, int batchCount, cublasComputeType_t computeType,
                                          cublasGemmAlgo_t algo) {
  return guarded(handle, [&] {
    return gemm_ex("cublasGemmStridedBatchedEx", handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B,
                   Btype, ldb, strideB, beta, C, Ctype, ldc, strideC, batchCount, computeType, algo);
  });
}

cublasStatus_t cublasSgeam(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                           const float* alpha, const float* A, int lda, const float* beta, const float* B, int ldb,
                           float* C, int ldc) {
  return guarded(
      handle, [&] { return geam("cublasSgeam", handle, transa, transb, m, n, alpha, A, lda, beta, B, ldb, C, ldc); });
}
cublasStatus_t cublasDgeam(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                           const double* alpha, const double* A, int lda, const double* beta, const double* B, int ldb,
                           double* C, int ldc) {
  return guarded(
      handle, [&] { return geam("cublasDgeam", handle, transa, transb, m, n, alpha, A, lda, beta, B, ldb, C, ldc); });
}

}  // extern "C"
