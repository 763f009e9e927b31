// Tensor operations: broadcasting, comparisons, reductions, products, order. Indexing and joining:
// indexing_ops_test.cpp.
#include "core/ops.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;
using Values = std::vector<double>;
constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

Values values(const Tensor& x) { return x.to_vector<double>(); }
Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::arange(0, static_cast<double>(shape.numel()), 1, dtype).reshape(shape);
}
Tensor row(const Values& v, DType dtype = DType::f32) {
  return Tensor::from(v, {static_cast<int64_t>(v.size())}).to(dtype);
}

// --- arithmetic ----------------------------------------------------------------------------------------------------

TEST(Arithmetic, OfEveryNumericType) {
  for (DType dtype : {DType::f32, DType::f64, DType::i64, DType::i32}) {
    const Tensor a = row({7, -6, 5}, dtype), b = row({2, 3, -5}, dtype);
    EXPECT_EQ((a + b).dtype(), dtype);
    EXPECT_EQ(values(a + b), (Values{9, -3, 0}));
    EXPECT_EQ(values(a - b), (Values{5, -9, 10}));
    EXPECT_EQ(values(a * b), (Values{14, -18, -25}));
    EXPECT_EQ(values(a + 1.0), (Values{8, -5, 6}));
    EXPECT_EQ(values(10.0 - a), (Values{3, 16, 5}));
    EXPECT_EQ(values(maximum(a, b)), (Values{7, 3, 5}));
    EXPECT_EQ(values(minimum(a, b)), (Values{2, -6, -5}));
    EXPECT_EQ(values(-a), (Values{-7, 6, -5}));
    EXPECT_EQ(values(abs(a)), (Values{7, 6, 5}));
    EXPECT_EQ(values(clamp(a, -1, 6)), (Values{6, -1, 5}));
  }
}

TEST(Arithmetic, Broadcasts) {
  const Tensor x = counting({2, 3});
  EXPECT_EQ(values(x + row({10, 20, 30})), (Values{10, 21, 32, 13, 24, 35}));
  EXPECT_EQ(values(x + row({10, 20}).reshape({2, 1})), (Values{10, 11, 12, 23, 24, 25}));
  EXPECT_EQ(values(row({1, 2}).reshape({2, 1}) * row({3, 4, 5})), (Values{3, 4, 5, 6, 8, 10}));
  EXPECT_EQ(values(x - Tensor::scalar(1)), (Values{-1, 0, 1, 2, 3, 4}));
  EXPECT_EQ((Tensor::scalar(1) + Tensor::scalar(2)).shape(), Shape{});
  EXPECT_EQ((x.reshape({2, 1, 3}) + Tensor::zeros({4, 1})).shape(), (Shape{2, 4, 3}));
  EXPECT_EQ((Tensor::zeros({0, 3}) + row({1, 2, 3})).shape(), (Shape{0, 3}));
  EXPECT_EQ((Tensor::zeros({3, 0}) * Tensor::zeros({3, 1})).shape(), (Shape{3, 0}));
}

TEST(Arithmetic, OfStridedTensors) {
  const Tensor x = counting({3, 4});
  EXPECT_EQ(values(x.transpose(0, 1) + x.reshape({4, 3})), values(x.transpose(0, 1).clone() + x.reshape({4, 3})));
  EXPECT_EQ(values(x.slice(1, 0, 4, 2) * 2.0), (Values{0, 4, 8, 12, 16, 20}));
  EXPECT_EQ(values(x.slice(0, 1, 2).expand({2, 4}) + x.slice(0, 0, 2)), (Values{4, 6, 8, 10, 8, 10, 12, 14}));
}

