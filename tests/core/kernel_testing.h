// What the tests of kernels share: random and poisoned tensors, and comparison with a double reference.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/kernels.h"
#include "core/tensor.h"

namespace espalier::testing {

inline const Kernels& cpu() { return kernels(Device::cpu()); }

/// Values of a normal distribution, the same on every run.
class RandomTensors {
 public:
  explicit RandomTensors(DType dtype, unsigned seed = 1) : dtype_(dtype), engine_(seed) {}

  Tensor operator()(const Shape& shape, double mean = 0, double stddev = 1) {
    std::normal_distribution<double> normal(mean, stddev);
    std::vector<double> values(static_cast<size_t>(shape.numel()));
    for (double& v : values) v = normal(engine_);
    return Tensor::from(values, shape).to(dtype_);
  }

 private:
  DType dtype_;
  std::mt19937 engine_;
};

/// A tensor full of NaN: an element the kernel forgets to write fails every comparison.
inline Tensor poisoned(const Shape& shape, DType dtype) {
  return Tensor::full(shape, std::numeric_limits<double>::quiet_NaN(), dtype);
}

inline double epsilon(DType dtype) {
  return dtype == DType::f32 ? std::numeric_limits<float>::epsilon() : std::numeric_limits<double>::epsilon();
}

/// What a rounded sum of `terms` products of order `magnitude` may be off: grows with the root of the length.
inline double sum_tolerance(DType dtype, int64_t terms, double magnitude = 1) {
  return 8 * epsilon(dtype) * magnitude * std::sqrt(static_cast<double>(terms)) + 8 * epsilon(dtype) * magnitude;
}

inline void expect_close(const Tensor& got, const std::vector<double>& expected, double absolute, double relative,
                         const std::string& what) {
  const std::vector<double> values = got.to_vector<double>();
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] == expected[i]) continue;  // infinities too
    if (std::isnan(values[i]) && std::isnan(expected[i])) continue;
    // Not "error > bound": a NaN must fail.
    ASSERT_TRUE(std::abs(values[i] - expected[i]) <= absolute + relative * std::abs(expected[i]))
        << what << ": element " << i << " is " << values[i] << ", expected " << expected[i];
  }
}

/// In long double, so that the comparison adds no rounding of its own.
inline double dot(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  long double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += static_cast<long double>(x[i]) * y[i];
  return static_cast<double>(sum);
}

}  // namespace espalier::testing
