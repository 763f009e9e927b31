#include <nlohmann/json.hpp>

#include "layers/init.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

double deviation(const Tensor& x) { return std::sqrt(mean(square(x)).item()); }

TEST(Init, Fans) {
  EXPECT_EQ(fans_of({20, 3, 5, 4}).in, 60);
  EXPECT_EQ(fans_of({20, 3, 5, 4}).out, 400);
  EXPECT_EQ(fans_of({7, 5}).in, 5);
  expect_error([] { fans_of({7}); }, {"at least 2 axes", "(7)"});
}

/// The deviation of n samples of deviation s lies within 4 s/sqrt(2n) of s, for the normal; the uniform is closer.
void expect_deviation(const Tensor& x, double expected) {
  EXPECT_NEAR(deviation(x), expected, 4 * expected / std::sqrt(2.0 * static_cast<double>(x.numel())));
}

TEST(Init, DeviationsAreThoseOfThePapers) {
  Generator g(5);
  const auto empty = [] { return Tensor::empty({64, 32, 3, 3}); };
  const double in = 32 * 9, out = 64 * 9;
  expect_deviation(kaiming_normal_(empty(), {}, g), std::sqrt(2 / in));
  expect_deviation(kaiming_normal_(empty(), {.fan = FanMode::out}, g), std::sqrt(2 / out));
  expect_deviation(kaiming_normal_(empty(), {.negative_slope = 1}, g), std::sqrt(1 / in));
  expect_deviation(xavier_normal_(empty(), 2, g), 2 * std::sqrt(2 / (in + out)));
  const Tensor kaiming = kaiming_uniform_(empty(), {}, g), xavier = xavier_uniform_(empty(), 1, g);
  expect_deviation(kaiming, std::sqrt(2 / in));
  EXPECT_LE(max(abs(kaiming)).item(), std::sqrt(6 / in) * (1 + 1e-6));
  expect_deviation(xavier, std::sqrt(2 / (in + out)));
  EXPECT_LE(max(abs(xavier)).item(), std::sqrt(6 / (in + out)) * (1 + 1e-6));
}

TEST(Init, TheGeneratorDecides) {
  Generator a(7), b(7), c(8);
  const auto fill = [](Generator& g) { return kaiming_normal_(Tensor::empty({8, 8}), {}, g); };
  const Tensor first = fill(a);
  EXPECT_TRUE(identical(first, fill(b)));
  EXPECT_FALSE(identical(first, fill(c)));
  EXPECT_FALSE(identical(first, fill(a)));
}

TEST(Init, OrthogonalRowsOrColumns) {
  Generator g(9);
  for (const Shape& shape : {Shape{12, 30}, Shape{30, 12}, Shape{16, 16}, Shape{6, 2, 3, 3}}) {
    const Tensor q = orthogonal_(Tensor::empty(shape, DType::f64), 2, g);
    const int64_t rows = shape[0], columns = shape.numel() / rows;
    const Tensor m = q.reshape({rows, columns});
    const Tensor gram = rows <= columns ? matmul(m, m.transpose(0, 1)) : matmul(m.transpose(0, 1), m);
    EXPECT_LT(max_difference(gram, Tensor::eye(std::min(rows, columns), DType::f64) * 4.0), 1e-12) << shape.to_string();
  }
  expect_error([] { orthogonal_(Tensor::empty({4})); }, {"[orthogonal_]", "(4)"});
}

}  // namespace
}  // namespace espalier
