#include "training/evaluate.h"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

namespace espalier {

nlohmann::json Evaluation::to_json() const {
  nlohmann::json json = confusion.to_json();
  json["loss"] = loss;
  json["examples"] = examples();
  json["seconds"] = seconds;
  json["images_per_second"] = images_per_second();
  return json;
}

Batch to(const Batch& batch, Device device) {
  if (batch.images.device() == device) return batch;
  return {batch.images.to(device), batch.labels.to(device), batch.indices};
}

Evaluation evaluate(Module& module, const Dataset& dataset, const EvaluateOptions& options) {
  check(dataset.size() > 0, "evaluate", "expected at least one example in '{}', got none", dataset.name);
  check(options.batch_size > 0, "evaluate", "expected batch_size > 0, got {}", options.batch_size);
  const auto started = std::chrono::steady_clock::now();
  const EvalMode mode(module);
  const NoGrad no_grad;
  const Device device = options.device.value_or(module.device());
  module.to(device);

  Evaluation result{.loss = 0, .confusion = ConfusionMatrix(dataset.num_classes(), dataset.class_names)};
  Average loss;
  Progress progress(options.progress);
  progress.begin("evaluate", dataset.size());
  const DataLoader loader(dataset, {.batch_size = std::min(options.batch_size, dataset.size())});
  for (const Batch& loaded : loader.batches()) {
    const Batch batch = to(loaded, device);
    const Variable outputs = module(batch.images);
    check(outputs.rank() == 2 && outputs.size(1) == dataset.num_classes(), "evaluate",
          "'{}' has {} classes, the network's outputs have shape {}; build it with as many outputs", dataset.name,
          dataset.num_classes(), outputs.shape());
    const Variable batch_loss = options.loss ? options.loss(outputs, batch) : cross_entropy(outputs, batch.labels);
    loss.add(batch_loss.item(), batch.size());
    result.confusion.add(outputs.data(), batch.labels);
    progress.update(result.examples(), [&] { return fmt::format("loss {:.4f}", loss.value()); });
    if (options.stop && options.stop()) break;
  }
  result.loss = loss.value();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

}  // namespace espalier
