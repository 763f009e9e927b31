// Node: one recorded operation. Included by autograd/ops/*.cpp and by whoever adds an operation.
#pragma once

#include "autograd/variable.h"

namespace espalier {

/// A Variable kept for the backward pass. It remembers the tensor's version: unpacking it after an in-place change
/// throws an error that names the operation and the tensor. Never save an operation's own output like this (a
/// node that owns its result is a leak): use SaveOutputs and BackwardContext::output.
class Saved {
 public:
  Saved() = default;
  Saved(const Variable& variable) : variable_(variable), version_(variable.defined() ? variable.data().version() : 0) {}
  Saved(const Tensor& tensor) : Saved(Variable(tensor)) {}
  const Variable& unpack(const class BackwardContext& context) const;

 private:
  Variable variable_;
  uint64_t version_ = 0;
};

/// What a backward function gets.
class BackwardContext {
 public:
  BackwardContext(Node& node, const Variables& grads) : node_(node), grads_(grads) {}
  /// Gradient of output i, in its shape. Undefined when nothing depended on that output (only with several outputs).
  const Variable& grad(int i = 0) const { return grads_[static_cast<size_t>(i)]; }
  /// Whether input i needs a gradient; computing others is wasted work.
  bool needs(int i) const;
  /// Output i of the forward pass; the operation must have been recorded with SaveOutputs::yes.
  Variable output(int i = 0) const;
  const char* operation() const;

 private:
  Node& node_;
  const Variables& grads_;
};

/// Returns one gradient for each input, by position, in that input's shape; undefined means zero or not needed.
/// Written with differentiable operations, so that recording it gives second derivatives.
using Backward = std::function<Variables(const BackwardContext&)>;

enum class SaveOutputs : uint8_t { no, yes };

/// Makes the result of an operation: a Variable on `value` that remembers `inputs` and `backward` if gradients are
/// enabled and any input requires one. The engine checks the number, shape and dtype of what `backward` returns.
Variable record(const char* operation, Tensor value, Variables inputs, Backward backward,
                SaveOutputs save = SaveOutputs::no);
/// The same with several outputs.
Variables record(const char* operation, std::vector<Tensor> values, Variables inputs, Backward backward,
                 SaveOutputs save = SaveOutputs::no);

/// Throws if a second derivative is being recorded through an operation that has none.
void require_first_derivative_only(const BackwardContext& context);

class Node : public std::enable_shared_from_this<Node> {
 public:
  ~Node();
  const char* operation() const { return operation_; }
  /// The variables this operation was computed from.
  const Variables& inputs() const { return inputs_; }
  int num_outputs() const { return static_cast<int>(outputs_.size()); }
  /// Increases with creation: a node's inputs have smaller ids.
  uint64_t id() const { return id_; }

 private:
  friend struct Engine;
  friend class BackwardContext;
  friend Variables record(const char*, std::vector<Tensor>, Variables, Backward, SaveOutputs);
  struct Output {
    Shape shape;
    DType dtype;
    Tensor value;  ///< defined with SaveOutputs::yes
    uint64_t version = 0;
  };
  Node() = default;

  const char* operation_ = nullptr;
  uint64_t id_ = 0;
  Variables inputs_;
  std::vector<Output> outputs_;
  Backward backward_;
  bool released_ = false;  ///< backward has run and freed what it needed
};

}  // namespace espalier
