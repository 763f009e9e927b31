// Softmax and log-softmax against the definition in long double.

#include <fmt/format.h>

#include "tests/core/kernel_testing.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::expect_close;
using testing::poisoned;
using testing::RandomTensors;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<double> reference(const Tensor& x, bool log) {
  std::vector<double> values = x.to_vector<double>();
  const size_t n = static_cast<size_t>(x.size(-1));
  for (size_t row = 0; row < values.size(); row += n) {
    long double largest = values[row], sum = 0;
    for (size_t i = 0; i < n; ++i) largest = std::max<long double>(largest, values[row + i]);
    for (size_t i = 0; i < n; ++i) sum += std::exp(static_cast<long double>(values[row + i]) - largest);
    for (size_t i = 0; i < n; ++i) {
      const long double shifted = values[row + i] - largest;
      values[row + i] = static_cast<double>(log ? shifted - std::log(sum) : std::exp(shifted) / sum);
    }
  }
  return values;
}

const Shape kShapes[] = {{1}, {10}, {128, 10}, {3, 17}, {2, 3, 1000}, {5, 1}, {1, 4099}};

TEST(Softmax, AgreesWithTheDefinition) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      for (double scale : {1.0, 30.0}) {
        for (bool log : {false, true}) {
          SCOPED_TRACE(fmt::format("{} {} scale {} log {}", name_of(dtype), shape, scale, log));
          const Tensor x = RandomTensors(dtype)(shape, 5, scale);
          Tensor y = poisoned(shape, dtype);
          cpu().softmax(x, log, y);
          // exp of a difference d rounds by about eps * |d|, and the differences reach 8 scales.
          const double eps = testing::epsilon(dtype), spread = 8 + 8 * scale;
          expect_close(y, reference(x, log), 8 * eps, eps * spread, "y");
        }
      }
    }
  }
}

TEST(Softmax, DoesNotOverflow) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = Tensor::from(std::vector<double>{1e30, 1e30, -1e30, 0}, {4}).to(dtype);
    Tensor y = poisoned({4}, dtype);
    cpu().softmax(x, false, y);
    expect_close(y, {0.5, 0.5, 0, 0}, 0, 0, "softmax");
  }
}

TEST(Softmax, MaskedEntriesAndRows) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const std::vector<double> rows = {-kInf, 0, 0, -kInf, -kInf, -kInf, kNaN, 0, -kInf, kInf, 0, 0};
    const Tensor x = Tensor::from(rows, {4, 3}).to(dtype);
    Tensor y = poisoned({4, 3}, dtype), log_y = poisoned({4, 3}, dtype);
    cpu().softmax(x, false, y);
    cpu().softmax(x, true, log_y);
    const double half = -std::log(2.0), eps = testing::epsilon(dtype);
    const std::vector<double> p = y.to_vector<double>(), lp = log_y.to_vector<double>();
    expect_close(y.slice(0, 0, 2).contiguous(), {0, 0.5, 0.5, 0, 0, 0}, eps, 0, "masked");
    expect_close(log_y.slice(0, 0, 2).contiguous(), {-kInf, half, half, -kInf, -kInf, -kInf}, eps, 0, "log, masked");
    for (size_t i = 6; i < 12; ++i) {
      EXPECT_TRUE(std::isnan(p[i])) << i;
      EXPECT_TRUE(std::isnan(lp[i]) || lp[i] == -kInf) << i;
    }
    EXPECT_TRUE(std::isnan(lp[6]) && std::isnan(lp[9]));
  }
}

TEST(Softmax, GradientIsTheJacobianTimesTheGradient) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      for (bool log : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {} log {}", name_of(dtype), shape, log));
        RandomTensors random(dtype);
        const Tensor x = random(shape), dy = random(shape);
        const std::vector<double> ys = reference(x, log), p = reference(x, false), dys = dy.to_vector<double>();
        const Tensor y = Tensor::from(ys, shape).to(dtype);
        Tensor dx = poisoned(shape, dtype);
        cpu().softmax_grad(dy, y, log, dx);
        const size_t n = static_cast<size_t>(shape.back());
        std::vector<double> dxs(dys.size());
        for (size_t i = 0; i < dxs.size(); ++i) {
          const size_t row = i / n * n;
          // d y_j / d x_i = p_j (delta_ij - p_i), and delta_ij - p_i for the logarithm.
          for (size_t j = row; j < row + n; ++j) {
            dxs[i] += dys[j] * (log ? 1.0 : p[j]) * ((i == j ? 1.0 : 0.0) - p[i]);
          }
        }
        expect_close(dx, dxs, testing::sum_tolerance(dtype, shape.back(), 2), 0, "dx");
        if (n > 1000) break;
      }
    }
  }
}

}  // namespace
}  // namespace espalier
