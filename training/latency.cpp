#include "training/latency.h"

#include <algorithm>
#include <chrono>

#include "core/kernels.h"
#include "core/random.h"

namespace espalier {

std::vector<Latency> latencies(const std::vector<ModulePtr>& modules, const std::vector<Shape>& shapes, int64_t batch,
                               int64_t rounds) {
  using Clock = std::chrono::steady_clock;
  const NoGrad no_grad;
  std::vector<Tensor> inputs;
  std::vector<std::vector<double>> seconds(modules.size());
  Generator generator(0);
  for (size_t i = 0; i < shapes.size(); ++i) {
    Shape whole = shapes[i];
    whole.insert(0, batch);
    inputs.push_back(randn(whole, generator).to(modules[i]->device()));
  }
  constexpr int64_t kWarmUp = 3;
  for (int64_t round = -kWarmUp; round < rounds; ++round)
    for (size_t i = 0; i < modules.size(); ++i) {
      const EvalMode eval(*modules[i]);
      const Clock::time_point start = Clock::now();
      const Variable outputs = (*modules[i])(inputs[i]);
      synchronize(outputs.device());
      if (round >= 0) seconds[i].push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  std::vector<Latency> result;
  for (std::vector<double>& times : seconds) {
    std::sort(times.begin(), times.end());
    const auto at = [&](double q) { return times[static_cast<size_t>(q * static_cast<double>(times.size() - 1))]; };
    result.push_back({.fastest = times.front(), .p50 = at(0.5), .p95 = at(0.95)});
  }
  return result;
}

}  // namespace espalier
