// What the tests of autograd share.
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "autograd/node.h"
#include "autograd/ops.h"
#include "tests/expect_error.h"

namespace espalier::testing {

using testing_support::expect_contains;
using testing_support::message_of;

/// A leaf that requires a gradient.
inline Variable leaf(const std::vector<double>& values, const Shape& shape, DType dtype = DType::f64) {
  return Variable(Tensor::from(values, shape).to(dtype), true);
}
inline Variable leaf(const std::vector<double>& values) { return leaf(values, {static_cast<int64_t>(values.size())}); }
inline Variable constant(const std::vector<double>& values, const Shape& shape, DType dtype = DType::f64) {
  return Variable(Tensor::from(values, shape).to(dtype));
}
inline Variable constant(const std::vector<double>& values) {
  return constant(values, {static_cast<int64_t>(values.size())});
}

inline std::vector<double> values(const Variable& x) { return x.data().to_vector<double>(); }
inline std::vector<double> values(const Tensor& x) { return x.to_vector<double>(); }

}  // namespace espalier::testing
