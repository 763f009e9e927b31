// How far results on the device are from the CPU's.
#pragma once

#include <algorithm>

#include "core/ops.h"

namespace espalier {

/// The largest difference, relative to the largest value.
inline double difference(const Tensor& got, const Tensor& expected) {
  if (expected.numel() == 0) return 0;
  const Tensor a = got.to(Device::cpu()).to(DType::f64), b = expected.to(Device::cpu()).to(DType::f64);
  return max(abs(a - b)).item() / std::max(1e-6, max(abs(b)).item());
}

}  // namespace espalier
