// Joining and indexing of tensors, and what happens to an index out of range.
#include <gtest/gtest.h>

#include "core/ops.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_error;
using Values = std::vector<double>;

Values values(const Tensor& x) { return x.to_vector<double>(); }
Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::arange(0, static_cast<double>(shape.numel()), 1, dtype).reshape(shape);
}
Tensor indices(const std::vector<int64_t>& v) { return Tensor::from(v, {static_cast<int64_t>(v.size())}); }

TEST(Cat, JoinsAlongAnyAxis) {
  const Tensor a = counting({2, 2}), b = a + 10.0;
  EXPECT_EQ(values(cat({a, b}, 0)), (Values{0, 1, 2, 3, 10, 11, 12, 13}));
  EXPECT_EQ(values(cat({a, b}, -1)), (Values{0, 1, 10, 11, 2, 3, 12, 13}));
  EXPECT_EQ(values(cat({a, Tensor::zeros({2, 0}), b.transpose(0, 1)}, 1)), (Values{0, 1, 10, 12, 2, 3, 11, 13}));
  EXPECT_EQ(cat({a}, 0).shape(), a.shape());
  EXPECT_EQ(cat({counting({2}, DType::u8), counting({1}, DType::u8)}, 0).dtype(), DType::u8);
  expect_error([] { cat({}, 0); }, {"[cat]"});
  expect_error([&] { cat({a, counting({3, 3})}, 0); }, {"[cat]", "(2,2)", "(3,3)"});
  expect_error([&] { cat({a, counting({2})}, 0); }, {"[cat]", "(2)"});
  expect_error([&] { cat({a, a.to(DType::f64)}, 0); }, {"[cat]", "f64"});
  expect_error([&] { cat({a, Tensor()}, 0); }, {"[cat]"});
}

TEST(Stack, AddsAnAxis) {
  const Tensor a = counting({2}), b = a + 10.0;
  EXPECT_EQ(values(stack({a, b}, 0)), (Values{0, 1, 10, 11}));
  EXPECT_EQ(values(stack({a, b}, 1)), (Values{0, 10, 1, 11}));
  EXPECT_EQ(stack({a, b, a}, -1).shape(), (Shape{2, 3}));
  EXPECT_THROW(stack({a, counting({3})}, 0), ArgumentError);
  EXPECT_THROW(stack({a, b}, 2), ArgumentError);
  EXPECT_THROW(stack({}, 0), ArgumentError);
}

TEST(Pad, SurroundsWithAValue) {
  const Tensor x = counting({2, 2}) + 1.0;
  EXPECT_EQ(values(pad(x, {{0, 1}, {1, 0}})), (Values{0, 1, 2, 0, 3, 4, 0, 0, 0}));
  EXPECT_EQ(values(pad(x, {{1, 0}, {0, 0}}, -7)), (Values{-7, -7, 1, 2, 3, 4}));
  EXPECT_EQ(values(pad(x, {{0, 0}, {0, 0}})), values(x));
  EXPECT_EQ(values(pad(x.transpose(0, 1), {{0, 0}, {1, 0}})), (Values{0, 1, 3, 0, 2, 4}));
  EXPECT_EQ(values(pad(Tensor::zeros({0, 1}), {{1, 1}, {0, 0}}, 5)), (Values{5, 5}));
  expect_error([&] { pad(x, {{1, 1}}); }, {"[pad]", "2", "(2,2)"});
  expect_error([&] { pad(x, {{-1, 0}, {0, 0}}); }, {"[pad]", "-1"});
}

TEST(Gather, TakesOneElementForEachIndex) {
  const Tensor x = counting({3, 4});
  const Tensor index = Tensor::from<int64_t>({3, 0, 1, 1}, {2, 2});
  EXPECT_EQ(values(gather(x, 1, index)), (Values{3, 0, 5, 5}));
  EXPECT_EQ(values(gather(x, 0, index.slice(0, 1, 2))), (Values{4, 5}));
  EXPECT_EQ(values(gather(x.transpose(0, 1), 0, index)), (Values{3, 4, 1, 5}));
  EXPECT_EQ(gather(x, 1, Tensor::zeros({3, 0}, DType::i64)).numel(), 0);
  for (DType dtype : {DType::u8, DType::i8, DType::i64, DType::f64})
    EXPECT_EQ(values(gather(x.to(dtype), 1, index)), (Values{3, 0, 5, 5}));
  expect_error([&] { gather(x, 1, index.to(DType::f32)); }, {"[gather]", "i64", "f32"});
  expect_error([&] { gather(x, 1, indices({1})); }, {"[gather]", "(1)", "(3,4)"});
  expect_error([&] { gather(x, 1, Tensor::zeros({4, 2}, DType::i64)); }, {"[gather]", "(4,2)", "(3,4)"});
}

