// Elementwise arithmetic: each operation is a function object, which elementwise.h turns into its kernels.
#include "cuda/elementwise.h"

#include <cmath>
#include <limits>

#include "cuda/table.h"

namespace espalier::cuda {
namespace {

/// The type to compute in: integers wrap on overflow, as two's complement does; computing unsigned keeps that defined.
template <class T>
struct WrappingOf {
  using type = T;
};
template <>
struct WrappingOf<int64_t> {
  using type = uint64_t;
};
template <>
struct WrappingOf<int32_t> {
  using type = uint32_t;
};
template <class T>
using Wrapping = typename WrappingOf<T>::type;

// --- one operand ---------------------------------------------------------------------------------------------------

struct Neg {
  template <class T>
  __device__ T operator()(T v) const {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(Wrapping<T>{0} - static_cast<Wrapping<T>>(v));
    } else {
      return -v;
    }
  }
};
struct Abs {
  template <class T>
  __device__ T operator()(T v) const {
    if constexpr (std::is_integral_v<T>) {
      return v < T{0} ? Neg{}(v) : v;
    } else {
      return std::fabs(v);
    }
  }
};
struct Sign {
  template <class T>
  __device__ T operator()(T v) const {
    return v > T{0} ? T{1} : v < T{0} ? T{-1} : v;
  }
};
struct Square {
  template <class T>
  __device__ T operator()(T v) const {
    return static_cast<T>(static_cast<Wrapping<T>>(v) * static_cast<Wrapping<T>>(v));
  }
};
/// Written so that NaN stays NaN and -0 becomes 0.
struct Relu {
  template <class T>
  __device__ T operator()(T v) const {
    return v <= T{0} ? T{0} : v;
  }
};
struct Sqrt {
  template <class T>
  __device__ T operator()(T v) const {
    return std::sqrt(v);
  }
};
struct Rsqrt {
  template <class T>
  __device__ T operator()(T v) const {
    return T{1} / std::sqrt(v);
  }
};
struct Reciprocal {
  template <class T>
  __device__ T operator()(T v) const {
    return T{1} / v;
  }
};
struct Exp {
  template <class T>
  __device__ T operator()(T v) const {
    return std::exp(v);
  }
};
struct Log {
  template <class T>
  __device__ T operator()(T v) const {
    return std::log(v);
  }
};
struct Log1p {
  template <class T>
  __device__ T operator()(T v) const {
    return std::log1p(v);
  }
};
struct Sin {
  template <class T>
  __device__ T operator()(T v) const {
    return std::sin(v);
  }
};
struct Cos {
  template <class T>
  __device__ T operator()(T v) const {
    return std::cos(v);
  }
};
struct Tanh {
  template <class T>
  __device__ T operator()(T v) const {
    return std::tanh(v);
  }
};
/// 1 / (1 + e^-v), accurate on both tails.
struct Sigmoid {
  template <class T>
  __device__ T operator()(T v) const {
    const T e = std::exp(-std::fabs(v));
    return (v < T{0} ? e : T{1}) / (T{1} + e);
  }
};
struct Erf {
  template <class T>
  __device__ T operator()(T v) const {
    return std::erf(v);
  }
};
struct Floor {
  template <class T>
  __device__ T operator()(T v) const {
    return std::floor(v);
  }
};
/// Halves to even.
struct Round {
  template <class T>
  __device__ T operator()(T v) const {
    return std::rint(v);
  }
};
struct IsNan {
  template <class T>
  __device__ bool operator()(T v) const {
    return v != v;
  }
};
struct Not {
  __device__ bool operator()(bool v) const { return !v; }
};
template <class T>
struct Clamp {
  T low, high;
  __device__ T operator()(T v) const { return v < low ? low : v > high ? high : v; }  // NaN stays NaN
};

// --- two operands --------------------------------------------------------------------------------------------------

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
  }
};
struct Sub {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));
  }
};
struct Mul {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
  }
};
struct Div {
  template <class T>
  __device__ T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      // The most negative number divided by -1 wraps. Division by 0 was refused before the launch.
      return b == -1 ? Neg{}(a) : a / b;
    } else {
      return a / b;
    }
  }
};
struct Pow {
  template <class T>
  __device__ T operator()(T a, T b) const {
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
  __device__ T operator()(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};
struct Minimum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b < a || b != b ? b : a;
  }
};
struct ReluGrad {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > T{0} ? b : T{0};
  }
};
struct And {
  __device__ bool operator()(bool a, bool b) const { return a && b; }
};
struct Or {
  __device__ bool operator()(bool a, bool b) const { return a || b; }
};
struct Xor {
  __device__ bool operator()(bool a, bool b) const { return a != b; }
};
struct Equal {
  template <class T>
  __device__ bool operator()(T a, T b) const {
    return a == b;
  }
};
struct NotEqual {
  template <class T>
  __device__ bool operator()(T a, T b) const {
    return a != b;
  }
};
struct Less {
  template <class T>
  __device__ bool operator()(T a, T b) const {
    return a < b;
  }
};
struct LessEqual {
  template <class T>
  __device__ bool operator()(T a, T b) const {
    return a <= b;
  }
};
template <class T>
struct Axpy {
  T alpha;
  __device__ T operator()(T sum, T v) const { return sum + alpha * v; }
};

