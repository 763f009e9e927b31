// What elementwise operations and reductions compute for one element where every backend computes the same, and which
// of these an op of the contract is. Functions like exp are each backend's own.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "core/backend/dispatch.h"
#include "core/kernels.h"

namespace espalier::backend {

/// The type to compute in: integers wrap on overflow, as two's complement does; computing unsigned keeps that defined.
template <class T>
using Wrapping = typename std::conditional_t<std::is_integral_v<T> && !std::is_same_v<T, bool>, std::make_unsigned<T>,
                                             std::type_identity<T>>::type;

// --- one operand ---------------------------------------------------------------------------------------------------

struct Neg {
  template <class T>
  constexpr T operator()(T v) const {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(Wrapping<T>{0} - static_cast<Wrapping<T>>(v));
    } else {
      return -v;
    }
  }
};
struct Abs {
  template <class T>
  constexpr T operator()(T v) const {
    if constexpr (std::is_integral_v<T>) {
      return v < T{0} ? Neg{}(v) : v;
    } else {
      return std::fabs(v);
    }
  }
};
struct Sign {
  template <class T>
  constexpr T operator()(T v) const {
    return v > T{0} ? T{1} : v < T{0} ? T{-1} : v;
  }
};
struct Square {
  template <class T>
  constexpr T operator()(T v) const {
    return static_cast<T>(static_cast<Wrapping<T>>(v) * static_cast<Wrapping<T>>(v));
  }
};
/// Written so that NaN stays NaN and -0 becomes 0.
struct Relu {
  template <class T>
  constexpr T operator()(T v) const {
    return v <= T{0} ? T{0} : v;
  }
};
struct Sqrt {
  template <class T>
  constexpr T operator()(T v) const {
    return std::sqrt(v);
  }
};
struct Rsqrt {
  template <class T>
  constexpr T operator()(T v) const {
    return T{1} / std::sqrt(v);
  }
};
struct Reciprocal {
  template <class T>
  constexpr T operator()(T v) const {
    return T{1} / v;
  }
};
struct Sin {
  template <class T>
  constexpr T operator()(T v) const {
    return std::sin(v);
  }
};
struct Cos {
  template <class T>
  constexpr T operator()(T v) const {
    return std::cos(v);
  }
};
struct Floor {
  template <class T>
  constexpr T operator()(T v) const {
    return std::floor(v);
  }
};
/// Halves to even.
struct Round {
  template <class T>
  constexpr T operator()(T v) const {
    return std::rint(v);
  }
};
struct IsNan {
  template <class T>
  constexpr bool operator()(T v) const {
    return v != v;
  }
};
struct Not {
  constexpr bool operator()(bool v) const { return !v; }
};

/// To a range; NaN stays NaN.
template <class T>
struct Clamp {
  T low, high;
  constexpr T operator()(T v) const { return v < low ? low : v > high ? high : v; }
};
/// Whole numbers are clamped to those between the bounds; infinities are the type's own limits.
template <class T>
Clamp<T> clamp_to(double low, double high) {
  if constexpr (std::is_floating_point_v<T>) {
    return {static_cast<T>(low), static_cast<T>(high)};
  } else {
    const auto bound = [](double value) {
      constexpr double kLow = static_cast<double>(std::numeric_limits<T>::min());
      if (value <= kLow) return std::numeric_limits<T>::min();
      if (value >= -kLow) return std::numeric_limits<T>::max();
      return static_cast<T>(value);
    };
    return {bound(std::ceil(low)), bound(std::floor(high))};
  }
}

// --- two operands --------------------------------------------------------------------------------------------------

