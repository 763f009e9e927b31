#include <algorithm>

#include "core/ops.h"
#include "core/threads.h"
#include "tests/core/strided_testing.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::for_each_index;
using testing::Index;
using testing::poisoned;
using testing::RandomTensors;
using testing::usual_shapes;
using testing::value_at;
using testing::View;
using testing::views;

/// Every subset of the axes of a rank.
std::vector<std::vector<bool>> axis_sets(int rank) {
  std::vector<std::vector<bool>> sets;
  for (int bits = 0; bits < 1 << rank; ++bits) {
    std::vector<bool> set;
    for (int axis = 0; axis < rank; ++axis) set.push_back(bits >> axis & 1);
    sets.push_back(set);
  }
  return sets;
}

Shape reduced_shape(const Shape& shape, const std::vector<bool>& axes) {
  Shape out = shape;
  for (int i = 0; i < shape.rank(); ++i)
    if (axes[static_cast<size_t>(i)]) out[i] = 1;
  return out;
}

/// Joins every element into its result in long double; results in row-major order.
template <class Join>
std::vector<double> reference(const Tensor& x, const std::vector<bool>& axes, double start, Join join) {
  const Shape out = reduced_shape(x.shape(), axes);
  const Strides strides = contiguous_strides(out);
  std::vector<long double> results(static_cast<size_t>(out.numel()), start);
  for_each_index(x.shape(), [&](const Index& at) {
    int64_t offset = 0;
    for (int i = 0; i < x.rank(); ++i)
      if (!axes[static_cast<size_t>(i)]) offset += at[static_cast<size_t>(i)] * strides[i];
    long double& result = results[static_cast<size_t>(offset)];
    result = join(result, static_cast<long double>(value_at(x, at)));
  });
  return {results.begin(), results.end()};
}

const auto kAdd = [](long double a, long double b) { return a + b; };
const auto kMultiply = [](long double a, long double b) { return a * b; };
const auto kLarger = [](long double a, long double b) { return std::max(a, b); };
const auto kSmaller = [](long double a, long double b) { return std::min(a, b); };

TEST(Reduce, FloatingPointOverEverySetOfAxesAndView) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const DType dtype : {DType::f32, DType::f64}) {
    RandomTensors random(dtype);
    for (const Shape& shape : usual_shapes()) {
      for (const View& view : views(shape, [&](const Shape& s) { return random(s); })) {
        for (const std::vector<bool>& axes : axis_sets(shape.rank())) {
          const Shape out_shape = reduced_shape(shape, axes);
          const int64_t terms = out_shape.numel() ? shape.numel() / out_shape.numel() : 0;
          const std::string what = view.name + " " + shape.to_string() + " to " + out_shape.to_string();
          Tensor out = poisoned(out_shape, dtype);
          cpu().reduce(ReduceOp::sum, view.x, axes, out);
          testing::expect_close(out, reference(view.x, axes, 0, kAdd),
                                testing::epsilon(DType::f64) * static_cast<double>(terms), testing::epsilon(dtype),
                                "sum " + what);
          out = poisoned(out_shape, dtype);
          cpu().reduce(ReduceOp::prod, view.x, axes, out);
          // A product of many normal values underflows: a relative bound, and the smallest f32.
          testing::expect_close(out, reference(view.x, axes, 1, kMultiply), dtype == DType::f32 ? 0x1p-126 : 1e-300,
                                testing::epsilon(dtype) + static_cast<double>(terms) * testing::epsilon(DType::f64),
                                "prod " + what);
          if (shape.numel() == 0) continue;
          out = poisoned(out_shape, dtype);
          cpu().reduce(ReduceOp::max, view.x, axes, out);
          testing::expect_close(out, reference(view.x, axes, -kInfinity, kLarger), 0, 0, "max " + what);
          out = poisoned(out_shape, dtype);
          cpu().reduce(ReduceOp::min, view.x, axes, out);
          testing::expect_close(out, reference(view.x, axes, kInfinity, kSmaller), 0, 0, "min " + what);
        }
      }
    }
  }
}

TEST(Reduce, IntegersSumToI64) {
  for (const DType dtype : {DType::i64, DType::i32, DType::u8, DType::i8, DType::boolean}) {
    RandomTensors random(DType::f64);
    for (const Shape& shape : {Shape{5}, Shape{40, 37}, Shape{3, 40, 5}, Shape{300, 70}, Shape{0, 3}}) {
      for (const View& view : views(shape, [&](const Shape& s) { return (abs(random(s)) * 40.0).to(dtype); })) {
        for (const std::vector<bool>& axes : axis_sets(shape.rank())) {
          const Shape out_shape = reduced_shape(shape, axes);
          Tensor out = poisoned(out_shape, DType::i64);
          cpu().reduce(ReduceOp::sum, view.x, axes, out);
          testing::expect_close(out, reference(view.x, axes, 0, kAdd), 0, 0, name_of(dtype));
          if (shape.numel() == 0) continue;
          out = poisoned(out_shape, dtype);
          cpu().reduce(ReduceOp::max, view.x, axes, out);
          testing::expect_close(out, reference(view.x, axes, -200, kLarger), 0, 0, name_of(dtype));
          out = poisoned(out_shape, dtype);
          cpu().reduce(ReduceOp::min, view.x, axes, out);
          testing::expect_close(out, reference(view.x, axes, 1e18, kSmaller), 0, 0, name_of(dtype));
        }
      }
    }
  }
  EXPECT_EQ(sum(Tensor::full({1000}, 2000000000, DType::i32)).item(), 2e12);
  EXPECT_EQ(prod(Tensor::full({10}, 4, DType::i32)).item(), 1048576);
}

