// Reductions on the device against the CPU's: every set of axes, by rows, by columns and in pieces.
#include "core/ops.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::cuda;
using testing::expect_same;
using testing::poisoned;
using testing::RandomTensors;
using testing::sum_tolerance;
using testing::to_device;
using testing::View;
using testing::views;

using Tensors = std::vector<Tensor>;

constexpr DType kAll[] = {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8, DType::boolean};

Tensor values(RandomTensors& random, const Shape& shape, DType dtype) { return (random(shape) * 4.0).to(dtype); }

/// Reduces on both sides and compares. Products go through numbers near 1.
void expect_same_reduction(ReduceOp op, const Tensor& x, const std::vector<bool>& axes, const std::string& what) {
  Shape shape = x.shape();
  int64_t terms = 1;
  for (int i = 0; i < x.rank(); ++i) {
    if (!axes[static_cast<size_t>(i)]) continue;
    terms *= shape[i];
    shape[i] = 1;
  }
  const bool adds = op == ReduceOp::sum || op == ReduceOp::prod;
  const DType result = adds && !is_floating(x.dtype()) ? DType::i64 : x.dtype();
  // Both sides sum in double and round once.
  const double relative = adds && is_floating(x.dtype()) ? testing::epsilon(x.dtype()) : 0;
  const double absolute = adds && is_floating(x.dtype()) ? sum_tolerance(DType::f64, terms, 4) : 0;
  expect_same({.inputs = {x},
               .outputs = {Tensor::empty(shape, result)},
               .absolute = absolute,
               .relative = 2 * relative,
               .what = fmt::format("reduction {} of {} {} to {}: {}", static_cast<int>(op), name_of(x.dtype()),
                                   x.shape(), shape, what)},
              [&](const Kernels& k, const Tensors& in, Tensors& out) { k.reduce(op, in[0], axes, out[0]); });
}

std::vector<bool> set_of(int bits, int rank) {
  std::vector<bool> axes;
  for (int i = 0; i < rank; ++i) axes.push_back(bits >> i & 1);
  return axes;
}

TEST(CudaReduce, EverySetOfAxesTypeAndView) {
  RandomTensors random(DType::f64);
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{70}, Shape{17, 19}, Shape{3, 1, 40}, Shape{2, 3, 4, 2, 3}}) {
    for (int bits = 0; bits < 1 << shape.rank(); ++bits) {
      const std::vector<bool> axes = set_of(bits, shape.rank());
      for (const DType dtype : kAll) {
        const bool every_view = dtype == DType::f32 || dtype == DType::u8;
        for (const View& x : views(shape, [&](const Shape& s) { return values(random, s, dtype); })) {
          if (!every_view && x.name != "permuted") continue;
          for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min})
            expect_same_reduction(op, x.x, axes, x.name);
          if (dtype != DType::boolean) continue;
          expect_same_reduction(ReduceOp::any, x.x, axes, x.name);
          expect_same_reduction(ReduceOp::all, x.x, axes, x.name);
        }
      }
    }
  }
}

TEST(CudaReduce, ProductsOfNumbersNearOne) {
  RandomTensors random(DType::f64);
  for (const DType dtype : {DType::f32, DType::f64, DType::i32}) {
    const Tensor x = is_floating(dtype) ? random({30, 50}, 1, 0.1).to(dtype) : (random({30, 50}) > 0.0).to(dtype) + 1.0;
    for (int bits = 0; bits < 4; ++bits) expect_same_reduction(ReduceOp::prod, x, set_of(bits, 2), "product");
  }
}

TEST(CudaReduce, LongSumsInPiecesAndManyShortOnes) {
  RandomTensors random(DType::f64);
  for (const Shape& shape :
       {Shape{5000}, Shape{3, 4099}, Shape{2000, 3}, Shape{1500, 40}, Shape{700, 5}, Shape{9, 700}, Shape{5, 600, 2}}) {
    for (int bits = 0; bits < 1 << shape.rank(); ++bits) {
      for (const DType dtype : {DType::f32, DType::i64}) {
        const Tensor x = values(random, shape, dtype);
        for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max}) {
          expect_same_reduction(op, x, set_of(bits, shape.rank()), "pieces");
        }
      }
    }
  }
}

