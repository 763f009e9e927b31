#include "training/loss.h"

#include <vector>

namespace espalier {

namespace {

/// Values in the shape of the outputs: (N) for (N,1), (N,C,H,W) for (N,C*H*W).
Tensor values_like(const char* loss, const Variable& outputs, const Tensor& targets) {
  check(is_floating(targets.dtype()), loss, "expected values (f32) as targets, got {}; classes need cross-entropy",
        describe(targets));
  check(outputs.rank() >= 1 && outputs.numel() == targets.numel() && outputs.size(0) == targets.size(0), loss,
        "the targets have shape {}, the network's outputs {}; build it with as many outputs", targets.shape(),
        outputs.shape());
  return targets.to(outputs.dtype()).reshape(outputs.shape());
}

Variable mse_of(const Variable& outputs, const Tensor& targets) {
  return mse_loss(outputs, values_like("mse", outputs, targets));
}
Variable l1_of(const Variable& outputs, const Tensor& targets) {
  return l1_loss(outputs, values_like("l1", outputs, targets));
}
Variable bce_of(const Variable& outputs, const Tensor& targets) {
  return bce_with_logits(outputs, values_like("bce", outputs, targets));
}

/// Of the steps (N,T) that have a class.
Variable steps_cross_entropy(const Variable& outputs, const Tensor& targets, const CrossEntropyOptions& options) {
  const int64_t classes = outputs.numel() / targets.numel();
  const std::vector<int64_t> labels = targets.to_vector<int64_t>();
  std::vector<int64_t> places, kept;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) continue;
    places.push_back(static_cast<int64_t>(i));
    kept.push_back(labels[i]);
  }
  if (kept.empty()) return sum(outputs) * 0.0;
  const auto count = static_cast<int64_t>(kept.size());
  const auto there = [&](const std::vector<int64_t>& values) {
    return Tensor::from(values, {count}).to(outputs.device());
  };
  const Variable rows = reshape(outputs, {outputs.numel() / classes, classes});
  if (kept.size() == labels.size()) return cross_entropy(rows, there(kept), options);
  return cross_entropy(index_select(rows, 0, there(places)), there(kept), options);
}

Variable smoothed_cross_entropy(const Variable& outputs, const Tensor& targets, double label_smoothing) {
  check(targets.dtype() == DType::i64, "cross-entropy", "expected classes (i64) as targets, got {}; values need mse",
        describe(targets));
  const CrossEntropyOptions options{.label_smoothing = label_smoothing};
  if (targets.rank() == 1) return cross_entropy(outputs, targets, options);
  check(targets.rank() == 2 && outputs.numel() % targets.numel() == 0 && outputs.size(0) == targets.size(0),
        "cross-entropy", "expected outputs (N,T,C) for the classes {} of steps, got {}", targets.shape(),
        outputs.shape());
  return steps_cross_entropy(outputs, targets, options);
}

Variable head_loss(const std::string& name, const Variable& outputs, const Tensor& targets, double label_smoothing) {
  const std::string loss = name.empty() ? default_loss(targets) : name;
  if (loss == "cross-entropy") return smoothed_cross_entropy(outputs, targets, label_smoothing);
  check(label_smoothing == 0, "label_smoothing", "belongs to the loss cross-entropy, got {} with the loss {}",
        label_smoothing, loss);
  return loss_registry().find("loss", loss)(outputs, targets);
}

}  // namespace

Registry<Variable(const Variable&, const Tensor&)>& loss_registry() {
  static Registry<Variable(const Variable&, const Tensor&)> losses(
      "loss", {{"cross-entropy", [](const Variable& outputs,
                                    const Tensor& targets) { return smoothed_cross_entropy(outputs, targets, 0); }},
               {"mse", mse_of},
               {"l1", l1_of},
               {"bce", bce_of}});
  return losses;
}

const char* default_loss(const Tensor& targets) { return targets.dtype() == DType::i64 ? "cross-entropy" : "mse"; }

Variable batch_loss(const Bundle& outputs, const Batch& batch, double label_smoothing) {
  check(outputs.size() > batch.targets.size(), "loss",
        "expected {} outputs of the network, one for each target, got {}", batch.targets.size() + 1, outputs.size());
  Variable total = head_loss(batch.loss, outputs.first(), batch.labels, label_smoothing);
  for (size_t i = 0; i < batch.targets.size(); ++i) {
    const Tensor& targets = batch.targets[i].second;
    const double smoothing = targets.dtype() == DType::i64 ? label_smoothing : 0;
    total = total + head_loss("", outputs[i + 1], targets, smoothing);
  }
  return total;
}

}  // namespace espalier
