#include "training/clip.h"

#include <cmath>
#include <limits>

#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

Parameter with_grad(const std::vector<float>& grad) {
  const int64_t n = static_cast<int64_t>(grad.size());
  const Parameter p("w", Tensor::zeros({n}));
  Variable variable = p.variable();
  variable.set_grad(Tensor::from(grad, {n}));
  return p;
}

TEST(Clip, GradientsWhoseSquaresAreNoFloatsAreClippedRight) {
  const Parameter large = with_grad({3e38F, 0}), other = with_grad({0, -2.25e38F});
  EXPECT_NEAR(clip_grad_norm({large, other}, 0.5) / 3.75e38, 1, 1e-6);
  EXPECT_FLOAT_EQ(large.grad().to_vector<float>()[0], 0.4F);
  EXPECT_FLOAT_EQ(other.grad().to_vector<float>()[1], -0.3F);
  const Parameter small = with_grad({3e-30F, 4e-30F});
  EXPECT_NEAR(clip_grad_norm({small}, 1e-30) / 5e-30, 1, 1e-6);
  EXPECT_FLOAT_EQ(small.grad().to_vector<float>()[0], 0.6e-30F);
  const Parameter none = with_grad({0, 0});
  EXPECT_EQ(clip_grad_norm({none}, 1), 0);
  EXPECT_TRUE(std::isinf(clip_grad_norm({with_grad({std::numeric_limits<float>::infinity()})}, 1)));
}

TEST(Clip, NormIsJointAndReturnedAsItWas) {
  const Parameter a = with_grad({3, 0}), b = with_grad({0, 4}), none("n", Tensor::zeros({2}));
  EXPECT_FLOAT_EQ(clip_grad_norm({a, b, none}, 1), 5);
  EXPECT_FLOAT_EQ(a.grad().to_vector<float>()[0], 0.6F);
  EXPECT_FLOAT_EQ(b.grad().to_vector<float>()[1], 0.8F);
  EXPECT_FALSE(none.grad().defined());
  EXPECT_NEAR(clip_grad_norm({a, b}, 2), 1, 1e-6);  // below the limit: unchanged
  EXPECT_FLOAT_EQ(a.grad().to_vector<float>()[0], 0.6F);
}

TEST(Clip, GradientsThatShareMemoryAreScaledOnce) {
  const Parameter a = with_grad({3, 4}), b("b", Tensor::zeros({2}));
  Variable(b.variable()).set_grad(Variable(a.grad()));
  clip_grad_norm({a, b}, 1);
  EXPECT_NEAR(clip_grad_norm({a, b}, 100), 1, 1e-6);
}

TEST(Clip, ANonFiniteNormScalesNothing) {
  const Parameter a = with_grad({3, std::numeric_limits<float>::infinity()});
  EXPECT_FALSE(std::isfinite(clip_grad_norm({a}, 1)));
  EXPECT_EQ(a.grad().to_vector<float>()[0], 3);
}

TEST(Clip, Value) {
  const Parameter a = with_grad({-3, 0.5, 7});
  clip_grad_value({a}, 1);
  EXPECT_EQ(a.grad().to_vector<float>(), (std::vector<float>{-1, 0.5, 1}));
  EXPECT_THROW(clip_grad_value({a}, 0), ArgumentError);
  EXPECT_THROW(clip_grad_norm({a}, -1), ArgumentError);
}

}  // namespace
}  // namespace espalier
