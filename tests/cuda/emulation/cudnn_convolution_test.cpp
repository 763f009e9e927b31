// The emulated cuDNN's convolutions against the seven loops of their definition, for every algorithm.
#include <algorithm>

#include "tests/cuda/emulation/cudnn_testing.h"

namespace espalier::testing {
namespace {

/// The numbers of a convolution; x and y may have gaps.
struct Problem {
  Shape4 x, y;
  int k, r, s, groups;
  std::array<int, 2> pad, stride, dilation;
  cudnnConvolutionMode_t mode;

  int filter_c() const { return x.dims[1] / groups; }
  Shape4 w() const { return {k, filter_c(), r, s}; }

  /// Calls f(n, k, p, q, c, h, w, r, s) for every product of y[n,k,p,q] += x[n,c,h,w] * w[k,c % (C/groups),r,s].
  template <class F>
  void for_each(F f) const {
    y.for_each([&](int n, int o, int p, int q) {
      for (int c = 0; c < filter_c(); ++c)
        for (int i = 0; i < r; ++i)
          for (int j = 0; j < s; ++j) {
            const int h = p * stride[0] + i * dilation[0] - pad[0], l = q * stride[1] + j * dilation[1] - pad[1];
            if (h < 0 || h >= x.dims[2] || l < 0 || l >= x.dims[3]) continue;
            const int channel = o / (k / groups) * filter_c() + c;
            const bool flip = mode == CUDNN_CONVOLUTION;
            f(n, o, p, q, channel, h, l, flip ? r - 1 - i : i, flip ? s - 1 - j : j);
          }
    });
  }
};

const Problem kProblems[] = {
    {{5, 3, 6, 7}, {5, 4, 6, 7}, 4, 3, 3, 1, {1, 1}, {1, 1}, {1, 1}, CUDNN_CROSS_CORRELATION},
    {{2, 2, 9, 8}, {2, 3, 9, 8}, 3, 5, 5, 1, {2, 2}, {1, 1}, {1, 1}, CUDNN_CONVOLUTION},
    {{2, 4, 7, 10}, {2, 6, 4, 2}, 6, 2, 3, 2, {1, 0}, {2, 3}, {1, 2}, CUDNN_CROSS_CORRELATION},
    {{3, 6, 5, 4}, {3, 6, 5, 6}, 6, 3, 1, 6, {2, 1}, {1, 1}, {2, 1}, CUDNN_CONVOLUTION},
    {{{2, 3, 4, 5}, {90, 25, 6, 1}},
     {{2, 2, 4, 5}, {40, 1, 10, 2}},
     2,
     1,
     1,
     1,
     {0, 0},
     {1, 1},
     {1, 1},
     CUDNN_CROSS_CORRELATION},
    {{1, 1, 12, 12}, {1, 2, 8, 8}, 2, 5, 5, 1, {0, 0}, {1, 1}, {1, 1}, CUDNN_CROSS_CORRELATION},
};

/// A convolution's descriptors.
struct Descriptors {
  Descriptors(cudnnDataType_t type, const Problem& p, cudnnMathType_t math = CUDNN_FMA_MATH)
      : x(type, p.x), y(type, p.y) {
    const Shape4 shape = p.w();
    EXPECT_EQ(cudnnCreateFilterDescriptor(&w), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(cudnnSetFilter4dDescriptor(w, type, CUDNN_TENSOR_NCHW, shape.dims[0], shape.dims[1], shape.dims[2],
                                         shape.dims[3]),
              CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(cudnnCreateConvolutionDescriptor(&conv), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(cudnnSetConvolution2dDescriptor(conv, p.pad[0], p.pad[1], p.stride[0], p.stride[1], p.dilation[0],
                                              p.dilation[1], p.mode, type),
              CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(cudnnSetConvolutionGroupCount(conv, p.groups), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(cudnnSetConvolutionMathType(conv, math), CUDNN_STATUS_SUCCESS);
  }
  ~Descriptors() {
    EXPECT_EQ(cudnnDestroyFilterDescriptor(w), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(cudnnDestroyConvolutionDescriptor(conv), CUDNN_STATUS_SUCCESS);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  TensorDescriptor x, y;
  cudnnFilterDescriptor_t w = nullptr;
  cudnnConvolutionDescriptor_t conv = nullptr;
};

template <class T>
struct CudnnConvolution : ::testing::Test {
  DnnHandle handle;

  /// Checks one pass with every algorithm that takes it, for betas of 0 and others. `result` is what the pass gives at
  /// each place of the output, and `run` calls cuDNN. Counts the algorithms.
  template <class Algo, class WorkspaceSize, class Run>
  static int check(int algorithms, const std::vector<double>& result, int64_t terms, WorkspaceSize workspace_size,
                   Run run) {
    int taken = 0;
    for (int id = 0; id < algorithms; ++id) {
      const auto algo = static_cast<Algo>(id);
      size_t bytes = 0;
      const cudnnStatus_t status = workspace_size(algo, &bytes);
      if (status == CUDNN_STATUS_NOT_SUPPORTED) continue;
      EXPECT_EQ(status, CUDNN_STATUS_SUCCESS);
      ++taken;
      for (const double beta : {0.0, -0.5}) {
        const T alpha = 1.5, b = static_cast<T>(beta);
        const std::vector<T> old = before<T>(result.size(), beta);
        const DeviceArray<T> out(old), workspace(bytes / sizeof(T) + 1);
        EXPECT_EQ(run(algo, &alpha, &b, out.data(), workspace.data(), bytes), CUDNN_STATUS_SUCCESS);
        std::vector<double> expected(result.size());
        for (size_t i = 0; i < expected.size(); ++i)
          expected[i] = std::isnan(result[i]) ? double{old[i]} : blend(1.5, result[i], beta, old[i]);
        expect_close(out.host(), expected, 2 * tolerance<T>(terms), "algorithm " + std::to_string(id));
        if (bytes > 0) {
          EXPECT_EQ(run(algo, &alpha, &b, out.data(), workspace.data(), bytes - 1), CUDNN_STATUS_BAD_PARAM);
          EXPECT_EQ(run(algo, &alpha, &b, out.data(), static_cast<T*>(nullptr), bytes), CUDNN_STATUS_BAD_PARAM);
          EXPECT_TRUE(std::isnan(workspace.host()[0]));  // garbage
        }
      }
    }
    return taken;
  }
};
TYPED_TEST_SUITE(CudnnConvolution, FloatTypes);

TYPED_TEST(CudnnConvolution, Forward) {
  using T = TypeParam;
  for (const Problem& p : kProblems) {
    const Descriptors d(kDataType<T>, p);
    const std::vector<T> x = random_values<T>(p.x.span(), 1), w = random_values<T>(p.w().span(), 2);
    const DeviceArray<T> dx(x), dw(w);
    std::vector<double> y(p.y.span(), kNaN);  // NaN: a gap
    p.y.for_each([&](auto... i) { y[p.y.at(i...)] = 0; });
    p.for_each([&](int n, int k, int pp, int q, int c, int h, int l, int r, int s) {
      y[p.y.at(n, k, pp, q)] += double{x[p.x.at(n, c, h, l)]} * w[p.w().at(k, c % p.filter_c(), r, s)];
    });
    const int taken = this->template check<cudnnConvolutionFwdAlgo_t>(
        CUDNN_CONVOLUTION_FWD_ALGO_COUNT, y, p.filter_c() * p.r * p.s,
        [&](cudnnConvolutionFwdAlgo_t algo, size_t* bytes) {
          return cudnnGetConvolutionForwardWorkspaceSize(this->handle, d.x, d.w, d.conv, d.y, algo, bytes);
        },
        [&](cudnnConvolutionFwdAlgo_t algo, const T* alpha, const T* beta, T* out, T* workspace, size_t bytes) {
          return cudnnConvolutionForward(this->handle, alpha, d.x, dx.data(), d.w, dw.data(), d.conv, algo, workspace,
                                         bytes, beta, d.y, out);
        });
    EXPECT_GE(taken, 2);
  }
}

TYPED_TEST(CudnnConvolution, BackwardData) {
  using T = TypeParam;
  for (const Problem& p : kProblems) {
    const Descriptors d(kDataType<T>, p);
    const std::vector<T> dy = random_values<T>(p.y.span(), 1), w = random_values<T>(p.w().span(), 2);
    const DeviceArray<T> ddy(dy), dw(w);
    std::vector<double> dx(p.x.span(), kNaN);
    p.x.for_each([&](auto... i) { dx[p.x.at(i...)] = 0; });
    p.for_each([&](int n, int k, int pp, int q, int c, int h, int l, int r, int s) {
      dx[p.x.at(n, c, h, l)] += double{dy[p.y.at(n, k, pp, q)]} * w[p.w().at(k, c % p.filter_c(), r, s)];
    });
    const int taken = this->template check<cudnnConvolutionBwdDataAlgo_t>(
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT, dx, p.k * p.r * p.s,
        [&](cudnnConvolutionBwdDataAlgo_t algo, size_t* bytes) {
          return cudnnGetConvolutionBackwardDataWorkspaceSize(this->handle, d.w, d.y, d.conv, d.x, algo, bytes);
        },
        [&](cudnnConvolutionBwdDataAlgo_t algo, const T* alpha, const T* beta, T* out, T* workspace, size_t bytes) {
          return cudnnConvolutionBackwardData(this->handle, alpha, d.w, dw.data(), d.y, ddy.data(), d.conv, algo,
                                              workspace, bytes, beta, d.x, out);
        });
    EXPECT_GE(taken, 2);
  }
}

TYPED_TEST(CudnnConvolution, BackwardFilterAndBias) {
  using T = TypeParam;
  for (const Problem& p : kProblems) {
    const Descriptors d(kDataType<T>, p);
    const std::vector<T> x = random_values<T>(p.x.span(), 1), dy = random_values<T>(p.y.span(), 2);
    const DeviceArray<T> dx(x), ddy(dy);
    std::vector<double> dw(p.w().span(), 0);
    p.for_each([&](int n, int k, int pp, int q, int c, int h, int l, int r, int s) {
      dw[p.w().at(k, c % p.filter_c(), r, s)] += double{dy[p.y.at(n, k, pp, q)]} * x[p.x.at(n, c, h, l)];
    });
    const int pixels = p.y.dims[0] * p.y.dims[2] * p.y.dims[3];
    const int taken = this->template check<cudnnConvolutionBwdFilterAlgo_t>(
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT, dw, pixels,
        [&](cudnnConvolutionBwdFilterAlgo_t algo, size_t* bytes) {
          return cudnnGetConvolutionBackwardFilterWorkspaceSize(this->handle, d.x, d.y, d.conv, d.w, algo, bytes);
        },
        [&](cudnnConvolutionBwdFilterAlgo_t algo, const T* alpha, const T* beta, T* out, T* workspace, size_t bytes) {
          return cudnnConvolutionBackwardFilter(this->handle, alpha, d.x, dx.data(), d.y, ddy.data(), d.conv, algo,
                                                workspace, bytes, beta, d.w, out);
        });
    EXPECT_GE(taken, 2);

    std::vector<double> sums(static_cast<size_t>(p.k), 0);
    p.y.for_each([&](int n, int k, int h, int l) { sums[static_cast<size_t>(k)] += dy[p.y.at(n, k, h, l)]; });
    const TensorDescriptor bias(kDataType<T>, Shape4(1, p.k, 1, 1)), wrong(kDataType<T>, Shape4(1, p.k + 1, 1, 1));
    const DeviceArray<T> db(static_cast<size_t>(p.k));
    const T one = 1, zero = 0;
    ASSERT_EQ(cudnnConvolutionBackwardBias(this->handle, &one, d.y, ddy.data(), &zero, bias, db.data()),
              CUDNN_STATUS_SUCCESS);
    expect_close(db.host(), sums, tolerance<T>(pixels));
    EXPECT_EQ(cudnnConvolutionBackwardBias(this->handle, &one, d.y, ddy.data(), &zero, wrong, db.data()),
              CUDNN_STATUS_BAD_PARAM);
  }
}

TYPED_TEST(CudnnConvolution, BiasAndActivationInOneCall) {
  using T = TypeParam;
  const Problem& p = kProblems[0];
  const Descriptors d(kDataType<T>, p);
  const TensorDescriptor bias(kDataType<T>, Shape4(1, p.k, 1, 1));
  const std::vector<T> x = random_values<T>(p.x.span(), 1), w = random_values<T>(p.w().span(), 2),
                       z = random_values<T>(p.y.span(), 3), b = random_values<T>(static_cast<size_t>(p.k), 4);
  const DeviceArray<T> dx(x), dw(w), dz(z), db(b), dy(p.y.span()), workspace(4096);
  std::vector<double> sums(p.y.span(), 0), expected(p.y.span());
  p.for_each([&](int n, int k, int pp, int q, int c, int h, int l, int r, int s) {
    sums[p.y.at(n, k, pp, q)] += double{x[p.x.at(n, c, h, l)]} * w[p.w().at(k, c, r, s)];
  });
  p.y.for_each([&](int n, int k, int h, int l) {
    const size_t i = p.y.at(n, k, h, l);
    expected[i] = std::max(0.0, 0.5 * sums[i] + 2.0 * z[i] + b[static_cast<size_t>(k)]);
  });
  cudnnActivationDescriptor_t relu = nullptr;
  ASSERT_EQ(cudnnCreateActivationDescriptor(&relu), CUDNN_STATUS_SUCCESS);
  const T alpha1 = 0.5, alpha2 = 2;
  const auto run = [&](cudnnActivationMode_t mode, cudnnConvolutionFwdAlgo_t algo, cudnnTensorDescriptor_t bias_desc) {
    EXPECT_EQ(cudnnSetActivationDescriptor(relu, mode, CUDNN_NOT_PROPAGATE_NAN, 0), CUDNN_STATUS_SUCCESS);
    return cudnnConvolutionBiasActivationForward(this->handle, &alpha1, d.x, dx.data(), d.w, dw.data(), d.conv, algo,
                                                 workspace.data(), 4096 * sizeof(T), &alpha2, d.y, dz.data(), bias_desc,
                                                 db.data(), relu, d.y, dy.data());
  };
  ASSERT_EQ(run(CUDNN_ACTIVATION_RELU, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, bias), CUDNN_STATUS_SUCCESS);
  expect_close(dy.host(), expected, tolerance<T>(27));
  EXPECT_EQ(run(CUDNN_ACTIVATION_IDENTITY, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, bias),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(run(CUDNN_ACTIVATION_IDENTITY, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, bias), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(run(CUDNN_ACTIVATION_TANH, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, bias), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(run(CUDNN_ACTIVATION_RELU, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, d.y), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(cudnnDestroyActivationDescriptor(relu), CUDNN_STATUS_SUCCESS);
}

TYPED_TEST(CudnnConvolution, Misfits) {
  using T = TypeParam;
  const cudnnDataType_t type = kDataType<T>;
  const Problem& p = kProblems[0];
  const Descriptors d(type, p);
  const DeviceArray<T> data(std::vector<T>(1000, 1));
  const T one = 1, zero = 0;
  T host[1000] = {};
  const auto forward = [&](cudnnTensorDescriptor_t x, cudnnTensorDescriptor_t y, int algo, const T* from, T* to) {
    return cudnnConvolutionForward(this->handle, &one, x, from, d.w, data.data(), d.conv,
                                   static_cast<cudnnConvolutionFwdAlgo_t>(algo), nullptr, 0, &zero, y, to);
  };
  const auto gemm = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM;
  T* const in = data.data();
  T* const out = in;
  const auto other_type = type == CUDNN_DATA_FLOAT ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
  EXPECT_EQ(forward(TensorDescriptor(type, Shape4(5, 2, 6, 7)), d.y, gemm, in, out), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(TensorDescriptor(type, Shape4(4, 3, 6, 7)), d.y, gemm, in, out), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(TensorDescriptor(other_type, p.x), d.y, gemm, in, out), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(d.x, TensorDescriptor(type, Shape4(5, 4, 6, 8)), gemm, in, out), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(forward(d.x, d.y, CUDNN_CONVOLUTION_FWD_ALGO_DIRECT, in, out), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(forward(d.x, d.y, 12, in, out), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(forward(d.x, d.y, gemm, nullptr, out), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(d.x, d.y, gemm, host, out), CUDNN_STATUS_EXECUTION_FAILED);
  expect_fault(cudnnGetErrorString(CUDNN_STATUS_EXECUTION_FAILED), "cudnnConvolutionForward, x");
  EXPECT_EQ(forward(d.x, d.y, gemm, in, host), CUDNN_STATUS_EXECUTION_FAILED);
  expect_fault(cudnnGetErrorString(CUDNN_STATUS_EXECUTION_FAILED), "cudnnConvolutionForward, y");
  // The type of the sums must be that of the data, and the groups must divide the filters.
  ASSERT_EQ(cudnnSetConvolution2dDescriptor(d.conv, 1, 1, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION, other_type),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(forward(d.x, d.y, gemm, in, out), CUDNN_STATUS_NOT_SUPPORTED);
  ASSERT_EQ(cudnnSetConvolution2dDescriptor(d.conv, 1, 1, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION, type),
            CUDNN_STATUS_SUCCESS);
  ASSERT_EQ(cudnnSetConvolutionGroupCount(d.conv, 3), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(forward(TensorDescriptor(type, Shape4(5, 9, 6, 7)), d.y, gemm, in, out), CUDNN_STATUS_BAD_PARAM);
}

// What cudnnMathType_t says of float inputs. Here x is 1 + 2^-20, w is 1.
TEST(CudnnConvolutionMath, DefaultAllowsTf32) {
  const DnnHandle handle;
  const Problem p{{1, 1, 1, 1}, {1, 1, 1, 1}, 1, 1, 1, 1, {0, 0}, {1, 1}, {1, 1}, CUDNN_CROSS_CORRELATION};
  const float fine = 1 + 0x1p-20F, one = 1, zero = 0;
  const DeviceArray<float> x(std::vector<float>{fine}), w(std::vector<float>{1}), y(size_t{1});
  for (const auto& [math, expected] : {std::pair{CUDNN_DEFAULT_MATH, 1.0F},
                                       {CUDNN_TENSOR_OP_MATH, 1.0F},
                                       {CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION, 1.0F},
                                       {CUDNN_FMA_MATH, fine}}) {
    const Descriptors d(CUDNN_DATA_FLOAT, p, math);
    ASSERT_EQ(cudnnConvolutionForward(handle, &one, d.x, x.data(), d.w, w.data(), d.conv,
                                      CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, nullptr, 0, &zero, d.y, y.data()),
              CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(y.host()[0], expected) << math;
  }
}

/// Whether calls with the same inputs give the same bits.
template <class Run>
bool repeats(const DeviceArray<float>& out, Run run) {
  EXPECT_EQ(run(), CUDNN_STATUS_SUCCESS);
  const std::vector<float> first = out.host();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(run(), CUDNN_STATUS_SUCCESS);
    if (out.host() != first) return false;
  }
  return true;
}

TEST(CudnnConvolutionMath, OnlyDeterministicAlgorithmsRepeatTheirBits) {
  const DnnHandle handle;
  const Problem p{{7, 4, 9, 9}, {7, 5, 9, 9}, 5, 3, 3, 1, {1, 1}, {1, 1}, {1, 1}, CUDNN_CROSS_CORRELATION};
  const Descriptors d(CUDNN_DATA_FLOAT, p);
  const DeviceArray<float> x(random_values<float>(p.x.span(), 1)), w(random_values<float>(p.w().span(), 2)),
      dy(random_values<float>(p.y.span(), 3)), dx(p.x.span()), dw(p.w().span()), workspace(1 << 18);
  const float one = 1, zero = 0;
  const size_t bytes = sizeof(float) << 18;
  cudnnConvolutionBwdDataAlgoPerf_t data[8];
  cudnnConvolutionBwdFilterAlgoPerf_t filter[8];
  int count = 0;
  ASSERT_EQ(cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, d.w, d.y, d.conv, d.x, 8, &count, data),
            CUDNN_STATUS_SUCCESS);
  for (int i = 0; i < count && data[i].status == CUDNN_STATUS_SUCCESS; ++i)
    EXPECT_EQ(repeats(dx,
                      [&] {
                        return cudnnConvolutionBackwardData(handle, &one, d.w, w.data(), d.y, dy.data(), d.conv,
                                                            data[i].algo, workspace.data(), bytes, &zero, d.x,
                                                            dx.data());
                      }),
              data[i].determinism == CUDNN_DETERMINISTIC)
        << data[i].algo;
  ASSERT_EQ(cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle, d.x, d.y, d.conv, d.w, 8, &count, filter),
            CUDNN_STATUS_SUCCESS);
  for (int i = 0; i < count && filter[i].status == CUDNN_STATUS_SUCCESS; ++i)
    EXPECT_EQ(repeats(dw,
                      [&] {
                        return cudnnConvolutionBackwardFilter(handle, &one, d.x, x.data(), d.y, dy.data(), d.conv,
                                                              filter[i].algo, workspace.data(), bytes, &zero, d.w,
                                                              dw.data());
                      }),
              filter[i].determinism == CUDNN_DETERMINISTIC)
        << filter[i].algo;
}

TEST(CudnnConvolutionAlgorithms, RankedWithWhatTheyNeed) {
  const DnnHandle handle;
  const Descriptors d(CUDNN_DATA_FLOAT, kProblems[0]), strided(CUDNN_DATA_FLOAT, kProblems[2]),
      doubles(CUDNN_DATA_DOUBLE, kProblems[0]);
  cudnnConvolutionFwdAlgoPerf_t perf[16];
  int count = 0;
  ASSERT_EQ(cudnnGetConvolutionForwardAlgorithmMaxCount(handle, &count), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(count, CUDNN_CONVOLUTION_FWD_ALGO_COUNT);
  const auto supported = [&](const Descriptors& c) {
    EXPECT_EQ(cudnnGetConvolutionForwardAlgorithm_v7(handle, c.x, c.w, c.conv, c.y, 16, &count, perf),
              CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(count, CUDNN_CONVOLUTION_FWD_ALGO_COUNT);
    int n = 0;
    for (int i = 0; i < count; ++i) {
      size_t bytes = 0;
      EXPECT_EQ(cudnnGetConvolutionForwardWorkspaceSize(handle, c.x, c.w, c.conv, c.y, perf[i].algo, &bytes),
                perf[i].status);
      EXPECT_EQ(perf[i].memory, bytes);
      EXPECT_EQ(perf[i].mathType, CUDNN_FMA_MATH);
      if (perf[i].status != CUDNN_STATUS_SUCCESS) continue;
      EXPECT_EQ(n++, i);  // those that work come first
    }
    return n;
  };
  EXPECT_EQ(supported(d), 7);        // all but DIRECT
  EXPECT_EQ(supported(strided), 2);  // no FFT, no Winograd; dilated: no explicit GEMM
  EXPECT_EQ(supported(doubles), 3);
  EXPECT_EQ(cudnnGetConvolutionForwardAlgorithm_v7(handle, d.x, d.w, d.conv, d.y, 3, &count, perf),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(count, 3);
  EXPECT_EQ(cudnnGetConvolutionForwardAlgorithm_v7(handle, d.x, d.w, d.conv, d.y, 0, &count, perf),
            CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cudnnGetConvolutionForwardAlgorithm_v7(handle, d.y, d.w, d.conv, d.y, 3, &count, perf),
            CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cudnnGetConvolutionBackwardDataAlgorithmMaxCount(handle, &count), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(count, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT);
  EXPECT_EQ(cudnnGetConvolutionBackwardFilterAlgorithmMaxCount(handle, &count), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(count, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT);
}

TEST(CudnnConvolutionAlgorithms, SearchOverwritesAndRespectsTheWorkspace) {
  const DnnHandle handle;
  const Problem& p = kProblems[0];
  const Descriptors d(CUDNN_DATA_FLOAT, p);
  const DeviceArray<float> x(std::vector<float>(p.x.span(), 1)), w(std::vector<float>(p.w().span(), 1)),
      y(std::vector<float>(p.y.span(), 1)), workspace(std::vector<float>(64, 1));
  cudnnConvolutionFwdAlgoPerf_t forward[8];
  cudnnConvolutionBwdDataAlgoPerf_t data[8];
  cudnnConvolutionBwdFilterAlgoPerf_t filter[8];
  int count = 0;
  ASSERT_EQ(cudnnFindConvolutionForwardAlgorithmEx(handle, d.x, x.data(), d.w, w.data(), d.conv, d.y, y.data(), 8,
                                                   &count, forward, workspace.data(), 256),
            CUDNN_STATUS_SUCCESS);
  bool too_large = false;
  for (int i = 0; i < count; ++i) {
    if (forward[i].status == CUDNN_STATUS_SUCCESS) {
      EXPECT_LE(forward[i].memory, 256U);
      EXPECT_GT(forward[i].time, 0);
    }
    too_large |= forward[i].status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
  }
  EXPECT_EQ(forward[0].status, CUDNN_STATUS_SUCCESS);
  EXPECT_TRUE(too_large);
  EXPECT_TRUE(std::isnan(y.host()[0]));
  EXPECT_TRUE(std::isnan(workspace.host()[63]));
  EXPECT_EQ(cudnnFindConvolutionForwardAlgorithmEx(handle, d.x, x.data(), d.w, w.data(), d.conv, d.y, y.data(), 8,
                                                   &count, forward, workspace.data(), 257),
            CUDNN_STATUS_EXECUTION_FAILED);
  expect_fault(cudnnGetErrorString(CUDNN_STATUS_EXECUTION_FAILED), "cudnnFindConvolutionForwardAlgorithmEx");
  ASSERT_EQ(cudnnFindConvolutionBackwardDataAlgorithmEx(handle, d.w, w.data(), d.y, y.data(), d.conv, d.x, x.data(), 8,
                                                        &count, data, nullptr, 0),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(data[0].status, CUDNN_STATUS_SUCCESS);
  EXPECT_TRUE(std::isnan(x.host()[0]));
  ASSERT_EQ(cudnnFindConvolutionBackwardFilterAlgorithmEx(handle, d.x, x.data(), d.y, y.data(), d.conv, d.w, w.data(),
                                                          8, &count, filter, nullptr, 0),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(filter[0].status, CUDNN_STATUS_SUCCESS);
  EXPECT_TRUE(std::isnan(w.host()[0]));
}

}  // namespace
}  // namespace espalier::testing
