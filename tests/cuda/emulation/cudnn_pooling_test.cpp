// The emulated cuDNN's pooling against loops from its definition.
#include <algorithm>

#include "tests/cuda/emulation/cudnn_testing.h"

namespace espalier::testing {
namespace {

struct Pooling {
  cudnnPoolingMode_t mode;
  std::array<int, 2> window, pad, stride;
  bool is_max() const { return mode == CUDNN_POOLING_MAX || mode == CUDNN_POOLING_MAX_DETERMINISTIC; }
};

template <class T>
struct CudnnPooling : ::testing::Test {
  CudnnPooling() { EXPECT_EQ(cudnnCreatePoolingDescriptor(&desc), CUDNN_STATUS_SUCCESS); }
  ~CudnnPooling() override { EXPECT_EQ(cudnnDestroyPoolingDescriptor(desc), CUDNN_STATUS_SUCCESS); }

  void set(const Pooling& p, cudnnNanPropagation_t nan = CUDNN_PROPAGATE_NAN) {
    ASSERT_EQ(cudnnSetPooling2dDescriptor(desc, p.mode, nan, p.window[0], p.window[1], p.pad[0], p.pad[1], p.stride[0],
                                          p.stride[1]),
              CUDNN_STATUS_SUCCESS);
  }
  Shape4 output(cudnnTensorDescriptor_t x) {
    int n = 0, c = 0, h = 0, w = 0;
    EXPECT_EQ(cudnnGetPooling2dForwardOutputDim(desc, x, &n, &c, &h, &w), CUDNN_STATUS_SUCCESS);
    return {n, c, h, w};
  }

