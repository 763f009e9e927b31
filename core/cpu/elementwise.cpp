// Elementwise arithmetic. Every operation has one loop over unit-stride operands, which the compiler vectorises;
// other strides are packed into small buffers first, so that no second version of the arithmetic exists.
#include <cmath>
#include <limits>

#include "core/backend/operators.h"
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

/// Integer division and powers have operands without a result; they are looked for before the loop.
template <class T>
void check_all(BinaryOp op, const T* b, const Strides& strides, const Shape& shape) {
  if (!std::is_integral_v<T> || (op != BinaryOp::div && op != BinaryOp::pow)) return;
  const Loop<1> loop(shape, {strides});
  loop.run(0, loop.numel(), [&](const std::array<int64_t, 1>& offsets, int64_t n) {
    for (int64_t i = 0; i < n; ++i) check_second(op, b[offsets[0] + i * loop.step(0)]);
  });
}

/// out = a op b, or b op a when reversed.
template <class T>
void binary_typed(BinaryOp op, bool reversed, const Tensor& a, const T* b, const Strides& b_strides, Tensor& out) {
  with_binary(op, [&]<class F>(F f, const char*) {
    constexpr bool kHasOrder = std::is_same_v<F, Sub> || std::is_same_v<F, Div> || std::is_same_v<F, Pow> ||
                               std::is_same_v<F, ReluGrad>;  // the others commute
    if constexpr (kHasOrder)
      if (reversed) return map<T, T>(a, b, b_strides, out, Reversed<F>{});
    map<T, T>(a, b, b_strides, out, f);
  });
}

template <class T>
void unary_arithmetic(UnaryOp op, const Tensor& x, Tensor& out) {
  with_arithmetic(op, x.dtype(), [&](auto f, const char*) { map<T, T>(x, out, f); });
}

template <class T>
void unary_floating(UnaryOp op, const Tensor& x, Tensor& out) {
  namespace vm = vector_math;
  const auto run = [&](auto f) { map<T, T>(x, out, f); };
  switch (op) {
    case UnaryOp::exp: return run([](T v) { return vm::exp(v); });
    case UnaryOp::log: return run([](T v) { return vm::log(v); });
    case UnaryOp::log1p: return run([](T v) { return vm::log1p(v); });
    case UnaryOp::tanh: return run([](T v) { return vm::tanh(v); });
    case UnaryOp::sigmoid: return run([](T v) { return vm::sigmoid(v); });
    case UnaryOp::erf: return run([](T v) { return vm::erf(v); });
    case UnaryOp::isnan: return map<T, bool>(x, out, IsNan{});
    default: return with_floating(op, x.dtype(), [&](auto f, const char*) { run(f); });
  }
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
  map<bool, bool>(x, out, Not{});
}

void binary(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  if (op >= BinaryOp::logical_and)
    return with_logical(op, [&](auto f, const char*) { map<bool, bool>(a, b.data<bool>(), b.strides(), out, f); });
  dispatch_arithmetic(a.dtype(), "binary", [&]<class T>(T) {
    check_all(op, b.data<T>(), b.strides(), b.shape());
    binary_typed(op, false, a, b.data<T>(), b.strides(), out);
  });
}

void binary_scalar(BinaryOp op, const Tensor& a, double b, bool reversed, Tensor& out) {
  if (op == BinaryOp::pow && !reversed && power_by_number(table(), a, b, out)) return;
  dispatch_arithmetic(a.dtype(), "binary", [&]<class T>(T) {
    const T number = operand<T>(b, "binary");
    Strides none = a.strides();
    for (int axis = 0; axis < a.rank(); ++axis) none[axis] = 0;
    if (reversed)
      check_all(op, a.data<T>(), a.strides(), a.shape());
    else
      check_second(op, number);
    binary_typed(op, reversed, a, &number, none, out);
  });
}

void compare(CompareOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  // a > b is b < a, also for NaN.
  if (op == CompareOp::gt) return cpu::compare(CompareOp::lt, b, a, out);
  if (op == CompareOp::ge) return cpu::compare(CompareOp::le, b, a, out);
  dispatch(a.dtype(), [&]<class T>(T) {
    with_comparison(op, [&](auto f, const char*) { map<T, bool>(a, b.data<T>(), b.strides(), out, f); });
  });
}

void clamp(const Tensor& x, double low, double high, Tensor& out) {
  dispatch_arithmetic(x.dtype(), "clamp", [&]<class T>(T) { map<T, T>(x, out, clamp_to<T>(low, high)); });
}

void axpy(double alpha, const Tensor& x, Tensor& out) {
  dispatch_floating(out.dtype(), "axpy",
                    [&]<class T>(T) { map<T, T>(out, x.data<T>(), x.strides(), out, Axpy<T>{static_cast<T>(alpha)}); });
}

}  // namespace espalier::cpu
