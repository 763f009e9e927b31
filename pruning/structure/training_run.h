// A forward pass in training mode that leaves nothing behind.
#pragma once

#include "core/random.h"
#include "layers/module.h"

namespace espalier {

/// While alive, the network is in training mode. Then its modes, its buffers (running statistics) and the default
/// generator become what they were.
class TrainingRun {
 public:
  explicit TrainingRun(Module& net) : modes_(net) {
    for (const auto& [name, buffer] : net.named_buffers()) buffers_.emplace_back(buffer, buffer.clone());
    net.train();
  }
  ~TrainingRun() {
    for (auto& [buffer, value] : buffers_) buffer.copy_(value);
    default_generator() = generator_;
  }
  TrainingRun(const TrainingRun&) = delete;
  TrainingRun& operator=(const TrainingRun&) = delete;

 private:
  EvalMode modes_;
  Generator generator_ = default_generator();
  std::vector<std::pair<Tensor, Tensor>> buffers_;
};

}  // namespace espalier
