// Elementwise arithmetic. Every operation has one loop over unit-stride operands, which the compiler vectorises;
// other strides are packed into small buffers first, so that no second version of the arithmetic exists.
#include <cmath>
#include <limits>

#include "core/cpu/iterate.h"
#include "core/cpu/table.h"
#include "core/cpu/vector_math.h"

namespace espalier::cpu {
namespace {

constexpr int64_t kPacked = 256;  // elements of a buffer: all of an operation's fit the first-level cache

/// n elements as a unit-stride array: themselves, or copied into the buffer.
template <class T>
const T* packed(const T* x, int64_t step, int64_t n, T* buffer) {
  if (step == 1) return x;
  for (int64_t i = 0; i < n; ++i) buffer[i] = x[i * step];
  return buffer;
}

template <class T>
void unpack(const T* buffer, T* out, int64_t step, int64_t n) {
  if (out == buffer) return;
  for (int64_t i = 0; i < n; ++i) out[i * step] = buffer[i];
}

// In the loops below `omp simd` says that iterations are independent: true in place (same index) as well, where the
// compiler's own check for overlap would choose the scalar loop.

/// Rows of one operation, as a plain function: the driver below is compiled once for a pair of types.
template <class T, class R>
using UnaryRow = void (*)(const void* f, const T* x, R* out, int64_t n);
template <class T, class R>
using BinaryRow = void (*)(const void* f, const T* x, int64_t x_step, const T* y, int64_t y_step, R* out, int64_t n);

template <class T, class R>
void drive(const Tensor& x, Tensor& out, UnaryRow<T, R> row, const void* f) {
  const Loop<2> loop(out.shape(), {out.strides(), x.strides()});
  R* const to = out.data<R>();
  const T* const from = x.data<T>();
  const int64_t so = loop.step(0), sx = loop.step(1);
  loop.parallel([=](const std::array<int64_t, 2>& offsets, int64_t n) {
    if (so == 1 && sx == 1) return row(f, from + offsets[1], to + offsets[0], n);
    T a_buffer[kPacked];
    R o_buffer[kPacked];
    for (int64_t i = 0; i < n; i += kPacked) {
      const int64_t count = std::min(kPacked, n - i);
      R* o = to + offsets[0] + i * so;
      R* target = so == 1 ? o : o_buffer;
      row(f, packed(from + offsets[1] + i * sx, sx, count, a_buffer), target, count);
      unpack(target, o, so, count);
    }
  });
}

template <class T, class R>
void drive(const Tensor& a, const T* b, const Strides& b_strides, Tensor& out, BinaryRow<T, R> row, const void* f) {
  const Loop<3> loop(out.shape(), {out.strides(), a.strides(), b_strides});
  R* const to = out.data<R>();
  const T* const from = a.data<T>();
  const int64_t so = loop.step(0), sa = loop.step(1), sb = loop.step(2);
  const bool direct = so == 1 && ((sa == 1 && (sb == 0 || sb == 1)) || (sa == 0 && sb == 1));
  loop.parallel([=](const std::array<int64_t, 3>& offsets, int64_t n) {
    const T* x = from + offsets[1];
    const T* y = b + offsets[2];
    R* o = to + offsets[0];
    if (direct) return row(f, x, sa, y, sb, o, n);
    T x_buffer[kPacked], y_buffer[kPacked];
    R o_buffer[kPacked];
    for (int64_t i = 0; i < n; i += kPacked) {
      const int64_t count = std::min(kPacked, n - i);
      R* target = so == 1 ? o + i * so : o_buffer;
      row(f, packed(x + i * sa, sa, count, x_buffer), 1, packed(y + i * sb, sb, count, y_buffer), 1, target, count);
      unpack(target, o + i * so, so, count);
    }
  });
}

/// out = f(x)
template <class T, class R, class F>
void map(const Tensor& x, Tensor& out, F f) {
  const auto row = [](const void* context, const T* from, R* to, int64_t n) {
    const F g = *static_cast<const F*>(context);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = g(from[i]);
  };
  drive<T, R>(x, out, row, &f);
}

/// out = f(a, b), given b as pointer and strides, so that a number is a tensor of stride 0.
template <class T, class R, class F>
void map(const Tensor& a, const T* b, const Strides& b_strides, Tensor& out, F f) {
  const auto row = [](const void* context, const T* x, int64_t x_step, const T* y, int64_t y_step, R* to, int64_t n) {
    const F g = *static_cast<const F*>(context);
    if (y_step == 0) {
      const T second = *y;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) to[i] = g(x[i], second);
    } else if (x_step == 0) {
      const T first = *x;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) to[i] = g(first, y[i]);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) to[i] = g(x[i], y[i]);
    }
  };
  drive<T, R>(a, b, b_strides, out, row, &f);
}