// --- choosing the kernel -------------------------------------------------------------------------------------------

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

template <class T>
void unary_arithmetic(UnaryOp op, const Tensor& x, Tensor& out) {
  const Operand<T> from(x);
  switch (op) {
    case UnaryOp::neg: return map<T>("neg", out, Neg{}, from);
    case UnaryOp::abs: return map<T>("abs", out, Abs{}, from);
    case UnaryOp::sign: return map<T>("sign", out, Sign{}, from);
    case UnaryOp::square: return map<T>("square", out, Square{}, from);
    case UnaryOp::relu: return map<T>("relu", out, Relu{}, from);
    default: fail("unary", "operation {} needs f32 or f64, got {}", static_cast<int>(op), name_of(x.dtype()));
  }
}

template <class T>
void unary_floating(UnaryOp op, const Tensor& x, Tensor& out) {
  const Operand<T> from(x);
  switch (op) {
    case UnaryOp::sqrt: return map<T>("sqrt", out, Sqrt{}, from);
    case UnaryOp::rsqrt: return map<T>("rsqrt", out, Rsqrt{}, from);
    case UnaryOp::reciprocal: return map<T>("reciprocal", out, Reciprocal{}, from);
    case UnaryOp::exp: return map<T>("exp", out, Exp{}, from);
    case UnaryOp::log: return map<T>("log", out, Log{}, from);
    case UnaryOp::log1p: return map<T>("log1p", out, Log1p{}, from);
    case UnaryOp::sin: return map<T>("sin", out, Sin{}, from);
    case UnaryOp::cos: return map<T>("cos", out, Cos{}, from);
    case UnaryOp::tanh: return map<T>("tanh", out, Tanh{}, from);
    case UnaryOp::sigmoid: return map<T>("sigmoid", out, Sigmoid{}, from);
    case UnaryOp::erf: return map<T>("erf", out, Erf{}, from);
    case UnaryOp::floor: return map<T>("floor", out, Floor{}, from);
    case UnaryOp::round: return map<T>("round", out, Round{}, from);
    case UnaryOp::isnan: return map<bool>("isnan", out, IsNan{}, from);
    default: return unary_arithmetic<T>(op, x, out);
  }
}

template <class T>
void binary_typed(BinaryOp op, const Operand<T>& a, const Operand<T>& b, Tensor& out) {
  switch (op) {
    case BinaryOp::add: return map<T>("add", out, Add{}, a, b);
    case BinaryOp::sub: return map<T>("sub", out, Sub{}, a, b);
    case BinaryOp::mul: return map<T>("mul", out, Mul{}, a, b);
    case BinaryOp::div: return map<T>("div", out, Div{}, a, b);
    case BinaryOp::pow: return map<T>("pow", out, Pow{}, a, b);
    case BinaryOp::maximum: return map<T>("maximum", out, Maximum{}, a, b);
    case BinaryOp::minimum: return map<T>("minimum", out, Minimum{}, a, b);
    case BinaryOp::relu_grad: return map<T>("relu_grad", out, ReluGrad{}, a, b);
    default: fail("binary", "operation {} needs bool tensors", static_cast<int>(op));
  }
}

void logical(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  const Operand<bool> x(a), y(b);
  switch (op) {
    case BinaryOp::logical_and: return map<bool>("logical_and", out, And{}, x, y);
    case BinaryOp::logical_or: return map<bool>("logical_or", out, Or{}, x, y);
    default: return map<bool>("logical_xor", out, Xor{}, x, y);
  }
}

/// Integer division and powers have second operands without a result.
template <class T>
__host__ __device__ bool refused(BinaryOp op, T b) {
  return op == BinaryOp::div ? b == 0 : b < 0;
}

template <class T>
void check_second(BinaryOp op, T b) {
  if (!std::is_integral_v<T> || (op != BinaryOp::div && op != BinaryOp::pow) || !refused(op, b)) return;
  if (op == BinaryOp::div) fail("div", "expected nonzero integers to divide by, got 0; convert to f32 for infinity");
  fail("pow", "expected integer exponents of at least 0, got {}; convert to f32 first", b);
}

/// first = the lowest i whose element is refused, else as it was.
template <class T>
__global__ void find_refused(BinaryOp op, Strided<1> space, const T* b, unsigned long long* first) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < space.numel;
       i += int64_t{gridDim.x} * blockDim.x) {
    int64_t at[1];
    space.offsets(i, at);
    if (refused(op, b[at[0]])) atomicMin(first, static_cast<unsigned long long>(i));
  }
}

