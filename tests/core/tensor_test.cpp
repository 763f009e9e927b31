// Tensor: creation, views, sharing, conversions, printing.
#include "core/tensor.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/ops.h"

namespace espalier {
namespace {

using Values = std::vector<double>;

Values values(const Tensor& x) { return x.to_vector<double>(); }
/// 0, 1, 2, ... in a shape.
Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::arange(0, static_cast<double>(shape.numel()), 1, dtype).reshape(shape);
}
bool share(const Tensor& a, const Tensor& b) { return a.storage() == b.storage(); }

// --- creation ------------------------------------------------------------------------------------------------------

TEST(TensorCreation, Undefined) {
  const Tensor x;
  EXPECT_FALSE(x.defined());
  EXPECT_EQ(describe(x), "undefined tensor");
  EXPECT_THROW(x.reshape({1}), ArgumentError);
  EXPECT_THROW(x.item(), ArgumentError);
  EXPECT_THROW(x.clone(), ArgumentError);
}

TEST(TensorCreation, Filled) {
  EXPECT_EQ(values(Tensor::zeros({2, 2})), Values(4, 0));
  EXPECT_EQ(values(Tensor::ones({3}, DType::i32)), Values(3, 1));
  EXPECT_EQ(values(Tensor::full({2}, -2.5, DType::f64)), Values(2, -2.5));
  EXPECT_EQ(Tensor::scalar(4).shape(), Shape{});
  EXPECT_EQ(Tensor::scalar(4).item(), 4);
  EXPECT_EQ(values(Tensor::eye(3)), (Values{1, 0, 0, 0, 1, 0, 0, 0, 1}));
  const Tensor like = Tensor::ones_like(Tensor::zeros({2, 3}, DType::f64).transpose(0, 1));
  EXPECT_EQ(like.shape(), (Shape{3, 2}));
  EXPECT_EQ(like.dtype(), DType::f64);
  EXPECT_EQ(values(like), Values(6, 1));
  EXPECT_EQ(values(Tensor::zeros_like(like)), Values(6, 0));
}

TEST(TensorCreation, Arange) {
  EXPECT_EQ(values(Tensor::arange(0, 4)), (Values{0, 1, 2, 3}));
  EXPECT_EQ(Tensor::arange(0, 4).dtype(), DType::i64);
  EXPECT_EQ(values(Tensor::arange(1, 8, 3)), (Values{1, 4, 7}));
  EXPECT_EQ(values(Tensor::arange(3, 0, -1)), (Values{3, 2, 1}));
  EXPECT_EQ(values(Tensor::arange(0, 1, 0.25, DType::f32)), (Values{0, 0.25, 0.5, 0.75}));
  EXPECT_EQ(Tensor::arange(2, 2).numel(), 0);
  EXPECT_THROW(Tensor::arange(0, 3, 0), ArgumentError);
  EXPECT_THROW(Tensor::arange(0, 3, -1), ArgumentError);
}

TEST(TensorCreation, FromValues) {
  const Tensor x = Tensor::from<int64_t>({1, 2, 3, 4, 5, 6}, {2, 3});
  EXPECT_EQ(x.dtype(), DType::i64);
  EXPECT_EQ(x.size(0), 2);
  EXPECT_EQ(x.size(-1), 3);
  EXPECT_EQ(x.bytes(), 48u);
  EXPECT_EQ(values(x), (Values{1, 2, 3, 4, 5, 6}));
  EXPECT_THROW(Tensor::from<float>({1, 2, 3}, {2, 2}), ArgumentError);
  EXPECT_EQ(values(Tensor::from<bool>({true, false}, {2})), (Values{1, 0}));
}

TEST(TensorCreation, DataChecksTheType) {
  const Tensor x = Tensor::ones({2});
  EXPECT_EQ(x.data<float>()[1], 1);
  EXPECT_THROW(x.data<double>(), ArgumentError);
}

// --- views ---------------------------------------------------------------------------------------------------------

TEST(TensorViews, ReshapeSharesStorage) {
  const Tensor x = counting({2, 3, 4});
  for (const Shape& shape : {Shape{24}, Shape{6, 4}, Shape{2, 12}, Shape{4, 3, 2}, Shape{1, 24, 1}}) {
    const Tensor y = x.reshape(shape);
    EXPECT_EQ(y.shape(), shape);
    EXPECT_TRUE(share(x, y));
    EXPECT_EQ(values(y), values(x));
  }
  EXPECT_EQ(x.reshape({-1, 4}).shape(), (Shape{6, 4}));
  EXPECT_EQ(x.reshape({2, -1}).shape(), (Shape{2, 12}));
  EXPECT_EQ(Tensor::zeros({1, 1}).reshape({}).shape(), Shape{});
  EXPECT_EQ(Tensor::zeros({0, 3}).reshape({-1, 3}).shape(), (Shape{0, 3}));
  EXPECT_EQ(Tensor::zeros({0, 3}).reshape({5, 0}).shape(), (Shape{5, 0}));
}

TEST(TensorViews, ReshapeRefusesWhatDoesNotFit) {
  const Tensor x = counting({2, 3});
  EXPECT_THROW(x.reshape({4}), ArgumentError);
  EXPECT_THROW(x.reshape({-1, 4}), ArgumentError);
  EXPECT_THROW(x.reshape({-1, -1}), ArgumentError);
  EXPECT_THROW(x.reshape({-2, -3}), ArgumentError);
  EXPECT_THROW(Tensor::zeros({0, 3}).reshape({0, -1}), ArgumentError);
  try {
    x.reshape({4, 2});
  } catch (const ArgumentError& error) {
    EXPECT_NE(std::string(error.what()).find("(2,3)"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("(4,2)"), std::string::npos);
  }
}

TEST(TensorViews, ReshapeOfStridedTensors) {
  const Tensor x = counting({2, 3, 4});
  // Axes that follow one another in memory join without a copy.
  const Tensor half = x.slice(2, 0, 2);  // strides 12, 4, 1
  EXPECT_TRUE(share(half.reshape({6, 2}), x));
  EXPECT_EQ(values(half.reshape({6, 2})), (Values{0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21}));
  EXPECT_TRUE(share(half.reshape({2, 3, 2, 1, 1}), x));
  EXPECT_TRUE(share(half.reshape({2, 1, 3, 2}), x));
  // Others do not.
  EXPECT_FALSE(share(half.reshape({12}), x));
  EXPECT_EQ(values(half.reshape({12})), (Values{0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21}));
  const Tensor t = counting({2, 3}).transpose(0, 1);
  EXPECT_EQ(values(t.reshape({6})), (Values{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(values(t.reshape({2, 3})), (Values{0, 3, 1, 4, 2, 5}));
  // Splitting an axis of a transposed tensor is a view.
  const Tensor wide = counting({4, 2}).transpose(0, 1);  // (2,4)
  EXPECT_TRUE(share(wide.reshape({2, 2, 2}), wide));
  EXPECT_EQ(values(wide.reshape({2, 2, 2})), (Values{0, 2, 4, 6, 1, 3, 5, 7}));
  const Tensor expanded = counting({3, 1}).expand({3, 4});
  EXPECT_EQ(values(expanded.reshape({12})), (Values{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}));
  EXPECT_EQ(values(Tensor::scalar(5).expand({2, 3}).reshape({6})), Values(6, 5));
}

TEST(TensorViews, ReshapeOfEverySliceEqualsReshapeOfACopy) {
  const Tensor x = counting({4, 6, 5});
  for (int axis = 0; axis < 3; ++axis)
    for (int64_t step : {1, 2, 3})
      for (const auto& order : {std::vector<int>{0, 1, 2}, {2, 0, 1}, {1, 0, 2}}) {
        const Tensor view = x.slice(axis, 1, 100, step).permute(order);
        for (const Shape& shape : {Shape{-1}, Shape{view.size(0), -1}, Shape{-1, view.size(2)}, Shape{1, -1, 1},
                                   Shape{view.size(0), 1, view.size(1), view.size(2)}})
          EXPECT_EQ(values(view.reshape(shape)), values(view.clone().reshape(shape)));
      }
}

TEST(TensorViews, PermuteAndTranspose) {
  const Tensor x = counting({2, 3, 4});
  const Tensor y = x.permute({2, 0, 1});
  EXPECT_EQ(y.shape(), (Shape{4, 2, 3}));
  EXPECT_TRUE(share(x, y));
  EXPECT_FALSE(y.is_contiguous());
  EXPECT_EQ(y.select(0, 1).select(0, 1).select(0, 2).item(), 12 + 2 * 4 + 1);
  EXPECT_EQ(values(x.permute({-1, -3, -2})), values(y));
  EXPECT_EQ(values(x.transpose(1, -1).transpose(1, 2)), values(x));
  EXPECT_THROW(x.permute({0, 1}), ArgumentError);
  EXPECT_THROW(x.permute({0, 1, 1}), ArgumentError);
  EXPECT_THROW(x.permute({0, 1, 3}), ArgumentError);
  EXPECT_THROW(x.transpose(0, 3), ArgumentError);
}

TEST(TensorViews, SliceTakesNegativeBoundsAndSteps) {
  const Tensor x = counting({10});
  EXPECT_EQ(values(x.slice(0, 2, 5)), (Values{2, 3, 4}));
  EXPECT_EQ(values(x.slice(0, -3, -1)), (Values{7, 8}));
  EXPECT_EQ(values(x.slice(0, 7, 100)), (Values{7, 8, 9}));
  EXPECT_EQ(values(x.slice(0, 0, 10, 4)), (Values{0, 4, 8}));
  EXPECT_EQ(values(x.slice(0, 1, 9, 4)), (Values{1, 5}));
  EXPECT_EQ(values(x.slice(0, -100, 2)), (Values{0, 1}));
  EXPECT_EQ(x.slice(0, 5, 5).numel(), 0);
  EXPECT_EQ(x.slice(0, 5, 2).numel(), 0);
  EXPECT_EQ(x.slice(0, 20, 30).numel(), 0);
  EXPECT_THROW(x.slice(0, 0, 5, 0), ArgumentError);
  EXPECT_THROW(x.slice(0, 0, 5, -1), ArgumentError);
  EXPECT_THROW(x.slice(1, 0, 5), ArgumentError);
  const Tensor y = counting({3, 4});
  EXPECT_EQ(values(y.slice(1, 1, 4, 2)), (Values{1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(values(y.slice(0, 1, 3).slice(1, 2, 4)), (Values{6, 7, 10, 11}));
  EXPECT_TRUE(share(y, y.slice(1, 1, 2)));
}

TEST(TensorViews, SelectDropsTheAxis) {
  const Tensor x = counting({3, 4});
  EXPECT_EQ(values(x.select(0, 1)), (Values{4, 5, 6, 7}));
  EXPECT_EQ(values(x.select(1, -1)), (Values{3, 7, 11}));
  EXPECT_EQ(x.select(0, 2).select(0, 3).item(), 11);
  EXPECT_THROW(x.select(0, 3), ArgumentError);
  EXPECT_THROW(x.select(0, -4), ArgumentError);
}

TEST(TensorViews, ExpandRepeatsWithoutMemory) {
  const Tensor x = counting({3, 1});
  const Tensor y = x.expand({2, 3, 4});
  EXPECT_TRUE(share(x, y));
  EXPECT_EQ(y.stride(0), 0);
  EXPECT_EQ(y.stride(2), 0);
  EXPECT_EQ(values(y.select(0, 1)), (Values{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}));
  EXPECT_EQ(x.expand({3, 0}).numel(), 0);
  EXPECT_THROW(x.expand({2, 1}), ArgumentError);
  EXPECT_THROW(x.expand({3}), ArgumentError);
}

TEST(TensorViews, SqueezeUnsqueezeFlatten) {
  const Tensor x = counting({2, 1, 3, 1});
  EXPECT_EQ(x.squeeze().shape(), (Shape{2, 3}));
  EXPECT_EQ(x.squeeze(1).shape(), (Shape{2, 3, 1}));
  EXPECT_EQ(x.squeeze(-1).shape(), (Shape{2, 1, 3}));
  EXPECT_THROW(x.squeeze(0), ArgumentError);
  EXPECT_EQ(x.unsqueeze(0).shape(), (Shape{1, 2, 1, 3, 1}));
  EXPECT_EQ(x.unsqueeze(-1).shape(), (Shape{2, 1, 3, 1, 1}));
  EXPECT_EQ(x.unsqueeze(2).shape(), (Shape{2, 1, 1, 3, 1}));
  EXPECT_THROW(x.unsqueeze(6), ArgumentError);
  EXPECT_EQ(x.flatten().shape(), Shape{6});
  EXPECT_EQ(x.flatten(1).shape(), (Shape{2, 3}));
  EXPECT_EQ(x.flatten(0, 1).shape(), (Shape{2, 3, 1}));
  EXPECT_EQ(x.flatten(-2, -1).shape(), (Shape{2, 1, 3}));
  EXPECT_EQ(Tensor::scalar(1).flatten().shape(), Shape{1});
  EXPECT_THROW(x.flatten(2, 1), ArgumentError);
  EXPECT_EQ(values(x.unsqueeze(1).squeeze(1)), values(x));
  const Tensor t = counting({2, 3}).transpose(0, 1);
  EXPECT_EQ(values(t.unsqueeze(1)), values(t));
  EXPECT_EQ(values(t.flatten()), (Values{0, 3, 1, 4, 2, 5}));
}

TEST(TensorViews, ContiguityIgnoresAxesOfSizeOne) {
  EXPECT_TRUE(counting({2, 1, 3}).transpose(1, 0).is_contiguous());
  EXPECT_TRUE(counting({4, 3}).slice(0, 1, 3).is_contiguous());
  EXPECT_FALSE(counting({4, 3}).slice(1, 1, 3).is_contiguous());
  EXPECT_FALSE(counting({4, 3}).transpose(0, 1).is_contiguous());
  EXPECT_TRUE(Tensor::zeros({0, 3}).transpose(0, 1).is_contiguous());
  EXPECT_TRUE(Tensor::scalar(1).is_contiguous());
  const Tensor x = counting({4, 3});
  EXPECT_TRUE(share(x.contiguous(), x));
  const Tensor copy = x.transpose(0, 1).contiguous();
  EXPECT_FALSE(share(copy, x));
  EXPECT_TRUE(copy.is_contiguous());
  EXPECT_EQ(values(copy), values(x.transpose(0, 1)));
}

// --- sharing and versions ------------------------------------------------------------------------------------------

TEST(TensorSharing, CopiesAndViewsSeeChanges) {
  Tensor x = counting({2, 3});
  const Tensor copy = x, row = x.select(0, 1), clone = x.clone();
  x.fill_(9);
  EXPECT_EQ(values(copy), Values(6, 9));
  EXPECT_EQ(values(row), Values(3, 9));
  EXPECT_EQ(values(clone), (Values{0, 1, 2, 3, 4, 5}));
}

TEST(TensorSharing, ChangesCountAsVersionsOfTheStorage) {
  Tensor x = counting({2, 3});
  Tensor row = x.select(0, 1), other = x.clone();
  const uint64_t before = x.version(), other_before = other.version();
  row.fill_(7);
  EXPECT_EQ(x.version(), before + 1);
  EXPECT_EQ(values(x), (Values{0, 1, 2, 7, 7, 7}));
  x.select(0, 0).copy_(Tensor::zeros({3}));
  EXPECT_EQ(row.version(), before + 2);
  axpy_(1, Tensor::ones({2, 3}), x);
  EXPECT_EQ(x.version(), before + 3);
  x.zero_();
  EXPECT_EQ(x.version(), before + 4);
  EXPECT_EQ(other.version(), other_before);
}

TEST(TensorSharing, CopyBroadcastsAndConverts) {
  Tensor x = Tensor::zeros({2, 3});
  x.copy_(Tensor::from<int64_t>({1, 2, 3}, {3}));
  EXPECT_EQ(values(x), (Values{1, 2, 3, 1, 2, 3}));
  x.transpose(0, 1).slice(0, 0, 2).copy_(Tensor::from<double>({5, 6}, {2, 1}));
  EXPECT_EQ(values(x), (Values{5, 6, 3, 5, 6, 3}));
  EXPECT_THROW(x.copy_(Tensor::zeros({4})), ArgumentError);
  EXPECT_THROW(x.copy_(Tensor()), ArgumentError);
}

TEST(TensorSharing, CopyOntoAnOverlappingViewOfItself) {
  // Shifting a row by one reads elements that the copy writes: out never overlaps an input of a kernel.
  Tensor x = counting({6});
  x.slice(0, 1, 6).copy_(x.slice(0, 0, 5));
  EXPECT_EQ(values(x), (Values{0, 0, 1, 2, 3, 4}));
  Tensor y = counting({6});
  y.slice(0, 0, 5).copy_(y.slice(0, 1, 6));
  EXPECT_EQ(values(y), (Values{1, 2, 3, 4, 5, 5}));
  Tensor z = counting({3, 3});
  z.copy_(z.transpose(0, 1));
  EXPECT_EQ(values(z), (Values{0, 3, 6, 1, 4, 7, 2, 5, 8}));
}

// --- conversions ---------------------------------------------------------------------------------------------------

TEST(TensorConversion, RoundTripsThroughEveryDType) {
  const Tensor x = Tensor::from<int64_t>({0, 1, 5, 100, 127}, {5});
  for (DType dtype : {DType::f32, DType::f64, DType::i64, DType::i32, DType::u8, DType::i8}) {
    const Tensor y = x.to(dtype);
    EXPECT_EQ(y.dtype(), dtype);
    EXPECT_EQ(values(y.to(DType::i64)), values(x)) << name_of(dtype);
  }
  EXPECT_EQ(values(x.to(DType::boolean)), (Values{0, 1, 1, 1, 1}));
  EXPECT_TRUE(share(x.to(DType::i64), x));
}

TEST(TensorConversion, FractionsAndSigns) {
  const Tensor x = Tensor::from<float>({-1.75f, -0.5f, 0, 0.5f, 2.75f}, {5});
  EXPECT_EQ(values(x.to(DType::i32)), (Values{-1, 0, 0, 0, 2}));
  EXPECT_EQ(values(x.to(DType::boolean)), (Values{1, 1, 0, 1, 1}));  // nonzero is true
  EXPECT_EQ(values(x.to(DType::f64)), (Values{-1.75, -0.5, 0, 0.5, 2.75}));
  EXPECT_EQ(values(x.transpose(0, 0).slice(0, 0, 5, 2).to(DType::i64)), (Values{-1, 0, 2}));
}

TEST(TensorConversion, KeepsLargeIntegers) {
  const int64_t large = (int64_t{1} << 53) + 1;  // not a double
  EXPECT_EQ(Tensor::from<int64_t>({large}, {1}).clone().to_vector<int64_t>()[0], large);
}

TEST(TensorConversion, ItemAndVector) {
  EXPECT_EQ(Tensor::from<int64_t>({42}, {1, 1}).item(), 42);
  EXPECT_EQ(counting({2, 3}).select(0, 1).select(0, 2).item(), 5);
  EXPECT_THROW(counting({2}).item(), ArgumentError);
  EXPECT_THROW(Tensor::zeros({0}).item(), ArgumentError);
  EXPECT_EQ(counting({2, 2}).transpose(0, 1).to_vector<int64_t>(), (std::vector<int64_t>{0, 2, 1, 3}));
  EXPECT_TRUE(Tensor::zeros({0, 2}).to_vector<float>().empty());
}

TEST(TensorConversion, Prints) {
  EXPECT_EQ(Tensor::from<int64_t>({1, 2, 3, 4}, {2, 2}).to_string(), "[[1, 2], [3, 4]]");
  EXPECT_EQ(Tensor::from<float>({0.5f, -1.25f}, {2}).to_string(), "[0.5, -1.25]");
  EXPECT_EQ(Tensor::scalar(3).to_string(), "3");
  EXPECT_EQ(Tensor::zeros({0}).to_string(), "[]");
  EXPECT_EQ(Tensor().to_string(), "undefined");
  const std::string text = Tensor::arange(0, 1000).to_string();
  EXPECT_LT(text.size(), 60u);
  EXPECT_NE(text.find("..."), std::string::npos);
  EXPECT_EQ(text.find("[0, 1, 2"), 0u);
  EXPECT_NE(text.find("999]"), std::string::npos);
  EXPECT_EQ(Tensor::arange(0, 6).to_string(), "[0, 1, 2, 3, 4, 5]");
  EXPECT_EQ(describe(Tensor::zeros({2, 3})), "f32 (2,3) on cpu");
}

}  // namespace
}  // namespace espalier
