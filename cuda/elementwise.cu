// Elementwise arithmetic: each operation is a function object, which elementwise.h turns into its kernels.
#include <cmath>

#include "core/backend/operators.h"
#include "cuda/elementwise.h"
#include "cuda/sigmoid.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

// --- what GPUs have functions of their own for ---------------------------------------------------------------------

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
struct Tanh {
  template <class T>
  __device__ T operator()(T v) const {
    return std::tanh(v);
  }
};
struct Sigmoid {
  template <class T>
  __device__ T operator()(T v) const {
    return sigmoid(v);
  }
};
struct Erf {
  template <class T>
  __device__ T operator()(T v) const {
    return std::erf(v);
  }
};

// --- choosing the kernel -------------------------------------------------------------------------------------------

template <class T>
void unary_arithmetic(UnaryOp op, const Tensor& x, Tensor& out) {
  with_arithmetic(op, x.dtype(), [&](auto f, const char* name) { map<T>(name, out, f, Operand<T>(x)); });
}

template <class T>
void unary_floating(UnaryOp op, const Tensor& x, Tensor& out) {
  const Operand<T> from(x);
  switch (op) {
    case UnaryOp::exp: return map<T>("exp", out, Exp{}, from);
    case UnaryOp::log: return map<T>("log", out, Log{}, from);
    case UnaryOp::log1p: return map<T>("log1p", out, Log1p{}, from);
    case UnaryOp::tanh: return map<T>("tanh", out, Tanh{}, from);
    case UnaryOp::sigmoid: return map<T>("sigmoid", out, Sigmoid{}, from);
    case UnaryOp::erf: return map<T>("erf", out, Erf{}, from);
    case UnaryOp::isnan: return map<bool>("isnan", out, IsNan{}, from);
    default: return with_floating(op, x.dtype(), [&](auto f, const char* name) { map<T>(name, out, f, from); });
  }
}

template <class T>
void binary_typed(BinaryOp op, const Operand<T>& a, const Operand<T>& b, Tensor& out) {
  with_binary(op, [&](auto f, const char* name) { map<T>(name, out, f, a, b); });
}

/// first = the lowest i whose element is refused, else as it was.
template <class T>
__global__ void find_refused(BinaryOp op, IndexSpace<1> space, const T* b, unsigned long long* first) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < space.numel;
       i += int64_t{gridDim.x} * blockDim.x) {
    int64_t at[1];
    space.offsets(i, at);
    if (refuses(op, b[at[0]])) atomicMin(first, static_cast<unsigned long long>(i));
  }
}

/// check_second for a whole tensor. Errors come before the operation, so this waits for the device: only integers pay.
template <class T>
void check_all(BinaryOp op, const Tensor& b) {
  if constexpr (std::is_integral_v<T>) {
    if ((op != BinaryOp::div && op != BinaryOp::pow) || b.numel() == 0) return;
    constexpr auto kNone = ~0ull;
    Context& context = Context::of(b.device());
    const IndexSpace<1> space(b.shape(), {b.strides()});
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
  if (op >= BinaryOp::logical_and)
    return with_logical(op,
                        [&](auto f, const char* name) { map<bool>(name, out, f, Operand<bool>(a), Operand<bool>(b)); });
  dispatch_arithmetic(a.dtype(), "binary", [&](auto zero) {
    using T = decltype(zero);
    check_all<T>(op, b);
    binary_typed(op, Operand<T>(a), Operand<T>(b), out);
  });
}

void binary_scalar(BinaryOp op, const Tensor& a, double b, bool reversed, Tensor& out) {
  if (op == BinaryOp::pow && !reversed && power_by_number(table(), a, b, out)) return;
  dispatch_arithmetic(a.dtype(), "binary", [&](auto zero) {
    using T = decltype(zero);
    const T number = operand<T>(b, "binary");
    if (reversed) {
      check_all<T>(op, a);
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
    with_comparison(op, [&](auto f, const char* name) { map<bool>(name, out, f, x, y); });
  });
}

void clamp(const Tensor& x, double low, double high, Tensor& out) {
  dispatch_arithmetic(x.dtype(), "clamp", [&](auto zero) {
    using T = decltype(zero);
    map<T>("clamp", out, clamp_to<T>(low, high), Operand<T>(x));
  });
}

void axpy(double alpha, const Tensor& x, Tensor& out) {
  dispatch_floating(out.dtype(), "axpy", [&](auto zero) {
    using T = decltype(zero);
    map<T>("axpy", out, Axpy<T>{static_cast<T>(alpha)}, Operand<T>(out), Operand<T>(x));
  });
}

}  // namespace espalier::cuda
