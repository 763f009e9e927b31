// Figures of several seeds.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

namespace espalier {

struct MeanAndDeviation {
  double mean = 0;
  std::optional<double> deviation = {};  ///< divided by n - 1; nothing for one value
};

/// Of value(run) over the runs.
template <class Run, class F>
MeanAndDeviation over(const std::vector<Run>& runs, F&& value) {
  MeanAndDeviation result;
  const auto n = static_cast<double>(runs.size());
  for (const Run& run : runs) result.mean += value(run) / n;
  if (runs.size() < 2) return result;
  double squares = 0;
  for (const Run& run : runs) squares += std::pow(value(run) - result.mean, 2);
  result.deviation = std::sqrt(squares / (n - 1));
  return result;
}

}  // namespace espalier
