#include <cmath>
#include <numbers>

#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

// What each does with axes, and where its result is 0 because a masked weight is.
constexpr Operation kAdd{"add", axes::elementwise, Zeros::of_sum}, kSub{"sub", axes::elementwise, Zeros::of_sum};
constexpr Operation kMul{"mul", axes::scaling, Zeros::of_any}, kDiv{"div", axes::scaling, Zeros::of_first};
constexpr Operation kInverse{"div", axes::scaling, Zeros::none};  // of a number by a Variable
constexpr Operation kNeg{"neg", axes::elementwise}, kAbs{"abs", axes::elementwise};
constexpr Operation kSquare{"square", axes::elementwise}, kSqrt{"sqrt", axes::elementwise};
constexpr Operation kExp{"exp", axes::elementwise, Zeros::none}, kLog{"log", axes::elementwise, Zeros::none};
constexpr Operation kLog1p{"log1p", axes::elementwise}, kSin{"sin", axes::elementwise};
constexpr Operation kCos{"cos", axes::elementwise, Zeros::none}, kTanh{"tanh", axes::elementwise};
constexpr Operation kSigmoid{"sigmoid", axes::elementwise, Zeros::none}, kErf{"erf", axes::elementwise};
constexpr Operation kPow{"pow", axes::elementwise, Zeros::none}, kRelu{"relu", axes::elementwise};
constexpr Operation kReluGrad{"relu_grad", axes::elementwise}, kTo{"to", axes::elementwise};
constexpr Operation kSoftplus{"softplus", axes::elementwise, Zeros::none};
constexpr Operation kClamp{"clamp", axes::elementwise, Zeros::none};
constexpr Operation kWhere{"where", axes::elementwise, Zeros::none};

/// relu's gradient: g where x > 0. Linear in g; its derivative with respect to x is 0 almost everywhere.
Variable relu_grad(const Variable& x, const Variable& g) {
  return record(
      kReluGrad, binary(BinaryOp::relu_grad, x.data(), g.data()), {g},
      [x = Saved(x.detach())](const BackwardContext& c) -> Variables { return {relu_grad(x.unpack(c), c.grad())}; });
}

/// Zero where the condition is false.
Variable masked(const Tensor& condition, const Variable& x) {
  return where(condition, x, Variable(Tensor::scalar(0, x.dtype(), x.device())));
}

Saved saved_if(bool needed, const Variable& x) { return needed ? Saved(x) : Saved(); }

/// The two operands' gradients, summed back over broadcast axes; undefined where not needed.
template <class A, class B>
Variables binary_grads(const BackwardContext& c, const Shape& a, const Shape& b, A&& grad_a, B&& grad_b) {
  Variables grads(2);
  if (c.needs(0)) grads[0] = sum_to(grad_a(), a);
  if (c.needs(1)) grads[1] = sum_to(grad_b(), b);
  return grads;
}

}  // namespace

Variable operator+(const Variable& a, const Variable& b) {
  return record(kAdd, a.data() + b.data(), {a, b}, [sa = a.shape(), sb = b.shape()](const BackwardContext& c) {
    return binary_grads(
        c, sa, sb, [&] { return c.grad(); }, [&] { return c.grad(); });
  });
}

Variable operator-(const Variable& a, const Variable& b) {
  return record(kSub, a.data() - b.data(), {a, b}, [sa = a.shape(), sb = b.shape()](const BackwardContext& c) {
    return binary_grads(
        c, sa, sb, [&] { return c.grad(); }, [&] { return -c.grad(); });
  });
}

Variable operator*(const Variable& a, const Variable& b) {
  // A factor is needed for the other one's gradient only.
  return record(kMul, a.data() * b.data(), {a, b},
                [x = saved_if(b.requires_grad(), a), y = saved_if(a.requires_grad(), b), sa = a.shape(),
                 sb = b.shape()](const BackwardContext& c) {
                  return binary_grads(
                      c, sa, sb, [&] { return c.grad() * y.unpack(c); }, [&] { return c.grad() * x.unpack(c); });
                });
}

