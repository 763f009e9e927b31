// Element types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/error.h"

namespace espalier {

enum class DType : uint8_t { f32, f64, i64, i32, u8, i8, boolean };

constexpr int kNumDTypes = 7;

/// Bytes of one element.
constexpr size_t size_of(DType type) {
  constexpr size_t kSizes[kNumDTypes] = {4, 8, 8, 4, 1, 1, 1};
  return kSizes[static_cast<int>(type)];
}

/// "f32", "f64", "i64", "i32", "u8", "i8", "bool".
const char* name_of(DType type);

constexpr bool is_floating(DType type) { return type == DType::f32 || type == DType::f64; }

/// The distance from 1 to the next number of a floating type.
constexpr double epsilon_of(DType type) {
  return type == DType::f64 ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
}

/// The DType of a C++ type: dtype_of<float>() == DType::f32.
template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<T, double>)
    return DType::f64;
  else if constexpr (std::is_same_v<T, int64_t>)
    return DType::i64;
  else if constexpr (std::is_same_v<T, int32_t>)
    return DType::i32;
  else if constexpr (std::is_same_v<T, uint8_t>)
    return DType::u8;
  else if constexpr (std::is_same_v<T, int8_t>)
    return DType::i8;
  else {
    static_assert(std::is_same_v<T, bool>, "no DType for this type");
    return DType::boolean;
  }
}

/// Calls f with a value of the C++ type behind `type`: dispatch(t, [&](auto zero) { using T = decltype(zero); ... }).
template <class F>
decltype(auto) dispatch(DType type, F&& f) {
  switch (type) {
    case DType::f32: return f(float{});
    case DType::f64: return f(double{});
    case DType::i64: return f(int64_t{});
    case DType::i32: return f(int32_t{});
    case DType::u8: return f(uint8_t{});
    case DType::i8: return f(int8_t{});
    case DType::boolean: return f(bool{});
  }
  fail("dispatch", "unknown dtype {}", static_cast<int>(type));
}

/// Like dispatch, for f32 and f64 only; names the operation in the error otherwise.
template <class F>
decltype(auto) dispatch_floating(DType type, const char* operation, F&& f) {
  if (type == DType::f32) return f(float{});
  if (type == DType::f64) return f(double{});
  fail(operation, "expected a floating-point tensor (f32 or f64), got {}; convert it with .to(DType::f32)",
       name_of(type));
}

}  // namespace espalier
