// Sorting and selection on the device against the CPU's: lines sorted in shared memory, and by radix in one tile and
// many.
#include "core/ops.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::expect_same;
using testing::RandomTensors;
using testing::View;
using testing::views;

using Tensors = std::vector<Tensor>;

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::i64, DType::i32};

/// Few different values, negative ones too: ties are common. Floating-point lines hold NaN, infinities and -0.
Tensor with_ties(RandomTensors& random, const Shape& shape, DType dtype) {
  Tensor x = unary(UnaryOp::round, random(shape) * 3.0);
  if (is_floating(dtype)) {
    x = where(x == 4.0, Tensor::scalar(NAN, DType::f64), x);
    x = where(x == -4.0, Tensor::scalar(-INFINITY, DType::f64), x);
    x = where(x == 5.0, Tensor::scalar(INFINITY, DType::f64), x);
    x = where(x == 0.0, where(random(shape) > 0.0, Tensor::scalar(-0.0, DType::f64), Tensor::scalar(0, DType::f64)), x);
  }
  return x.to(dtype);
}

void expect_same_order(const Tensor& x, int axis, const std::string& name) {
  for (const bool descending : {false, true}) {
    const std::string what =
        fmt::format("{} {} axis {} descending {}: {}", name_of(x.dtype()), x.shape(), axis, descending, name);
    expect_same(
        {.inputs = {x},
         .outputs = {Tensor::empty(x.shape(), x.dtype()), Tensor::empty(x.shape(), DType::i64)},
         .what = "sort " + what},
        [&](const Kernels& k, const Tensors& in, Tensors& out) { k.sort(in[0], axis, descending, out[0], out[1]); });
    for (const int64_t k : {int64_t{0}, int64_t{1}, x.size(axis) / 2}) {
      Shape top = x.shape();
      top[axis] = std::min(k, x.size(axis));
      expect_same({.inputs = {x},
                   .outputs = {Tensor::empty(top, x.dtype()), Tensor::empty(top, DType::i64)},
                   .what = fmt::format("top {} {}", k, what)},
                  [&](const Kernels& kernels, const Tensors& in, Tensors& out) {
                    kernels.topk(in[0], axis, top[axis], descending, out[0], out[1]);
                  });
    }
  }
}

TEST(CudaSort, EveryAxisViewAndType) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kTypes) {
    for (const Shape& shape :
         {Shape{1}, Shape{0}, Shape{50}, Shape{7, 9}, Shape{5, 1}, Shape{3, 40, 4}, Shape{300, 10}}) {
      for (const View& x : views(shape, [&](const Shape& s) { return with_ties(random, s, dtype); }))
        for (int axis = 0; axis < shape.rank(); ++axis) expect_same_order(x.x, axis, x.name);
    }
  }
}

TEST(CudaSort, LinesAboutTheSizeOfSharedMemory) {
  RandomTensors random(DType::f64);
  for (const int64_t n : {1024, 1025, 2047, 2048, 2049})
    for (const DType dtype : {DType::f32, DType::i64}) expect_same_order(with_ties(random, {2, n}, dtype), 1, "");
}

TEST(CudaSort, LongLinesInManyTiles) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kTypes) {
    expect_same_order(with_ties(random, {9001}, dtype), 0, "one line");
    expect_same_order(with_ties(random, {4097, 3}, dtype), 0, "columns");
  }
}

TEST(CudaSort, AllBitsOfAKeyCount) {
  RandomTensors random(DType::f64);
  // Magnitudes from 1e-30 to 1e30, and integers over their whole range.
  const Tensor wide = unary(UnaryOp::exp, random({5000}) * 20.0) * (random({5000}) + 0.1);
  expect_same_order(wide.to(DType::f32), 0, "wide");
  expect_same_order(wide, 0, "wide");
  Generator generator(5);
  std::vector<int64_t> longs;
  std::vector<int32_t> ints;
  for (int i = 0; i < 5000; ++i) {
    const uint64_t high = generator.next_u32();
    longs.push_back(static_cast<int64_t>(high << 32 | generator.next_u32()));
    ints.push_back(static_cast<int32_t>(generator.next_u32()));
  }
  expect_same_order(Tensor::from(longs, {5000}), 0, "whole range");
  expect_same_order(Tensor::from(ints, {5000}), 0, "whole range");
}

TEST(CudaSort, WritesToViews) {
  RandomTensors random(DType::f32);
  const Tensor values = Tensor::zeros({30, 12}).transpose(0, 1),
               index = Tensor::zeros({12, 60}, DType::i64).slice(1, 0, 60, 2);
  expect_same({.inputs = {random({12, 30})}, .outputs = {values, index}, .what = "views"},
              [](const Kernels& k, const Tensors& in, Tensors& out) { k.sort(in[0], 1, false, out[0], out[1]); });
}

TEST(CudaSort, AScalarIsInOrder) {
  expect_same(
      {.inputs = {Tensor::scalar(3)}, .outputs = {Tensor::scalar(0), Tensor::scalar(0, DType::i64)}, .what = "scalar"},
      [](const Kernels& k, const Tensors& in, Tensors& out) { k.sort(in[0], 0, true, out[0], out[1]); });
}

TEST(CudaSort, KthValueIsAPruningThreshold) {
  RandomTensors random(DType::f32);
  const Tensor scores = abs(random({10'000}));
  const Sorted expected = kthvalue(scores, 9000), got = kthvalue(testing::to_device(scores), 9000);
  EXPECT_EQ(got.values.item(), expected.values.item());
  EXPECT_EQ(got.index.item(), expected.index.item());
}

}  // namespace
}  // namespace espalier
