// What the tests of layers share.
#pragma once

#include <limits>

#include <gtest/gtest.h>

#include "core/ops.h"
#include "core/random.h"
#include "layers/module.h"
#include "tests/expect_error.h"

namespace espalier {

using testing_support::expect_error;

/// Largest |a - b|; infinite where the shapes differ.
inline double max_difference(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return std::numeric_limits<double>::infinity();
  return a.numel() == 0 ? 0 : max(abs(a.to(DType::f64) - b.to(DType::f64))).item();
}

/// Standard normal f64 values from a seed of their own.
inline Tensor noise(const Shape& shape, uint64_t seed, DType dtype = DType::f64) {
  Generator generator(seed);
  return randn(shape, generator, dtype);
}

}  // namespace espalier
