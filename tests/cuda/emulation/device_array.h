// Arrays in device memory for the tests of the emulated libraries, and comparison with references in double.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <cuda_runtime.h>
#include <gtest/gtest.h>

namespace espalier::testing {

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : size_(values.size()) {
    void* p = nullptr;
    EXPECT_EQ(cudaMalloc(&p, size_ * sizeof(T)), cudaSuccess);
    data_ = static_cast<T*>(p);
    EXPECT_EQ(cudaMemcpy(p, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  /// Full of NaN.
  explicit DeviceArray(size_t size) : DeviceArray(std::vector<T>(size, std::numeric_limits<T>::quiet_NaN())) {}
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> values(size_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }

 private:
  size_t size_;
  T* data_ = nullptr;
};

/// Values of a normal distribution, the same on every run.
template <class T>
std::vector<T> random_values(size_t size, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<T> values(size);
  for (T& v : values) v = static_cast<T>(normal(engine));
  return values;
}

/// What a sum of `terms` products of normal values may be off.
template <class T>
double tolerance(int64_t terms) {
  return 16 * double{std::numeric_limits<T>::epsilon()} * (1 + std::sqrt(static_cast<double>(terms)));
}

/// NaNs must stand where they are expected, and nowhere else.
template <class T>
void expect_close(const std::vector<T>& got, const std::vector<double>& expected, double absolute,
                  const std::string& what = "") {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(got[i])) continue;
    if (got[i] == expected[i]) continue;  // infinities too
    ASSERT_TRUE(std::abs(got[i] - expected[i]) <= absolute * (1 + std::abs(expected[i])))
        << what << ": element " << i << " is " << got[i] << ", expected " << expected[i];
  }
}

/// Checks that the last call has failed on its operand `name`, and clears the error.
inline void expect_fault(const std::string& words, const std::string& name,
                         cudaError_t status = cudaErrorIllegalAddress) {
  EXPECT_NE(words.find(name), std::string::npos) << words;
  EXPECT_EQ(cudaGetLastError(), status);
}

using FloatTypes = ::testing::Types<float, double>;

}  // namespace espalier::testing