Variable operator/(const Variable& a, const Variable& b) {
  return record(
      kDiv, a.data() / b.data(), {a, b},
      [x = saved_if(b.requires_grad(), a), y = Saved(b), sa = a.shape(), sb = b.shape()](const BackwardContext& c) {
        const Variable& v = y.unpack(c);
        return binary_grads(
            c, sa, sb, [&] { return c.grad() / v; }, [&] { return -(c.grad() * x.unpack(c)) / square(v); });
      });
}

Variable operator+(const Variable& a, double b) {
  return record(kAdd, a.data() + b, {a}, [](const BackwardContext& c) -> Variables { return {c.grad()}; });
}
Variable operator-(const Variable& a, double b) { return a + (-b); }
Variable operator*(const Variable& a, double b) {
  return record(kMul, a.data() * b, {a}, [b](const BackwardContext& c) -> Variables { return {c.grad() * b}; });
}
Variable operator/(const Variable& a, double b) {
  return record(kDiv, a.data() / b, {a}, [b](const BackwardContext& c) -> Variables { return {c.grad() / b}; });
}
Variable operator+(double a, const Variable& b) { return b + a; }
Variable operator-(double a, const Variable& b) {
  return record(kSub, a - b.data(), {b}, [](const BackwardContext& c) -> Variables { return {-c.grad()}; });
}
Variable operator*(double a, const Variable& b) { return b * a; }
Variable operator/(double a, const Variable& b) {
  return record(kInverse, a / b.data(), {b}, [a, y = Saved(b)](const BackwardContext& c) -> Variables {
    return {c.grad() * -a / square(y.unpack(c))};
  });
}

Variable operator-(const Variable& x) {
  return record(kNeg, -x.data(), {x}, [](const BackwardContext& c) -> Variables { return {-c.grad()}; });
}

Variable abs(const Variable& x) {
  return record(kAbs, abs(x.data()), {x}, [s = Saved(x)](const BackwardContext& c) -> Variables {
    return {c.grad() * Variable(unary(UnaryOp::sign, s.unpack(c).data()))};
  });
}

Variable square(const Variable& x) {
  return record(kSquare, square(x.data()), {x},
                [s = Saved(x)](const BackwardContext& c) -> Variables { return {c.grad() * s.unpack(c) * 2}; });
}

Variable sqrt(const Variable& x) {
  return record(
      kSqrt, sqrt(x.data()), {x}, [](const BackwardContext& c) -> Variables { return {c.grad() / (c.output() * 2)}; },
      SaveOutputs::yes);
}

Variable exp(const Variable& x) {
  return record(
      kExp, exp(x.data()), {x}, [](const BackwardContext& c) -> Variables { return {c.grad() * c.output()}; },
      SaveOutputs::yes);
}

Variable log(const Variable& x) {
  return record(kLog, log(x.data()), {x},
                [s = Saved(x)](const BackwardContext& c) -> Variables { return {c.grad() / s.unpack(c)}; });
}

Variable log1p(const Variable& x) {
  return record(kLog1p, unary(UnaryOp::log1p, x.data()), {x},
                [s = Saved(x)](const BackwardContext& c) -> Variables { return {c.grad() / (s.unpack(c) + 1)}; });
}

Variable sin(const Variable& x) {
  return record(kSin, unary(UnaryOp::sin, x.data()), {x},
                [s = Saved(x)](const BackwardContext& c) -> Variables { return {c.grad() * cos(s.unpack(c))}; });
}

Variable cos(const Variable& x) {
  return record(kCos, unary(UnaryOp::cos, x.data()), {x},
                [s = Saved(x)](const BackwardContext& c) -> Variables { return {-(c.grad() * sin(s.unpack(c)))}; });
}

