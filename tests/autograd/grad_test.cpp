// grad(): gradients by name, and gradients of gradients.
#include "tests/autograd/testing.h"

namespace espalier {
namespace {

using testing::constant;
using testing::expect_contains;
using testing::leaf;
using testing::message_of;
using testing::values;
using Values = std::vector<double>;

TEST(Grad, LeavesGradientsOfLeavesAlone) {
  const Variable x = leaf({1, 2}), w = leaf({3, 4});
  const Variables gradients = grad({sum(x * w)}, {x, w});
  EXPECT_EQ(values(gradients[0]), (Values{3, 4}));
  EXPECT_EQ(values(gradients[1]), (Values{1, 2}));
  EXPECT_FALSE(x.grad().defined());
  EXPECT_FALSE(w.grad().defined());
  EXPECT_FALSE(gradients[0].requires_grad());
}

TEST(Grad, TakesResultsAsInputs) {
  const Variable x = leaf({1, 2});
  const Variable h = exp(x), y = sum(square(h) + h * 3.0);
  const Variables gradients = grad({y}, {h, x});
  for (size_t i = 0; i < 2; ++i) {
    const double h_i = values(h)[i];
    EXPECT_DOUBLE_EQ(values(gradients[0])[i], 2 * h_i + 3);
    EXPECT_DOUBLE_EQ(values(gradients[1])[i], (2 * h_i + 3) * h_i);
  }
}

TEST(Grad, OfAnOutputWithRespectToItself) {
  const Variable x = leaf({1, 2});
  const Variable y = sum(x);
  EXPECT_EQ(values(grad({y}, {y})[0]), Values{1});
}

TEST(Grad, StopsAtItsInputs) {
  // What lies behind h is freed, and not needed.
  const Variable x = leaf({1, 2});
  const Variable h = exp(x);
  sum(h).backward();
  EXPECT_EQ(values(grad({sum(h * 2.0)}, {h})[0]), (Values{2, 2}));
}

TEST(Grad, AddsOverSeveralOutputs) {
  const Variable x = leaf({1, 2});
  const Variable a = x * 2.0, b = square(x);
  const Variables gradients = grad({a, b}, {x}, {.grad_outputs = {constant({1, 1}), constant({10, 10})}});
  EXPECT_EQ(values(gradients[0]), (Values{22, 42}));
  expect_contains(message_of([&] {
                    grad({sum(x), sum(x)}, {x}, {.grad_outputs = {constant({1}, {})}});
                  }),
                  {"[grad]", "2", "1"});
}

TEST(Grad, TheSameInputTwiceGetsTheGradientTwice) {
  const Variable x = leaf({3}, {});
  const Variables gradients = grad({square(x)}, {x, x});
  EXPECT_EQ(gradients[0].item(), 6);
  EXPECT_EQ(gradients[1].item(), 6);
}

TEST(Grad, AnUnusedInputIsAnErrorUnlessAllowed) {
  const Variable x = leaf({1, 2});
  Variable unused = leaf({1, 2});
  unused.set_name("unused.weight");
  expect_contains(message_of([&] { grad({sum(x)}, {x, unused}); }), {"[grad]", "unused.weight", "allow_unused"});
  const Variables gradients = grad({sum(x)}, {x, unused}, {.allow_unused = true});
  EXPECT_TRUE(gradients[0].defined());
  EXPECT_FALSE(gradients[1].defined());
  Variable plain = constant({1, 2});
  plain.set_name("plain");
  expect_contains(message_of([&] { grad({sum(x)}, {plain}); }), {"[grad]", "plain"});
}

TEST(Grad, RunsAgainWhenTheGraphIsRetained) {
  const Variable x = leaf({1, 2});
  const Variable y = sum(square(x));
  grad({y}, {x}, {.retain_graph = true});
  EXPECT_EQ(values(grad({y}, {x})[0]), (Values{2, 4}));
  EXPECT_THROW(grad({y}, {x}), ArgumentError);
}

TEST(Grad, CreateGraphGivesHigherDerivatives) {
  const Variable x = leaf({2}, {});
  Variable y = square(x) * square(x) * x;  // x^5
  const double expected[] = {80, 160, 240, 240, 120};
  for (double derivative : expected) {
    y = grad({y}, {x}, {.create_graph = true})[0];
    EXPECT_NEAR(y.item(), derivative, 1e-9);
  }
}

TEST(Grad, HessianVectorProductOfAPolynomial) {
  // f = x0^2 x1 + x1^3, H = [[2 x1, 2 x0], [2 x0, 6 x1]]; at (3, 2) with v = (1, -1): (4 - 6, 6 - 12).
  const Variable x = leaf({3, 2}), v = constant({1, -1});
  const Variable x0 = select(x, 0, 0), x1 = select(x, 0, 1);
  const Variable f = square(x0) * x1 + x1 * square(x1);
  const Variable g = grad({f}, {x}, {.create_graph = true})[0];
  EXPECT_EQ(values(g), (Values{12, 9 + 12}));
  EXPECT_EQ(values(grad({sum(g * v)}, {x})[0]), (Values{-2, -6}));
}

TEST(Grad, HessianVectorProductOfAQuadraticForm) {
  // f = x^T A x / 2 with A symmetric: the gradient is A x, the product A v.
  const Variable a = constant({2, 1, 0, 1, 3, -1, 0, -1, 4}, {3, 3}), x = leaf({1, 2, 3}), v = constant({1, 0, 2});
  const Variable f = sum(x * matmul(a, x)) * 0.5;
  const Variable g = grad({f}, {x}, {.create_graph = true})[0];
  EXPECT_EQ(values(g), (Values{4, 4, 10}));
  EXPECT_EQ(values(grad({sum(g * v)}, {x})[0]), (Values{2, -1, 8}));
}

TEST(Grad, HessianVectorProductOfANetworkEqualsDifferencesOfGradients) {
  Generator generator(3);
  const auto random = [&](const Shape& shape) { return Variable(randn(shape, generator, DType::f64) * 0.5, true); };
  const Variable image = random({2, 1, 6, 6}), filters = random({3, 1, 3, 3}), weight = random({4, 12});
  const Tensor labels = Tensor::from<int64_t>({1, 3}, {2});
  const auto gradient = [&](const Variable& w, bool create_graph) {
    const Variable h = avg_pool2d(tanh(conv2d(image.detach(), w)), {.kernel_h = 2, .kernel_w = 2});
    return grad({cross_entropy(linear(flatten(h), weight.detach()), labels)}, {w}, {.create_graph = create_graph})[0];
  };
  const Tensor v = randn(filters.shape(), generator, DType::f64);
  const Tensor exact = grad({sum(gradient(filters, true) * Variable(v))}, {filters})[0].data();
  const double step = 1e-5;
  const Tensor high = gradient(Variable(filters.data() + v * step, true), false).data();
  const Tensor low = gradient(Variable(filters.data() - v * step, true), false).data();
  EXPECT_TRUE(all_close(exact, (high - low) * (0.5 / step), 1e-6, 1e-9));
}

TEST(Grad, WorksWithHistoryOffOutside) {
  // A step under NoGrad may still ask for gradients of a graph recorded before.
  const Variable x = leaf({1, 2});
  const Variable y = sum(square(x));
  const NoGrad guard;
  EXPECT_EQ(values(grad({y}, {x})[0]), (Values{2, 4}));
}

// --- the checks of derivatives -------------------------------------------------------------------------------------

/// The square, with a gradient that the test chooses.
Variable square_with(const Variable& x, const std::function<Variable(const Variable&)>& derivative) {
  return record("square_with", x.data() * x.data(), {x},
                [=, s = Saved(x)](const BackwardContext& c) { return Variables{c.grad() * derivative(s.unpack(c))}; });
}

TEST(Gradcheck, AcceptsARightGradientAndNamesAWrongOne) {
  const Variables inputs = {constant({1, 2}), leaf({1, 2})};
  const auto check_with = [&](const std::function<Variable(const Variable&)>& derivative) {
    return gradcheck([=](const Variables& v) { return Variables{v[0] * square_with(v[1], derivative)}; }, inputs);
  };
  EXPECT_TRUE(check_with([](const Variable& x) { return x * 2.0; }));
  const std::string message = message_of<NumericError>([&] {
    check_with([](const Variable& x) { return x * constant({2, 2.001}); });
  });
  expect_contains(message, {"[gradcheck]", "element 1", "analytic", "numeric"});
}

TEST(Gradcheck, FindsAMissingGradient) {
  const auto forgets = [](const Variables& v) {
    return Variables{record("forgets", v[0].data() * 2.0, {v[0]}, [](const BackwardContext&) { return Variables(1); })};
  };
  EXPECT_THROW(gradcheck(forgets, {leaf({1, 2})}), NumericError);
}

TEST(Gradcheck, FindsANaN) {
  const auto nan = [](const Variables& v) {
    return Variables{square_with(v[0], [](const Variable& x) { return x / 0.0 * 0.0; })};
  };
  EXPECT_THROW(gradcheck(nan, {leaf({1, 2})}), NumericError);
}

TEST(Gradcheck, WantsDoubleAndSomethingToCheck) {
  const auto twice = [](const Variables& v) { return Variables{v[0] * 2.0}; };
  expect_contains(message_of([&] { gradcheck(twice, {leaf({1}, {1}, DType::f32)}); }), {"[gradcheck]", "f64", "f32"});
  EXPECT_THROW(gradcheck(twice, {constant({1})}), ArgumentError);
}

TEST(Gradgradcheck, FindsAWrongSecondDerivative) {
  const auto second = [](double factor) {
    return [=](const Variables& v) {
      // Right as a number, wrong as a function of x unless the factor is 1.
      return Variables{
          square_with(v[0], [=](const Variable& x) { return x * (2.0 * factor) + x.detach() * (2.0 * (1 - factor)); })};
    };
  };
  EXPECT_TRUE(gradgradcheck(second(1), {leaf({1, 2})}));
  EXPECT_TRUE(gradcheck(second(0.5), {leaf({1, 2})}));
  EXPECT_THROW(gradgradcheck(second(0.5), {leaf({1, 2})}), NumericError);
}

}  // namespace
}  // namespace espalier