template <class F>
void dispatch_arithmetic(DType type, const char* operation, F&& f) {
  switch (type) {
    case DType::f32: return f(float{});
    case DType::f64: return f(double{});
    case DType::i64: return f(int64_t{});
    case DType::i32: return f(int32_t{});
    default: fail(operation, "expected f32, f64, i64 or i32, got {}; convert it with .to(dtype)", name_of(type));
  }
}

/// Integers wrap on overflow, as two's complement does; computing unsigned keeps that defined.
template <class T, class F>
T wrapping(T a, T b, F f) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(f(static_cast<U>(a), static_cast<U>(b)));
  } else {
    return f(a, b);
  }
}

template <class T>
T divide(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    // The quotient of the most negative number by -1 wraps instead of trapping.
    return b == -1 ? wrapping(T{0}, a, [](auto x, auto y) { return x - y; }) : a / b;
  } else {
    return a / b;
  }
}

template <class T>
T power(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    U result = 1, base = static_cast<U>(a);
    for (U rest = static_cast<U>(b); rest != 0; rest >>= 1) {
      if (rest & 1) result *= base;
      base *= base;
    }
    return static_cast<T>(result);
  } else {
    return std::pow(a, b);
  }
}

/// Integer division and powers have operands without a result; they are looked for before the loop.
template <class T>
void check_second(BinaryOp op, const T* b, const Strides& strides, const Shape& shape) {
  if constexpr (std::is_integral_v<T>) {
    if (op != BinaryOp::div && op != BinaryOp::pow) return;
    const Loop<1> loop(shape, {strides});
    loop.run(0, loop.numel(), [&](const std::array<int64_t, 1>& offsets, int64_t n) {
      for (int64_t i = 0; i < n; ++i) {
        const T value = b[offsets[0] + i * loop.step(0)];
        if (op == BinaryOp::div) {
          check(value != 0, "div", "expected nonzero integers to divide by, got 0; convert to f32 for infinity");
        } else {
          check(value >= 0, "pow", "expected integer exponents of at least 0, got {}; convert to f32 first", value);
        }
      }
    });
  }
}

/// out = a op b, or b op a when Reversed.
template <bool Reversed, class T>
void binary_typed(BinaryOp op, const Tensor& a, const T* b, const Strides& b_strides, Tensor& out) {
  const auto run = [&](auto f) {
    map<T, T>(a, b, b_strides, out, [f](T x, T y) { return Reversed ? f(y, x) : f(x, y); });
  };
  switch (op) {
    case BinaryOp::sub: return run([](T x, T y) { return wrapping(x, y, [](auto p, auto q) { return p - q; }); });
    case BinaryOp::div: return run([](T x, T y) { return divide(x, y); });
    case BinaryOp::pow: return run([](T x, T y) { return power(x, y); });
    case BinaryOp::relu_grad: return run([](T x, T y) { return x > T{0} ? y : T{0}; });
    default: break;
  }
  if constexpr (!Reversed) {
    switch (op) {
      case BinaryOp::add: return run([](T x, T y) { return wrapping(x, y, [](auto p, auto q) { return p + q; }); });
      case BinaryOp::mul: return run([](T x, T y) { return wrapping(x, y, [](auto p, auto q) { return p * q; }); });
      // A NaN in either operand is kept: `y != y` selects that of y, and no comparison replaces that of x.
      case BinaryOp::maximum: return run([](T x, T y) { return y > x || y != y ? y : x; });
      case BinaryOp::minimum: return run([](T x, T y) { return y < x || y != y ? y : x; });
      default: break;
    }
  } else {
    return binary_typed<false>(op, a, b, b_strides, out);  // the others commute
  }
  fail("binary", "operation {} needs bool tensors", static_cast<int>(op));
}

