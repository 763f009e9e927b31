#include <algorithm>
#include <numeric>

#include "core/ops.h"
#include "tests/core/strided_testing.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::for_each_index;
using testing::Index;
using testing::poisoned;
using testing::RandomTensors;
using testing::value_at;
using testing::View;
using testing::views;

/// The rule of the contract: ascending with NaN last, descending with NaN first; equal values keep their order.
std::vector<int64_t> reference_order(const std::vector<double>& values, bool descending) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto less = [](double a, double b) { return std::isnan(b) ? !std::isnan(a) : a < b; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    const double a = values[static_cast<size_t>(i)], b = values[static_cast<size_t>(j)];
    return descending ? less(b, a) : less(a, b);
  });
  return order;
}

void expect_ordered(const Tensor& x, int axis, int64_t k, bool descending, const Tensor& values, const Tensor& index,
                    const std::string& what) {
  Shape lines = x.shape();
  lines[axis] = 1;
  for_each_index(lines, [&](const Index& start) {
    Index at = start;
    std::vector<double> line;
    for (int64_t i = 0; i < x.size(axis); ++i) {
      at[static_cast<size_t>(axis)] = i;
      line.push_back(value_at(x, at));
    }
    const std::vector<int64_t> order = reference_order(line, descending);
    for (int64_t i = 0; i < k; ++i) {
      at[static_cast<size_t>(axis)] = i;
      const int64_t expected = order[static_cast<size_t>(i)];
      ASSERT_EQ(value_at(index, at), expected) << what;
      const double value = line[static_cast<size_t>(expected)], got = value_at(values, at);
      ASSERT_TRUE(got == value || (std::isnan(got) && std::isnan(value))) << what;
    }
  });
}

TEST(Sort, SortAndTopkOnEveryAxisViewAndType) {
  RandomTensors random(DType::f64);
  for (const DType dtype : {DType::f32, DType::f64, DType::i64, DType::i32}) {
    for (const Shape& shape : {Shape{1}, Shape{50}, Shape{7, 9}, Shape{5, 1}, Shape{3, 40, 4}}) {
      // Few different values, negative ones too: ties are common. Floating-point lines hold NaN, infinities, -0.
      const auto make = [&](const Shape& s) {
        Tensor x = unary(UnaryOp::round, random(s) * 3.0);
        if (is_floating(dtype)) {
          x = where(x == 4.0, Tensor::scalar(NAN, DType::f64), x);
          x = where(x == -4.0, Tensor::scalar(-INFINITY, DType::f64), x);
          x = where(x == 5.0, Tensor::scalar(INFINITY, DType::f64), x);
        }
        return x.to(dtype);
      };
      for (const View& view : views(shape, make)) {
        for (int axis = 0; axis < shape.rank(); ++axis) {
          for (const bool descending : {false, true}) {
            const std::string what = view.name + " " + shape.to_string() + " " + name_of(dtype);
            Tensor values = poisoned(shape, dtype), index = poisoned(shape, DType::i64);
            cpu().sort(view.x, axis, descending, values, index);
            expect_ordered(view.x, axis, shape[axis], descending, values, index, "sort " + what);
            for (const int64_t k : {int64_t{1}, shape[axis] / 2, shape[axis]}) {
              Shape top = shape;
              top[axis] = k;
              values = poisoned(top, dtype);
              index = poisoned(top, DType::i64);
              cpu().topk(view.x, axis, k, descending, values, index);
              expect_ordered(view.x, axis, k, descending, values, index, "topk " + what);
            }
          }
        }
      }
    }
  }
}

TEST(Sort, ZeroAndMinusZeroAreEqualAndExtremesAreOrdered) {
  const Tensor x = Tensor::from<float>({0.0f, -0.0f, 0.0f, -0.0f, 1e-45f, -1e-45f}, {6});
  EXPECT_EQ(sort(x).index.to_vector<int64_t>(), (std::vector<int64_t>{5, 0, 1, 2, 3, 4}));
  EXPECT_EQ(sort(x, 0, true).index.to_vector<int64_t>(), (std::vector<int64_t>{4, 0, 1, 2, 3, 5}));
  EXPECT_TRUE(std::signbit(sort(x).values.to_vector<float>()[2]));  // the value itself is moved, not its key
  const Tensor i =
      Tensor::from<int64_t>({std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min(), 0}, {3});
  EXPECT_EQ(sort(i).index.to_vector<int64_t>(), (std::vector<int64_t>{1, 2, 0}));
  const Tensor nan = Tensor::from<float>({-NAN, 1, NAN, INFINITY}, {4});
  EXPECT_EQ(sort(nan).index.to_vector<int64_t>(), (std::vector<int64_t>{1, 3, 0, 2}));
  EXPECT_EQ(topk(nan, 3).index.to_vector<int64_t>(), (std::vector<int64_t>{0, 2, 3}));
}

TEST(Sort, LongLines) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    RandomTensors random(dtype);
    const Tensor x = unary(UnaryOp::round, random({100000}) * 1000.0);
    const Sorted all = sort(x);
    expect_ordered(x, 0, x.numel(), false, all.values, all.index, "long");
    const Sorted most = topk(x, 30000, 0, true);
    expect_ordered(x, 0, 30000, true, most.values, most.index, "topk");
  }
}

TEST(Sort, EmptyAndInvalid) {
  EXPECT_EQ(sort(Tensor::zeros({3, 0}), 1).values.shape(), (Shape{3, 0}));
  EXPECT_EQ(sort(Tensor::zeros({0, 3}), 1).values.shape(), (Shape{0, 3}));
  EXPECT_EQ(topk(Tensor::zeros({3, 4}), 0).index.shape(), (Shape{3, 0}));
  Tensor values = Tensor::zeros({5}), index = Tensor::zeros({5}, DType::i64);
  EXPECT_THROW(cpu().topk(Tensor::zeros({4}), 0, 5, true, values, index), ArgumentError);
  Tensor bytes = Tensor::zeros({5}, DType::u8);
  EXPECT_THROW(cpu().sort(bytes, 0, false, bytes, index), ArgumentError);
}

}  // namespace
}  // namespace espalier