TEST(Arithmetic, ErrorsNameOperationAndShapes) {
  expect_contains(message_of([] { Tensor::zeros({2, 3}) * Tensor::zeros({2, 4}); }), {"[mul]", "(2,3)", "(2,4)"});
  expect_contains(message_of([] { Tensor::zeros({2}) + Tensor::zeros({2}, DType::f64); }),
                  {"[add]", "f32 (2)", "f64 (2)", ".to(dtype)"});
  expect_contains(message_of([] { Tensor::zeros({2}, DType::u8) + Tensor::zeros({2}, DType::u8); }), {"[add]", "u8"});
  expect_contains(message_of([] { exp(Tensor::zeros({2}, DType::i64)); }), {"[exp]", "i64"});
  expect_contains(message_of([] { Tensor::zeros({2}, DType::i64) + 0.5; }), {"[add]", "0.5"});
  expect_contains(message_of([] { Tensor() + Tensor::zeros({2}); }), {"[add]", "undefined"});
  expect_contains(message_of([] { clamp(Tensor::zeros({2}), 2, 1); }), {"[clamp]", "2", "1"});
}

TEST(Arithmetic, NanAndInfinity) {
  const Tensor x = row({kNan, kInf, -kInf, -0.0});
  EXPECT_TRUE(std::isnan(values(x + 1.0)[0]));
  EXPECT_EQ(values(isnan(x)), (Values{1, 0, 0, 0}));
  EXPECT_EQ(isnan(x).dtype(), DType::boolean);
  EXPECT_EQ(values(isnan(counting({2}, DType::i64))), (Values{0, 0}));
  EXPECT_EQ(values(exp(row({-kInf, kInf, 0, 1000, -1000}))), (Values{0, kInf, 1, kInf, 0}));
  EXPECT_EQ(values(log(row({0, kInf, 1}))), (Values{-kInf, kInf, 0}));
  EXPECT_TRUE(std::isnan(values(log(row({-1})))[0]));
  EXPECT_TRUE(std::isnan(values(sqrt(row({-1})))[0]));
  EXPECT_EQ(values(row({1, -1}) / row({0, 0})), (Values{kInf, -kInf}));
  // NaN stays NaN where a comparison would swallow it.
  for (const Tensor& y : {clamp(x, -1, 1), unary(UnaryOp::relu, x), maximum(x, Tensor::zeros({4})),
                          maximum(Tensor::zeros({4}), x), minimum(x, Tensor::zeros({4})), abs(x)})
    EXPECT_TRUE(std::isnan(values(y)[0]));
  EXPECT_EQ(values(clamp(x, -1, 1))[1], 1);
  EXPECT_EQ(values(clamp(x, -1, 1))[2], -1);
}

TEST(Arithmetic, AxpyWorksInPlace) {
  Tensor y = counting({2, 3});
  axpy_(2, row({1, 10, 100}), y);
  EXPECT_EQ(values(y), (Values{2, 21, 202, 5, 24, 205}));
  Tensor t = y.transpose(0, 1);
  axpy_(-1, t.clone(), t);
  EXPECT_EQ(values(y), Values(6, 0));
  EXPECT_THROW(axpy_(1, Tensor::zeros({4}), y), ArgumentError);
  Tensor whole = Tensor::zeros({2}, DType::i64);
  EXPECT_THROW(axpy_(1, whole, whole), ArgumentError);
}

// --- comparisons and logic -----------------------------------------------------------------------------------------

TEST(Comparison, GivesBoolAndBroadcasts) {
  const Tensor a = row({1, 2, 3}), b = row({3, 2, 1});
  EXPECT_EQ((a < b).dtype(), DType::boolean);
  EXPECT_EQ(values(a < b), (Values{1, 0, 0}));
  EXPECT_EQ(values(a <= b), (Values{1, 1, 0}));
  EXPECT_EQ(values(a > b), (Values{0, 0, 1}));
  EXPECT_EQ(values(a >= b), (Values{0, 1, 1}));
  EXPECT_EQ(values(a == b), (Values{0, 1, 0}));
  EXPECT_EQ(values(a != b), (Values{1, 0, 1}));
  EXPECT_EQ(values(a > 1.5), (Values{0, 1, 1}));
  EXPECT_EQ(values(counting({2, 3}) >= row({0, 4, 3})), (Values{1, 0, 0, 1, 1, 1}));
  EXPECT_EQ(values(counting({4}, DType::i64) < 2.5), (Values{1, 1, 1, 0}));
  EXPECT_EQ(values(counting({4}, DType::u8) == 3.0), (Values{0, 0, 0, 1}));
  EXPECT_THROW(static_cast<void>(a < Tensor::zeros({2})), ArgumentError);
}

