// Figures of several seeds.
#pragma once

#include <cmath>
#include <vector>

namespace espalier::tools {

struct MeanAndDeviation {
  double mean = 0, deviation = 0;  ///< deviation: divided by n - 1; 0 for one value
};

/// Of value(run) over the runs.
template <class Run, class F>
MeanAndDeviation over(const std::vector<Run>& runs, F&& value) {
  MeanAndDeviation result;
  const auto n = static_cast<double>(runs.size());
  for (const Run& run : runs) result.mean += value(run) / n;
  for (const Run& run : runs) result.deviation += std::pow(value(run) - result.mean, 2);
  result.deviation = runs.size() > 1 ? std::sqrt(result.deviation / (n - 1)) : 0;
  return result;
}

}  // namespace espalier::tools
