// The emulated cuDNN's operations on tensors as such, its activations and its softmax.
#include <algorithm>

#include "tests/cuda/emulation/cudnn_testing.h"

namespace espalier::testing {
namespace {

template <class T>
struct CudnnTensor : ::testing::Test {
  DnnHandle handle;
  const cudnnDataType_t type = kDataType<T>;
};
TYPED_TEST_SUITE(CudnnTensor, FloatTypes);

// A tensor that is not packed, and one that is.
const Shape4 kSpread({2, 3, 2, 4}, {40, 12, 5, 1}), kPacked(2, 3, 2, 4);

TYPED_TEST(CudnnTensor, SetAndScaleLeaveTheGapsAlone) {
  using T = TypeParam;
  const TensorDescriptor desc(this->type, kSpread);
  const DeviceArray<T> y(kSpread.span());
  const T value = 3, scale = 0.5;
  std::vector<double> expected(kSpread.span(), kNaN);
  ASSERT_EQ(cudnnSetTensor(this->handle, desc, y.data(), &value), CUDNN_STATUS_SUCCESS);
  kSpread.for_each([&](auto... i) { expected[kSpread.at(i...)] = 3; });
  expect_close(y.host(), expected, 0);
  ASSERT_EQ(cudnnScaleTensor(this->handle, desc, y.data(), &scale), CUDNN_STATUS_SUCCESS);
  kSpread.for_each([&](auto... i) { expected[kSpread.at(i...)] = 1.5; });
  expect_close(y.host(), expected, 0);
}

TYPED_TEST(CudnnTensor, AddRepeatsAxesOfSizeOne) {
  using T = TypeParam;
  const TensorDescriptor c_desc(this->type, kSpread);
  for (const Shape4& a_shape : {Shape4(1, 3, 1, 1), Shape4(1, 1, 2, 4), Shape4(2, 3, 2, 4), Shape4(1, 1, 1, 1)})
    for (const double beta : {0.0, 2.0}) {
      const TensorDescriptor a_desc(this->type, a_shape);
      const std::vector<T> a = random_values<T>(a_shape.span(), 1), c = before<T>(kSpread.span(), beta);
      const DeviceArray<T> da(a), dc(c);
      const T alpha = -1.5, b = static_cast<T>(beta);
      ASSERT_EQ(cudnnAddTensor(this->handle, &alpha, a_desc, da.data(), &b, c_desc, dc.data()), CUDNN_STATUS_SUCCESS);
      std::vector<double> expected(c.begin(), c.end());
      kSpread.for_each([&](int n, int ch, int h, int w) {
        const auto& d = a_shape.dims;
        const size_t from = a_shape.at(d[0] > 1 ? n : 0, d[1] > 1 ? ch : 0, d[2] > 1 ? h : 0, d[3] > 1 ? w : 0);
        double& out = expected[kSpread.at(n, ch, h, w)];
        out = blend(-1.5, a[from], beta, out);
      });
      expect_close(dc.host(), expected, tolerance<T>(2));
    }
}

TYPED_TEST(CudnnTensor, Misfits) {
  using T = TypeParam;
  const cudnnDataType_t other = this->type == CUDNN_DATA_FLOAT ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
  const TensorDescriptor c(this->type, kPacked), wrong_size(this->type, Shape4(1, 2, 1, 1)),
      wrong_type(other, Shape4(1, 3, 1, 1)), half(CUDNN_DATA_HALF, kPacked),
      backwards(this->type, Shape4({2, 3, 2, 4}, {24, 8, 4, -1}));
  const DeviceArray<T> data(kPacked.span());
  const T one = 1;
  T host[48] = {};
  EXPECT_EQ(cudnnAddTensor(this->handle, &one, wrong_size, data.data(), &one, c, data.data()), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cudnnAddTensor(this->handle, &one, wrong_type, data.data(), &one, c, data.data()), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cudnnAddTensor(this->handle, nullptr, c, data.data(), &one, c, data.data()), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cudnnSetTensor(this->handle, half, data.data(), &one), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(cudnnSetTensor(this->handle, backwards, data.data(), &one), CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(cudnnAddTensor(this->handle, &one, c, host, &one, c, data.data()), CUDNN_STATUS_EXECUTION_FAILED);
  expect_fault(cudnnGetErrorString(CUDNN_STATUS_EXECUTION_FAILED), "cudnnAddTensor, A");
  EXPECT_EQ(cudnnSetTensor(this->handle, c, data.data() + 1, &one), CUDNN_STATUS_EXECUTION_FAILED);
  expect_fault(cudnnGetErrorString(CUDNN_STATUS_EXECUTION_FAILED), "cudnnSetTensor, y");
}

TYPED_TEST(CudnnTensor, Activations) {
  using T = TypeParam;
  cudnnActivationDescriptor_t activation = nullptr;
  ASSERT_EQ(cudnnCreateActivationDescriptor(&activation), CUDNN_STATUS_SUCCESS);
  const TensorDescriptor desc(this->type, kPacked);
  const size_t size = kPacked.span();
  const std::vector<T> x = random_values<T>(size, 1), dy = random_values<T>(size, 2);
  const double coef = 0.75;
  struct Case {
    cudnnActivationMode_t mode;
    double (*f)(double), (*derivative)(double);
  };
  const Case cases[] = {
      {CUDNN_ACTIVATION_SIGMOID, [](double v) { return 1 / (1 + std::exp(-v)); },
       [](double v) { return std::exp(-v) / std::pow(1 + std::exp(-v), 2); }},
      {CUDNN_ACTIVATION_RELU, [](double v) { return std::max(v, 0.0); }, [](double v) { return v > 0 ? 1.0 : 0.0; }},
      {CUDNN_ACTIVATION_TANH, [](double v) { return std::tanh(v); },
       [](double v) { return 1 / std::pow(std::cosh(v), 2); }},
      {CUDNN_ACTIVATION_CLIPPED_RELU, [](double v) { return std::clamp(v, 0.0, 0.75); },
       [](double v) { return v > 0 && v < 0.75 ? 1.0 : 0.0; }},
      {CUDNN_ACTIVATION_ELU, [](double v) { return v > 0 ? v : 0.75 * (std::exp(v) - 1); },
       [](double v) { return v > 0 ? 1.0 : 0.75 * std::exp(v); }},
  };
  for (const Case& c : cases)
    for (const double beta : {0.0, 0.5}) {
      ASSERT_EQ(cudnnSetActivationDescriptor(activation, c.mode, CUDNN_PROPAGATE_NAN, coef), CUDNN_STATUS_SUCCESS);
      const std::vector<T> old = before<T>(size, beta);
      const DeviceArray<T> dev_x(x), dev_y(old), dev_dy(dy), dev_dx(old);
      const T alpha = 2, b = static_cast<T>(beta), one = 1, zero = 0;
      ASSERT_EQ(cudnnActivationForward(this->handle, activation, &alpha, desc, dev_x.data(), &b, desc, dev_y.data()),
                CUDNN_STATUS_SUCCESS);
      std::vector<double> y(size), dx(size);
      for (size_t i = 0; i < size; ++i) {
        y[i] = blend(2, c.f(x[i]), beta, old[i]);
        dx[i] = blend(2, c.derivative(x[i]) * dy[i], beta, old[i]);
      }
      expect_close(dev_y.host(), y, tolerance<T>(1));
      ASSERT_EQ(cudnnActivationForward(this->handle, activation, &one, desc, dev_x.data(), &zero, desc, dev_y.data()),
                CUDNN_STATUS_SUCCESS);
      ASSERT_EQ(cudnnActivationBackward(this->handle, activation, &alpha, desc, dev_y.data(), desc, dev_dy.data(), desc,
                                        dev_x.data(), &b, desc, dev_dx.data()),
                CUDNN_STATUS_SUCCESS);
      expect_close(dev_dx.host(), dx, tolerance<T>(1));
    }
  const DeviceArray<T> d(std::vector<T>(size, static_cast<T>(kNaN)));
  const T one = 1, zero = 0;
  ASSERT_EQ(cudnnSetActivationDescriptor(activation, CUDNN_ACTIVATION_RELU, CUDNN_PROPAGATE_NAN, 0),
            CUDNN_STATUS_SUCCESS);
  ASSERT_EQ(cudnnActivationForward(this->handle, activation, &one, desc, d.data(), &zero, desc, d.data()),
            CUDNN_STATUS_SUCCESS);
  EXPECT_TRUE(std::isnan(d.host()[0]));
  ASSERT_EQ(cudnnSetActivationDescriptor(activation, CUDNN_ACTIVATION_IDENTITY, CUDNN_PROPAGATE_NAN, 0),
            CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(cudnnActivationForward(this->handle, activation, &one, desc, d.data(), &zero, desc, d.data()),
            CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(cudnnDestroyActivationDescriptor(activation), CUDNN_STATUS_SUCCESS);
}

TYPED_TEST(CudnnTensor, Softmax) {
  using T = TypeParam;
  const TensorDescriptor x_desc(this->type, kPacked), y_desc(this->type, kSpread);
  const std::vector<T> x = random_values<T>(kPacked.span(), 1), dy = random_values<T>(kSpread.span(), 2);
  for (const auto algo : {CUDNN_SOFTMAX_FAST, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_LOG})
    for (const auto mode : {CUDNN_SOFTMAX_MODE_INSTANCE, CUDNN_SOFTMAX_MODE_CHANNEL})
      for (const double beta : {0.0, 0.5}) {
        const bool log = algo == CUDNN_SOFTMAX_LOG;
        // Whether two elements share a softmax.
        const auto together = [&](int h, int w, int h2, int w2) {
          return mode == CUDNN_SOFTMAX_MODE_INSTANCE || (h == h2 && w == w2);
        };
        std::vector<double> result(kSpread.span(), kNaN), gradient(kPacked.span());
        kPacked.for_each([&](int n, int c, int h, int w) {
          double sum = 0;
          kPacked.for_each([&](int n2, int c2, int h2, int w2) {
            if (n2 == n && together(h, w, h2, w2)) sum += std::exp(double{x[kPacked.at(n, c2, h2, w2)]});
          });
          const double p = std::exp(double{x[kPacked.at(n, c, h, w)]}) / sum;
          result[kSpread.at(n, c, h, w)] = log ? std::log(p) : p;
        });
        // dx_i = sum_j dy_j dy_j/dx_i, with dp_j/dx_i = p_j ([i = j] - p_i) and dlog(p_j)/dx_i = [i = j] - p_i
        kPacked.for_each([&](int n, int c, int h, int w) {
          const auto p = [&](int cc, int hh, int ww) {
            const double v = result[kSpread.at(n, cc, hh, ww)];
            return log ? std::exp(v) : v;
          };
          double sum = 0;
          kPacked.for_each([&](int n2, int c2, int h2, int w2) {
            if (n2 != n || !together(h, w, h2, w2)) return;
            const double same = c2 == c && h2 == h && w2 == w;
            sum += dy[kSpread.at(n, c2, h2, w2)] * (same - p(c, h, w)) * (log ? 1 : p(c2, h2, w2));
          });
          gradient[kPacked.at(n, c, h, w)] = sum;
        });
        const T alpha = 2, b = static_cast<T>(beta), one = 1, zero = 0;
        const std::vector<T> old_y = before<T>(kSpread.span(), beta), old_dx = before<T>(kPacked.span(), beta);
        const DeviceArray<T> dev_x(x), blended(old_y), dev_y(kSpread.span()), dev_dy(dy), dev_dx(old_dx);
        ASSERT_EQ(
            cudnnSoftmaxForward(this->handle, algo, mode, &alpha, x_desc, dev_x.data(), &b, y_desc, blended.data()),
            CUDNN_STATUS_SUCCESS);
        std::vector<double> expected(old_y.begin(), old_y.end());
        kSpread.for_each([&](auto... i) {
          const size_t at = kSpread.at(i...);
          expected[at] = blend(2, result[at], beta, old_y[at]);
        });
        expect_close(blended.host(), expected, tolerance<T>(24));
        ASSERT_EQ(
            cudnnSoftmaxForward(this->handle, algo, mode, &one, x_desc, dev_x.data(), &zero, y_desc, dev_y.data()),
            CUDNN_STATUS_SUCCESS);
        ASSERT_EQ(cudnnSoftmaxBackward(this->handle, algo, mode, &alpha, y_desc, dev_y.data(), y_desc, dev_dy.data(),
                                       &b, x_desc, dev_dx.data()),
                  CUDNN_STATUS_SUCCESS);
        std::vector<double> expected_dx(gradient.size());
        for (size_t i = 0; i < gradient.size(); ++i) expected_dx[i] = blend(2, gradient[i], beta, old_dx[i]);
        expect_close(dev_dx.host(), expected_dx, tolerance<T>(24));
      }
}

TYPED_TEST(CudnnTensor, SoftmaxOfLargeInputs) {
  using T = TypeParam;
  const Shape4 shape(1, 3, 1, 1);
  const TensorDescriptor desc(this->type, shape);
  const DeviceArray<T> x(std::vector<T>{2000, 2000, 0}), y(size_t{3});
  const T one = 1, zero = 0;
  const auto forward = [&](cudnnSoftmaxAlgorithm_t algo) {
    EXPECT_EQ(cudnnSoftmaxForward(this->handle, algo, CUDNN_SOFTMAX_MODE_CHANNEL, &one, desc, x.data(), &zero, desc,
                                  y.data()),
              CUDNN_STATUS_SUCCESS);
    return y.host();
  };
  expect_close(forward(CUDNN_SOFTMAX_ACCURATE), {0.5, 0.5, 0}, tolerance<T>(1));
  expect_close(forward(CUDNN_SOFTMAX_LOG), {-std::log(2), -std::log(2), -2000 - std::log(2)}, tolerance<T>(1));
  EXPECT_TRUE(std::isnan(forward(CUDNN_SOFTMAX_FAST)[0]));
}

TYPED_TEST(CudnnTensor, SoftmaxMisfits) {
  using T = TypeParam;
  const TensorDescriptor x(this->type, kPacked), y(this->type, kSpread), other(this->type, Shape4(2, 3, 2, 5));
  const DeviceArray<T> data(100);
  const T one = 1;
  T host[100] = {};
  const auto forward = [&](cudnnTensorDescriptor_t to, int algo, int mode, T* from) {
    return cudnnSoftmaxForward(this->handle, static_cast<cudnnSoftmaxAlgorithm_t>(algo),
                               static_cast<cudnnSoftmaxMode_t>(mode), &one, x, from, &one, to, data.data());
  };
  EXPECT_EQ(forward(y, CUDNN_SOFTMAX_LOG, 0, data.data()), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(forward(other, CUDNN_SOFTMAX_LOG, 0, data.data()), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(y, 3, 0, data.data()), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(y, CUDNN_SOFTMAX_LOG, 0, host), CUDNN_STATUS_EXECUTION_FAILED);
  expect_fault(cudnnGetErrorString(CUDNN_STATUS_EXECUTION_FAILED), "cudnnSoftmaxForward, x");
  // y and dy must lie alike.
  EXPECT_EQ(cudnnSoftmaxBackward(this->handle, CUDNN_SOFTMAX_LOG, CUDNN_SOFTMAX_MODE_CHANNEL, &one, y, data.data(), x,
                                 data.data(), &one, x, data.data()),
            CUDNN_STATUS_BAD_PARAM);
}

TEST(CudnnHandle, HoldsItsStream) {
  const DnnHandle handle;
  cudaStream_t stream = nullptr, found = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  EXPECT_EQ(cudnnSetStream(handle, stream), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(cudnnGetStream(handle, &found), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(found, stream);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace espalier::testing
