// Masks on the device against the CPU's: every pattern, f32 and f64.
#include "core/mask.h"

#include "core/ops.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::expect_same;
using testing::RandomTensors;
using testing::to_device;

using Tensors = std::vector<Tensor>;

std::vector<std::pair<Shape, Pattern>> pattern_cases() {
  return {
      {{6, 8}, Pattern::element()},        {{37, 41}, Pattern::element()},         {{6, 8}, Pattern::block(3, 2)},
      {{6, 8}, Pattern::block(1, 4)},      {{6, 8}, Pattern::n_of_m(2, 4)},        {{4, 3, 5, 5}, Pattern::kernel()},
      {{4, 3, 5, 5}, Pattern::channel(0)}, {{4, 3, 5, 5}, Pattern::channel(1)},    {{12, 5}, Pattern::channel(0, 4)},
      {{12}, Pattern::channel(0, 4)},      {{12, 3}, Pattern::recurrent()},        {{280, 70}, Pattern::recurrent()},
      {{7}, Pattern::element()},           {{70, 2, 3, 1, 2}, Pattern::channel(0)}};
}

/// About half of the units, reproducibly.
Mask half(const Shape& shape, const Pattern& pattern) {
  Generator generator(3);
  const int64_t units = mask_layout(shape, pattern).units();
  return Mask::from_scores(shape, pattern, rand({units}, generator), units / 2);
}

TEST(CudaMask, AppliesEveryPattern) {
  for (const auto& [shape, pattern] : pattern_cases()) {
    const Mask mask = half(shape, pattern);
    for (const DType dtype : {DType::f32, DType::f64}) {
      RandomTensors random(dtype);
      Tensor x = random(shape);
      // What is masked is 0 even where it was no number.
      dispatch_floating(dtype, "test", [&](auto zero) {
        using T = decltype(zero);
        for (int64_t i = 0; i < x.numel(); i += 3) x.data<T>()[i] = std::numeric_limits<T>::quiet_NaN();
      });
      expect_same(
          {.inputs = {mask.words()},
           .outputs = {x},
           .accumulates = true,
           .what = fmt::format("{} on {} of {}", pattern.to_string(), shape, name_of(dtype))},
          [&](const Kernels& k, const Tensors& in, Tensors& out) { k.apply_mask(mask.layout(), in[0], out[0]); });
    }
  }
}

TEST(CudaMask, SumsOverUnits) {
  for (const auto& [shape, pattern] : pattern_cases())
    for (const DType dtype : {DType::f32, DType::f64}) {
      RandomTensors random(dtype);
      const MaskLayout layout = mask_layout(shape, pattern);
      expect_same({.inputs = {random(shape)},
                   .outputs = {Tensor::empty({layout.units()}, DType::f64)},
                   .what = fmt::format("{} on {} of {}", pattern.to_string(), shape, name_of(dtype))},
                  [&](const Kernels& k, const Tensors& in, Tensors& out) { k.sum_over_units(layout, in[0], out[0]); });
    }
}

TEST(CudaMask, FromWordsThatKeepTooManyOfAGroup) {
  const Tensor words = Tensor::from<int64_t>({0b0111'0011}, {1}).to(testing::device());
  EXPECT_EQ(Mask::from_words({2, 4}, Pattern::n_of_m(3, 4), words).count(), 5);
  try {
    Mask::from_words({2, 4}, Pattern::n_of_m(2, 4), words);
    FAIL() << "three of four";
  } catch (const ArgumentError& error) {
    EXPECT_NE(std::string(error.what()).find("group 1 keeps 3"), std::string::npos) << error.what();
  }
}

TEST(CudaMask, MovesToTheDeviceWithItsBits) {
  for (const auto& [shape, pattern] : pattern_cases()) {
    const Mask mask = half(shape, pattern), moved = mask.to(testing::device());
    EXPECT_EQ(moved.device(), testing::device());
    EXPECT_TRUE(identical(moved.words(), mask.words()));
    RandomTensors random(DType::f32);
    const Tensor x = random(shape);
    testing::expect_equal(moved.apply(to_device(x)), mask.apply(x), 0, 0, pattern.to_string());
  }
}

}  // namespace
}  // namespace espalier
