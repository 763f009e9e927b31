// How long a network takes.
#pragma once

#include <cstdint>
#include <vector>

#include "layers/module.h"

namespace espalier {

/// Seconds of one forward pass in evaluation mode.
struct Latency {
  double fastest = 0;  ///< what other programs cost it is not in here
  double p50 = 0, p95 = 0;
};

/// Of several networks, measured in turns so that all meet the same disturbances: `rounds` passes of each after a
/// warm-up, on random inputs of these shapes, such as (C,H,W), in batches of `batch`.
std::vector<Latency> latencies(const std::vector<ModulePtr>& modules, const std::vector<Shape>& shapes, int64_t batch,
                               int64_t rounds);

}  // namespace espalier