void logical(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  // Bytes, because every bool is 0 or 1 and the compiler vectorises bitwise operations on them.
  const bool* pb = b.data<bool>();
  const auto run = [&](auto f) { map<bool, bool>(a, pb, b.strides(), out, f); };
  switch (op) {
    case BinaryOp::logical_and: return run([](bool x, bool y) { return static_cast<bool>(x & y); });
    case BinaryOp::logical_or: return run([](bool x, bool y) { return static_cast<bool>(x | y); });
    default: return run([](bool x, bool y) { return static_cast<bool>(x ^ y); });
  }
}

/// x^exponent by cheaper means where there are any; false when there are none.
bool power_by_number(const Tensor& x, double exponent, Tensor& out) {
  if (exponent == 2.0) return cpu::unary(UnaryOp::square, x, out), true;
  if (exponent == 1.0) return cpu::copy(x, out), true;
  if (!is_floating(x.dtype())) return false;
  if (exponent == 0.5) return cpu::unary(UnaryOp::sqrt, x, out), true;
  if (exponent == -0.5) return cpu::unary(UnaryOp::rsqrt, x, out), true;
  if (exponent == -1.0) return cpu::unary(UnaryOp::reciprocal, x, out), true;
  return false;
}

template <class T>
void unary_arithmetic(UnaryOp op, const Tensor& x, Tensor& out) {
  const auto run = [&](auto f) { map<T, T>(x, out, f); };
  switch (op) {
    case UnaryOp::neg: return run([](T v) { return wrapping(T{0}, v, [](auto p, auto q) { return p - q; }); });
    case UnaryOp::abs: return run([](T v) { return v < T{0} ? static_cast<T>(-v) : v; });
    case UnaryOp::sign: return run([](T v) { return v > T{0} ? T{1} : v < T{0} ? T{-1} : v; });
    case UnaryOp::square: return run([](T v) { return wrapping(v, v, [](auto p, auto q) { return p * q; }); });
    // Written so that NaN stays NaN and -0 becomes 0.
    case UnaryOp::relu: return run([](T v) { return v <= T{0} ? T{0} : v; });
    default: fail("unary", "operation {} needs f32 or f64, got {}", static_cast<int>(op), name_of(x.dtype()));
  }
}

template <class T>
void unary_floating(UnaryOp op, const Tensor& x, Tensor& out) {
  namespace vm = vector_math;
  const auto run = [&](auto f) { map<T, T>(x, out, f); };
  switch (op) {
    case UnaryOp::neg: return run([](T v) { return -v; });
    case UnaryOp::abs: return run([](T v) { return std::fabs(v); });
    case UnaryOp::sqrt: return run([](T v) { return std::sqrt(v); });
    case UnaryOp::rsqrt: return run([](T v) { return T{1} / std::sqrt(v); });
    case UnaryOp::reciprocal: return run([](T v) { return T{1} / v; });
    case UnaryOp::exp: return run([](T v) { return vm::exp(v); });
    case UnaryOp::log: return run([](T v) { return vm::log(v); });
    case UnaryOp::log1p: return run([](T v) { return vm::log1p(v); });
    case UnaryOp::sin: return run([](T v) { return std::sin(v); });
    case UnaryOp::cos: return run([](T v) { return std::cos(v); });
    case UnaryOp::tanh: return run([](T v) { return vm::tanh(v); });
    case UnaryOp::sigmoid: return run([](T v) { return vm::sigmoid(v); });
    case UnaryOp::erf: return run([](T v) { return vm::erf(v); });
    case UnaryOp::floor: return run([](T v) { return std::floor(v); });
    case UnaryOp::round: return run([](T v) { return std::rint(v); });  // halves to even
    case UnaryOp::isnan: return map<T, bool>(x, out, [](T v) { return v != v; });
    default: return unary_arithmetic<T>(op, x, out);
  }
}

