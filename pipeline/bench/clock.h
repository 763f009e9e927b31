// The clock of measurements. Internal to pipeline/bench.
#pragma once

#include <chrono>
#include <cstdint>

namespace espalier {

/// Seconds since some moment in the past; it never goes back.
inline double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds of a call, the mean over `calls`.
template <class F>
double time_calls(int64_t calls, const F& once) {
  const double start = clock_seconds();
  for (int64_t i = 0; i < calls; ++i) once();
  return (clock_seconds() - start) / static_cast<double>(calls);
}

}  // namespace espalier