  DnnHandle handle;
  cudnnPoolingDescriptor_t desc = nullptr;
  const cudnnDataType_t type = kDataType<T>;
};
TYPED_TEST_SUITE(CudnnPooling, FloatTypes);

TYPED_TEST(CudnnPooling, ForwardAndBackward) {
  using T = TypeParam;
  const Shape4 in({2, 3, 7, 8}, {200, 60, 8, 1});
  const TensorDescriptor x_desc(this->type, in);
  const std::vector<T> x = random_values<T>(in.span(), 1);
  for (const auto mode : {CUDNN_POOLING_MAX, CUDNN_POOLING_MAX_DETERMINISTIC,
                          CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING, CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING})
    for (const Pooling& p : {Pooling{mode, {2, 2}, {0, 0}, {2, 2}}, Pooling{mode, {3, 2}, {1, 1}, {2, 1}},
                             Pooling{mode, {7, 8}, {0, 0}, {1, 1}}})
      for (const double beta : {0.0, 0.5}) {
        this->set(p);
        const Shape4 out = this->output(x_desc);
        const TensorDescriptor y_desc(this->type, out);
        const std::vector<T> dy = random_values<T>(out.span(), 2), old_y = before<T>(out.span(), beta),
                             old_dx = before<T>(in.span(), beta);
        std::vector<double> y(out.span()), dx(in.span(), kNaN);  // NaN: a gap
        in.for_each([&](auto... i) { dx[in.at(i...)] = 0; });
        out.for_each([&](int n, int c, int h, int w) {
          std::vector<size_t> window;
          for (int i = 0; i < p.window[0]; ++i)
            for (int j = 0; j < p.window[1]; ++j) {
              const int row = h * p.stride[0] + i - p.pad[0], col = w * p.stride[1] + j - p.pad[1];
              if (row >= 0 && row < 7 && col >= 0 && col < 8) window.push_back(in.at(n, c, row, col));
            }
          const size_t at = out.at(n, c, h, w);
          if (p.is_max()) {
            const size_t best =
                *std::max_element(window.begin(), window.end(), [&](auto a, auto b) { return x[a] < x[b]; });
            y[at] = x[best];
            dx[best] += dy[at];
            return;
          }
          const double count = mode == CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING ? p.window[0] * p.window[1]
                                                                                   : static_cast<double>(window.size());
          for (const size_t i : window) {
            y[at] += x[i] / count;
            dx[i] += dy[at] / count;
          }
        });
        const T alpha = 2, b = static_cast<T>(beta), one = 1, zero = 0;
        const DeviceArray<T> dev_x(x), blended(old_y), dev_y(out.span()), dev_dy(dy), dev_dx(old_dx);
        ASSERT_EQ(
            cudnnPoolingForward(this->handle, this->desc, &alpha, x_desc, dev_x.data(), &b, y_desc, blended.data()),
            CUDNN_STATUS_SUCCESS);
        std::vector<double> expected(out.span());
        for (size_t i = 0; i < expected.size(); ++i) expected[i] = blend(2, y[i], beta, old_y[i]);
        expect_close(blended.host(), expected, tolerance<T>(56));
        ASSERT_EQ(
            cudnnPoolingForward(this->handle, this->desc, &one, x_desc, dev_x.data(), &zero, y_desc, dev_y.data()),
            CUDNN_STATUS_SUCCESS);
        ASSERT_EQ(cudnnPoolingBackward(this->handle, this->desc, &alpha, y_desc, dev_y.data(), y_desc, dev_dy.data(),
                                       x_desc, dev_x.data(), &b, x_desc, dev_dx.data()),
                  CUDNN_STATUS_SUCCESS);
        for (size_t i = 0; i < dx.size(); ++i)
          dx[i] = std::isnan(dx[i]) ? double{old_dx[i]} : blend(2, dx[i], beta, old_dx[i]);
        expect_close(dev_dx.host(), dx, tolerance<T>(56));
      }
}

TYPED_TEST(CudnnPooling, EqualMaximaAndNaN) {
  using T = TypeParam;
  const TensorDescriptor x_desc(this->type, Shape4(1, 1, 2, 2)), y_desc(this->type, Shape4(1, 1, 1, 1));
  const T one = 1, zero = 0, nan = static_cast<T>(kNaN);
  const auto run = [&](cudnnPoolingMode_t mode, cudnnNanPropagation_t nans, const std::vector<T>& x, bool gradient) {
    this->set({mode, {2, 2}, {0, 0}, {2, 2}}, nans);
    const DeviceArray<T> dev_x(x), y(size_t{1}), dy(std::vector<T>{5}), dx(size_t{4});
    EXPECT_EQ(cudnnPoolingForward(this->handle, this->desc, &one, x_desc, dev_x.data(), &zero, y_desc, y.data()),
              CUDNN_STATUS_SUCCESS);
    if (!gradient) return y.host();
    EXPECT_EQ(cudnnPoolingBackward(this->handle, this->desc, &one, y_desc, y.data(), y_desc, dy.data(), x_desc,
                                   dev_x.data(), &zero, x_desc, dx.data()),
              CUDNN_STATUS_SUCCESS);
    return dx.host();
  };
  expect_close(run(CUDNN_POOLING_MAX_DETERMINISTIC, CUDNN_PROPAGATE_NAN, {1, 3, 3, 0}, true), {0, 5, 0, 0}, 0);
  expect_close(run(CUDNN_POOLING_MAX, CUDNN_PROPAGATE_NAN, {1, 3, 3, 0}, true), {0, 0, 5, 0}, 0);
  expect_close(run(CUDNN_POOLING_MAX, CUDNN_PROPAGATE_NAN, {1, nan, 3, 0}, false), {kNaN}, 0);
  expect_close(run(CUDNN_POOLING_MAX, CUDNN_PROPAGATE_NAN, {1, nan, 3, 0}, true), {0, 5, 0, 0}, 0);
  expect_close(run(CUDNN_POOLING_MAX, CUDNN_NOT_PROPAGATE_NAN, {1, nan, 3, 0}, false), {3}, 0);
}

TYPED_TEST(CudnnPooling, Misfits) {
  using T = TypeParam;
  const auto other_type = this->type == CUDNN_DATA_FLOAT ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
  this->set({CUDNN_POOLING_MAX, {2, 2}, {0, 0}, {2, 2}});
  const TensorDescriptor x(this->type, Shape4(1, 2, 4, 4)), y(this->type, Shape4(1, 2, 2, 2)),
      channels(this->type, Shape4(1, 3, 2, 2)), size(this->type, Shape4(1, 2, 3, 2)),
      data_type(other_type, Shape4(1, 2, 2, 2)), wide(this->type, Shape4({1, 2, 2, 2}, {16, 8, 4, 2})),
      rows(this->type, Shape4({1, 2, 2, 2}, {16, 8, 4, 1}));
  const DeviceArray<T> data(64);
  const T one = 1;
  T host[64] = {};
  const auto forward = [&](cudnnTensorDescriptor_t to, T* from) {
    return cudnnPoolingForward(this->handle, this->desc, &one, x, from, &one, to, data.data());
  };
  EXPECT_EQ(forward(y, data.data()), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(forward(channels, data.data()), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(size, data.data()), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(data_type, data.data()), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(forward(wide, data.data()), CUDNN_STATUS_NOT_SUPPORTED);  // wStride must be 1
  EXPECT_EQ(forward(y, host), CUDNN_STATUS_EXECUTION_FAILED);
  expect_fault(cudnnGetErrorString(CUDNN_STATUS_EXECUTION_FAILED), "cudnnPoolingForward, x");
  // y and dy must lie alike.
  EXPECT_EQ(cudnnPoolingBackward(this->handle, this->desc, &one, y, data.data(), rows, data.data(), x, data.data(),
                                 &one, x, data.data()),
            CUDNN_STATUS_BAD_PARAM);
}

}  // namespace
}  // namespace espalier::testing
