// The LSTM cell against its equations in double; its gradient against central differences of the reference.

#include <fmt/format.h>

#include "tests/core/kernel_testing.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::expect_close;
using testing::poisoned;
using testing::RandomTensors;

struct Cell {
  double i, f, g, o, c, h;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Cell cell(double i, double f, double g, double o, double c_prev) {
  Cell r{sigmoid(i), sigmoid(f), std::tanh(g), sigmoid(o), 0, 0};
  r.c = r.f * c_prev + r.i * r.g;
  r.h = r.o * std::tanh(r.c);
  return r;
}

const Shape kGateShapes[] = {{1, 1}, {3, 5}, {7, 64}, {2, 333}};

TEST(LstmCell, FollowsItsEquations) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kGateShapes) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const int64_t batch = shape[0], hidden = shape[1];
      RandomTensors random(dtype);
      const Tensor raw = random({batch, 4 * hidden}, 0, 3), c_prev = random(shape);
      Tensor gates = raw.clone(), c = poisoned(shape, dtype), h = poisoned(shape, dtype);
      cpu().lstm_cell(gates, c_prev, c, h);
      const std::vector<double> z = raw.to_vector<double>(), prev = c_prev.to_vector<double>();
      std::vector<double> activated(z.size()), cs(prev.size()), hs(prev.size());
      for (size_t k = 0; k < prev.size(); ++k) {
        const size_t n = static_cast<size_t>(hidden), at = k / n * 4 * n + k % n;
        const Cell r = cell(z[at], z[at + n], z[at + 2 * n], z[at + 3 * n], prev[k]);
        activated[at] = r.i, activated[at + n] = r.f, activated[at + 2 * n] = r.g, activated[at + 3 * n] = r.o;
        cs[k] = r.c, hs[k] = r.h;
      }
      const double eps = testing::epsilon(dtype);
      expect_close(gates, activated, 0, 8 * eps, "gates");
      expect_close(c, cs, 32 * eps, 8 * eps, "c");
      expect_close(h, hs, 32 * eps, 8 * eps, "h");
    }
  }
}

TEST(LstmCell, GradientIsTheDerivative) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kGateShapes) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const int64_t batch = shape[0], hidden = shape[1];
      const Shape gate_shape{batch, 4 * hidden};
      RandomTensors random(dtype);
      const Tensor raw = random(gate_shape), c_prev = random(shape), dh = random(shape), dc = random(shape);
      Tensor gates = raw.clone(), c = Tensor::empty(shape, dtype), h = Tensor::empty(shape, dtype);
      cpu().lstm_cell(gates, c_prev, c, h);
      Tensor dgates = poisoned(gate_shape, dtype), dc_prev = poisoned(shape, dtype);
      cpu().lstm_cell_grad(gates, c_prev, c, dh, dc, dgates, dc_prev);

      const std::vector<double> z = raw.to_vector<double>(), prev = c_prev.to_vector<double>();
      const std::vector<double> dhs = dh.to_vector<double>(), dcs = dc.to_vector<double>();
      std::vector<double> expected(z.size()), expected_prev(prev.size());
      const double step = 1e-5;
      for (size_t k = 0; k < prev.size(); ++k) {
        const size_t n = static_cast<size_t>(hidden), at = k / n * 4 * n + k % n;
        for (size_t which = 0; which < 5; ++which) {
          const auto loss = [&](double shift) {
            double in[5] = {z[at], z[at + n], z[at + 2 * n], z[at + 3 * n], prev[k]};
            in[which] += shift;
            const Cell r = cell(in[0], in[1], in[2], in[3], in[4]);
            return dhs[k] * r.h + dcs[k] * r.c;
          };
          const double slope = (loss(step) - loss(-step)) / (2 * step);
          (which < 4 ? expected[at + which * n] : expected_prev[k]) = slope;
        }
      }
      // Central differences are good to step^2, and to the rounding of the loss over step.
      const double bound = 32 * testing::epsilon(dtype) + 1e-9;
      expect_close(dgates, expected, bound, 32 * testing::epsilon(dtype), "dgates");
      expect_close(dc_prev, expected_prev, bound, 32 * testing::epsilon(dtype), "dc_prev");
    }
  }
}

TEST(LstmCell, SaturatesWithoutNaN) {
  for (DType dtype : {DType::f32, DType::f64}) {
    Tensor gates = Tensor::from(std::vector<double>{1e4, -1e4, -1e4, 1e4}, {1, 4}).to(dtype);
    const Tensor c_prev = Tensor::full({1, 1}, 5, dtype);
    Tensor c = poisoned({1, 1}, dtype), h = poisoned({1, 1}, dtype);
    cpu().lstm_cell(gates, c_prev, c, h);
    expect_close(gates, {1, 0, -1, 1}, testing::epsilon(dtype), 0, "gates");
    expect_close(c, {-1}, testing::epsilon(dtype), 0, "c");
  }
}

}  // namespace
}  // namespace espalier