TEST(CudaReduce, ASumIsExactWhereTheTermsAre) {
  // Integers in f32: any wrong, lost or doubled term shows.
  std::vector<float> terms(30'000);
  std::iota(terms.begin(), terms.end(), 0.0f);
  const Tensor x = Tensor::from(terms, {30'000});
  EXPECT_EQ(sum(to_device(x)).item(), static_cast<double>(static_cast<float>(29'999.0 * 15'000.0)));
  EXPECT_EQ(sum(to_device(x.reshape({300, 100})), {0}).to_vector<double>()[7], 299.0 * 150 * 100 + 300 * 7);
}

TEST(CudaReduce, ReducesRepeatedElements) {
  RandomTensors random(DType::f32);
  const Tensor x = random({1, 30}).expand({50, 30});
  for (int bits = 0; bits < 4; ++bits) expect_same_reduction(ReduceOp::sum, x, set_of(bits, 2), "expanded");
}

TEST(CudaReduce, NaNAndInfinitiesPassThrough) {
  for (const Shape& shape : {Shape{40}, Shape{3000}, Shape{600, 8}}) {
    RandomTensors random(DType::f32);
    for (const float odd : {NAN, INFINITY, -INFINITY}) {
      Tensor x = random(shape);
      x.data<float>()[shape.numel() / 3] = odd;
      for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min})
        for (int bits = 1; bits < 1 << shape.rank(); ++bits)
          expect_same_reduction(op, x, set_of(bits, shape.rank()), "");
    }
  }
}

TEST(CudaReduce, NothingGivesTheStartValue) {
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::prod, ReduceOp::any, ReduceOp::all}) {
    const DType dtype = op >= ReduceOp::any ? DType::boolean : DType::f32;
    expect_same_reduction(op, Tensor::zeros({3, 0}, dtype), {false, true}, "no terms");
    expect_same_reduction(op, Tensor::zeros({3, 0}, dtype), {true, false}, "no results");
    expect_same_reduction(op, Tensor::zeros({0, 3}, dtype), {true, true}, "nothing at all");
  }
  Tensor out = poisoned({1}, DType::f32);
  out = to_device(out);
  EXPECT_THROW(cuda().reduce(ReduceOp::max, to_device(Tensor::zeros({0})), {true}, out), ArgumentError);
}

TEST(CudaReduce, WritesResultsInAnyLayout) {
  RandomTensors random(DType::f32);
  const Tensor out = Tensor::zeros({1, 7, 9}).permute({2, 0, 1});  // (9,1,7)
  expect_same(
      {.inputs = {random({9, 30, 7})}, .outputs = {out}, .absolute = 1e-12, .relative = 2e-7, .what = "permuted out"},
      [](const Kernels& k, const Tensors& in, Tensors& to) {
        k.reduce(ReduceOp::sum, in[0], {false, true, false}, to[0]);
      });
}

TEST(CudaReduce, TheSameBitsEveryTime) {
  RandomTensors random(DType::f32);
  const Tensor x = to_device(random({4, 20'011}));
  EXPECT_TRUE(identical(sum(x, {1}), sum(x, {1})));
  EXPECT_TRUE(identical(sum(x, {0}), sum(x, {0})));
}

TEST(CudaReduce, ArgReduceFindsTheFirstAndPrefersNaN) {
  RandomTensors random(DType::f64);
  for (const DType dtype : kAll) {
    for (const Shape& shape : {Shape{1}, Shape{50}, Shape{17, 19}, Shape{3, 40, 2}, Shape{3000}, Shape{600, 3}}) {
      // Few different values: ties are common. Some lines hold NaN, more than once.
      const auto make = [&](const Shape& s) {
        Tensor x = unary(UnaryOp::round, random(s) * 2.0);
        if (is_floating(dtype)) x = where(random(s) > 2.0, Tensor::scalar(NAN, DType::f64), x);
        return x.to(dtype);
      };
      for (const View& x : views(shape, make)) {
        for (int axis = 0; axis < shape.rank(); ++axis) {
          Shape reduced = shape;
          reduced[axis] = 1;
          for (const bool maximum : {false, true})
            expect_same(
                {.inputs = {x.x},
                 .outputs = {Tensor::empty(reduced, DType::i64)},
                 .what = fmt::format("arg of {} {} axis {}: {}", name_of(dtype), shape, axis, x.name)},
                [&](const Kernels& k, const Tensors& in, Tensors& out) { k.arg_reduce(maximum, in[0], axis, out[0]); });
        }
      }
    }
  }
}

}  // namespace
}  // namespace espalier