TEST(Reduce, AnyAndAll) {
  for (const Shape& shape : {Shape{200}, Shape{17, 130}, Shape{3, 5, 64}}) {
    for (int ones = 0; ones < 3; ++ones) {
      Tensor x = Tensor::full(shape, ones == 2, DType::boolean);
      if (ones == 1) x.slice(-1, 3, 4).fill_(1);
      for (const std::vector<bool>& axes : axis_sets(shape.rank())) {
        Tensor out = poisoned(reduced_shape(shape, axes), DType::boolean);
        cpu().reduce(ReduceOp::any, x, axes, out);
        testing::expect_close(out, reference(x, axes, 0, kLarger), 0, 0, "any");
        cpu().reduce(ReduceOp::all, x, axes, out);
        testing::expect_close(out, reference(x, axes, 1, kSmaller), 0, 0, "all");
      }
    }
  }
}

TEST(Reduce, EmptyAxes) {
  const Tensor x = Tensor::zeros({3, 0});
  EXPECT_EQ(sum(x, {1}).to_vector<float>(), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(prod(x, {1}).to_vector<float>(), (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(any(x.to(DType::boolean), {1}).to_vector<bool>(), (std::vector<bool>{false, false, false}));
  EXPECT_EQ(all(x.to(DType::boolean), {1}).to_vector<bool>(), (std::vector<bool>{true, true, true}));
  EXPECT_EQ(sum(x, {0}).numel(), 0);
  EXPECT_EQ(max(x, {0}).numel(), 0);
  EXPECT_THROW(max(x, {1}), ArgumentError);
  Tensor out = Tensor::zeros({3, 1});
  EXPECT_THROW(cpu().reduce(ReduceOp::min, x, {false, true}, out), ArgumentError);
  EXPECT_THROW(argmax(x, 1), ArgumentError);
}

TEST(Reduce, MaxAndMinKeepNaNWhereverItStands) {
  for (const Shape& shape : {Shape{100}, Shape{40, 33}, Shape{70, 3}}) {
    for (const int64_t position : {int64_t{0}, int64_t{5}, int64_t{31}, shape.numel() - 1}) {
      Tensor x = Tensor::arange(0, static_cast<double>(shape.numel())).to(DType::f32);
      x.slice(0, position, position + 1).fill_(NAN);
      x = x.reshape(shape);
      for (int axis = 0; axis < shape.rank(); ++axis) {
        EXPECT_EQ(sum(isnan(max(x, {axis}))).item(), 1);
        EXPECT_EQ(sum(isnan(min(x, {axis}))).item(), 1);
      }
      EXPECT_TRUE(std::isnan(max(x).item()) && std::isnan(min(x).item()));
    }
  }
}

TEST(Reduce, SumsOfF32AreAsGoodAsDouble) {
  // 0.1 in f32, ten million times: a running f32 sum would be off by percents.
  const Tensor x = Tensor::full({10000000}, 0.1);
  const double exact = 1e7 * static_cast<double>(0.1f);
  EXPECT_NEAR(sum(x).item(), exact, exact * testing::epsilon(DType::f32));
  EXPECT_NEAR(sum(x.reshape({10000, 1000}), {0}).to_vector<float>()[999], exact / 1000, exact / 1000 * 1.2e-7);
}

TEST(Reduce, ResultsDoNotDependOnTheThreadCount) {
  RandomTensors random(DType::f32);
  const Tensor x = random({64, 16, 31, 33});
  const int threads = num_threads();
  const std::vector<Axes> axis_lists = {{}, {0}, {3}, {0, 2, 3}, {1, 2}, {0, 1, 2}};
  for (const Axes& axes : axis_lists) {
    set_num_threads(1);
    const Tensor one = sum(x, axes);
    for (const int count : {2, 3, 4}) {
      set_num_threads(count);
      EXPECT_TRUE(identical(sum(x, axes), one));
    }
  }
  set_num_threads(threads);
}

TEST(ArgReduce, FindsTheFirstWinnerOnEveryAxisAndView) {
  for (const DType dtype : {DType::f32, DType::f64, DType::i64, DType::i32}) {
    RandomTensors random(DType::f64);
    for (const Shape& shape : usual_shapes()) {
      if (shape.numel() == 0) continue;
      // Few different values, so that ties are common.
      for (const View& view : views(shape, [&](const Shape& s) { return (random(s) * 2.0).to(dtype); })) {
        for (int axis = 0; axis < shape.rank(); ++axis) {
          Shape out_shape = shape;
          out_shape[axis] = 1;
          for (const bool maximum : {true, false}) {
            Tensor out = poisoned(out_shape, DType::i64);
            cpu().arg_reduce(maximum, view.x, axis, out);
            for_each_index(out_shape, [&](const Index& at) {
              Index candidate = at;
              int64_t best = 0;
              double best_value = value_at(view.x, at);
              for (int64_t i = 1; i < shape[axis]; ++i) {
                candidate[static_cast<size_t>(axis)] = i;
                const double value = value_at(view.x, candidate);
                if (maximum ? value > best_value : value < best_value) {
                  best = i;
                  best_value = value;
                }
              }
              ASSERT_EQ(value_at(out, at), best) << view.name << " " << shape.to_string() << " axis " << axis;
            });
          }
        }
      }
    }
  }
  const Tensor x = Tensor::from<float>({1, NAN, 5, NAN}, {4});
  EXPECT_EQ(argmax(x, 0).item(), 1);
  EXPECT_EQ(argmin(x, 0).item(), 1);
}

}  // namespace
}  // namespace espalier
