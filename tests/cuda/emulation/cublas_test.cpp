// The emulated cuBLAS against loops from the definition of each function, and its statuses against the documentation.
#include <cublas_v2.h>

#include <algorithm>

#include "tests/cuda/emulation/device_array.h"

namespace espalier::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class Handle {
 public:
  Handle() { EXPECT_EQ(cublasCreate(&handle_), CUBLAS_STATUS_SUCCESS); }
  ~Handle() { EXPECT_EQ(cublasDestroy(handle_), CUBLAS_STATUS_SUCCESS); }
  operator cublasHandle_t() const { return handle_; }

 private:
  cublasHandle_t handle_ = nullptr;
};

// One name for both types.
template <class... Rest>
cublasStatus_t gemm(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                    const float* alpha, Rest... rest) {
  return cublasSgemm(h, ta, tb, m, n, k, alpha, rest...);
}
template <class... Rest>
cublasStatus_t gemm(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                    const double* alpha, Rest... rest) {
  return cublasDgemm(h, ta, tb, m, n, k, alpha, rest...);
}
template <class... Rest>
cublasStatus_t batched(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                       const float* alpha, Rest... rest) {
  return cublasSgemmStridedBatched(h, ta, tb, m, n, k, alpha, rest...);
}
template <class... Rest>
cublasStatus_t batched(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                       const double* alpha, Rest... rest) {
  return cublasDgemmStridedBatched(h, ta, tb, m, n, k, alpha, rest...);
}
template <class... Rest>
cublasStatus_t gemv(cublasHandle_t h, cublasOperation_t t, int m, int n, const float* alpha, Rest... rest) {
  return cublasSgemv(h, t, m, n, alpha, rest...);
}
template <class... Rest>
cublasStatus_t gemv(cublasHandle_t h, cublasOperation_t t, int m, int n, const double* alpha, Rest... rest) {
  return cublasDgemv(h, t, m, n, alpha, rest...);
}
template <class... Rest>
cublasStatus_t geam(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, const float* alpha,
                    Rest... rest) {
  return cublasSgeam(h, ta, tb, m, n, alpha, rest...);
}
template <class... Rest>
cublasStatus_t geam(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, const double* alpha,
                    Rest... rest) {
  return cublasDgeam(h, ta, tb, m, n, alpha, rest...);
}

/// Element (row, col) of op(m), m column-major.
template <class T>
double element(const std::vector<T>& m, cublasOperation_t op, int ld, int row, int col, int64_t offset = 0) {
  const int64_t at = op == CUBLAS_OP_N ? row + int64_t{col} * ld : col + int64_t{row} * ld;
  return m[static_cast<size_t>(offset + at)];
}

template <class T>
struct Cublas : ::testing::Test {
  Handle handle;
};
TYPED_TEST_SUITE(Cublas, FloatTypes);

TYPED_TEST(Cublas, GemmTransposesAndScales) {
  using T = TypeParam;
  const int m = 5, n = 4, k = 7, lda = 9, ldb = 8, ldc = 6;
  const std::vector<T> a = random_values<T>(lda * 8, 1), b = random_values<T>(ldb * 8, 2);
  for (const cublasOperation_t ta : {CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C})
    for (const cublasOperation_t tb : {CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C})
      for (const double beta : {0.0, -0.5}) {
        std::vector<T> c = random_values<T>(ldc * n, 3);
        if (beta == 0) std::fill(c.begin(), c.end(), static_cast<T>(kNaN));
        std::vector<double> expected(c.begin(), c.end());  // what lies between the columns stays
        for (int row = 0; row < m; ++row)
          for (int col = 0; col < n; ++col) {
            double sum = 0;
            for (int i = 0; i < k; ++i) sum += element(a, ta, lda, row, i) * element(b, tb, ldb, i, col);
            double& out = expected[row + col * ldc];
            out = 1.5 * sum + (beta == 0 ? 0 : beta * out);
          }
        const DeviceArray<T> da(a), db(b), dc(c);
        const T alpha = 1.5, scale = static_cast<T>(beta);
        ASSERT_EQ(gemm(this->handle, ta, tb, m, n, k, &alpha, da.data(), lda, db.data(), ldb, &scale, dc.data(), ldc),
                  CUBLAS_STATUS_SUCCESS);
        expect_close(dc.host(), expected, tolerance<T>(k));
      }
}

