// Softmax, log-softmax and their gradients against the CPU's.
#include <fmt/format.h>

#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::Call;
using testing::expect_same;
using testing::RandomTensors;

constexpr double kInf = std::numeric_limits<double>::infinity();

// Rows for one lane, for a warp and for a block, and more rows than blocks.
const Shape kShapes[] = {{1}, {10}, {128, 10}, {3, 17}, {2, 3, 1000}, {5, 1}, {2, 1024}, {1, 4099}, {9000, 3}};

TEST(CudaSoftmax, Values) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      for (double scale : {1.0, 30.0}) {
        for (bool log : {false, true}) {
          // exp of a difference d rounds by about eps * |d|, and the differences reach 8 scales.
          const double eps = testing::epsilon(dtype), spread = 8 + 8 * scale;
          expect_same({.inputs = {RandomTensors(dtype)(shape, 5, scale)},
                       .outputs = {Tensor::empty(shape, dtype)},
                       .absolute = 8 * eps,
                       .relative = eps * spread,
                       .what = fmt::format("{} {} scale {} log {}", name_of(dtype), shape, scale, log)},
                      [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                        kernels.softmax(in[0], log, out[0]);
                      });
        }
      }
    }
  }
}

TEST(CudaSoftmax, MaskedEntriesAndRowsAndOverflow) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (int64_t n : {int64_t{3}, int64_t{1500}}) {
      std::vector<double> rows = RandomTensors(dtype)({6, n}).to_vector<double>();
      const auto row = [&](int64_t r) { return rows.begin() + r * n; };
      std::fill(row(0), row(0) + 2, -kInf);  // partly masked
      std::fill(row(1), row(2), -kInf);      // masked altogether
      *row(2) = std::numeric_limits<double>::quiet_NaN();
      *(row(3) + 1) = kInf;
      std::fill(row(4), row(5), 1e30);
      *(row(5) + n - 1) = -1e30;
      for (bool log : {false, true}) {
        expect_same({.inputs = {Tensor::from(rows, {6, n}).to(dtype)},
                     .outputs = {Tensor::empty({6, n}, dtype)},
                     .absolute = 8 * testing::epsilon(dtype),
                     .relative = 16 * testing::epsilon(dtype),
                     .what = fmt::format("{} n {} log {}", name_of(dtype), n, log)},
                    [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                      kernels.softmax(in[0], log, out[0]);
                    });
      }
    }
  }
}

TEST(CudaSoftmax, GradientsFromTheOutputHaveTheSameBitsEveryTime) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : kShapes) {
      for (bool log : {false, true}) {
        RandomTensors random(dtype);
        Tensor y = Tensor::empty(shape, dtype);
        testing::cpu().softmax(random(shape), log, y);
        expect_same({.inputs = {random(shape), y},
                     .outputs = {Tensor::empty(shape, dtype)},
                     .absolute = testing::sum_tolerance(dtype, shape.back(), 4),
                     .what = fmt::format("gradient of {} {} log {}", name_of(dtype), shape, log)},
                    [&](const Kernels& kernels, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                      kernels.softmax_grad(in[0], in[1], log, out[0]);
                      Tensor again = Tensor::full(shape, NAN, dtype, out[0].device());
                      kernels.softmax_grad(in[0], in[1], log, again);
                      EXPECT_EQ(again.to_vector<double>(), out[0].to_vector<double>());
                    });
      }
    }
  }
}

TEST(CudaSoftmax, NoRows) {
  const Tensor x = Tensor::empty({0, 5}, DType::f32, testing::device());
  Tensor y = Tensor::empty_like(x), dx = Tensor::empty_like(x);
  testing::cuda().softmax(x, true, y);
  testing::cuda().softmax_grad(x, y, true, dx);
  EXPECT_EQ(dx.numel(), 0);
}

}  // namespace
}  // namespace espalier
