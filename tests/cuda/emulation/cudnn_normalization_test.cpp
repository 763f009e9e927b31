// The emulated cuDNN's batch normalisation against its definition (Ioffe and Szegedy, 2015).
#include "tests/cuda/emulation/cudnn_testing.h"

namespace espalier::testing {
namespace {

const Shape4 kX({4, 3, 2, 5}, {40, 12, 5, 1}), kY(4, 3, 2, 5);
constexpr double kEpsilon = 1e-3;

Shape4 parameters(cudnnBatchNormMode_t mode) {
  return mode == CUDNN_BATCHNORM_PER_ACTIVATION ? Shape4(1, 3, 2, 5) : Shape4(1, 3, 1, 1);
}
/// The place of an element's parameter.
size_t parameter_of(cudnnBatchNormMode_t mode, int c, int h, int w) {
  return mode == CUDNN_BATCHNORM_PER_ACTIVATION ? parameters(mode).at(0, c, h, w) : static_cast<size_t>(c);
}

/// Mean and biased variance of each group, and how many elements it has.
struct Statistics {
  std::vector<double> mean, variance;
  double members;

  template <class T>
  Statistics(cudnnBatchNormMode_t mode, const std::vector<T>& x)
      : mean(parameters(mode).span(), 0), variance(mean), members(mode == CUDNN_BATCHNORM_PER_ACTIVATION ? 4 : 40) {
    kX.for_each(
        [&](int n, int c, int h, int w) { mean[parameter_of(mode, c, h, w)] += x[kX.at(n, c, h, w)] / members; });
    kX.for_each([&](int n, int c, int h, int w) {
      const size_t g = parameter_of(mode, c, h, w);
      variance[g] += std::pow(x[kX.at(n, c, h, w)] - mean[g], 2) / members;
    });
  }
};

template <class T>
struct CudnnBatchNorm : ::testing::Test {
  DnnHandle handle;
  const cudnnDataType_t type = kDataType<T>;
  const TensorDescriptor x_desc{type, kX}, y_desc{type, kY};
  const std::vector<T> x = random_values<T>(kX.span(), 1), dy = random_values<T>(kY.span(), 2);
};
TYPED_TEST_SUITE(CudnnBatchNorm, FloatTypes);

constexpr cudnnBatchNormMode_t kModes[] = {CUDNN_BATCHNORM_PER_ACTIVATION, CUDNN_BATCHNORM_SPATIAL,
                                           CUDNN_BATCHNORM_SPATIAL_PERSISTENT};

TYPED_TEST(CudnnBatchNorm, Training) {
  using T = TypeParam;
  for (const auto mode : kModes)
    for (const double beta : {0.0, 0.5})
      for (const double factor : {1.0, 0.1}) {
        const Statistics s(mode, this->x);
        const size_t size = parameters(mode).span();
        const TensorDescriptor p_desc(this->type, parameters(mode));
        const std::vector<T> scale = random_values<T>(size, 3), bias = random_values<T>(size, 4),
                             old_y = before<T>(kY.span(), beta), running = before<T>(size, factor == 1 ? 0 : 1);
        std::vector<double> y(kY.span()), mean(size), variance(size), inverse(size);
        kY.for_each([&](int n, int c, int h, int w) {
          const size_t g = parameter_of(mode, c, h, w), at = kY.at(n, c, h, w);
          const double normalised = (this->x[kX.at(n, c, h, w)] - s.mean[g]) / std::sqrt(s.variance[g] + kEpsilon);
          y[at] = blend(2, scale[g] * normalised + bias[g], beta, old_y[at]);
        });
        for (size_t g = 0; g < size; ++g) {
          mean[g] = blend(factor, s.mean[g], 1 - factor, running[g]);
          variance[g] = blend(factor, s.variance[g] * s.members / (s.members - 1), 1 - factor, running[g]);
          inverse[g] = 1 / std::sqrt(s.variance[g] + kEpsilon);
        }
        const DeviceArray<T> dev_x(this->x), dev_y(old_y), dev_scale(scale), dev_bias(bias), running_mean(running),
            running_variance(running), saved_mean(size), saved_inverse(size);
        const T alpha = 2, b = static_cast<T>(beta);
        ASSERT_EQ(cudnnBatchNormalizationForwardTraining(
                      this->handle, mode, &alpha, &b, this->x_desc, dev_x.data(), this->y_desc, dev_y.data(), p_desc,
                      dev_scale.data(), dev_bias.data(), factor, running_mean.data(), running_variance.data(), kEpsilon,
                      saved_mean.data(), saved_inverse.data()),
                  CUDNN_STATUS_SUCCESS);
        expect_close(dev_y.host(), y, tolerance<T>(40), "y");
        expect_close(running_mean.host(), mean, tolerance<T>(40), "running mean");
        expect_close(running_variance.host(), variance, tolerance<T>(40), "running variance");
        expect_close(saved_mean.host(), s.mean, tolerance<T>(40), "saved mean");
        expect_close(saved_inverse.host(), inverse, tolerance<T>(40), "saved inverse");
        // Statistics that nobody asks for.
        ASSERT_EQ(cudnnBatchNormalizationForwardTraining(
                      this->handle, mode, &alpha, &b, this->x_desc, dev_x.data(), this->y_desc, dev_y.data(), p_desc,
                      dev_scale.data(), dev_bias.data(), factor, nullptr, nullptr, kEpsilon, nullptr, nullptr),
                  CUDNN_STATUS_SUCCESS);
      }
}

TYPED_TEST(CudnnBatchNorm, Inference) {
  using T = TypeParam;
  for (const auto mode : kModes)
    for (const double beta : {0.0, 0.5}) {
      const size_t size = parameters(mode).span();
      const TensorDescriptor p_desc(this->type, parameters(mode));
      const std::vector<T> scale = random_values<T>(size, 3), bias = random_values<T>(size, 4),
                           mean = random_values<T>(size, 5), old_y = before<T>(kY.span(), beta);
      std::vector<T> variance = random_values<T>(size, 6);
      for (T& v : variance) v = std::abs(v);
      std::vector<double> y(kY.span());
      kY.for_each([&](int n, int c, int h, int w) {
        const size_t g = parameter_of(mode, c, h, w), at = kY.at(n, c, h, w);
        const double normalised = (this->x[kX.at(n, c, h, w)] - mean[g]) / std::sqrt(variance[g] + kEpsilon);
        y[at] = blend(2, scale[g] * normalised + bias[g], beta, old_y[at]);
      });
      const DeviceArray<T> dev_x(this->x), dev_y(old_y), dev_scale(scale), dev_bias(bias), dev_mean(mean),
          dev_variance(variance);
      const T alpha = 2, b = static_cast<T>(beta);
      ASSERT_EQ(cudnnBatchNormalizationForwardInference(
                    this->handle, mode, &alpha, &b, this->x_desc, dev_x.data(), this->y_desc, dev_y.data(), p_desc,
                    dev_scale.data(), dev_bias.data(), dev_mean.data(), dev_variance.data(), kEpsilon),
                CUDNN_STATUS_SUCCESS);
      expect_close(dev_y.host(), y, 4 * tolerance<T>(1));
    }
}

TYPED_TEST(CudnnBatchNorm, Backward) {
  using T = TypeParam;
  for (const auto mode : kModes)
    for (const double beta : {0.0, 0.5})
      for (const bool saved : {true, false}) {
        const Statistics s(mode, this->x);
        const size_t size = parameters(mode).span();
        const TensorDescriptor p_desc(this->type, parameters(mode));
        const std::vector<T> scale = random_values<T>(size, 3), old_dx = before<T>(kX.span(), beta),
                             old_p = before<T>(size, beta);
        // dx_i = sum_j dy_j scale dxhat_j/dx_i, with dxhat_j/dx_i = inverse ([i = j] - 1/m - xhat_i xhat_j / m)
        const auto normalised = [&](int n, int c, int h, int w) {
          const size_t g = parameter_of(mode, c, h, w);
          return (this->x[kX.at(n, c, h, w)] - s.mean[g]) / std::sqrt(s.variance[g] + kEpsilon);
        };
        std::vector<double> dx(old_dx.begin(), old_dx.end()), dscale(size, 0), dbias(size, 0);
        kX.for_each([&](int n, int c, int h, int w) {
          const size_t g = parameter_of(mode, c, h, w);
          dscale[g] += this->dy[kY.at(n, c, h, w)] * normalised(n, c, h, w);
          dbias[g] += this->dy[kY.at(n, c, h, w)];
          double sum = 0;
          kX.for_each([&](int n2, int c2, int h2, int w2) {
            if (parameter_of(mode, c2, h2, w2) != g) return;
            const double same = n == n2 && c == c2 && h == h2 && w == w2;
            const double slope = same - (1 + normalised(n, c, h, w) * normalised(n2, c2, h2, w2)) / s.members;
            sum += this->dy[kY.at(n2, c2, h2, w2)] * slope;
          });
          double& out = dx[kX.at(n, c, h, w)];
          out = blend(2, scale[g] * sum / std::sqrt(s.variance[g] + kEpsilon), beta, out);
        });
        for (size_t g = 0; g < size; ++g) {
          dscale[g] = blend(-1, dscale[g], beta, old_p[g]);
          dbias[g] = blend(-1, dbias[g], beta, old_p[g]);
        }
        std::vector<T> mean(size), inverse(size);
        for (size_t g = 0; g < size; ++g) {
          mean[g] = static_cast<T>(s.mean[g]);
          inverse[g] = static_cast<T>(1 / std::sqrt(s.variance[g] + kEpsilon));
        }
        const DeviceArray<T> dev_x(this->x), dev_dy(this->dy), dev_dx(old_dx), dev_scale(scale), dev_dscale(old_p),
            dev_dbias(old_p), dev_mean(mean), dev_inverse(inverse);
        const T alpha = 2, minus = -1, b = static_cast<T>(beta);
        ASSERT_EQ(
            cudnnBatchNormalizationBackward(this->handle, mode, &alpha, &b, &minus, &b, this->x_desc, dev_x.data(),
                                            this->y_desc, dev_dy.data(), this->x_desc, dev_dx.data(), p_desc,
                                            dev_scale.data(), dev_dscale.data(), dev_dbias.data(), kEpsilon,
                                            saved ? dev_mean.data() : nullptr, saved ? dev_inverse.data() : nullptr),
            CUDNN_STATUS_SUCCESS);
        expect_close(dev_dx.host(), dx, 4 * tolerance<T>(40), "dx");
        expect_close(dev_dscale.host(), dscale, tolerance<T>(40), "dscale");
        expect_close(dev_dbias.host(), dbias, tolerance<T>(40), "dbias");
      }
}

TYPED_TEST(CudnnBatchNorm, Misfits) {
  using T = TypeParam;
  const TensorDescriptor p(this->type, Shape4(1, 3, 1, 1)), wrong(this->type, Shape4(1, 4, 1, 1)),
      other_x(this->type, Shape4(4, 3, 2, 4));
  const DeviceArray<T> data(kX.span());
  T* const d = data.data();
  T host[200] = {};
  const T one = 1, zero = 0;
  const auto train = [&](cudnnTensorDescriptor_t y, cudnnTensorDescriptor_t params, double epsilon, T* saved_mean,
                         T* running_mean, T* from, int mode = CUDNN_BATCHNORM_SPATIAL) {
    return cudnnBatchNormalizationForwardTraining(this->handle, static_cast<cudnnBatchNormMode_t>(mode), &one, &zero,
                                                  this->x_desc, from, y, d, params, d, d, 1, running_mean, d, epsilon,
                                                  saved_mean, d);
  };
  EXPECT_EQ(train(this->y_desc, p, 0, d, d, d), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(train(this->y_desc, p, -1e-5, d, d, d), CUDNN_STATUS_BAD_PARAM);  // below CUDNN_BN_MIN_EPSILON
  EXPECT_EQ(train(this->y_desc, p, kNaN, d, d, d), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(train(this->y_desc, p, 0, nullptr, d, d), CUDNN_STATUS_BAD_PARAM);  // one of two
  EXPECT_EQ(train(this->y_desc, p, 0, d, nullptr, d), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(train(this->y_desc, wrong, 0, d, d, d), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(train(other_x, p, 0, d, d, d), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(train(this->y_desc, p, 0, d, d, d, CUDNN_BATCHNORM_PER_ACTIVATION), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(train(this->y_desc, p, 0, d, d, d, 3), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(train(this->y_desc, p, 0, d, d, host), CUDNN_STATUS_EXECUTION_FAILED);
  expect_fault(cudnnGetErrorString(CUDNN_STATUS_EXECUTION_FAILED), "cudnnBatchNormalizationForwardTraining, x");
  EXPECT_EQ(
      cudnnBatchNormalizationBackward(this->handle, CUDNN_BATCHNORM_SPATIAL, &one, &zero, &one, &zero, this->x_desc, d,
                                      this->y_desc, d, this->x_desc, d, p, d, d, d, kEpsilon, d, nullptr),
      CUDNN_STATUS_BAD_PARAM);
}

}  // namespace
}  // namespace espalier::testing
