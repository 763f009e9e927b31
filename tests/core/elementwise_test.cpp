#include <cstring>

#include "core/ops.h"
#include "core/threads.h"
#include "tests/core/strided_testing.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::for_each_index;
using testing::Index;
using testing::poisoned;
using testing::RandomTensors;
using testing::usual_shapes;
using testing::value_at;
using testing::views;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct UnaryCase {
  UnaryOp op;
  const char* name;
  double (*reference)(double);
  double mean;   ///< inputs are normal around it, inside the domain
  double error;  ///< allowed, in units of the last place of f32
};

const std::vector<UnaryCase>& unary_cases() {
  static const std::vector<UnaryCase> cases = {
      {UnaryOp::neg, "neg", [](double x) { return -x; }, 0, 0},
      {UnaryOp::abs, "abs", [](double x) { return std::fabs(x); }, 0, 0},
      {UnaryOp::sign, "sign", [](double x) { return x > 0   ? 1.0
                                                    : x < 0 ? -1.0
                                                            : 0.0; }, 0, 0},
      {UnaryOp::square, "square", [](double x) { return x * x; }, 0, 1},
      {UnaryOp::sqrt, "sqrt", [](double x) { return std::sqrt(x); }, 9, 1},
      {UnaryOp::rsqrt, "rsqrt", [](double x) { return 1 / std::sqrt(x); }, 9, 2},
      {UnaryOp::reciprocal, "reciprocal", [](double x) { return 1 / x; }, 0, 1},
      {UnaryOp::exp, "exp", [](double x) { return std::exp(x); }, 0, 2},
      {UnaryOp::log, "log", [](double x) { return std::log(x); }, 9, 2},
      {UnaryOp::log1p, "log1p", [](double x) { return std::log1p(x); }, 9, 3},
      {UnaryOp::sin, "sin", [](double x) { return std::sin(x); }, 0, 2},
      {UnaryOp::cos, "cos", [](double x) { return std::cos(x); }, 0, 2},
      {UnaryOp::tanh, "tanh", [](double x) { return std::tanh(x); }, 0, 3},
      {UnaryOp::sigmoid, "sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }, 0, 4},
      {UnaryOp::erf, "erf", [](double x) { return std::erf(x); }, 0, 3},
      {UnaryOp::relu, "relu", [](double x) { return x > 0 ? x : 0.0; }, 0, 0},
      {UnaryOp::floor, "floor", [](double x) { return std::floor(x); }, 0, 0},
      {UnaryOp::round, "round", [](double x) { return std::nearbyint(x); }, 0, 0},
  };
  return cases;
}

TEST(Elementwise, UnaryAgreesWithTheReferenceOnEveryView) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const UnaryCase& c : unary_cases()) {
      RandomTensors random(dtype);
      for (const Shape& shape : usual_shapes()) {
        for (const auto& [name, x] : views(shape, [&](const Shape& s) { return random(s, c.mean); })) {
          Tensor out = poisoned(shape, dtype);
          cpu().unary(c.op, x, out);
          for_each_index(shape, [&, &name = name, &x = x](const Index& at) {
            const double expected = c.reference(value_at(x, at));
            ASSERT_TRUE(std::abs(value_at(out, at) - expected) <=
                        c.error * testing::epsilon(dtype) * std::abs(expected))
                << c.name << " " << name << " " << shape.to_string() << " of " << value_at(x, at) << " gives "
                << value_at(out, at) << ", expected " << expected;
          });
        }
      }
    }
  }
}