/// The same for a tensor. Errors come before the operation, so this waits for the device: only integers pay for it.
template <class T>
void check_second(BinaryOp op, const Tensor& b) {
  if constexpr (std::is_integral_v<T>) {
    if ((op != BinaryOp::div && op != BinaryOp::pow) || b.numel() == 0) return;
    constexpr auto kNone = ~0ull;
    Context& context = Context::of(b.device());
    const Strided<1> space(b.shape(), {b.strides()});
    const Scratch scratch(context, sizeof(kNone));
    auto* const found = scratch.as<unsigned long long>();
    check(cudaMemsetAsync(found, 0xff, sizeof(kNone), context.stream()), "cudaMemsetAsync");
    launch(context, {"find_refused", blocks_for(context, space.numel, kElementwiseThreads), kElementwiseThreads},
           find_refused<T>, op, space, b.data<T>(), found);
    unsigned long long first = kNone;
    copy(&first, Device::cpu(), found, b.device(), sizeof(first));
    if (first == kNone) return;
    int64_t at[1];
    space.offsets(static_cast<int64_t>(first), at);
    T value{};
    copy(&value, Device::cpu(), b.data<T>() + at[0], b.device(), sizeof(value));
    check_second(op, value);
  }
}

/// x^exponent by cheaper means where there are any; false when there are none.
bool power_by_number(const Tensor& x, double exponent, Tensor& out) {
  if (exponent == 2.0) return cuda::unary(UnaryOp::square, x, out), true;
  if (exponent == 1.0) return cuda::copy(x, out), true;
  if (!is_floating(x.dtype())) return false;
  if (exponent == 0.5) return cuda::unary(UnaryOp::sqrt, x, out), true;
  if (exponent == -0.5) return cuda::unary(UnaryOp::rsqrt, x, out), true;
  if (exponent == -1.0) return cuda::unary(UnaryOp::reciprocal, x, out), true;
  return false;
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
  espalier::check(std::is_floating_point_v<T> || (value == std::floor(value) && std::fabs(value) < 9.3e18), operation,
                  "expected a whole number with a tensor of {}, got {}; convert the tensor to f32 first",
                  name_of(dtype_of<T>()), value);
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
  espalier::check(op == UnaryOp::logical_not && x.dtype() == DType::boolean, "unary",
                  "expected f32 or f64 (bool for logical_not), got {}; convert it with .to(DType::f32)",
                  name_of(x.dtype()));
  map<bool>("logical_not", out, Not{}, Operand<bool>(x));
}

void binary(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  if (op >= BinaryOp::logical_and) return logical(op, a, b, out);
  dispatch_arithmetic(a.dtype(), "binary", [&](auto zero) {
    using T = decltype(zero);
    check_second<T>(op, b);
    binary_typed(op, Operand<T>(a), Operand<T>(b), out);
  });
}

void binary_scalar(BinaryOp op, const Tensor& a, double b, bool reversed, Tensor& out) {
  if (op == BinaryOp::pow && !reversed && power_by_number(a, b, out)) return;
  dispatch_arithmetic(a.dtype(), "binary", [&](auto zero) {
    using T = decltype(zero);
    const T number = operand<T>(b, "binary");
    if (reversed) {
      check_second<T>(op, a);
      binary_typed(op, Operand<T>(number, out), Operand<T>(a), out);
    } else {
      check_second(op, number);
      binary_typed(op, Operand<T>(a), Operand<T>(number, out), out);
    }
  });
}

void compare(CompareOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  // a > b is b < a, also for NaN.
  if (op == CompareOp::gt) return cuda::compare(CompareOp::lt, b, a, out);
  if (op == CompareOp::ge) return cuda::compare(CompareOp::le, b, a, out);
  dispatch(a.dtype(), [&](auto zero) {
    const Operand<decltype(zero)> x(a), y(b);
    switch (op) {
      case CompareOp::eq: return map<bool>("equal", out, Equal{}, x, y);
      case CompareOp::ne: return map<bool>("not_equal", out, NotEqual{}, x, y);
      case CompareOp::lt: return map<bool>("less", out, Less{}, x, y);
      default: return map<bool>("less_equal", out, LessEqual{}, x, y);
    }
  });
}

void clamp(const Tensor& x, double low, double high, Tensor& out) {
  dispatch_arithmetic(x.dtype(), "clamp", [&](auto zero) {
    using T = decltype(zero);
    const T bottom = bound<T>(std::is_integral_v<T> ? std::ceil(low) : low);
    const T top = bound<T>(std::is_integral_v<T> ? std::floor(high) : high);
    map<T>("clamp", out, Clamp<T>{bottom, top}, Operand<T>(x));
  });
}

void axpy(double alpha, const Tensor& x, Tensor& out) {
  dispatch_floating(out.dtype(), "axpy", [&](auto zero) {
    using T = decltype(zero);
    map<T>("axpy", out, Axpy<T>{static_cast<T>(alpha)}, Operand<T>(out), Operand<T>(x));
  });
}

}  // namespace espalier::cuda
