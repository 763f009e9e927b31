// Scoring: what the criteria that differentiate share. Not for others.
#pragma once

#include "core/random.h"
#include "pruning/criteria/criterion.h"

namespace espalier {

/// While alive, operations on this thread record history, whatever the caller has set.
class RecordHistory {
 public:
  RecordHistory() : before_(grad_enabled()) { set_grad_enabled(true); }
  ~RecordHistory() { set_grad_enabled(before_); }
  RecordHistory(const RecordHistory&) = delete;
  RecordHistory& operator=(const RecordHistory&) = delete;

 private:
  bool before_;
};

/// While alive the network is in evaluation mode, gradients are recorded and every scored leaf requires one, frozen or
/// not; then all is as it was, the default generator too. `.grad` is never touched: gradients are asked for by name.
class Scoring {
 public:
  /// Throws, naming the criterion, when there is no data.
  Scoring(const Criterion& criterion, const std::vector<Parameter>& parameters, const CriterionInput& input);
  ~Scoring();
  Scoring(const Scoring&) = delete;
  Scoring& operator=(const Scoring&) = delete;

  /// f(batch, share) for each batch; share: of all the examples drawn. Shares add up to 1.
  void for_each(const std::function<void(const Batch&, double)>& f) const;
  /// The same in pieces of at most `examples` examples.
  void for_each_piece(int64_t examples, const std::function<void(const Batch&, double)>& f) const;

  /// Gradients of the mean loss of a batch, in the parameters' order and shapes; 0 where it depends on nothing.
  Variables gradients(const Batch& batch, bool create_graph = false) const;
  /// Gradients of the mean loss over all examples drawn.
  std::vector<Tensor> mean_gradients() const;
  /// H v for the loss whose gradients, recorded with create_graph, these are. May be called again.
  std::vector<Tensor> hessian_product(const Variables& gradients, const std::vector<Tensor>& v) const;

  std::vector<Tensor> zeros() const;
  /// Saliencies of f(value, weight) for each parameter.
  Saliencies combine(const std::vector<Tensor>& values,
                     const std::function<Tensor(const Tensor& value, const Tensor& weight)>& f) const;

 private:
  const Criterion& criterion_;
  const CriterionInput& input_;
  std::vector<Parameter> parameters_;
  Variables leaves_;
  int64_t examples_ = 0;
  EvalMode mode_;
  RecordHistory recording_;
  std::vector<bool> requires_grad_before_;
  Generator generator_before_;
};

/// Values in row-major order as a tensor like the parameter's: shape, dtype, device.
Tensor like(const Parameter& parameter, const std::vector<double>& values);

}  // namespace espalier
