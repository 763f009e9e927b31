// From dtypes to C++ types, and from the interface's doubles to elements, for the kernels of every backend.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/dtype.h"
#include "core/error.h"

namespace espalier::backend {

/// Calls f(T{}) with an unsigned integer as wide as the dtype, for kernels that only move elements.
template <class F>
void dispatch_size(DType type, F&& f) {
  switch (size_of(type)) {
    case 1: return f(uint8_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

/// Calls f(T{}) for the dtypes that arithmetic works on.
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

/// A value of one dtype as one of another; nonzero is true.
template <class To, class From>
constexpr To convert(From value) {
  if constexpr (std::is_same_v<To, bool>) {
    return value != From{0};
  } else if constexpr (std::is_floating_point_v<From> && sizeof(To) == 1) {
    return static_cast<To>(static_cast<int32_t>(value));  // -1.0 -> 255, as integers wrap
  } else {
    return static_cast<To>(value);
  }
}

/// The same from the interface's double; whole numbers wrap.
template <class T>
constexpr T from_double(double value) {
  if constexpr (std::is_same_v<T, bool> || std::is_floating_point_v<T>) {
    return convert<T>(value);
  } else {
    return static_cast<T>(static_cast<int64_t>(value));
  }
}

/// A number that is an operand beside a tensor of T. Throws when T has only whole numbers and this is none.
template <class T>
T operand(double value, const char* operation) {
  check(std::is_floating_point_v<T> || (value == std::floor(value) && std::fabs(value) < 9.3e18), operation,
        "expected a whole number with a tensor of {}, got {}; convert the tensor to f32 first", name_of(dtype_of<T>()),
        value);
  return static_cast<T>(value);
}

}  // namespace espalier::backend