Variable tanh(const Variable& x) {
  return record(
      kTanh, unary(UnaryOp::tanh, x.data()), {x},
      [](const BackwardContext& c) -> Variables { return {c.grad() * (1 - square(c.output()))}; }, SaveOutputs::yes);
}

Variable sigmoid(const Variable& x) {
  return record(
      kSigmoid, unary(UnaryOp::sigmoid, x.data()), {x},
      [](const BackwardContext& c) -> Variables {
        const Variable y = c.output();
        return {c.grad() * y * (1 - y)};
      },
      SaveOutputs::yes);
}

Variable erf(const Variable& x) {
  return record(kErf, unary(UnaryOp::erf, x.data()), {x}, [s = Saved(x)](const BackwardContext& c) -> Variables {
    return {c.grad() * exp(-square(s.unpack(c))) * (2 * std::numbers::inv_sqrtpi)};
  });
}

Variable pow(const Variable& x, double exponent) {
  return record(kPow, binary(BinaryOp::pow, x.data(), exponent), {x},
                [exponent, s = Saved(x)](const BackwardContext& c) -> Variables {
                  if (exponent == 0) return {c.grad() * 0.0};
                  return {c.grad() * pow(s.unpack(c), exponent - 1) * exponent};
                });
}

Variable relu(const Variable& x) {
  return record(
      kRelu, unary(UnaryOp::relu, x.data()), {x},
      [](const BackwardContext& c) -> Variables { return {relu_grad(c.output(), c.grad())}; }, SaveOutputs::yes);
}

Variable leaky_relu(const Variable& x, double slope) { return where(x.data() > 0, x, x * slope); }

Variable gelu(const Variable& x) { return x * (erf(x * (1 / std::numbers::sqrt2)) + 1) * 0.5; }

Variable silu(const Variable& x) { return x * sigmoid(x); }

Variable softplus(const Variable& x) {
  const Tensor& data = x.data();
  // max(x,0) + log1p(exp(-|x|)) cannot overflow; differentiated as written it would lose the gradient at 0.
  const Tensor y = unary(UnaryOp::relu, data) + unary(UnaryOp::log1p, exp(-abs(data)));
  return record(kSoftplus, y, {x},
                [s = Saved(x)](const BackwardContext& c) -> Variables { return {c.grad() * sigmoid(s.unpack(c))}; });
}

// A NaN wins, as in core/ops.h.
Variable maximum(const Variable& a, const Variable& b) { return where((a.data() >= b.data()) | isnan(a.data()), a, b); }

Variable minimum(const Variable& a, const Variable& b) { return where((a.data() <= b.data()) | isnan(a.data()), a, b); }

Variable clamp(const Variable& x, double low, double high) {
  return record(kClamp, clamp(x.data(), low, high), {x},
                [low, high, s = Saved(x)](const BackwardContext& c) -> Variables {
                  const Tensor& data = s.unpack(c).data();
                  return {masked((data >= low) & (data <= high), c.grad())};
                });
}

Variable where(const Tensor& condition, const Variable& a, const Variable& b) {
  return record(kWhere, where(condition, a.data(), b.data()), {a, b},
                [s = Saved(condition), sa = a.shape(), sb = b.shape()](const BackwardContext& c) {
                  const Tensor& chosen = s.unpack(c).data();
                  return binary_grads(
                      c, sa, sb, [&] { return masked(chosen, c.grad()); }, [&] { return masked(~chosen, c.grad()); });
                });
}

Variable to(const Variable& x, DType dtype) {
  if (dtype == x.dtype()) return x;
  return record(kTo, x.data().to(dtype), {x},
                [from = x.dtype()](const BackwardContext& c) -> Variables { return {to(c.grad(), from)}; });
}

Variable to(const Variable& x, Device device) {
  if (device == x.device()) return x;
  return record(kTo, x.data().to(device), {x},
                [from = x.device()](const BackwardContext& c) -> Variables { return {to(c.grad(), from)}; });
}

}  // namespace espalier