TEST(Scatter, AssignsAndTheLastWins) {
  const Tensor x = Tensor::zeros({2, 4}), index = Tensor::from<int64_t>({1, 3, 0, 0}, {2, 2});
  const Tensor v = Tensor::from<float>({1, 2, 3, 4}, {2, 2});
  EXPECT_EQ(values(scatter(x, 1, index, v)), (Values{0, 1, 0, 2, 4, 0, 0, 0}));
  EXPECT_EQ(values(scatter_add(x + 1.0, 1, index, v)), (Values{1, 2, 1, 3, 8, 1, 1, 1}));
  EXPECT_EQ(values(x), Values(8, 0));  // a copy
  EXPECT_EQ(values(scatter(Tensor::zeros({4, 2}).transpose(0, 1), 1, index, v)), (Values{0, 1, 0, 2, 4, 0, 0, 0}));
  expect_error([&] { scatter(x, 1, index, Tensor::zeros({2, 3})); }, {"[scatter]", "(2,2)", "(2,3)"});
  expect_error([&] { scatter_add(x, 1, index, v.to(DType::f64)); }, {"[scatter_add]", "f64"});
}

TEST(IndexSelect, TakesSlices) {
  const Tensor x = counting({3, 2});
  EXPECT_EQ(values(index_select(x, 0, indices({2, 0, 2}))), (Values{4, 5, 0, 1, 4, 5}));
  EXPECT_EQ(values(index_select(x, -1, indices({1}))), (Values{1, 3, 5}));
  EXPECT_EQ(index_select(x, 0, indices({})).shape(), (Shape{0, 2}));
  EXPECT_EQ(values(index_select(x.transpose(0, 1), 1, indices({1, 0}))), (Values{2, 0, 3, 1}));
  expect_error([&] { index_select(x, 0, Tensor::zeros({1, 1}, DType::i64)); }, {"[index_select]", "rank 1", "(1,1)"});
}

TEST(IndexAdd, AddsAtRepeatedIndices) {
  const Tensor x = Tensor::ones({3, 2}), v = counting({3, 2});
  EXPECT_EQ(values(index_add(x, 0, indices({2, 0, 2}), v)), (Values{3, 4, 1, 1, 5, 7}));
  EXPECT_EQ(values(x), Values(6, 1));
  expect_error([&] { index_add(x, 0, indices({0}), v); }, {"[index_add]", "(1,2)", "(3,2)"});
}

TEST(OneHot, MarksTheLabel) {
  EXPECT_EQ(values(one_hot(indices({2, 0}), 3)), (Values{0, 0, 1, 1, 0, 0}));
  EXPECT_EQ(one_hot(indices({2, 0}), 3).dtype(), DType::f32);
  EXPECT_EQ(one_hot(Tensor::zeros({2, 3}, DType::i64), 4, DType::boolean).shape(), (Shape{2, 3, 4}));
  EXPECT_EQ(one_hot(indices({}), 3).shape(), (Shape{0, 3}));
}

TEST(IndexOutOfRange, IsNamedByEveryOperation) {
  const Tensor x = counting({3, 4}), v = Tensor::ones({1, 1});
  const auto at = [](int64_t i) { return Tensor::from<int64_t>({i}, {1, 1}); };
  for (int64_t wrong : {int64_t{4}, int64_t{-1}, int64_t{1} << 40, -(int64_t{1} << 62)}) {
    const std::string number = std::to_string(wrong);
    expect_error([&] { gather(x, 1, at(wrong)); }, {"[gather]", "axis 1", number});
    expect_error([&] { scatter(x, 1, at(wrong), v); }, {"[scatter]", number});
    expect_error([&] { scatter_add(x, 1, at(wrong), v); }, {"[scatter_add]", number});
    expect_error([&] { index_select(x, 1, indices({0, wrong})); }, {"[index_select]", "axis 1", number});
    expect_error([&] { index_add(x, 1, indices({wrong}), Tensor::ones({3, 1})); }, {"[index_add]", number});
    expect_error([&] { one_hot(indices({0, wrong}), 4); }, {number});
  }
  EXPECT_EQ(values(x), values(counting({3, 4})));
}

TEST(IndexOutOfRange, InALargeIndexIsFoundByEveryThread) {
  // Far into a tensor that several threads share.
  Tensor index = Tensor::zeros({200'000}, DType::i64);
  index.slice(0, 150'000, 150'001).fill_(17);
  expect_error([&] { index_select(counting({3}), 0, index); }, {"[index_select]", "17"});
  expect_error([&] { gather(counting({3}), 0, index); }, {"[gather]", "17"});
}

}  // namespace
}  // namespace espalier
