// The clock of measurements. Internal to pipeline/bench.
#pragma once

#include <chrono>

namespace espalier {

/// Seconds since some moment in the past; it never goes back.
inline double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace espalier
