// Normal equations against solutions known beforehand.
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/random.h"
#include "pruning/recovery/least_squares.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using testing_support::message_of;

std::vector<double> random_values(Generator& generator, size_t count) {
  std::vector<double> values(count);
  for (double& value : values) value = generator.next_normal();
  return values;
}

TEST(NormalEquations, FindTheSolutionThatMadeTheData) {
  Generator generator(1);
  constexpr int64_t kRows = 60, kColumns = 7;
  const std::vector<double> x = random_values(generator, kRows * kColumns);
  const std::vector<int64_t> used = {1, 2, 5};
  const std::vector<double> truth = {0.5, -2, 3};
  std::vector<double> y(kRows * 2, 0);  // target 0 is made of the used columns, target 1 is noise
  for (int64_t row = 0; row < kRows; ++row) {
    for (size_t i = 0; i < used.size(); ++i)
      y[static_cast<size_t>(row * 2)] += x[static_cast<size_t>(row * kColumns + used[i])] * truth[i];
    y[static_cast<size_t>(row * 2 + 1)] = generator.next_normal();
  }
  NormalEquations equations(kColumns, 2);
  const auto half = static_cast<std::ptrdiff_t>(kRows / 2);
  equations.add({x.begin(), x.begin() + half * kColumns}, {y.begin(), y.begin() + half * 2});
  equations.add({x.begin() + half * kColumns, x.end()}, {y.begin() + half * 2, y.end()});
  EXPECT_EQ(equations.rows(), kRows);
  const std::vector<double> d = equations.solve(used, {0, 1}, 0);
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(d[i], truth[i], 1e-12);
  EXPECT_NEAR(equations.reduction(used, 0, d.data()), equations.squares(0), 1e-12 * equations.squares(0));

  // Target 1: the residual is orthogonal to the columns, and the reduction is what the residual says.
  double left = 0;
  std::vector<double> products(3, 0);
  for (int64_t row = 0; row < kRows; ++row) {
    double residual = y[static_cast<size_t>(row * 2 + 1)];
    for (size_t i = 0; i < 3; ++i) residual -= x[static_cast<size_t>(row * kColumns + used[i])] * d[3 + i];
    left += residual * residual;
    for (size_t i = 0; i < 3; ++i) products[i] += residual * x[static_cast<size_t>(row * kColumns + used[i])];
  }
  for (const double product : products) EXPECT_NEAR(product, 0, 1e-11);
  EXPECT_NEAR(equations.squares(1) - equations.reduction(used, 1, d.data() + 3), left, 1e-11 * left);
}

TEST(NormalEquations, RidgeByHand) {
  // One column of 1s, y = 3, four rows: (4 + ridge*4) d = 12.
  NormalEquations equations(1, 1);
  equations.add({1, 1, 1, 1}, {3, 3, 3, 3});
  EXPECT_NEAR(equations.solve({0}, {0}, 0)[0], 3, 1e-15);
  EXPECT_NEAR(equations.solve({0}, {0}, 0.5)[0], 2, 1e-15);
}

TEST(NormalEquations, DependentColumnsAndTooFewRowsStillHaveAnAnswer) {
  Generator generator(2);
  NormalEquations equations(6, 1);  // two rows, six columns, the last a copy of the first
  std::vector<double> x = random_values(generator, 12);
  x[5] = x[0], x[11] = x[6];
  equations.add(x, {1, -1});
  const std::vector<int64_t> all = {0, 1, 2, 3, 4, 5};
  const std::vector<double> d = equations.solve(all, {0}, 0);
  for (const double value : d) EXPECT_TRUE(std::isfinite(value));
  EXPECT_NEAR(equations.reduction(all, 0, d.data()), equations.squares(0), 1e-6);
  NormalEquations zeros(2, 1);
  zeros.add({0, 0}, {1});
  EXPECT_EQ(zeros.solve({0, 1}, {0}, 1e-3), (std::vector<double>{0, 0}));
  NormalEquations bad(1, 1);
  bad.add({std::numeric_limits<double>::infinity()}, {1});
  message_of<NumericError>([&] { bad.solve({0}, {0}, 1e-3); });
  EXPECT_THROW(bad.add({1, 2}, {1}), ArgumentError);
}

}  // namespace
}  // namespace espalier
