#include <cmath>

#include "tests/op_cases.h"

namespace espalier::op_cases {
namespace {

using Unary = std::function<Variable(const Variable&)>;
using Binary = std::function<Variable(const Variable&, const Variable&)>;

/// What a unary case needs to know: where the function is defined and smooth.
struct Domain {
  double low = -3, high = 3, away_from_zero = 0;
};

/// The shapes: a scalar, some axes, rows that end in the middle of a vector register, no elements.
void add_unary(std::vector<OpCase>& cases, const std::string& name, const Unary& f,
               const std::function<double(double)>& reference, const Domain& domain = {}) {
  const std::vector<std::pair<std::string, Shape>> shapes = {
      {"scalar", {}}, {"axes", {2, 3, 4}}, {"rows", {3, 67}}, {"empty", {0, 3}}};
  for (const auto& [variant, shape] : shapes)
    cases.push_back({.name = name + "." + variant,
                     .inputs = {{shape, domain.low, domain.high, domain.away_from_zero}},
                     .run = [f](const Variables& v) { return Variables{f(v[0])}; },
                     .reference =
                         [reference](const Arrays& a) {
                           return Arrays{fill(a[0].shape, [&](const Index& i) { return reference(a[0](i)); })};
                         },
                     .scale = 2});
}

void add_binary(std::vector<OpCase>& cases, const std::string& name, const Binary& f,
                const std::function<double(double, double)>& reference, const Domain& second = {}) {
  struct Shapes {
    std::string variant;
    Shape a, b, out;
  };
  const std::vector<Shapes> shapes = {{"same", {3, 37}, {3, 37}, {3, 37}},     {"row", {3, 5}, {5}, {3, 5}},
                                      {"column", {3, 1}, {3, 5}, {3, 5}},      {"outer", {4, 1}, {1, 3}, {4, 3}},
                                      {"scalar", {}, {2, 3}, {2, 3}},          {"scalars", {}, {}, {}},
                                      {"ranks", {2, 1, 3}, {4, 1}, {2, 4, 3}}, {"empty", {0, 3}, {3}, {0, 3}}};
  for (const Shapes& s : shapes) {
    cases.push_back({.name = name + "." + s.variant,
                     .inputs = {{s.a}, {s.b, second.low, second.high, second.away_from_zero}},
                     .run = [f](const Variables& v) { return Variables{f(v[0], v[1])}; },
                     .reference =
                         [reference, out = s.out](const Arrays& a) {
                           return Arrays{fill(
                               out, [&](const Index& i) { return reference(a[0].broadcast(i), a[1].broadcast(i)); })};
                         },
                     .scale = 4});
  }
}

void add_arithmetic(std::vector<OpCase>& cases) {
  add_binary(
      cases, "add", [](auto& a, auto& b) { return a + b; }, [](double a, double b) { return a + b; });
  add_binary(
      cases, "sub", [](auto& a, auto& b) { return a - b; }, [](double a, double b) { return a - b; });
  add_binary(
      cases, "mul", [](auto& a, auto& b) { return a * b; }, [](double a, double b) { return a * b; });
  add_binary(
      cases, "div", [](auto& a, auto& b) { return a / b; }, [](double a, double b) { return a / b; },
      {.away_from_zero = 0.5});
  add_binary(
      cases, "maximum", [](auto& a, auto& b) { return maximum(a, b); },
      [](double a, double b) { return a > b ? a : b; });
  add_binary(
      cases, "minimum", [](auto& a, auto& b) { return minimum(a, b); },
      [](double a, double b) { return a < b ? a : b; });
  add_unary(
      cases, "add_number", [](auto& x) { return x + 1.5; }, [](double x) { return x + 1.5; });
  add_unary(
      cases, "sub_number", [](auto& x) { return x - 1.5; }, [](double x) { return x - 1.5; });
  add_unary(
      cases, "mul_number", [](auto& x) { return x * 1.5; }, [](double x) { return x * 1.5; });
  add_unary(
      cases, "div_number", [](auto& x) { return x / 1.5; }, [](double x) { return x / 1.5; });
  add_unary(
      cases, "number_add", [](auto& x) { return 1.5 + x; }, [](double x) { return 1.5 + x; });
  add_unary(
      cases, "number_sub", [](auto& x) { return 1.5 - x; }, [](double x) { return 1.5 - x; });
  add_unary(
      cases, "number_mul", [](auto& x) { return 1.5 * x; }, [](double x) { return 1.5 * x; });
  add_unary(
      cases, "number_div", [](auto& x) { return 1.5 / x; }, [](double x) { return 1.5 / x; }, {.away_from_zero = 0.5});
  add_unary(
      cases, "neg", [](auto& x) { return -x; }, [](double x) { return -x; });
}

void add_functions(std::vector<OpCase>& cases) {
  const Domain kink{.away_from_zero = 0.05}, positive{.low = 0.25, .high = 4};
  add_unary(
      cases, "abs", [](auto& x) { return abs(x); }, [](double x) { return std::fabs(x); }, kink);
  add_unary(
      cases, "square", [](auto& x) { return square(x); }, [](double x) { return x * x; });
  add_unary(
      cases, "sqrt", [](auto& x) { return sqrt(x); }, [](double x) { return std::sqrt(x); }, positive);
  add_unary(
      cases, "exp", [](auto& x) { return exp(x); }, [](double x) { return std::exp(x); });
  add_unary(
      cases, "log", [](auto& x) { return log(x); }, [](double x) { return std::log(x); }, positive);
  add_unary(
      cases, "log1p", [](auto& x) { return log1p(x); }, [](double x) { return std::log1p(x); },
      {.low = -0.75, .high = 3});
  add_unary(
      cases, "sin", [](auto& x) { return sin(x); }, [](double x) { return std::sin(x); });
  add_unary(
      cases, "cos", [](auto& x) { return cos(x); }, [](double x) { return std::cos(x); });
  add_unary(
      cases, "tanh", [](auto& x) { return tanh(x); }, [](double x) { return std::tanh(x); });
  add_unary(
      cases, "sigmoid", [](auto& x) { return sigmoid(x); }, sigmoid_of);
  add_unary(
      cases, "erf", [](auto& x) { return erf(x); }, [](double x) { return std::erf(x); });
  for (double exponent : {2.0, 3.0, 0.5, -1.5, 0.0, 1.0})
    add_unary(
        cases, fmt::format("pow_{}", exponent), [=](auto& x) { return pow(x, exponent); },
        [=](double x) { return std::pow(x, exponent); }, {.low = 0.5, .high = 2});
  add_unary(
      cases, "pow_cube_of_negative", [](auto& x) { return pow(x, 3); }, [](double x) { return x * x * x; },
      {.low = -2, .high = -0.5});
  add_unary(
      cases, "relu", [](auto& x) { return relu(x); }, [](double x) { return x > 0 ? x : 0; }, kink);
  add_unary(
      cases, "leaky_relu", [](auto& x) { return leaky_relu(x); }, [](double x) { return x > 0 ? x : 0.01 * x; }, kink);
  add_unary(
      cases, "leaky_relu_slope", [](auto& x) { return leaky_relu(x, 0.3); },
      [](double x) { return x > 0 ? x : 0.3 * x; }, kink);
  add_unary(
      cases, "gelu", [](auto& x) { return gelu(x); },
      [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); });
  add_unary(
      cases, "silu", [](auto& x) { return silu(x); }, [](double x) { return x * sigmoid_of(x); });
  add_unary(
      cases, "softplus", [](auto& x) { return softplus(x); }, [](double x) { return std::log1p(std::exp(x)); });
  // The bounds are far from any value that is drawn, because away_from_zero keeps the middle free.
  add_unary(
      cases, "clamp", [](auto& x) { return clamp(x - 1, -1.01, 100); }, [](double x) { return std::max(x - 1, -1.01); },
      kink);
  add_unary(
      cases, "clamp_above", [](auto& x) { return clamp(x, -100, 0.01); }, [](double x) { return std::min(x, 0.01); },
      kink);
}

void add_where(std::vector<OpCase>& cases) {
  const Tensor condition = Tensor::from<bool>({true, false, true, false, false, true}, {2, 3});
  const auto chosen = [](const Index& i) {
    return (i[i.size() - 2] * 3 + i.back()) % 6 == 0 || (i[i.size() - 2] * 3 + i.back()) % 6 == 2 ||
           (i[i.size() - 2] * 3 + i.back()) % 6 == 5;
  };
  const auto add = [&](const std::string& name, const Shape& a, const Shape& b, const Shape& out) {
    cases.push_back(
        {.name = name,
         .inputs = {{a}, {b}},
         .run = [=](const Variables& v) { return Variables{where(condition.to(v[0].device()), v[0], v[1])}; },
         .reference =
             [=](const Arrays& v) {
               return Arrays{
                   fill(out, [&](const Index& i) { return chosen(i) ? v[0].broadcast(i) : v[1].broadcast(i); })};
             }});
  };
  add("where.same", {2, 3}, {2, 3}, {2, 3});
  add("where.broadcast", {3}, {4, 1, 3}, {4, 2, 3});
  add("where.scalar", {2, 3}, {}, {2, 3});
}

void add_conversions(std::vector<OpCase>& cases) {
  // Through f32 a difference quotient needs a large step; the function is linear, so that costs nothing.
  cases.push_back(
      {.name = "to.dtype",
       .inputs = {{{3, 5}}},
       .run =
           [](const Variables& v) {
             const DType other = v[0].dtype() == DType::f32 ? DType::f64 : DType::f32;
             return Variables{to(to(v[0], other) * 2.0, v[0].dtype())};
           },
       .reference =
           [](const Arrays& a) { return Arrays{fill(a[0].shape, [&](const Index& i) { return 2 * a[0](i); })}; },
       .gradcheck = {.step = 0.25, .relative = 1e-5, .absolute = 1e-5}});
  cases.push_back(
      {.name = "to.device",
       .inputs = {{{3, 5}}},
       .run = [](const Variables& v) { return Variables{to(v[0] * 2.0, v[0].device())}; },
       .reference =
           [](const Arrays& a) { return Arrays{fill(a[0].shape, [&](const Index& i) { return 2 * a[0](i); })}; }});
}

}  // namespace

void add_elementwise(std::vector<OpCase>& cases) {
  add_arithmetic(cases);
  add_functions(cases);
  add_where(cases);
  add_conversions(cases);
}

}  // namespace espalier::op_cases
