// Methods of Variable are the functions of their names.
#include "tests/autograd/testing.h"

namespace espalier {
namespace {

using testing::leaf;
using testing::values;
using Values = std::vector<double>;

TEST(Methods, GiveTheValuesAndTheGradientsOfTheFunctions) {
  const Variable x = leaf({1, -2, 3, -4, 5, -6}, {2, 3});
  EXPECT_EQ(values(x.relu()), (Values{1, 0, 3, 0, 5, 0}));
  EXPECT_EQ(values(x.abs().sqrt().square().mean({1})), values(mean(square(sqrt(abs(x))), {1})));
  EXPECT_EQ(values(x.exp().log()), values(log(exp(x))));
  EXPECT_EQ(values(x.tanh()), values(tanh(x)));
  EXPECT_EQ(values(x.sigmoid()), values(sigmoid(x)));
  EXPECT_EQ(x.reshape({3, -1}).shape(), Shape({3, 2}));
  EXPECT_EQ(values(x.transpose(0, 1)), (Values{1, -4, -2, 5, 3, -6}));
  EXPECT_EQ(values(x.permute({1, 0})), values(x.transpose(0, 1)));
  EXPECT_EQ(values(x.slice(1, 0, 3, 2)), (Values{1, 3, -4, -6}));
  EXPECT_EQ(values(x.select(0, 1)), (Values{-4, 5, -6}));
  EXPECT_EQ(x.unsqueeze(0).expand({4, 2, 3}).shape(), Shape({4, 2, 3}));
  EXPECT_EQ(x.unsqueeze(1).squeeze(1).shape(), Shape({2, 3}));
  EXPECT_EQ(x.unsqueeze(0).flatten(0).shape(), Shape{6});
  EXPECT_EQ(x.to(DType::f32).dtype(), DType::f32);
  EXPECT_TRUE(x.to(Device::cpu()).is_same(x));
  x.matmul(x.transpose(0, 1))
      .relu()
      .sum()
      .backward();  // |x x^T| over its positive elements: 14, 77; the others are -32
  EXPECT_EQ(values(x.grad()), (Values{2, -4, 6, -8, 10, -12}));
}

}  // namespace
}  // namespace espalier