TEST(Comparison, NanIsUnequalToEverything) {
  const Tensor x = row({kNan, kNan, 1}), y = row({kNan, 1, kNan});
  for (CompareOp op : {CompareOp::eq, CompareOp::lt, CompareOp::le, CompareOp::gt, CompareOp::ge})
    EXPECT_EQ(values(compare(op, x, y)), (Values{0, 0, 0})) << static_cast<int>(op);
  EXPECT_EQ(values(x != y), (Values{1, 1, 1}));
}

TEST(Comparison, KeepsLargeIntegersApart) {
  const int64_t large = int64_t{1} << 53;
  const Tensor a = Tensor::from<int64_t>({large}, {1}), b = Tensor::from<int64_t>({large + 1}, {1});
  EXPECT_EQ(values(a == b), Values{0});
  EXPECT_EQ(values(a < b), Values{1});
}

TEST(Logic, OfBools) {
  const Tensor a = row({0, 0, 1, 1}, DType::boolean), b = row({0, 1, 0, 1}, DType::boolean);
  EXPECT_EQ(values(a & b), (Values{0, 0, 0, 1}));
  EXPECT_EQ(values(a | b), (Values{0, 1, 1, 1}));
  EXPECT_EQ(values(a ^ b), (Values{0, 1, 1, 0}));
  EXPECT_EQ(values(~a), (Values{1, 1, 0, 0}));
  EXPECT_EQ(sum(a | b).item(), 3);
  EXPECT_THROW(a & row({0, 1, 0, 1}), ArgumentError);
  EXPECT_THROW(~row({1}), ArgumentError);
}

TEST(Where, ChoosesAndBroadcasts) {
  const Tensor condition = row({1, 0, 1}, DType::boolean);
  EXPECT_EQ(values(where(condition, row({1, 2, 3}), row({4, 5, 6}))), (Values{1, 5, 3}));
  EXPECT_EQ(values(where(condition, counting({2, 3}), Tensor::scalar(-1))), (Values{0, -1, 2, 3, -1, 5}));
  EXPECT_EQ(where(condition.reshape({3, 1}), Tensor::zeros({2}), Tensor::zeros({})).shape(), (Shape{3, 2}));
  // What is not chosen does not matter.
  EXPECT_EQ(values(where(condition, row({1, kNan, 3}), row({kNan, 5, kInf}))), (Values{1, 5, 3}));
  EXPECT_EQ(values(where(condition, counting({3}, DType::i8), Tensor::zeros({3}, DType::i8))), (Values{0, 0, 2}));
  expect_contains(message_of([&] { where(row({1}), row({1}), row({1})); }),
                  {"[where]", "bool", "f32", ".to(DType::boolean)"});
  expect_contains(message_of([&] { where(condition, row({1, 2}), row({1})); }), {"[where]", "(3)", "(2)"});
}

// --- reductions ----------------------------------------------------------------------------------------------------

TEST(Reduction, OverAnyAxes) {
  const Tensor x = counting({2, 3, 4});
  EXPECT_EQ(sum(x).item(), 276);
  EXPECT_EQ(sum(x).shape(), Shape{});
  EXPECT_EQ(sum(x, {}, true).shape(), (Shape{1, 1, 1}));
  EXPECT_EQ(values(sum(x, {0})), (Values{12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34}));
  EXPECT_EQ(values(sum(x, {-1})), (Values{6, 22, 38, 54, 70, 86}));
  EXPECT_EQ(values(sum(x, {0, 2})), (Values{60, 92, 124}));
  EXPECT_EQ(sum(x, {0, 2}, true).shape(), (Shape{1, 3, 1}));
  EXPECT_EQ(values(mean(x, {1})), (Values{4, 5, 6, 7, 16, 17, 18, 19}));
  EXPECT_EQ(values(max(x, {1, 2})), (Values{11, 23}));
  EXPECT_EQ(values(min(x, {0, 1})), (Values{0, 1, 2, 3}));
  EXPECT_EQ(values(prod(x.slice(0, 0, 1), {1})), (Values{0, 45, 120, 231}));
  EXPECT_EQ(values(sum(x.transpose(0, 2), {0})), values(sum(x, {2}).transpose(0, 1)));
  EXPECT_EQ(values(sum(Tensor::scalar(3).expand({2, 5}), {1})), (Values{15, 15}));
  EXPECT_EQ(sum(Tensor::scalar(3)).item(), 3);
  expect_contains(message_of([&] { sum(x, {3}); }), {"rank 3", "3"});
}

