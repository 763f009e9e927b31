// Random numbers on the device against the CPU's: one generator, one sequence, wherever it runs.
#include "core/ops.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::epsilon;
using testing::expect_same;
using testing::View;
using testing::views;

using Tensors = std::vector<Tensor>;

/// Nothing, less than a Philox block of values, not a multiple of one, and more than a thread block.
const std::vector<Shape> kShapes = {{}, {0}, {1}, {3}, {7, 9}, {2, 3, 5, 2, 3}, {5003}};

/// The start of a sequence, its middle, and blocks whose numbers don't fit 32 bits.
const std::vector<PhiloxState> kStates = {{1, 0, 0}, {0x123456789abcdef0, 7, 1000}, {3, uint64_t{1} << 40, 0xffffffff}};

template <class Draw>
void expect_same_numbers(DType dtype, double absolute, double relative, const std::string& what, Draw draw) {
  for (const PhiloxState& state : kStates) {
    for (const Shape& shape : kShapes) {
      // Value i is the i-th in row-major order, whatever the layout.
      for (const View& out : views(shape, [&](const Shape& s) { return Tensor::zeros(s, dtype); }))
        expect_same({.outputs = {out.x},
                     .absolute = absolute,
                     .relative = relative,
                     .what = fmt::format("{} {} {} {} seed {}", what, name_of(dtype), shape, out.name, state.seed)},
                    [&](const Kernels& k, const Tensors&, Tensors& to) { draw(k, state, to[0]); });
    }
  }
}

TEST(CudaRandom, UniformNumbersHaveTheCpusBits) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    expect_same_numbers(dtype, 0, 0, "uniform",
                        [](const Kernels& k, const PhiloxState& state, Tensor& out) { k.uniform(state, 0, 1, out); });
    // A GPU fuses the product and the sum: the last place may differ.
    expect_same_numbers(
        dtype, 4 * epsilon(dtype), 0, "uniform from -3 to 0.5",
        [](const Kernels& k, const PhiloxState& state, Tensor& out) { k.uniform(state, -3, 0.5, out); });
  }
}

TEST(CudaRandom, TheUpperBoundIsExcluded) {
  // Between neighbouring numbers rounding would carry half of all values to the upper one.
  const float low = 16'777'216.0f, high = 16'777'218.0f;
  Tensor x = Tensor::empty({1000}, DType::f32, testing::device());
  testing::cuda().uniform({1, 2, 3}, low, high, x);
  for (const float v : x.to_vector<float>()) ASSERT_TRUE(v >= low && v < high);
}

TEST(CudaRandom, NormalNumbersAreTheCpusToAFewUnitsInTheLastPlace) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    expect_same_numbers(dtype, 16 * epsilon(dtype), 8 * epsilon(dtype), "normal",
                        [](const Kernels& k, const PhiloxState& state, Tensor& out) { k.normal(state, 0, 1, out); });
    expect_same_numbers(dtype, 64 * epsilon(dtype), 8 * epsilon(dtype), "normal about 2",
                        [](const Kernels& k, const PhiloxState& state, Tensor& out) { k.normal(state, 2, 3, out); });
  }
}

TEST(CudaRandom, BernoulliTrialsAreTheCpusInEveryType) {
  for (const DType dtype : {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8, DType::boolean}) {
    for (const double p : {0.0, 0.3, 1.0}) {
      expect_same_numbers(dtype, 0, 0, fmt::format("bernoulli {}", p),
                          [&](const Kernels& k, const PhiloxState& state, Tensor& out) { k.bernoulli(state, p, out); });
    }
  }
}

}  // namespace
}  // namespace espalier
