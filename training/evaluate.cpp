#include "training/evaluate.h"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

namespace espalier {

double Evaluation::accuracy() const {
  check(confusion.classes() > 0, "accuracy",
        "expected data that asks for a class of each example; this has the metric {}",
        metrics.empty() ? "?" : metrics.front().name);
  return confusion.accuracy();
}

std::optional<double> Evaluation::maybe_accuracy() const {
  return confusion.classes() > 0 ? std::optional<double>(confusion.accuracy()) : std::nullopt;
}

nlohmann::json Evaluation::to_json() const {
  nlohmann::json json = confusion.classes() > 0 ? confusion.to_json() : nlohmann::json::object();
  if (metrics.size() != 1 || metrics.front().name != "accuracy")
    for (const MetricValue& metric : metrics) json["metrics"][metric.name] = metric.value;
  json["loss"] = loss;
  json["examples"] = examples();
  json["seconds"] = seconds;
  json["images_per_second"] = images_per_second();
  return json;
}

namespace {

/// The network answers every target.
void check_outputs(const Dataset& dataset, const Bundle& outputs) {
  const std::vector<Target> targets = dataset.all_targets();
  check(outputs.size() >= targets.size(), "evaluate", "'{}' has {} targets, the network {} outputs", dataset.name,
        targets.size(), outputs.size());
  for (size_t i = 0; i < targets.size(); ++i) {
    const Shape wanted = targets[i].outputs(), got = outputs[i].shape();
    if (targets[i].is_classes() && wanted.rank() == 1)
      check(got.rank() == 2 && got[1] == wanted[0], "evaluate",
            "'{}' has {} classes, the network's outputs have shape {}; build it with as many outputs", dataset.name,
            wanted[0], got);
    else
      check(got.rank() >= 1 && got.numel() == got[0] * wanted.numel(), "evaluate",
            "'{}' has targets {}, the network's outputs have shape {}; build it with as many outputs", dataset.name,
            wanted, got);
  }
}

}  // namespace

Evaluation evaluate(Module& module, const Dataset& dataset, const EvaluateOptions& options) {
  check(dataset.size() > 0, "evaluate", "expected at least one example in '{}', got none", dataset.name);
  check(options.batch_size > 0, "evaluate", "expected batch_size > 0, got {}", options.batch_size);
  const auto started = std::chrono::steady_clock::now();
  const EvalMode mode(module);
  const NoGrad no_grad;
  const Device device = options.device.value_or(module.device());
  module.to(device);

  Evaluation result;
  const Target first = dataset.all_targets().front();
  const bool has_classes = first.is_classes() && first.values.rank() == 1;
  if (has_classes) result.confusion = ConfusionMatrix(dataset.num_classes(), dataset.class_names);
  Metrics metrics(dataset);
  Average loss;
  Progress progress(options.progress);
  progress.begin("evaluate", dataset.size());
  const DataLoader loader(dataset, {.batch_size = std::min(options.batch_size, dataset.size())});
  for (const Batch& loaded : loader.batches()) {
    const Batch batch = to(loaded, device);
    const Bundle outputs = outputs_of(module, batch);
    check_outputs(dataset, outputs);
    const Variable of_batch = options.loss ? options.loss(outputs, batch) : batch_loss(outputs, batch);
    loss.add(of_batch.item(), batch.size());
    if (has_classes) result.confusion.add(outputs.first().data(), batch.labels);
    metrics.add(outputs, batch);
    result.count += batch.size();
    progress.update(result.examples(), [&] { return fmt::format("loss {:.4f}", loss.value()); });
    if (options.stop && options.stop()) break;
  }
  result.loss = loss.value();
  result.metrics = metrics.values();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

}  // namespace espalier
