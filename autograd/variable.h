// Variable: a Tensor with history, and the functions that walk the history backwards.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace espalier {

class Node;
class Variable;
struct WeightView;
using Variables = std::vector<Variable>;
using LeafHook = std::function<void(const Variable& leaf)>;

struct BackwardOptions {
  bool retain_graph = false;  ///< keep what backward needs, so that it can run again
  bool create_graph = false;  ///< record the backward pass itself, for second derivatives; implies retain_graph
  /// Called once for each leaf to which this pass brings a gradient, as soon as nothing more can come: leaf.grad() is
  /// final then, and may be read, changed or replaced, while other leaves still wait for theirs. Leaves that were used
  /// last come first. An exception ends the pass: the leaves told before have their gradients, and to run backward
  /// again takes another forward pass.
  LeafHook on_leaf_gradient = {};
};

/// A value in a computation. Copying a Variable shares it. A leaf is made by a user; other Variables are results of
/// operations and remember, if any input requires a gradient, how they were computed.
class Variable {
 public:
  /// An undefined variable: defined() is false.
  Variable() = default;
  /// A leaf. Implicit, so that plain tensors can be operands.
  Variable(Tensor data, bool requires_grad = false);

  bool defined() const { return impl_ != nullptr; }
  const Tensor& data() const;
  /// Replaces the tensor of a leaf (loading, moving to a device, compaction).
  void set_data(Tensor data);

  const Shape& shape() const { return data().shape(); }
  int rank() const { return data().rank(); }
  int64_t size(int axis) const { return data().size(axis); }
  int64_t numel() const { return data().numel(); }
  DType dtype() const { return data().dtype(); }
  Device device() const { return data().device(); }
  double item() const { return data().item(); }

  bool requires_grad() const;
  /// Leaves only.
  void set_requires_grad(bool requires_grad);
  bool is_leaf() const;

  /// The gradient of a leaf, accumulated over backward calls; undefined before the first.
  Variable grad() const;
  void set_grad(Variable grad);
  /// Forgets the gradient; its memory goes back to the allocator.
  void zero_grad();

  /// Accumulates d(this)/d(leaf) into the grad of every leaf it depends on. `gradient` defaults to 1 for one element.
  void backward(const Variable& gradient = {}, BackwardOptions options = {}) const;

  /// The same tensor without history.
  Variable detach() const;

  /// A name for messages ("conv1.weight").
  const std::string& name() const;
  void set_name(std::string name);

  /// The operation that computed this, or nullptr for a leaf; and which of its outputs this is.
  const std::shared_ptr<Node>& node() const;
  int output_index() const;

  /// Which elements exist, when this is a masked weight (autograd/weight_view.h); nullptr of everything else. Results
  /// of operations have none, but for mask_gradient and the gradients of weights.
  const std::shared_ptr<const WeightView>& weight_view() const;
  void set_weight_view(std::shared_ptr<const WeightView> view);

  // The functions of autograd/ops.h that Tensor has as methods, and the commonest others.
  Variable reshape(const Shape& shape) const;
  Variable permute(const std::vector<int>& axes) const;
  Variable transpose(int axis0, int axis1) const;
  Variable slice(int axis, int64_t start, int64_t end, int64_t step = 1) const;
  Variable select(int axis, int64_t index) const;
  Variable expand(const Shape& shape) const;
  Variable squeeze(int axis) const;
  Variable unsqueeze(int axis) const;
  Variable flatten(int first, int last = -1) const;
  Variable to(DType dtype) const;
  Variable to(Device device) const;
  Variable abs() const;
  Variable square() const;
  Variable sqrt() const;
  Variable exp() const;
  Variable log() const;
  Variable tanh() const;
  Variable sigmoid() const;
  Variable relu() const;
  Variable sum(const std::vector<int>& axes = {}, bool keep_axes = false) const;
  Variable mean(const std::vector<int>& axes = {}, bool keep_axes = false) const;
  Variable matmul(const Variable& other) const;

  /// Identity: two handles on one value.
  bool is_same(const Variable& other) const { return impl_ == other.impl_; }
  const void* id() const { return impl_.get(); }

 private:
  friend struct Engine;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

struct GradOptions {
  bool retain_graph = false;
  bool create_graph = false;
  bool allow_unused = false;    ///< an input that the outputs do not depend on gets an undefined Variable, not an error
  Variables grad_outputs = {};  ///< gradients of the outputs; default: ones, for outputs of one element
};

/// d(outputs)/d(inputs), without touching any .grad. With create_graph the results can be differentiated again.
Variables grad(const Variables& outputs, const Variables& inputs, GradOptions options = {});

/// While alive, operations on this thread record no history.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// Whether operations on this thread record history.
bool grad_enabled();
void set_grad_enabled(bool enabled);

}  // namespace espalier
