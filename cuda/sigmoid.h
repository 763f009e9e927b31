// 1 / (1 + e^-x), for every kernel that needs it.
#pragma once

#include <cmath>

#include "cuda/launch.h"

namespace espalier::cuda {

/// Accurate on both tails.
template <class T>
__device__ T sigmoid(T x) {
  const T e = std::exp(-std::fabs(x));
  return (x < T{0} ? e : T{1}) / (T{1} + e);
}

}  // namespace espalier::cuda