TYPED_TEST(Cublas, GemmOfNothingScalesC) {
  using T = TypeParam;
  const DeviceArray<T> poison(16), c(std::vector<T>{1, 2, 3, 4});
  const T zero = 0, half = 0.5, one = 1;
  // k = 0, then alpha = 0: A and B aren't read, and may be null.
  ASSERT_EQ(gemm(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 0, &one, static_cast<const T*>(nullptr), 2,
                 static_cast<const T*>(nullptr), 1, &half, c.data(), 2),
            CUBLAS_STATUS_SUCCESS);
  expect_close(c.host(), {0.5, 1, 1.5, 2}, 0);
  ASSERT_EQ(gemm(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &zero, poison.data(), 2, poison.data(), 2, &half,
                 c.data(), 2),
            CUBLAS_STATUS_SUCCESS);
  expect_close(c.host(), {0.25, 0.5, 0.75, 1}, 0);
  ASSERT_EQ(gemm(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &zero, poison.data(), 2, poison.data(), 2, &zero,
                 poison.data(), 2),
            CUBLAS_STATUS_SUCCESS);
  const std::vector<T> cleared = poison.host();
  expect_close(std::vector<T>(cleared.begin(), cleared.begin() + 4), {0, 0, 0, 0}, 0);
  // No elements: nothing is touched.
  ASSERT_EQ(gemm(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, 0, 2, 2, &one, static_cast<const T*>(nullptr), 1,
                 static_cast<const T*>(nullptr), 2, &zero, static_cast<T*>(nullptr), 1),
            CUBLAS_STATUS_SUCCESS);
}

TYPED_TEST(Cublas, StridedBatches) {
  using T = TypeParam;
  const int m = 3, n = 2, k = 4, batch = 5;
  const std::vector<T> a = random_values<T>(m * k * batch, 1), b = random_values<T>(k * n, 2);
  const T one = 1, zero = 0;
  const DeviceArray<T> da(a), db(b), dc(m * n * batch);
  // B is shared (stride 0), and the matrices C lie side by side: column j of all of them, then column j + 1.
  ASSERT_EQ(batched(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, m, n, k, &one, da.data(), m, static_cast<long long>(m * k),
                    db.data(), k, 0LL, &zero, dc.data(), m * batch, static_cast<long long>(m), batch),
            CUBLAS_STATUS_SUCCESS);
  std::vector<double> expected(m * n * batch, kNaN);
  for (int i = 0; i < batch; ++i)
    for (int row = 0; row < m; ++row)
      for (int col = 0; col < n; ++col) {
        double sum = 0;
        for (int j = 0; j < k; ++j)
          sum += element(a, CUBLAS_OP_N, m, row, j, i * m * k) * element(b, CUBLAS_OP_N, k, j, col);
        expected[row + col * m * batch + i * m] = sum;
      }
  expect_close(dc.host(), expected, tolerance<T>(k));
  // A negative stride: the batch in reverse.
  const DeviceArray<T> reversed(m * n * batch);
  ASSERT_EQ(batched(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, m, n, k, &one, da.data() + m * k * (batch - 1), m,
                    static_cast<long long>(-m * k), db.data(), k, 0LL, &zero, reversed.data(), m,
                    static_cast<long long>(m * n), batch),
            CUBLAS_STATUS_SUCCESS);
  std::vector<double> turned;
  for (int i = batch - 1; i >= 0; --i)
    for (int col = 0; col < n; ++col)
      for (int row = 0; row < m; ++row) turned.push_back(expected[row + col * m * batch + i * m]);
  expect_close(reversed.host(), turned, tolerance<T>(k));
  // Overlapping results are refused.
  EXPECT_EQ(batched(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, m, n, k, &one, da.data(), m, static_cast<long long>(m * k),
                    db.data(), k, 0LL, &zero, dc.data(), m, static_cast<long long>(m), batch),
            CUBLAS_STATUS_INVALID_VALUE);
}