TEST(Elementwise, UnaryKeepsSpecialValues) {
  const std::vector<double> specials = {kNaN, kInfinity, -kInfinity, 0.0, -0.0, 1e-42, 88.9, -103.5, 200, -200, 1e-30};
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const UnaryCase& c : unary_cases()) {
      for (const double special : specials) {
        // 40 copies, so that both the vector loop and its remainder see the value.
        const Tensor x = Tensor::full({40}, special, dtype);
        Tensor out = Tensor::full({40}, 5, dtype);
        cpu().unary(c.op, x, out);
        const double input = value_at(x, {0});
        double expected = c.op == UnaryOp::sign || c.op == UnaryOp::relu ? (input != input ? input : c.reference(input))
                                                                         : c.reference(input);
        if (dtype == DType::f32) expected = static_cast<double>(static_cast<float>(expected));
        for (int64_t i = 0; i < 40; ++i) {
          const double got = value_at(out, {i});
          if (std::isnan(expected)) {
            ASSERT_TRUE(std::isnan(got)) << c.name << " of " << input << " gives " << got;
          } else if (std::isinf(expected)) {
            ASSERT_EQ(got, expected) << c.name << " of " << input;
          } else {
            // A subnormal result has a fixed spacing.
            const double spacing = dtype == DType::f32 ? 0x1p-149 : 0x1p-1074;
            ASSERT_TRUE(std::abs(got - expected) <=
                        c.error * std::max(spacing, testing::epsilon(dtype) * std::abs(expected)))
                << c.name << " of " << input << " gives " << got << ", expected " << expected;
          }
        }
      }
    }
  }
}

TEST(Elementwise, VectorFunctionsAreWithinAFewUlpOverTheirWholeRange) {
  // All exponents, both signs, with a mantissa that varies: 2^-149 .. 2^128.
  std::vector<float> values;
  for (uint32_t bits = 0; bits < 0x7f800000u; bits += 40009) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    values.push_back(x);
    values.push_back(-x);
  }
  const Tensor x = Tensor::from(values, {static_cast<int64_t>(values.size())});
  for (const UnaryCase& c : unary_cases()) {
    if (c.op == UnaryOp::sin || c.op == UnaryOp::cos) continue;  // the C library's
    const std::vector<float> got = unary(c.op, x).to_vector<float>();
    for (size_t i = 0; i < values.size(); ++i) {
      const double exact = c.reference(values[i]);
      const auto expected = static_cast<float>(exact);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(got[i])) << c.name << " of " << values[i];
      } else if (std::isinf(expected) || got[i] == expected) {
        ASSERT_EQ(got[i], expected) << c.name << " of " << values[i];
      } else {
        const double ulp = std::nextafter(std::fabs(expected), INFINITY) - std::fabs(expected);
        ASSERT_LE(std::abs(got[i] - exact) / ulp, 4) << c.name << " of " << values[i];
      }
    }
  }
}

