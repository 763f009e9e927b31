#include "autograd/node.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

Variable reduced(const Variable& losses, Reduction reduction) {
  if (reduction == Reduction::none) return losses;
  return reduction == Reduction::sum ? sum(losses) : mean(losses);
}

void check_same_shape(const Variable& x, const Variable& y, const char* operation) {
  check(x.shape() == y.shape(), operation, "expected two tensors of one shape, got {} and {}", x.shape(), y.shape());
}

/// What each log-probability counts: weight_c * ((1-s)*[c is the target] + s/C), 0 for ignored examples (N,C); and the
/// sum of the targets' weights, by which the mean divides (a scalar).
struct TargetWeights {
  Tensor weights, total;
};

void check_labels(const Tensor& targets, int64_t classes, int64_t ignored, const char* name) {
  const std::vector<int64_t> labels = targets.to_vector<int64_t>();
  for (size_t i = 0; i < labels.size(); ++i)
    check(labels[i] == ignored || (labels[i] >= 0 && labels[i] < classes), name,
          "expected targets from 0 to {}, got {} for example {}", classes - 1, labels[i], i);
}

TargetWeights target_weights(const Variable& x, const Tensor& targets, const CrossEntropyOptions& o, const char* name) {
  check(x.rank() == 2 && is_floating(x.dtype()), name, "expected f32 or f64 of shape (N,C), got {}",
        describe(x.data()));
  const int64_t n = x.size(0), classes = x.size(1);
  check(targets.defined() && targets.dtype() == DType::i64 && targets.shape() == Shape{n}, name,
        "expected i64 targets of shape ({}), one for each row of {}, got {}", n, x.shape(), describe(targets));
  check(o.label_smoothing >= 0 && o.label_smoothing <= 1, name, "expected label smoothing from 0 to 1, got {}",
        o.label_smoothing);
  check(!o.class_weights.defined() || o.class_weights.shape() == Shape{classes}, name,
        "expected class weights of shape ({}), got {}", classes, describe(o.class_weights));
  // On a GPU the labels stay where they are, and a wrong one is found by the kernel that uses it.
  if (targets.device().is_cpu()) check_labels(targets, classes, o.ignore_index, name);
  const Tensor counted = targets != static_cast<double>(o.ignore_index);
  const Tensor labels = where(counted, targets, Tensor::scalar(0, DType::i64, targets.device()));
  // (N): what each example counts
  Tensor examples = counted.to(x.dtype());
  Tensor weights = one_hot(labels, classes, x.dtype());
  if (o.label_smoothing > 0)
    weights = weights * (1 - o.label_smoothing) + o.label_smoothing / static_cast<double>(classes);
  weights = weights * examples.unsqueeze(1);
  if (o.class_weights.defined()) {
    const Tensor class_weights = o.class_weights.to(x.dtype()).to(x.device());
    weights = weights * class_weights;
    examples = examples * index_select(class_weights, 0, labels);
  }
  return {weights, sum(examples)};
}

/// -sum(weights * log_probabilities), reduced.
Variable weighted_nll(const Variable& log_probabilities, const TargetWeights& target, Reduction reduction) {
  // Where the weight is 0, so is the product: a class of probability 0 that nobody asks for costs nothing.
  const Variable zero = Tensor::scalar(0, log_probabilities.dtype(), log_probabilities.device());
  const Variable weighted = where(target.weights != 0.0, log_probabilities * Variable(target.weights), zero);
  if (reduction == Reduction::none) return -sum(weighted, {1});
  const Variable total = -sum(weighted);
  return reduction == Reduction::sum ? total : total / Variable(target.total);
}

}  // namespace

Variable cross_entropy(const Variable& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  const TargetWeights target = target_weights(logits, targets, options, "cross_entropy");
  return weighted_nll(log_softmax(logits), target, options.reduction);
}

Variable nll_loss(const Variable& log_probabilities, const Tensor& targets, const CrossEntropyOptions& options) {
  check(options.label_smoothing == 0, "nll_loss", "expected no label smoothing, got {}; use cross_entropy",
        options.label_smoothing);
  const TargetWeights target = target_weights(log_probabilities, targets, options, "nll_loss");
  return weighted_nll(log_probabilities, target, options.reduction);
}

Variable bce_with_logits(const Variable& logits, const Variable& targets, Reduction reduction) {
  check_same_shape(logits, targets, "bce_with_logits");
  // relu(x) - x*t + log(1 + exp(-|x|)): neither sign of x leaves a difference of two large numbers. Which sign x has is
  // a constant to the gradient, so that no kink at 0 is one of its derivatives: with m = [x >= 0], s = 1 - 2m,
  // softplus(s*x) + x*(m - t).
  const Tensor positive = (logits.data() >= 0.0).to(logits.dtype());
  return reduced(softplus(logits * Variable(1 - 2 * positive)) + logits * (Variable(positive) - targets), reduction);
}

Variable mse_loss(const Variable& x, const Variable& y, Reduction reduction) {
  check_same_shape(x, y, "mse_loss");
  return reduced(square(x - y), reduction);
}

Variable l1_loss(const Variable& x, const Variable& y, Reduction reduction) {
  check_same_shape(x, y, "l1_loss");
  return reduced(abs(x - y), reduction);
}

Variable kl_divergence(const Variable& log_q, const Variable& log_p) {
  check_same_shape(log_q, log_p, "kl_divergence");
  check(log_q.rank() == 2, "kl_divergence", "expected log-probabilities (N,C), got shape {}", log_q.shape());
  const Variable p = exp(log_p);
  const Variable zero = Tensor::scalar(0, p.dtype(), p.device());
  // A class of probability 0 adds nothing: 0 log 0 = 0.
  const Variable terms = where(p.data() > 0, p * (log_p - log_q), zero);
  return sum(terms) / static_cast<double>(log_q.size(0));
}

}  // namespace espalier
