// What the tests of autograd share.
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "autograd/node.h"
#include "autograd/ops.h"

namespace espalier::testing {

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

/// The message of the error that f throws, or "" with a failed test.
template <class E = ArgumentError, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "expected an error, none was thrown";
  return "";
}

inline void expect_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "expected '" << part << "' in: " << text;
}

}  // namespace espalier::testing
