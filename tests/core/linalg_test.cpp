// Small matrices by hand.
#include "core/linalg.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/ops.h"
#include "core/random.h"

namespace espalier {
namespace {

using Values = std::vector<double>;

TEST(Linalg, CholeskyOfASmallMatrix) {
  // [4 2 2; 2 5 3; 2 3 6] = L L^T with L = [2 0 0; 1 2 0; 1 1 2]. The upper triangle isn't read.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Values a = {4, nan, nan, 2, 5, nan, 2, 3, 6};
  ASSERT_TRUE(cholesky(a, 3));
  EXPECT_EQ(a[0], 2);
  EXPECT_EQ((Values{a[3], a[4]}), (Values{1, 2}));
  EXPECT_EQ((Values{a[6], a[7], a[8]}), (Values{1, 1, 2}));
  Values x = {4 * 1 + 2 * 2 + 2 * 3, 2 * 1 + 5 * 2 + 3 * 3, 2 * 1 + 3 * 2 + 6 * 3};
  cholesky_solve(a, 3, x);
  EXPECT_EQ(x, (Values{1, 2, 3}));
}

TEST(Linalg, CholeskyOfAMatrixWithNegativeElements) {
  // [[4, 12, -16], [12, 37, -43], [-16, -43, 98]] = L L^T with L = [[2,0,0], [6,1,0], [-8,5,3]].
  std::vector<double> a = {4, 12, -16, 12, 37, -43, -16, -43, 98};
  ASSERT_TRUE(cholesky(a, 3));
  EXPECT_EQ((std::vector<double>{a[0], a[3], a[4], a[6], a[7], a[8]}), (std::vector<double>{2, 6, 1, -8, 5, 3}));
  std::vector<double> b = {4 + 12 - 16, 12 + 37 - 43, -16 - 43 + 98};  // the matrix times ones
  cholesky_solve(a, 3, b);
  for (const double x : b) EXPECT_NEAR(x, 1, 1e-13);
}

TEST(Linalg, CholeskyRefusesWhatIsNotPositiveDefinite) {
  Values indefinite = {1, 2, 2, 1}, zero = {0}, singular = {1, 1, 1, 1},
         infinite = {std::numeric_limits<double>::infinity()};
  Values nan = {std::numeric_limits<double>::quiet_NaN()};
  EXPECT_FALSE(cholesky(indefinite, 2));
  EXPECT_FALSE(cholesky(zero, 1));
  EXPECT_FALSE(cholesky(singular, 2));
  EXPECT_FALSE(cholesky(infinite, 1));
  EXPECT_FALSE(cholesky(nan, 1));
  Values nothing;
  EXPECT_TRUE(cholesky(nothing, 0));
}

TEST(Linalg, OrthonormalizesRowsInOrder) {
  Values rows = {3, 4, 1, 0};
  ASSERT_TRUE(orthonormalize(rows, 2, 2));
  // (1,0) less its part 0.6 along (0.6,0.8) is (0.64,-0.48), of length 0.8.
  const Values expected = {0.6, 0.8, 0.8, -0.6};
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(rows[i], expected[i], 1e-15) << i;
  Values parallel = {1, 2, 2, 4};
  EXPECT_FALSE(orthonormalize(parallel, 2, 2));
}

TEST(Linalg, OrthonormalizesRowsThatAreNearlyParallel) {
  Values rows = {1, 1, 1, 1, 1, 1 + 1e-12};
  ASSERT_TRUE(orthonormalize(rows, 2, 3));
  EXPECT_NEAR(rows[0] * rows[3] + rows[1] * rows[4] + rows[2] * rows[5], 0, 1e-15);  // once would leave 1e-4
}

TEST(Linalg, CountsPivotsAboveTheTolerance) {
  const auto rank = [](Values a, int64_t rows, int64_t columns) { return rank_in_place(a, rows, columns, 1e-6); };
  EXPECT_EQ(rank({1, 2, 2, 4}, 2, 2), 1);
  EXPECT_EQ(rank({0, 0, 0, 0, 0, 0}, 2, 3), 0);
  EXPECT_EQ(rank({0, 0, 1, 0, 0, 2, 3, 0, 0}, 3, 3), 2);
  EXPECT_EQ(rank({1, 0, 0, 1e-7}, 2, 2), 1);
  EXPECT_EQ(rank({1, 0, 0, 1e-5}, 2, 2), 2);
}

TEST(Linalg, RanksOfKnownMatrices) {
  EXPECT_EQ(matrix_rank(Tensor::eye(5)), 5);
  EXPECT_EQ(matrix_rank(Tensor::zeros({3, 4})), 0);
  EXPECT_EQ(matrix_rank(Tensor::ones({3, 4})), 1);
  EXPECT_EQ(matrix_rank(Tensor::from<double>({0, 0, 1, 0, 0, 2, 3, 0, 0}, {3, 3})), 2);
  Generator generator(4);
  for (int64_t rank = 0; rank <= 6; ++rank) {
    const Tensor a = randn({7, rank}, generator), b = randn({rank, 9}, generator);
    const Tensor product = rank == 0 ? Tensor::zeros({7, 9}) : matmul(a, b);
    EXPECT_EQ(matrix_rank(product), rank);
    EXPECT_EQ(matrix_rank(product.transpose(0, 1)), rank);
    EXPECT_EQ(matrix_rank(product * 1e-12), rank);  // the tolerance is relative
  }
  EXPECT_THROW(matrix_rank(Tensor::zeros({2, 2, 2})), ArgumentError);
}

}  // namespace
}  // namespace espalier