TEST(Elementwise, IntegerUnaryAndLogic) {
  const Tensor x = Tensor::from<int64_t>({-3, 0, 5, std::numeric_limits<int64_t>::min()}, {4});
  EXPECT_EQ(unary(UnaryOp::neg, x).to_vector<int64_t>(),
            (std::vector<int64_t>{3, 0, -5, std::numeric_limits<int64_t>::min()}));
  EXPECT_EQ(unary(UnaryOp::sign, x).to_vector<int64_t>(), (std::vector<int64_t>{-1, 0, 1, -1}));
  EXPECT_EQ(unary(UnaryOp::relu, x.to(DType::i32)).to_vector<int64_t>()[2], 5);
  const Tensor nan = Tensor::from<float>({1, NAN, INFINITY}, {3});
  EXPECT_EQ(isnan(nan).to_vector<bool>(), (std::vector<bool>{false, true, false}));
  const Tensor p = Tensor::from<bool>({false, false, true, true}, {4});
  const Tensor q = Tensor::from<bool>({false, true, false, true}, {4});
  EXPECT_EQ((p & q).to_vector<bool>(), (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ((p | q).to_vector<bool>(), (std::vector<bool>{false, true, true, true}));
  EXPECT_EQ((p ^ q).to_vector<bool>(), (std::vector<bool>{false, true, true, false}));
  EXPECT_EQ((~p).to_vector<bool>(), (std::vector<bool>{true, true, false, false}));
  EXPECT_THROW(cpu().unary(UnaryOp::exp, x, const_cast<Tensor&>(x)), ArgumentError);
}

struct BinaryCase {
  BinaryOp op;
  const char* name;
  double (*reference)(double, double);
};

const std::vector<BinaryCase>& binary_cases() {
  static const std::vector<BinaryCase> cases = {
      {BinaryOp::add, "add", [](double a, double b) { return a + b; }},
      {BinaryOp::sub, "sub", [](double a, double b) { return a - b; }},
      {BinaryOp::mul, "mul", [](double a, double b) { return a * b; }},
      {BinaryOp::div, "div", [](double a, double b) { return a / b; }},
      {BinaryOp::pow, "pow", [](double a, double b) { return std::pow(a, b); }},
      {BinaryOp::maximum, "maximum", [](double a, double b) { return std::max(a, b); }},
      {BinaryOp::minimum, "minimum", [](double a, double b) { return std::min(a, b); }},
      {BinaryOp::relu_grad, "relu_grad", [](double a, double b) { return a > 0 ? b : 0; }},
  };
  return cases;
}

TEST(Elementwise, BinaryAgreesWithTheReferenceOnEveryPairOfViews) {
  for (const DType dtype : {DType::f32, DType::f64, DType::i64, DType::i32}) {
    const bool whole = !is_floating(dtype);
    RandomTensors random(DType::f64);
    // Positive and not small: a domain that division and powers share; whole numbers stay in range.
    const auto make = [&](const Shape& s) {
      return unary(UnaryOp::round, abs(random(s, 0, whole ? 2 : 3)) * (whole ? 1.0 : 64.0) + 1.0)
          .to(dtype == DType::i32 ? DType::i32 : dtype);
    };
    for (const BinaryCase& c : binary_cases()) {
      const double scale = whole ? 1 : 1.0 / 64;
      for (const Shape& shape : usual_shapes()) {
        if (shape.numel() > 5000) continue;
        for (const auto& [a_name, a_whole] : views(shape, make)) {
          for (const auto& [b_name, b_whole] : views(shape, make)) {
            const Tensor a = whole ? a_whole : a_whole * scale, b = whole ? b_whole : b_whole * scale;
            Tensor out = poisoned(shape, dtype);
            cpu().binary(c.op, whole ? a_whole : a, whole ? b_whole : b, out);
            for_each_index(shape, [&, &a_name = a_name, &b_name = b_name](const Index& at) {
              double expected = c.reference(value_at(a, at), value_at(b, at));
              if (whole) expected = std::trunc(expected);
              if (dtype == DType::i32 && std::abs(expected) > 2e9) return;
              if (whole && std::abs(expected) > 9e15) return;
              ASSERT_TRUE(std::abs(value_at(out, at) - expected) <=
                          (whole ? 0 : 2 * testing::epsilon(dtype) * std::abs(expected)))
                  << c.name << " " << a_name << " " << b_name << " " << shape.to_string() << ": " << value_at(a, at)
                  << ", " << value_at(b, at) << " give " << value_at(out, at) << ", expected " << expected;
            });
          }
        }
      }
    }
  }
}

TEST(Elementwise, BroadcastsInEveryDirection) {
  RandomTensors random(DType::f32);
  const std::vector<std::pair<Shape, Shape>> pairs = {
      {{4, 5}, {5}}, {{4, 5}, {4, 1}}, {{4, 1}, {1, 5}},        {{}, {3, 4}}, {{2, 3, 40}, {3, 1}},
      {{1}, {0}},    {{7, 1}, {1}},    {{3, 1, 50}, {1, 4, 1}}, {{300}, {}},  {{2, 3, 8, 8}, {1, 3, 1, 1}},
  };
  for (const auto& [left, right] : pairs) {
    const Tensor a = random(left), b = random(right);
    for (const BinaryCase& c : binary_cases()) {
      if (c.op == BinaryOp::pow) continue;
      for (const bool swapped : {false, true}) {
        const Tensor& x = swapped ? b : a;
        const Tensor& y = swapped ? a : b;
        const Tensor out = binary(c.op, x, y);
        const Tensor xs = x.expand(out.shape()), ys = y.expand(out.shape());
        for_each_index(out.shape(), [&, &left = left, &right = right](const Index& at) {
          const double expected = c.reference(value_at(xs, at), value_at(ys, at));
          ASSERT_TRUE(std::abs(value_at(out, at) - expected) <= 1.2e-7 * std::abs(expected))
              << c.name << " of " << left.to_string() << " and " << right.to_string();
        });
      }
    }
  }
}

TEST(Elementwise, NumbersOnEitherSide) {
  RandomTensors random(DType::f32);
  const Tensor x = abs(random({37, 5})) + 0.5;
  for (const BinaryCase& c : binary_cases()) {
    for (const double number : {2.0, -1.0, 0.5, -0.5, 1.0, 3.0, 0.75}) {
      for (const bool reversed : {false, true}) {
        if (c.op == BinaryOp::pow && reversed && number < 0) continue;
        Tensor out = poisoned(x.shape(), DType::f32);
        cpu().binary_scalar(c.op, x.transpose(0, 1).transpose(0, 1), number, reversed, out);
        for_each_index(x.shape(), [&](const Index& at) {
          const double v = value_at(x, at);
          const double expected = reversed ? c.reference(number, v) : c.reference(v, number);
          ASSERT_TRUE(std::abs(value_at(out, at) - expected) <= 2.5e-7 * std::abs(expected))
              << c.name << " " << v << " and " << number << (reversed ? " reversed" : "");
        });
      }
    }
  }
  const Tensor i = Tensor::from<int64_t>({7, -7, 3}, {3});
  EXPECT_EQ((i / 2.0).to_vector<int64_t>(), (std::vector<int64_t>{3, -3, 1}));
  EXPECT_EQ((20.0 / i).to_vector<int64_t>(), (std::vector<int64_t>{2, -2, 6}));
  EXPECT_EQ(binary(BinaryOp::pow, i, 3.0).to_vector<int64_t>(), (std::vector<int64_t>{343, -343, 27}));
  EXPECT_EQ(binary(BinaryOp::pow, 2.0, abs(i)).to_vector<int64_t>(), (std::vector<int64_t>{128, 128, 8}));
}

TEST(Elementwise, IntegersWithoutAResultThrow) {
  const Tensor a = Tensor::from<int32_t>({1, 2, 3}, {3}), b = Tensor::from<int32_t>({1, 0, 1}, {3});
  EXPECT_THROW(a / b, ArgumentError);
  EXPECT_THROW(a / 0.0, ArgumentError);
  EXPECT_THROW(1.0 / b, ArgumentError);
  EXPECT_THROW(binary(BinaryOp::pow, a, -1.0), ArgumentError);
  Tensor out = Tensor::zeros({3}, DType::i32);
  EXPECT_THROW(cpu().binary_scalar(BinaryOp::add, a, 0.5, false, out), ArgumentError);
  const Tensor least = Tensor::full({2}, std::numeric_limits<int32_t>::min(), DType::i32);
  EXPECT_EQ((least / -1.0).to_vector<int32_t>()[0], std::numeric_limits<int32_t>::min());
  EXPECT_EQ((Tensor::ones({2}) / Tensor::zeros({2})).to_vector<float>()[0], INFINITY);
}

TEST(Elementwise, MaximumAndMinimumKeepNaN) {
  const Tensor a = Tensor::from<float>({NAN, 1, 2, NAN}, {4}), b = Tensor::from<float>({1, NAN, 3, NAN}, {4});
  for (const Tensor& out : {maximum(a, b), minimum(a, b)}) {
    const std::vector<float> v = out.to_vector<float>();
    EXPECT_TRUE(std::isnan(v[0]) && std::isnan(v[1]) && std::isnan(v[3]) && !std::isnan(v[2]));
  }
}

TEST(Elementwise, ComparesEveryDtype) {
  for (int t = 0; t < kNumDTypes; ++t) {
    const auto dtype = static_cast<DType>(t);
    const Tensor a = Tensor::from<int64_t>({0, 0, 1, 1, 0, 1}, {2, 3}).to(dtype);
    const Tensor b = Tensor::from<int64_t>({0, 1, 0, 1, 1, 1}, {3, 2}).to(dtype).transpose(0, 1);
    const std::vector<std::pair<CompareOp, bool (*)(double, double)>> cases = {
        {CompareOp::eq, [](double x, double y) { return x == y; }},
        {CompareOp::ne, [](double x, double y) { return x != y; }},
        {CompareOp::lt, [](double x, double y) { return x < y; }},
        {CompareOp::le, [](double x, double y) { return x <= y; }},
        {CompareOp::gt, [](double x, double y) { return x > y; }},
        {CompareOp::ge, [](double x, double y) { return x >= y; }}};
    for (const auto& [op, reference] : cases) {
      const Tensor out = compare(op, a, b);
      ASSERT_EQ(out.dtype(), DType::boolean);
      for_each_index(a.shape(), [&, &test = reference](const Index& at) {
        ASSERT_EQ(value_at<bool>(out, at), test(value_at(a, at), value_at(b, at))) << name_of(dtype);
      });
    }
  }
  const Tensor nan = Tensor::full({20}, kNaN);
  EXPECT_EQ(sum(nan == nan).item(), 0);
  EXPECT_EQ(sum(nan != nan).item(), 20);
  EXPECT_EQ(sum(nan < 1.0).item() + sum(nan >= 1.0).item() + sum(nan > 1.0).item() + sum(nan <= 1.0).item(), 0);
}

TEST(Elementwise, WhereChoosesOnAnyStrides) {
  RandomTensors random(DType::f64);
  for (const DType dtype : {DType::f32, DType::f64, DType::u8}) {
    for (const Shape& shape : usual_shapes()) {
      const auto make = [&](const Shape& s) { return (abs(random(s)) * 50.0).to(dtype); };
      const auto a = views(shape, make), b = views(shape, make);
      const auto c = views(shape, [&](const Shape& s) { return random(s) > 0.0; });
      for (size_t i = 0; i < a.size(); ++i) {
        const size_t j = (i + 1) % a.size(), k = (i + 2) % a.size();
        Tensor out = poisoned(shape, dtype);
        cpu().where(c[i].x, a[j].x, b[k].x, out);
        for_each_index(shape, [&](const Index& at) {
          ASSERT_EQ(value_at(out, at), value_at<bool>(c[i].x, at) ? value_at(a[j].x, at) : value_at(b[k].x, at));
        });
      }
    }
  }
  const Tensor mask = Tensor::from<bool>({true, false, true}, {3});
  EXPECT_EQ(where(mask, Tensor::ones({3}), Tensor::scalar(7)).to_vector<float>(), (std::vector<float>{1, 7, 1}));
  EXPECT_EQ(where(mask, Tensor::scalar(2), Tensor::scalar(7)).to_vector<float>(), (std::vector<float>{2, 7, 2}));
}

TEST(Elementwise, ClampAndAxpy) {
  const Tensor x = Tensor::from<float>({-5, NAN, 0.5, 9, -INFINITY}, {5});
  const std::vector<float> clamped = clamp(x, -1, 2).to_vector<float>();
  EXPECT_EQ(clamped[0], -1);
  EXPECT_TRUE(std::isnan(clamped[1]));
  EXPECT_EQ(clamped[2], 0.5);
  EXPECT_EQ(clamped[3], 2);
  EXPECT_EQ(clamped[4], -1);
  const Tensor i = Tensor::from<int64_t>({-5, 0, 9}, {3});
  EXPECT_EQ(clamp(i, -1.5, kInfinity).to_vector<int64_t>(), (std::vector<int64_t>{-1, 0, 9}));
  EXPECT_EQ(clamp(i, -kInfinity, 2.5).to_vector<int64_t>(), (std::vector<int64_t>{-5, 0, 2}));

  RandomTensors random(DType::f64);
  Tensor sum = random({6, 40});
  const Tensor before = sum.clone(), added = random({40, 6}).transpose(0, 1), row = random({40});
  axpy_(0.5, added, sum);
  axpy_(-2, row, sum);
  for_each_index(sum.shape(), [&](const Index& at) {
    EXPECT_NEAR(value_at(sum, at), value_at(before, at) + 0.5 * value_at(added, at) - 2 * value_at(row, {at[1]}),
                1e-14);
  });
}

TEST(Elementwise, WorksInPlaceAndIntoViews) {
  RandomTensors random(DType::f32);
  for (const Shape& shape : {Shape{3}, Shape{1000}, Shape{200, 300}}) {
    Tensor x = random(shape);
    const Tensor before = x.clone(), other = random(shape);
    cpu().unary(UnaryOp::square, x, x);
    cpu().binary(BinaryOp::add, other, x, x);
    cpu().binary_scalar(BinaryOp::mul, x, 3, false, x);
    EXPECT_TRUE(identical(x, (square(before) + other) * 3.0));
  }
  Tensor wide = Tensor::zeros({4, 10});
  Tensor odd = wide.slice(1, 1, 10, 2);
  cpu().binary_scalar(BinaryOp::add, odd, 1, false, odd);
  EXPECT_EQ(sum(wide).item(), 20);
  EXPECT_EQ(value_at(wide, {2, 3}), 1);
  EXPECT_EQ(value_at(wide, {2, 4}), 0);
}

TEST(Elementwise, CopyConvertsEveryPairOfTypes) {
  for (int f = 0; f < kNumDTypes; ++f) {
    for (int t = 0; t < kNumDTypes; ++t) {
      const auto from = static_cast<DType>(f), to = static_cast<DType>(t);
      const Tensor x = Tensor::from<int64_t>({0, 1, 3, 100, 1, 0}, {2, 3}).to(from);
      for (const Tensor& view : {x, x.transpose(0, 1), x.slice(1, 0, 3, 2), x.slice(0, 1, 2).expand({4, 3})}) {
        Tensor out = poisoned(view.shape(), to);
        cpu().copy(view, out);
        for_each_index(view.shape(), [&](const Index& at) {
          const double value = value_at(view, at);
          ASSERT_EQ(value_at(out, at), to == DType::boolean ? (value != 0) : value)
              << name_of(from) << " to " << name_of(to);
        });
      }
    }
  }
  EXPECT_EQ(Tensor::from<float>({-1.7f, 2.9f}, {2}).to(DType::i64).to_vector<int64_t>(), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(Tensor::from<float>({0.5f, NAN, 0.0f}, {3}).to(DType::boolean).to_vector<bool>(),
            (std::vector<bool>{true, true, false}));
}

TEST(Elementwise, CopyOfPermutedTensorsOfEveryWidth) {
  for (const DType dtype : {DType::f32, DType::f64, DType::u8}) {
    for (const Shape& shape : {Shape{2, 3, 5, 7}, Shape{1, 64, 64, 3}, Shape{3, 17, 33, 2}, Shape{2, 70, 9, 40}}) {
      const Tensor x = Tensor::arange(0, static_cast<double>(shape.numel())).reshape(shape).to(dtype);
      for (const std::vector<int>& axes :
           std::vector<std::vector<int>>{{0, 2, 3, 1}, {0, 3, 1, 2}, {3, 2, 1, 0}, {1, 0, 3, 2}, {2, 3, 0, 1}}) {
        const Tensor view = x.permute(axes);
        Tensor out = poisoned(view.shape(), dtype);
        cpu().copy(view, out);
        for_each_index(view.shape(), [&](const Index& at) { ASSERT_EQ(value_at(out, at), value_at(view, at)); });
        // And the other way round: contiguous into a permuted view.
        Tensor back = poisoned(shape, dtype);
        Tensor target = back.permute(axes);
        cpu().copy(out, target);
        ASSERT_TRUE(identical(back, x));
      }
    }
  }
}

TEST(Elementwise, FillReachesEveryElementOfAView) {
  for (int t = 0; t < kNumDTypes; ++t) {
    const auto dtype = static_cast<DType>(t);
    Tensor x = Tensor::zeros({5, 6}, dtype);
    Tensor column = x.slice(1, 2, 3);
    cpu().fill(column, 1);
    for_each_index(x.shape(), [&](const Index& at) { ASSERT_EQ(value_at(x, at), at[1] == 2); });
  }
}

TEST(Elementwise, ResultsDoNotDependOnTheThreadCount) {
  RandomTensors random(DType::f32);
  const Tensor a = random({100, 1001}), b = random({1001, 100}).transpose(0, 1);
  const int threads = num_threads();
  set_num_threads(1);
  const Tensor one = unary(UnaryOp::tanh, a * b + b);
  set_num_threads(4);
  EXPECT_TRUE(identical(unary(UnaryOp::tanh, a * b + b), one));
  set_num_threads(threads);
  EXPECT_THROW(set_num_threads(0), ArgumentError);
}

}  // namespace
}  // namespace espalier