TYPED_TEST(Cublas, GemvWithIncrements) {
  using T = TypeParam;
  const int m = 4, n = 3, lda = 5;
  const std::vector<T> a = random_values<T>(lda * n, 1), x = random_values<T>(8, 2);
  for (const cublasOperation_t op : {CUBLAS_OP_N, CUBLAS_OP_T})
    for (const int incx : {1, 2, -2})
      for (const int incy : {1, 3, -3})
        for (const double beta : {0.0, 2.0}) {
          const int rows = op == CUBLAS_OP_N ? m : n, cols = op == CUBLAS_OP_N ? n : m;
          std::vector<T> y(10, static_cast<T>(beta == 0 ? kNaN : 1));
          std::vector<double> expected(y.begin(), y.end());
          for (int row = 0; row < rows; ++row) {
            double sum = 0;
            for (int col = 0; col < cols; ++col)  // a negative increment starts at the far end (BLAS)
              sum += element(a, op, lda, row, col) * x[incx > 0 ? col * incx : (cols - 1 - col) * -incx];
            double& out = expected[incy > 0 ? row * incy : (rows - 1 - row) * -incy];
            out = 0.5 * sum + (beta == 0 ? 0 : beta * out);
          }
          const DeviceArray<T> da(a), dx(x), dy(y);
          const T alpha = 0.5, scale = static_cast<T>(beta);
          ASSERT_EQ(gemv(this->handle, op, m, n, &alpha, da.data(), lda, dx.data(), incx, &scale, dy.data(), incy),
                    CUBLAS_STATUS_SUCCESS);
          expect_close(dy.host(), expected, tolerance<T>(cols));
        }
}