struct Add {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
  }
};
struct Sub {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));
  }
};
struct Mul {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
  }
};
struct Div {
  template <class T>
  constexpr T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      // The most negative number divided by -1 wraps. Division by 0 is refused before the loop.
      return b == -1 ? Neg{}(a) : a / b;
    } else {
      return a / b;
    }
  }
};
struct Pow {
  template <class T>
  constexpr T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      Wrapping<T> result = 1, base = static_cast<Wrapping<T>>(a);
      for (Wrapping<T> rest = static_cast<Wrapping<T>>(b); rest != 0; rest >>= 1) {
        if (rest & 1) result *= base;
        base *= base;
      }
      return static_cast<T>(result);
    } else {
      return std::pow(a, b);
    }
  }
};
// A NaN in either operand is kept: `b != b` selects that of b, and no comparison replaces that of a.
struct Maximum {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};
struct Minimum {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return b < a || b != b ? b : a;
  }
};
struct ReluGrad {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return a > T{0} ? b : T{0};
  }
};
// For words of bits, and for bools, of which each is 0 or 1: vectors have no && and ||.
struct And {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};
struct AndNot {
  template <class T>
  constexpr T operator()(T a, T b) const {
    return static_cast<T>(a & ~b);
  }
};
struct Equal {
  template <class T>
  constexpr bool operator()(T a, T b) const {
    return a == b;
  }
};
struct NotEqual {
  template <class T>
  constexpr bool operator()(T a, T b) const {
    return a != b;
  }
};
struct Less {
  template <class T>
  constexpr bool operator()(T a, T b) const {
    return a < b;
  }
};
struct LessEqual {
  template <class T>
  constexpr bool operator()(T a, T b) const {
    return a <= b;
  }
};
template <class F>
struct Reversed {
  template <class T>
  constexpr auto operator()(T a, T b) const {
    return F{}(b, a);
  }
};
template <class T>
struct Axpy {
  T alpha;
  constexpr T operator()(T sum, T v) const { return sum + alpha * v; }
};

// --- which operation it is -----------------------------------------------------------------------------------------

/// Calls f(function object, name) for the operations that integers have too.
template <class F>
void with_arithmetic(UnaryOp op, DType type, F&& f) {
  switch (op) {
    case UnaryOp::neg: return f(Neg{}, "neg");
    case UnaryOp::abs: return f(Abs{}, "abs");
    case UnaryOp::sign: return f(Sign{}, "sign");
    case UnaryOp::square: return f(Square{}, "square");
    case UnaryOp::relu: return f(Relu{}, "relu");
    default: fail("unary", "operation {} needs f32 or f64, got {}", static_cast<int>(op), name_of(type));
  }
}

/// And for those of f32 and f64, but for what backends compute in ways of their own and for isnan.
template <class F>
void with_floating(UnaryOp op, DType type, F&& f) {
  switch (op) {
    case UnaryOp::sqrt: return f(Sqrt{}, "sqrt");
    case UnaryOp::rsqrt: return f(Rsqrt{}, "rsqrt");
    case UnaryOp::reciprocal: return f(Reciprocal{}, "reciprocal");
    case UnaryOp::sin: return f(Sin{}, "sin");
    case UnaryOp::cos: return f(Cos{}, "cos");
    case UnaryOp::floor: return f(Floor{}, "floor");
    case UnaryOp::round: return f(Round{}, "round");
    default: return with_arithmetic(op, type, f);
  }
}

template <class F>
void with_binary(BinaryOp op, F&& f) {
  switch (op) {
    case BinaryOp::add: return f(Add{}, "add");
    case BinaryOp::sub: return f(Sub{}, "sub");
    case BinaryOp::mul: return f(Mul{}, "mul");
    case BinaryOp::div: return f(Div{}, "div");
    case BinaryOp::pow: return f(Pow{}, "pow");
    case BinaryOp::maximum: return f(Maximum{}, "maximum");
    case BinaryOp::minimum: return f(Minimum{}, "minimum");
    case BinaryOp::relu_grad: return f(ReluGrad{}, "relu_grad");
    default: fail("binary", "operation {} needs bool tensors", static_cast<int>(op));
  }
}

template <class F>
void with_logical(BinaryOp op, F&& f) {
  switch (op) {
    case BinaryOp::logical_and: return f(And{}, "logical_and");
    case BinaryOp::logical_or: return f(Or{}, "logical_or");
    default: return f(Xor{}, "logical_xor");
  }
}