/// A bound as an element: infinities become the type's own limits.
template <class T>
T bound(double value) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(value);
  } else {
    constexpr double kLow = static_cast<double>(std::numeric_limits<T>::min());
    if (value <= kLow) return std::numeric_limits<T>::min();
    if (value >= -kLow) return std::numeric_limits<T>::max();
    return static_cast<T>(value);
  }
}

template <class T>
T operand(double value, const char* operation) {
  check(std::is_floating_point_v<T> || (value == std::floor(value) && std::fabs(value) < 9.3e18), operation,
        "expected a whole number with a tensor of {}, got {}; convert the tensor to f32 first", name_of(dtype_of<T>()),
        value);
  return static_cast<T>(value);
}

}  // namespace

void unary(UnaryOp op, const Tensor& x, Tensor& out) {
  switch (x.dtype()) {
    case DType::f32: return unary_floating<float>(op, x, out);
    case DType::f64: return unary_floating<double>(op, x, out);
    case DType::i64: return unary_arithmetic<int64_t>(op, x, out);
    case DType::i32: return unary_arithmetic<int32_t>(op, x, out);
    default: break;
  }
  check(op == UnaryOp::logical_not && x.dtype() == DType::boolean, "unary",
        "expected f32 or f64 (bool for logical_not), got {}; convert it with .to(DType::f32)", name_of(x.dtype()));
  map<bool, bool>(x, out, [](bool v) { return !v; });
}

void binary(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  if (op >= BinaryOp::logical_and) return logical(op, a, b, out);
  dispatch_arithmetic(a.dtype(), "binary", [&](auto zero) {
    using T = decltype(zero);
    check_second(op, b.data<T>(), b.strides(), b.shape());
    binary_typed<false>(op, a, b.data<T>(), b.strides(), out);
  });
}

void binary_scalar(BinaryOp op, const Tensor& a, double b, bool reversed, Tensor& out) {
  if (op == BinaryOp::pow && !reversed && power_by_number(a, b, out)) return;
  dispatch_arithmetic(a.dtype(), "binary", [&](auto zero) {
    using T = decltype(zero);
    const T number = operand<T>(b, "binary");
    Strides none = a.strides();
    for (int axis = 0; axis < a.rank(); ++axis) none[axis] = 0;
    if (reversed) {
      check_second(op, a.data<T>(), a.strides(), a.shape());
      binary_typed<true>(op, a, &number, none, out);
    } else {
      check_second(op, &number, Strides{}, Shape{});
      binary_typed<false>(op, a, &number, none, out);
    }
  });
}

void compare(CompareOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  // a > b is b < a, also for NaN.
  if (op == CompareOp::gt) return cpu::compare(CompareOp::lt, b, a, out);
  if (op == CompareOp::ge) return cpu::compare(CompareOp::le, b, a, out);
  dispatch(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto run = [&](auto f) { map<T, bool>(a, b.data<T>(), b.strides(), out, f); };
    switch (op) {
      case CompareOp::eq: return run([](T x, T y) { return x == y; });
      case CompareOp::ne: return run([](T x, T y) { return x != y; });
      case CompareOp::lt: return run([](T x, T y) { return x < y; });
      default: return run([](T x, T y) { return x <= y; });
    }
  });
}

void clamp(const Tensor& x, double low, double high, Tensor& out) {
  dispatch_arithmetic(x.dtype(), "clamp", [&](auto zero) {
    using T = decltype(zero);
    const T bottom = bound<T>(std::ceil(low) == low || !std::is_integral_v<T> ? low : std::ceil(low));
    const T top = bound<T>(std::is_integral_v<T> ? std::floor(high) : high);
    map<T, T>(x, out, [bottom, top](T v) { return v < bottom ? bottom : v > top ? top : v; });
  });
}

void axpy(double alpha, const Tensor& x, Tensor& out) {
  dispatch_floating(out.dtype(), "axpy", [&](auto zero) {
    using T = decltype(zero);
    const T factor = static_cast<T>(alpha);
    map<T, T>(out, x.data<T>(), x.strides(), out, [factor](T sum, T v) { return sum + factor * v; });
  });
}

}  // namespace espalier::cpu