TYPED_TEST(Cublas, GeamAddsAndTransposes) {
  using T = TypeParam;
  const int m = 4, n = 3, ld = 5;
  const std::vector<T> a = random_values<T>(ld * 5, 1), b = random_values<T>(ld * 5, 2);
  const DeviceArray<T> da(a), db(b);
  for (const cublasOperation_t ta : {CUBLAS_OP_N, CUBLAS_OP_T})
    for (const cublasOperation_t tb : {CUBLAS_OP_N, CUBLAS_OP_T}) {
      const DeviceArray<T> dc(m * n);
      const T alpha = 2, beta = -1;
      ASSERT_EQ(geam(this->handle, ta, tb, m, n, &alpha, da.data(), ld, &beta, db.data(), ld, dc.data(), m),
                CUBLAS_STATUS_SUCCESS);
      std::vector<double> expected;
      for (int col = 0; col < n; ++col)
        for (int row = 0; row < m; ++row)
          expected.push_back(2 * element(a, ta, ld, row, col) - element(b, tb, ld, row, col));
      expect_close(dc.host(), expected, tolerance<T>(2));
    }
  // beta 0: B isn't read. In place is allowed for an operand that lies as C does, and for no other.
  const DeviceArray<T> square(std::vector<T>{1, 2, 3, 4});
  const T three = 3, zero = 0;
  ASSERT_EQ(geam(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, &three, square.data(), 2, &zero,
                 static_cast<const T*>(nullptr), 2, square.data(), 2),
            CUBLAS_STATUS_SUCCESS);
  expect_close(square.host(), {3, 6, 9, 12}, 0);
  EXPECT_EQ(geam(this->handle, CUBLAS_OP_T, CUBLAS_OP_N, 2, 2, &three, square.data(), 2, &zero,
                 static_cast<const T*>(nullptr), 2, square.data(), 2),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(geam(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, &three, square.data(), 1, &zero,
                 static_cast<const T*>(nullptr), 2, square.data(), 2),
            CUBLAS_STATUS_INVALID_VALUE);
}

TYPED_TEST(Cublas, WrongArguments) {
  using T = TypeParam;
  const DeviceArray<T> d(std::vector<T>(64, 1));
  const T one = 1;
  const auto call = [&](cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, int lda, int ldb, int ldc) {
    return gemm(this->handle, ta, tb, m, n, k, &one, d.data(), lda, d.data(), ldb, &one, d.data() + 32, ldc);
  };
  const auto N = CUBLAS_OP_N, Tr = CUBLAS_OP_T;
  EXPECT_EQ(call(N, N, 2, 3, 4, 2, 4, 2), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(call(N, N, 2, 3, 4, 1, 4, 2), CUBLAS_STATUS_INVALID_VALUE);   // lda < m
  EXPECT_EQ(call(N, N, 2, 3, 4, 2, 3, 2), CUBLAS_STATUS_INVALID_VALUE);   // ldb < k
  EXPECT_EQ(call(N, N, 2, 3, 4, 2, 4, 1), CUBLAS_STATUS_INVALID_VALUE);   // ldc < m
  EXPECT_EQ(call(Tr, N, 2, 3, 4, 3, 4, 2), CUBLAS_STATUS_INVALID_VALUE);  // lda < k
  EXPECT_EQ(call(N, Tr, 2, 3, 4, 2, 2, 2), CUBLAS_STATUS_INVALID_VALUE);  // ldb < n
  EXPECT_EQ(call(N, N, -1, 3, 4, 2, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(call(N, N, 0, 3, 4, 0, 4, 1), CUBLAS_STATUS_INVALID_VALUE);  // lda < 1, though m is 0
  EXPECT_EQ(call(static_cast<cublasOperation_t>(3), N, 2, 3, 4, 2, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(
      gemm(this->handle, N, N, 2, 2, 2, static_cast<const T*>(nullptr), d.data(), 2, d.data(), 2, &one, d.data(), 2),
      CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(gemm(nullptr, N, N, 2, 2, 2, &one, d.data(), 2, d.data(), 2, &one, d.data(), 2),
            CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_EQ(batched(this->handle, N, N, 2, 2, 2, &one, d.data(), 2, 4LL, d.data(), 2, 4LL, &one, d.data(), 2, 4LL, -1),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(gemv(this->handle, N, 2, 2, &one, d.data(), 1, d.data(), 1, &one, d.data(), 1),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(gemv(this->handle, N, 2, 2, &one, d.data(), 2, d.data(), 0, &one, d.data(), 1),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(geam(this->handle, N, N, 2, 2, &one, d.data(), 2, &one, d.data(), 1, d.data() + 32, 2),
            CUBLAS_STATUS_INVALID_VALUE);
}

TYPED_TEST(Cublas, HostPointersAndOutOfBoundsAreFaults) {
  using T = TypeParam;
  const DeviceArray<T> d(std::vector<T>(4, 1));
  T host[4] = {1, 1, 1, 1};
  const T one = 1;
  const auto N = CUBLAS_OP_N;
  EXPECT_EQ(gemm(this->handle, N, N, 2, 2, 2, &one, host, 2, d.data(), 2, &one, d.data(), 2),
            CUBLAS_STATUS_EXECUTION_FAILED);
  expect_fault(cublasGetStatusString(CUBLAS_STATUS_EXECUTION_FAILED), "gemm, A");
  EXPECT_EQ(gemm(this->handle, N, N, 2, 2, 2, &one, d.data(), 2, d.data(), 2, &one, host, 2),
            CUBLAS_STATUS_EXECUTION_FAILED);
  expect_fault(cublasGetStatusString(CUBLAS_STATUS_EXECUTION_FAILED), "gemm, C");
  EXPECT_EQ(gemm(this->handle, N, N, 2, 2, 2, &one, d.data(), 2, d.data(), 3, &one, d.data(), 2),
            CUBLAS_STATUS_EXECUTION_FAILED);
  expect_fault(cublasGetStatusString(CUBLAS_STATUS_EXECUTION_FAILED), "gemm, B");
  EXPECT_EQ(gemv(this->handle, N, 2, 2, &one, d.data(), 2, host, 1, &one, d.data(), 1), CUBLAS_STATUS_EXECUTION_FAILED);
  expect_fault(cublasGetStatusString(CUBLAS_STATUS_EXECUTION_FAILED), "gemv, x");
}

TYPED_TEST(Cublas, ScalarsOnTheDevice) {
  using T = TypeParam;
  const DeviceArray<T> d(std::vector<T>{2}), c(std::vector<T>{5}), scalars(std::vector<T>{3, 10});
  ASSERT_EQ(cublasSetPointerMode(this->handle, CUBLAS_POINTER_MODE_DEVICE), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(gemm(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, static_cast<const T*>(scalars.data()), d.data(), 1,
                 d.data(), 1, scalars.data() + 1, c.data(), 1),
            CUBLAS_STATUS_SUCCESS);
  expect_close(c.host(), {62}, 0);
  const T one = 1;
  EXPECT_EQ(gemm(this->handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, d.data(), 1, d.data(), 1, &one, c.data(), 1),
            CUBLAS_STATUS_EXECUTION_FAILED);
  expect_fault(cublasGetStatusString(CUBLAS_STATUS_EXECUTION_FAILED), "alpha");
}

/// 1 * value, as a compute type and a math mode have it.
float through(cublasHandle_t handle, float value, cublasComputeType_t compute,
              cublasMath_t math = CUBLAS_DEFAULT_MATH) {
  EXPECT_EQ(cublasSetMathMode(handle, math), CUBLAS_STATUS_SUCCESS);
  const DeviceArray<float> a(std::vector<float>{value}), b(std::vector<float>{1}), c(size_t{1});
  const float one = 1, zero = 0;
  EXPECT_EQ(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data(), CUDA_R_32F, 1, b.data(), CUDA_R_32F,
                         1, &zero, c.data(), CUDA_R_32F, 1, compute, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_SUCCESS);
  return c.host()[0];
}

TEST(CublasPrecision, RoundsInputsAsTheTensorCoresDo) {
  const Handle h;
  const float fine = 1 + 0x1p-20F;
  EXPECT_EQ(through(h, fine, CUBLAS_COMPUTE_32F), fine);
  EXPECT_EQ(through(h, fine, CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_TF32_TENSOR_OP_MATH), fine);
  EXPECT_EQ(through(h, fine, CUBLAS_COMPUTE_32F, CUBLAS_TF32_TENSOR_OP_MATH), 1);
  // TF32 keeps 10 bits, ties away from zero, and the exponents of float.
  EXPECT_EQ(through(h, 1 + 0x1p-10F, CUBLAS_COMPUTE_32F_FAST_TF32), 1 + 0x1p-10F);
  EXPECT_EQ(through(h, 1 + 0x1p-11F, CUBLAS_COMPUTE_32F_FAST_TF32), 1 + 0x1p-10F);
  EXPECT_EQ(through(h, -1 - 0x1p-11F, CUBLAS_COMPUTE_32F_FAST_TF32), -1 - 0x1p-10F);
  EXPECT_EQ(through(h, 0x1p100F, CUBLAS_COMPUTE_32F_FAST_TF32), 0x1p100F);
  EXPECT_TRUE(std::isnan(through(h, std::numeric_limits<float>::quiet_NaN(), CUBLAS_COMPUTE_32F_FAST_TF32)));
  EXPECT_TRUE(std::isinf(through(h, std::numeric_limits<float>::infinity(), CUBLAS_COMPUTE_32F_FAST_TF32)));
  // bfloat16 keeps 7 bits, ties to even.
  EXPECT_EQ(through(h, 1 + 0x1p-7F, CUBLAS_COMPUTE_32F_FAST_16BF), 1 + 0x1p-7F);
  EXPECT_EQ(through(h, 1 + 0x1p-8F, CUBLAS_COMPUTE_32F_FAST_16BF), 1);
  EXPECT_EQ(through(h, 1 + 0x3p-8F, CUBLAS_COMPUTE_32F_FAST_16BF), 1 + 0x2p-7F);
  // Half has 10 bits, ties to even, subnormals 2^-24 apart, and no 70000.
  EXPECT_EQ(through(h, 1 + 0x1p-11F, CUBLAS_COMPUTE_32F_FAST_16F), 1);
  EXPECT_EQ(through(h, 0x1.8p-24F, CUBLAS_COMPUTE_32F_FAST_16F), 0x1p-23F);
  EXPECT_TRUE(std::isinf(through(h, 70000, CUBLAS_COMPUTE_32F_FAST_16F)));
  EXPECT_EQ(through(h, fine, CUBLAS_COMPUTE_32F, CUBLAS_TENSOR_OP_MATH), 1);
}

TEST(CublasPrecision, SgemmFollowsTheMathMode) {
  const Handle h;
  const float fine = 1 + 0x1p-20F, one = 1, zero = 0;
  const DeviceArray<float> a(std::vector<float>{fine}), b(std::vector<float>{1}), c(size_t{1});
  for (const auto& [math, expected] :
       {std::pair{CUBLAS_DEFAULT_MATH, fine}, {CUBLAS_TF32_TENSOR_OP_MATH, 1.0F}, {CUBLAS_PEDANTIC_MATH, fine}}) {
    ASSERT_EQ(cublasSetMathMode(h, math), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data(), 1, b.data(), 1, &zero, c.data(), 1),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(c.host()[0], expected) << math;
  }
  EXPECT_EQ(cublasSetMathMode(h, static_cast<cublasMath_t>(7)), CUBLAS_STATUS_INVALID_VALUE);
}

TEST(CublasGemmEx, SupportedTypes) {
  const Handle h;
  const DeviceArray<double> a(std::vector<double>{1, 2, 3, 4}), c(size_t{4});
  const double one = 1, zero = 0;
  const auto call = [&](cudaDataType ta, cudaDataType tc, cublasComputeType_t compute,
                        cublasGemmAlgo_t algo = CUBLAS_GEMM_DEFAULT) {
    return cublasGemmStridedBatchedEx(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 2, &one, a.data(), ta, 1, 2, a.data(), ta, 2,
                                      2, &zero, c.data(), tc, 1, 1, 2, compute, algo);
  };
  ASSERT_EQ(call(CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F), CUBLAS_STATUS_SUCCESS);
  expect_close(c.host(), {5, 25, kNaN, kNaN}, 0);
  EXPECT_EQ(call(CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_32F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(call(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_64F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(call(CUDA_R_32F, CUDA_R_64F, CUBLAS_COMPUTE_32F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(call(CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F, static_cast<cublasGemmAlgo_t>(55)),
            CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(cublasGemmEx(nullptr, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data(), CUDA_R_64F, 1, a.data(),
                         CUDA_R_64F, 1, &zero, c.data(), CUDA_R_64F, 1, CUBLAS_COMPUTE_64F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_NOT_INITIALIZED);
}

TEST(CublasHandle, HoldsItsSettings) {
  EXPECT_EQ(cublasCreate(nullptr), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(cublasDestroy(nullptr), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_EQ(cublasSetStream(nullptr, nullptr), CUBLAS_STATUS_NOT_INITIALIZED);
  const Handle h;
  cudaStream_t stream = nullptr, found = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  EXPECT_EQ(cublasSetStream(h, stream), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasGetStream(h, &found), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(found, stream);
  cublasPointerMode_t pointers{};
  EXPECT_EQ(cublasGetPointerMode(h, &pointers), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(pointers, CUBLAS_POINTER_MODE_HOST);
  cublasMath_t math{};
  EXPECT_EQ(cublasSetMathMode(h, CUBLAS_TF32_TENSOR_OP_MATH), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasGetMathMode(h, &math), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(math, CUBLAS_TF32_TENSOR_OP_MATH);
  int version = 0;
  EXPECT_EQ(cublasGetVersion(h, &version), CUBLAS_STATUS_SUCCESS);
  EXPECT_GE(version, 130000);
  EXPECT_STREQ(cublasGetStatusName(CUBLAS_STATUS_INVALID_VALUE), "CUBLAS_STATUS_INVALID_VALUE");
  EXPECT_STREQ(cublasGetStatusString(CUBLAS_STATUS_INVALID_VALUE),
               "an unsupported value or parameter was passed to the function");
  EXPECT_EQ(cublasSetStream(h, nullptr), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(CublasHandle, UsesTheWorkspaceUntilTheStreamChanges) {
  const Handle h;
  const DeviceArray<float> workspace(std::vector<float>(64, 7)), d(std::vector<float>{2}), c(size_t{1});
  const float one = 1, zero = 0;
  const auto multiply = [&] {
    return cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, d.data(), 1, d.data(), 1, &zero, c.data(), 1);
  };
  EXPECT_EQ(cublasSetWorkspace(h, workspace.data() + 1, 128), CUBLAS_STATUS_INVALID_VALUE);  // not aligned to 256 bytes
  ASSERT_EQ(cublasSetWorkspace(h, workspace.data(), 256), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cublasSetStream(h, nullptr), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(multiply(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(workspace.host()[0], 7);
  ASSERT_EQ(cublasSetWorkspace(h, workspace.data(), 256), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(multiply(), CUBLAS_STATUS_SUCCESS);
  EXPECT_TRUE(std::isnan(workspace.host()[0]));
  EXPECT_EQ(c.host()[0], 4);
}

TEST(CublasHandle, WorksOnItsStream) {
  const Handle h;
  cudaStream_t writer = nullptr, stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&writer, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cublasSetStream(h, stream), CUBLAS_STATUS_SUCCESS);
  const DeviceArray<float> a(std::vector<float>{1}), c(size_t{1});
  ASSERT_EQ(cudaMemsetAsync(a.data(), 0, sizeof(float), writer), cudaSuccess);
  const float one = 1, zero = 0;
  const auto multiply = [&] {
    return cublasSgemm(h, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data(), 1, a.data(), 1, &zero, c.data(), 1);
  };
  EXPECT_EQ(multiply(), CUBLAS_STATUS_EXECUTION_FAILED);  // nothing makes it wait for the memset
  expect_fault(cublasGetStatusString(CUBLAS_STATUS_EXECUTION_FAILED), "cublasSgemm, A", cudaErrorLaunchFailure);
  ASSERT_EQ(cudaStreamSynchronize(writer), cudaSuccess);
  EXPECT_EQ(multiply(), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(c.host()[0], 0);
  EXPECT_EQ(cublasSetStream(h, nullptr), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cudaStreamDestroy(writer), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace espalier::testing
