// Which types a reduction reads, accumulates and writes, and how it splits its axes; the loops are each backend's own.
#pragma once

#include "core/backend/operators.h"

namespace espalier::backend {

/// x's shape in two halves: the elements of the result, and the terms that each of them takes together; axes of the
/// other half have size 1.
struct ReducedShapes {
  Shape kept, reduced;
  ReducedShapes(const Shape& x, const std::vector<bool>& axes) : kept(x), reduced(x) {
    for (int axis = 0; axis < x.rank(); ++axis) (axes[static_cast<size_t>(axis)] ? kept : reduced)[axis] = 1;
  }
};

/// Types of a reduction: terms, their accumulator, the result.
template <class T, class A, class R>
struct Reduced {
  using Term = T;
  using Accumulator = A;
  using Result = R;
};

/// Calls f(how two values join, types, name) for a reduction of x to out. Sums and products of f32 and f64 are taken in
/// double, those of integers and bool in i64, which the result is then. Throws where a reduction has no result.
template <class F>
void with_reduction(ReduceOp op, const Tensor& x, const Tensor& out, F&& f) {
  const auto accumulate = [&](auto join, const char* name) {
    check(is_floating(x.dtype()) || out.dtype() == DType::i64, "reduce",
          "expected an i64 result for a sum or product of {}, got {}", name_of(x.dtype()), name_of(out.dtype()));
    switch (x.dtype()) {
      case DType::f32: return f(join, Reduced<float, double, float>{}, name);
      case DType::f64: return f(join, Reduced<double, double, double>{}, name);
      case DType::i64: return f(join, Reduced<int64_t, int64_t, int64_t>{}, name);
      case DType::i32: return f(join, Reduced<int32_t, int64_t, int64_t>{}, name);
      case DType::i8: return f(join, Reduced<int8_t, int64_t, int64_t>{}, name);
      default: return f(join, Reduced<uint8_t, int64_t, int64_t>{}, name);  // u8, and bool as 0 or 1
    }
  };
  const auto select = [&](auto join, const char* name) {
    check(x.numel() > 0, "reduce", "max and min need at least one element along every reduced axis, got {}",
          describe(x));
    switch (x.dtype()) {
      case DType::f32: return f(join, Reduced<float, float, float>{}, name);
      case DType::f64: return f(join, Reduced<double, double, double>{}, name);
      case DType::i64: return f(join, Reduced<int64_t, int64_t, int64_t>{}, name);
      case DType::i32: return f(join, Reduced<int32_t, int32_t, int32_t>{}, name);
      case DType::i8: return f(join, Reduced<int8_t, int8_t, int8_t>{}, name);
      default: return f(join, Reduced<uint8_t, uint8_t, uint8_t>{}, name);  // u8, and bool as 0 or 1
    }
  };
  switch (op) {
    case ReduceOp::sum: return accumulate(JoinSum{}, "reduce.sum");
    case ReduceOp::prod: return accumulate(JoinProduct{}, "reduce.prod");
    case ReduceOp::max: return select(JoinMaximum{}, "reduce.max");
    case ReduceOp::min: return select(JoinMinimum{}, "reduce.min");
    // false < true; of nothing, any is false and all is true: the backends see to that before.
    case ReduceOp::any: return select(JoinMaximum{}, "reduce.any");
    case ReduceOp::all: return select(JoinMinimum{}, "reduce.all");
  }
}

}  // namespace espalier::backend
