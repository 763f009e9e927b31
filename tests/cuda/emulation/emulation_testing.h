// Launching a test's kernels, and what a wrong one must leave behind.
#pragma once

#include <initializer_list>
#include <string>

#include <gtest/gtest.h>

#include "cuda/emulation/control.h"
#include "cuda/emulation/launch.h"
#include "device_array.h"

namespace espalier::testing {

template <class... Parameters, class... Arguments>
void run(dim3 grid, dim3 block, void (*kernel)(Parameters...), Arguments... arguments) {
  emulation::launch("kernel_of_test", grid, block, 0, nullptr, kernel, arguments...);
}

inline void expect_no_fault() {
  const cudaError_t status = cudaGetLastError();
  EXPECT_EQ(status, cudaSuccess) << cudaGetErrorString(status);
}

/// The last call must have failed with this status and these words; afterwards all works again.
inline void expect_fault(cudaError_t status, std::initializer_list<const char*> words) {
  const cudaError_t got = cudaGetLastError();
  const std::string text = cudaGetErrorString(got);
  EXPECT_EQ(cudaGetErrorName(got), std::string(cudaGetErrorName(status))) << text;
  for (const char* word : words) EXPECT_NE(text.find(word), std::string::npos) << "\"" << word << "\" in: " << text;
  expect_no_fault();
}

constexpr unsigned kFullMask = 0xffffffffu;

}  // namespace espalier::testing