TEST(Reduction, IntegersSumToLong) {
  EXPECT_EQ(sum(counting({5}, DType::i32)).dtype(), DType::i64);
  EXPECT_EQ(sum(Tensor::full({1000}, 127, DType::i8)).item(), 127'000);
  EXPECT_EQ(sum(Tensor::full({1000}, 255, DType::u8)).item(), 255'000);
  EXPECT_EQ(sum(Tensor::full({3}, double(1 << 30), DType::i32)).item(), 3.0 * (1 << 30));
  EXPECT_EQ(sum(Tensor::ones({7}, DType::boolean)).item(), 7);
  EXPECT_EQ(prod(Tensor::full({40}, 2, DType::i32)).item(), std::ldexp(1, 40));
  EXPECT_EQ(max(counting({5}, DType::i64)).item(), 4);
  EXPECT_THROW(mean(counting({5}, DType::i64)), ArgumentError);
}

TEST(Reduction, OfNothing) {
  EXPECT_EQ(values(sum(Tensor::zeros({0, 3}), {0})), (Values{0, 0, 0}));
  EXPECT_EQ(values(prod(Tensor::zeros({0, 3}), {0})), (Values{1, 1, 1}));
  EXPECT_EQ(sum(Tensor::zeros({0})).item(), 0);
  EXPECT_EQ(sum(Tensor::zeros({0, 3}), {1}).shape(), Shape{0});
  EXPECT_EQ(any(Tensor::zeros({0}, DType::boolean)).item(), 0);
  EXPECT_EQ(all(Tensor::zeros({0}, DType::boolean)).item(), 1);
  EXPECT_EQ(max(Tensor::zeros({0, 3}), {1}).shape(), Shape{0});
  expect_contains(message_of([] { max(Tensor::zeros({0, 3}), {0}); }), {"(0,3)", "at least one"});
}

TEST(Reduction, NanWins) {
  const Tensor x = Tensor::from<float>({1, float(kNan), 3, 4, 5, 6}, {2, 3});
  EXPECT_TRUE(std::isnan(values(max(x, {1}))[0]));
  EXPECT_TRUE(std::isnan(values(min(x, {1}))[0]));
  EXPECT_EQ(values(max(x, {1}))[1], 6);
  EXPECT_TRUE(std::isnan(values(max(x, {0}))[1]));
  EXPECT_TRUE(std::isnan(max(x).item()));
  EXPECT_EQ(max(row({-kInf, -kInf})).item(), -kInf);
}

TEST(Reduction, Variance) {
  const Tensor x = Tensor::from<double>({1, 2, 3, 4, 2, 4, 6, 8}, {2, 4});
  EXPECT_NEAR(values(variance(x, {1}))[0], 5.0 / 3, 1e-15);
  EXPECT_NEAR(values(variance(x, {1}))[1], 20.0 / 3, 1e-14);
  EXPECT_EQ(values(variance(x, {1}, false, 0)), (Values{1.25, 5}));
  EXPECT_EQ(variance(x, {1}, true).shape(), (Shape{2, 1}));
  // A large mean must not drown the deviations.
  EXPECT_NEAR(variance(row({1e6, 1e6 + 1, 1e6 + 2})).item(), 1, 1e-6);
}

TEST(Reduction, AnyAndAll) {
  const Tensor x = Tensor::from<bool>({true, false, true, true, false, false}, {3, 2});
  EXPECT_EQ(values(any(x, {1})), (Values{1, 1, 0}));
  EXPECT_EQ(values(all(x, {1})), (Values{0, 1, 0}));
  EXPECT_EQ(any(x).dtype(), DType::boolean);
  EXPECT_EQ(any(x).item(), 1);
  EXPECT_EQ(all(x).item(), 0);
  EXPECT_THROW(any(counting({2})), ArgumentError);
}

TEST(Reduction, ArgmaxTakesTheFirstAndNanWins) {
  const Tensor x = Tensor::from<float>({1, 5, 5, 2, 2, 2, -1, float(kNan), 9}, {3, 3});
  EXPECT_EQ(argmax(x, 1).dtype(), DType::i64);
  EXPECT_EQ(values(argmax(x, 1)), (Values{1, 0, 1}));
  EXPECT_EQ(values(argmin(x, 1)), (Values{0, 0, 1}));
  EXPECT_EQ(values(argmax(x, 0)), (Values{1, 2, 2}));
  EXPECT_EQ(argmax(x, -1, true).shape(), (Shape{3, 1}));
  EXPECT_EQ(values(argmax(x.transpose(0, 1), 0)), (Values{1, 0, 1}));
  EXPECT_EQ(values(argmax(row({-kInf, -kInf}).reshape({1, 2}), 1)), Values{0});
  EXPECT_THROW(argmax(Tensor::zeros({2, 0}), 1), ArgumentError);
}

TEST(Reduction, LongSumsStayExact) {
  // A float sum that adds one by one stops at 2^24.
  const int64_t n = (int64_t{1} << 24) + 1001;
  EXPECT_EQ(sum(Tensor::scalar(1).expand({n})).item(), static_cast<double>(static_cast<float>(n)));
}

TEST(SumTo, IsTheInverseOfBroadcasting) {
  const Tensor x = counting({2, 3, 4});
  EXPECT_EQ(values(sum_to(x, {4})), values(sum(x, {0, 1})));
  EXPECT_EQ(values(sum_to(x, {3, 1})), values(sum(x, {0, 2})));
  EXPECT_EQ(sum_to(x, {1, 3, 1}).shape(), (Shape{1, 3, 1}));
  EXPECT_EQ(sum_to(x, {}).item(), 276);
  EXPECT_TRUE(identical(sum_to(x, {2, 3, 4}), x));
  EXPECT_THROW(sum_to(x, {2, 4}), ArgumentError);
  EXPECT_THROW(sum_to(Tensor::zeros({4}), {2, 4}), ArgumentError);
}

// --- matrix products -----------------------------------------------------------------------------------------------

TEST(Matmul, OfEveryRank) {
  const Tensor a = counting({2, 3}), b = counting({3, 2}), v = row({1, 2, 3});
  EXPECT_EQ(values(matmul(a, b)), (Values{10, 13, 28, 40}));
  EXPECT_EQ(values(matmul(a, v)), (Values{8, 26}));
  EXPECT_EQ(values(matmul(v, b)), (Values{16, 22}));
  EXPECT_EQ(matmul(v, v).item(), 14);
  EXPECT_EQ(matmul(v, v).shape(), Shape{});
  const Tensor batch = counting({2, 2, 3});
  EXPECT_EQ(values(matmul(batch, b)), (Values{10, 13, 28, 40, 46, 67, 64, 94}));
  EXPECT_EQ(values(matmul(batch, v)), (Values{8, 26, 44, 62}));
  EXPECT_EQ(matmul(v, counting({5, 3, 2})).shape(), (Shape{5, 2}));
  EXPECT_EQ(matmul(counting({4, 1, 2, 3}), counting({5, 3, 2})).shape(), (Shape{4, 5, 2, 2}));
}

TEST(Matmul, BroadcastsBatches) {
  const Tensor a = counting({2, 1, 2, 3}), b = counting({3, 3, 2});
  const Tensor c = matmul(a, b);
  ASSERT_EQ(c.shape(), (Shape{2, 3, 2, 2}));
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 3; ++j)
      EXPECT_EQ(values(c.select(0, i).select(0, j)), values(matmul(a.select(0, i).select(0, 0), b.select(0, j))));
}

TEST(Matmul, OfTransposedAndSlicedViews) {
  const Tensor a = counting({4, 5}, DType::f64), b = counting({4, 6}, DType::f64);
  EXPECT_EQ(values(matmul(a.transpose(0, 1), b)), values(matmul(a.transpose(0, 1).clone(), b)));
  EXPECT_EQ(values(matmul(b.slice(1, 1, 5), a)), values(matmul(b.slice(1, 1, 5).clone(), a)));
  EXPECT_EQ(values(matmul(b.slice(1, 0, 6, 2).transpose(0, 1), a)),
            values(matmul(b.slice(1, 0, 6, 2).transpose(0, 1).clone(), a)));
  EXPECT_EQ(values(matmul(Tensor::scalar(1, DType::f64).expand({2, 4}), a)),
            values(matmul(Tensor::ones({2, 4}, DType::f64), a)));
}

TEST(Matmul, OfNothing) {
  EXPECT_EQ(values(matmul(Tensor::zeros({2, 0}), Tensor::zeros({0, 3}))), Values(6, 0));
  EXPECT_EQ(matmul(Tensor::zeros({0, 4}), Tensor::zeros({4, 3})).shape(), (Shape{0, 3}));
  EXPECT_EQ(matmul(Tensor::zeros({0, 2, 4}), Tensor::zeros({4, 3})).shape(), (Shape{0, 2, 3}));
}

TEST(Matmul, ErrorsNameShapes) {
  expect_contains(message_of([] {
                    matmul(Tensor::zeros({2, 3}), Tensor::zeros({4, 2}));
                  }),
                  {"[matmul]", "(2,3)", "(4,2)", "3", "4"});
  expect_contains(message_of([] { matmul(Tensor::zeros({2, 2, 3}), Tensor::zeros({3, 3, 2})); }), {"[matmul]"});
  expect_contains(message_of([] { matmul(Tensor::zeros({2}, DType::i64), Tensor::zeros({2}, DType::i64)); }),
                  {"[matmul]", "i64"});
  expect_contains(message_of([] { matmul(Tensor::zeros({}), Tensor::zeros({2})); }), {"[matmul]", "()"});
}

// --- order ---------------------------------------------------------------------------------------------------------

TEST(Sort, IsStableAndNanIsTheLargest) {
  const Tensor x = row({3, kNan, 1, 3, -kInf, kInf, kNan});
  const Sorted up = sort(x);
  EXPECT_EQ(values(up.index), (Values{4, 2, 0, 3, 5, 1, 6}));
  EXPECT_EQ(up.index.dtype(), DType::i64);
  EXPECT_EQ(values(up.values.slice(0, 0, 5)), (Values{-kInf, 1, 3, 3, kInf}));
  EXPECT_TRUE(std::isnan(values(up.values)[5]) && std::isnan(values(up.values)[6]));
  const Sorted down = sort(x, -1, true);
  EXPECT_EQ(values(down.index), (Values{1, 6, 5, 0, 3, 2, 4}));
  EXPECT_TRUE(std::isnan(values(down.values)[0]));
}

TEST(Sort, AlongAnyAxis) {
  const Tensor x = Tensor::from<float>({3, 1, 2, 0, 5, 4}, {2, 3});
  EXPECT_EQ(values(sort(x, 1).values), (Values{1, 2, 3, 0, 4, 5}));
  EXPECT_EQ(values(sort(x, 0).values), (Values{0, 1, 2, 3, 5, 4}));
  EXPECT_EQ(values(sort(x, 0).index), (Values{1, 0, 0, 0, 1, 1}));
  EXPECT_EQ(values(sort(x.transpose(0, 1), 0).values), (Values{1, 0, 2, 4, 3, 5}));
  for (DType dtype : {DType::f64, DType::i64, DType::i32})
    EXPECT_EQ(values(sort(x.to(dtype), 1, true).values), (Values{3, 2, 1, 5, 4, 0}));
  EXPECT_EQ(sort(Tensor::zeros({2, 0})).values.shape(), (Shape{2, 0}));
  EXPECT_THROW(sort(x, 2), ArgumentError);
}

TEST(Topk, GivesTheExtremesInOrder) {
  const Tensor x = row({3, 9, 1, 9, 5});
  EXPECT_EQ(values(topk(x, 3).values), (Values{9, 9, 5}));
  EXPECT_EQ(values(topk(x, 3).index), (Values{1, 3, 4}));  // the lower index first
  EXPECT_EQ(values(topk(x, 2, -1, false).values), (Values{1, 3}));
  EXPECT_EQ(topk(x, 0).values.numel(), 0);
  EXPECT_EQ(values(topk(x, 5).values), (Values{9, 9, 5, 3, 1}));
  EXPECT_TRUE(std::isnan(values(topk(row({1, kNan, 2}), 1).values)[0]));
  EXPECT_EQ(values(topk(row({kNan, 1, 2}), 2, -1, false).values), (Values{1, 2}));
  EXPECT_EQ(values(topk(counting({3, 4}), 1, 0).index), Values(4, 2));
  EXPECT_EQ(topk(counting({3, 4}), 2, 1).values.shape(), (Shape{3, 2}));
  expect_contains(message_of([&] { topk(x, 6); }), {"[topk]", "6", "(5)"});
  EXPECT_THROW(topk(x, -1), ArgumentError);
}

TEST(Topk, AgreesWithSort) {
  std::vector<float> v;
  for (int i = 0; i < 500; ++i) v.push_back(static_cast<float>((i * 7919) % 101));  // many ties
  const Tensor x = Tensor::from(v, {5, 100});
  for (bool largest : {true, false})
    for (int64_t k : {1, 7, 50, 100}) {
      const Sorted top = topk(x, k, 1, largest), all = sort(x, 1, largest);
      EXPECT_TRUE(identical(top.values, all.values.slice(1, 0, k)));
      EXPECT_TRUE(identical(top.index, all.index.slice(1, 0, k)));
    }
}

TEST(Kthvalue, CountsFromOne) {
  const Tensor x = Tensor::from<float>({3, 1, 2, 0, 5, float(kNan)}, {2, 3});
  EXPECT_EQ(values(kthvalue(x, 1).values), (Values{1, 0}));
  EXPECT_EQ(values(kthvalue(x, 2).values), (Values{2, 5}));
  EXPECT_EQ(values(kthvalue(x, 2).index), (Values{2, 1}));
  EXPECT_TRUE(std::isnan(values(kthvalue(x, 3).values)[1]));
  EXPECT_EQ(kthvalue(x, 1, 0).values.shape(), Shape{3});
  for (int64_t k : {0, 4}) EXPECT_THROW(kthvalue(x, k), ArgumentError);
}

// --- checks --------------------------------------------------------------------------------------------------------

TEST(Equality, IdenticalComparesBits) {
  const Tensor x = row({1, kNan, -0.0});
  EXPECT_TRUE(identical(x, x.clone()));
  EXPECT_FALSE(identical(row({0.0}), row({-0.0})));
  EXPECT_FALSE(identical(row({1}), row({1}, DType::f64)));
  EXPECT_FALSE(identical(row({1, 2}), row({1, 2}).reshape({2, 1})));
  EXPECT_TRUE(identical(counting({2, 3}).transpose(0, 1), counting({2, 3}).transpose(0, 1).clone()));
  EXPECT_TRUE(identical(Tensor::zeros({0}), Tensor::zeros({0})));
}

TEST(Equality, AllCloseHasNoPlaceForNan) {
  EXPECT_TRUE(all_close(row({1, kInf}), row({1 + 1e-7, kInf})));
  EXPECT_FALSE(all_close(row({1}), row({1.001})));
  EXPECT_TRUE(all_close(row({1}), row({1.001}), 1e-2));
  EXPECT_FALSE(all_close(row({kNan}), row({kNan})));
  EXPECT_FALSE(all_close(row({kInf}), row({-kInf})));
  EXPECT_FALSE(all_close(row({1e30}), row({kInf})));
  EXPECT_FALSE(all_close(row({1, 2}), row({1})));
}

}  // namespace
}  // namespace espalier