template <class F>
void with_bits(BitOp op, F&& f) {
  switch (op) {
    case BitOp::bit_and: return f(And{});
    case BitOp::bit_or: return f(Or{});
    case BitOp::bit_xor: return f(Xor{});
    case BitOp::bit_and_not: return f(AndNot{});
  }
}

/// Not for gt and ge: a > b is b < a, also for NaN.
template <class F>
void with_comparison(CompareOp op, F&& f) {
  switch (op) {
    case CompareOp::eq: return f(Equal{}, "equal");
    case CompareOp::ne: return f(NotEqual{}, "not_equal");
    case CompareOp::lt: return f(Less{}, "less");
    case CompareOp::le: return f(LessEqual{}, "less_equal");
    default: fail("compare", "a > b is asked for as b < a");
  }
}

/// Whether an operation of integers has no result for this second operand.
template <class T>
constexpr bool refuses(BinaryOp op, T b) {
  if constexpr (!std::is_integral_v<T>) return false;
  return op == BinaryOp::div ? b == 0 : op == BinaryOp::pow && b < 0;
}
/// Throws for such an operand.
template <class T>
void check_second(BinaryOp op, T b) {
  if (!refuses(op, b)) return;
  if (op == BinaryOp::div) fail("div", "expected nonzero integers to divide by, got 0; convert to f32 for infinity");
  fail("pow", "expected integer exponents of at least 0, got {}; convert to f32 first", b);
}

/// out = x^exponent by a cheaper kernel where there is one; false when there is none.
inline bool power_by_number(const Kernels& kernels, const Tensor& x, double exponent, Tensor& out) {
  if (exponent == 2.0) return kernels.unary(UnaryOp::square, x, out), true;
  if (exponent == 1.0) return kernels.copy(x, out), true;
  if (!is_floating(x.dtype())) return false;
  if (exponent == 0.5) return kernels.unary(UnaryOp::sqrt, x, out), true;
  if (exponent == -0.5) return kernels.unary(UnaryOp::rsqrt, x, out), true;
  if (exponent == -1.0) return kernels.unary(UnaryOp::reciprocal, x, out), true;
  return false;
}

// --- sums where indices meet ---------------------------------------------------------------------------------------

struct Assign {
  template <class T>
  constexpr void operator()(T& to, T value) const {
    to = value;
  }
};
/// Integers wrap, bools join by or.
struct AddTo {
  template <class T>
  constexpr void operator()(T& sum, T value) const {
    if constexpr (std::is_same_v<T, bool>) {
      sum = sum | value;
    } else {
      sum = Add{}(sum, value);
    }
  }
};

// --- reductions ----------------------------------------------------------------------------------------------------

// How two values join. The CPU's also work on the compiler's vectors. `A` is the accumulator's type.
struct JoinSum {
  template <class A>
  static constexpr A start() {
    return A{0};
  }
  template <class A>
  static constexpr A join(A a, A b) {
    return a + b;
  }
};
struct JoinProduct {
  template <class A>
  static constexpr A start() {
    return A{1};
  }
  template <class A>
  static constexpr A join(A a, A b) {
    return a * b;
  }
};
// A NaN is kept, as by Maximum and Minimum; without `||`, which vectors don't have.
struct JoinMaximum {
  template <class A>
  static constexpr A start() {
    return std::numeric_limits<A>::has_infinity ? -std::numeric_limits<A>::infinity() : std::numeric_limits<A>::min();
  }
  template <class A>
  static constexpr A join(A a, A b) {
    return ((b > a) | (b != b)) ? b : a;
  }
};
struct JoinMinimum {
  template <class A>
  static constexpr A start() {
    return std::numeric_limits<A>::has_infinity ? std::numeric_limits<A>::infinity() : std::numeric_limits<A>::max();
  }
  template <class A>
  static constexpr A join(A a, A b) {
    return ((b < a) | (b != b)) ? b : a;
  }
};

}  // namespace espalier::backend
