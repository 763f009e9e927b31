#include "core/shape.h"

#include <gtest/gtest.h>

#include "core/device.h"
#include "core/dtype.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

TEST(Shape, OfAScalarHasOneElement) {
  const Shape scalar{};
  EXPECT_EQ(scalar.rank(), 0);
  EXPECT_EQ(scalar.numel(), 1);
  EXPECT_EQ(scalar.to_string(), "()");
}

TEST(Shape, HoldsSizesInOrder) {
  const Shape shape{2, 3, 4};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape.numel(), 24);
  EXPECT_EQ(shape.back(), 4);
  EXPECT_EQ(shape[1], 3);
  EXPECT_EQ(shape.to_string(), "(2,3,4)");
  EXPECT_EQ(Shape(std::vector<int64_t>{2, 3, 4}), shape);
  EXPECT_NE(shape, (Shape{2, 3}));
  EXPECT_NE(shape, (Shape{2, 4, 3}));
  EXPECT_EQ((Shape{2, 0, 4}).numel(), 0);
}

TEST(Shape, InsertsAndErases) {
  Shape shape{2, 3};
  shape.insert(0, 5);
  EXPECT_EQ(shape, (Shape{5, 2, 3}));
  shape.insert(3, 7);
  EXPECT_EQ(shape, (Shape{5, 2, 3, 7}));
  shape.insert(2, 9);
  EXPECT_EQ(shape, (Shape{5, 2, 9, 3, 7}));
  shape.erase(0);
  shape.erase(3);
  shape.erase(1);
  EXPECT_EQ(shape, (Shape{2, 3}));
}

TEST(Shape, HasAtMostEightAxes) {
  Shape shape{1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(shape.rank(), kMaxRank);
  EXPECT_THROW(shape.push_back(9), ArgumentError);
  EXPECT_THROW(shape.insert(0, 9), ArgumentError);
  EXPECT_EQ(shape, (Shape{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(Shape, ContiguousStridesAreRowMajor) {
  EXPECT_EQ(contiguous_strides({2, 3, 4}), (Shape{12, 4, 1}));
  EXPECT_EQ(contiguous_strides({}), Shape{});
}

TEST(Shape, NegativeAxesCountFromTheEnd) {
  EXPECT_EQ(normalize_axis(-1, 4, "sum"), 3);
  EXPECT_EQ(normalize_axis(-4, 4, "sum"), 0);
  EXPECT_EQ(normalize_axis(2, 4, "sum"), 2);
  for (int axis : {4, -5}) EXPECT_THROW(normalize_axis(axis, 4, "sum"), ArgumentError);
  EXPECT_THROW(normalize_axis(0, 0, "sum"), ArgumentError);
  const std::string message = testing_support::message_of([] { normalize_axis(7, 4, "sum"); });
  EXPECT_EQ(message.find("[sum]"), 0u);
  testing_support::expect_contains(message, {"7", "rank 4"});
}

TEST(Shape, BroadcastAlignsTheLastAxes) {
  const auto both = [](const Shape& a, const Shape& b) {
    EXPECT_EQ(broadcast_shapes(a, b, "add"), broadcast_shapes(b, a, "add"));
    return broadcast_shapes(a, b, "add");
  };
  EXPECT_EQ(both({2, 3}, {2, 3}), (Shape{2, 3}));
  EXPECT_EQ(both({2, 3}, {3}), (Shape{2, 3}));
  EXPECT_EQ(both({2, 1}, {1, 3}), (Shape{2, 3}));
  EXPECT_EQ(both({}, {2, 3}), (Shape{2, 3}));
  EXPECT_EQ(both({5, 1, 4}, {3, 1}), (Shape{5, 3, 4}));
  EXPECT_EQ(both({0, 3}, {1, 3}), (Shape{0, 3}));
  EXPECT_EQ(both({1}, {0}), Shape{0});
}

TEST(Shape, BroadcastRefusesOtherSizes) {
  EXPECT_THROW(broadcast_shapes({2, 3}, {2}, "add"), ArgumentError);
  EXPECT_THROW(broadcast_shapes({0}, {2}, "add"), ArgumentError);
  const std::string message = testing_support::message_of([] { broadcast_shapes({2, 3}, {4, 3}, "add"); });
  EXPECT_EQ(message.find("[add]"), 0u);
  testing_support::expect_contains(message, {"(2,3)", "(4,3)"});
}

TEST(Device, ParsesItsNames) {
  EXPECT_EQ(Device::parse("cpu"), Device::cpu());
  EXPECT_EQ(Device::parse("cuda"), Device::cuda(0));
  EXPECT_EQ(Device::parse("cuda:3"), Device::cuda(3));
  EXPECT_EQ(Device::parse(Device::cuda(3).name()), Device::cuda(3));
  EXPECT_EQ(Device::cpu().name(), "cpu");
  for (const char* wrong : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cpu:0x", "cuda:99999999999"})
    EXPECT_THROW(Device::parse(wrong), ArgumentError) << wrong;
}

TEST(DType, SizesNamesAndTypes) {
  const std::vector<std::pair<DType, std::string>> types = {
      {DType::f32, "f32"}, {DType::f64, "f64"}, {DType::i64, "i64"},     {DType::i32, "i32"},
      {DType::u8, "u8"},   {DType::i8, "i8"},   {DType::boolean, "bool"}};
  ASSERT_EQ(types.size(), static_cast<size_t>(kNumDTypes));
  for (const auto& [type, name] : types) {
    EXPECT_EQ(name_of(type), name);
    dispatch(type, [t = type](auto zero) {
      EXPECT_EQ(size_of(t), sizeof(zero));
      EXPECT_EQ(dtype_of<decltype(zero)>(), t);
    });
    EXPECT_EQ(is_floating(type), type == DType::f32 || type == DType::f64);
  }
  EXPECT_THROW(dispatch_floating(DType::i64, "exp", [](auto) {}), ArgumentError);
}

}  // namespace
}  // namespace espalier
