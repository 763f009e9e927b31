// Node: one recorded operation. Included by autograd/ops/*.cpp and by whoever adds an operation.
#pragma once

#include <any>
#include <typeinfo>

#include "autograd/variable.h"

namespace espalier {

/// A Variable kept for the backward pass. It remembers the tensor's version: unpacking it after an in-place change
/// throws an error that names the operation and the tensor. Never save an operation's own output like this (a
/// node that owns its result is a leak): use SaveOutputs and BackwardContext::output.
class Saved {
 public:
  Saved() = default;
  Saved(const Variable& variable);
  Saved(const Tensor& tensor) : Saved(Variable(tensor)) {}
  const Variable& unpack(const class BackwardContext& context) const;

 private:
  Variable variable_;
  std::shared_ptr<Storage> storage_;  ///< what variable_ held when it was saved
  uint64_t version_ = 0;
};

/// What a backward function gets.
class BackwardContext {
 public:
  BackwardContext(Node& node, Variables& grads, const std::vector<bool>& needed)
      : node_(node), grads_(grads), needed_(needed) {}
  /// Gradient of output i, in its shape. Undefined when nothing depended on that output (only with several outputs).
  const Variable& grad(int i = 0) const { return grads_[static_cast<size_t>(i)]; }
  /// Gradient of the only output for a backward function that changes it in place: contiguous, and nobody else sees it,
  /// because it is copied where others hold it. grad() is undefined after this.
  Tensor take_grad() const;
  /// The same gradient for a backward function that hands it on as it is: grad() is undefined after this, so that
  /// nobody else holds it.
  Variable pass_grad() const;
  /// Whether the gradient of input i is wanted; computing others is wasted work.
  bool needs(int i) const { return needed_[static_cast<size_t>(i)]; }
  /// Output i of the forward pass; the operation must have been recorded with SaveOutputs::yes.
  Variable output(int i = 0) const;
  const char* operation() const;

 private:
  Node& node_;
  Variables& grads_;
  const std::vector<bool>& needed_;
};

/// Returns one gradient for each input, by position, in that input's shape; undefined means zero or not needed.
/// Written with differentiable operations, so that recording it gives second derivatives.
using Backward = std::function<Variables(const BackwardContext&)>;

enum class SaveOutputs : uint8_t { no, yes };

struct AxisCall;
struct TracedTensor;
/// What an operation does with the axes of its operands (autograd/axes.h): the axes of each output.
using AxisRule = std::vector<TracedTensor> (*)(const AxisCall& call);

/// Where the result of an operation on weights is 0 because masked weights are.
enum class Zeros : uint8_t {
  of_all,    ///< where all operands are: what moves values, or gives 0 for 0
  of_sum,    ///< where two operands are, neither repeated
  of_any,    ///< where one operand is: products
  of_first,  ///< where the first operand is: quotients
  none,      ///< nowhere: 0 becomes something
};

/// What is known of an operation besides its values and its gradient.
struct Operation {
  /// Without a rule the operation computes and trains; tracing channels through it is an error that names it.
  constexpr Operation(const char* its_name, AxisRule rule = nullptr, Zeros result = Zeros::of_all)
      : name(its_name), axes(rule), zeros(result) {}

  const char* name;  ///< lives as long as the program
  AxisRule axes;
  Zeros zeros;
};

/// What an operation's axis rule needs to know beyond shapes, in a type of the operation's own: the axis of a cat, the
/// order of a permute.
using Attributes = std::any;

/// Makes the result of an operation: a Variable on `value` that remembers `inputs` and `backward` if gradients are
/// enabled and any input requires one. The engine checks the number, shape and dtype of what `backward` returns.
Variable record(const Operation& operation, Tensor value, Variables inputs, Backward backward,
                SaveOutputs save = SaveOutputs::no, Attributes attributes = {});
/// The same with several outputs.
Variables record(const Operation& operation, std::vector<Tensor> values, Variables inputs, Backward backward,
                 SaveOutputs save = SaveOutputs::no, Attributes attributes = {});

/// Throws if a second derivative is being recorded through an operation that has none.
void require_first_derivative_only(const BackwardContext& context);

/// Gradients of an operation whose forward pass is one fused kernel, when the backward pass itself is recorded: runs
/// `forward`, the same function written with differentiable operations, again and differentiates that.
Variables gradients_by_recomputing(const std::function<Variables(const Variables&)>& forward,
                                   const std::vector<Saved>& inputs, const BackwardContext& context);

class Node : public std::enable_shared_from_this<Node> {
 public:
  /// Where an input of the operation came from. It keeps no tensor alive that backward does not need.
  struct Edge {
    std::shared_ptr<Node> node;  ///< the operation that computed the input, or nullptr
    int output = 0;              ///< which output of that operation
    Variable leaf;               ///< the leaf itself, when it requires a gradient
    bool needs_grad() const { return node || leaf.defined(); }
  };

  ~Node();
  const char* operation() const { return kind_.name; }
  const Operation& kind() const { return kind_; }
  const std::vector<Edge>& edges() const { return edges_; }
  const Shape& output_shape(int i) const { return outputs_[static_cast<size_t>(i)].shape; }
  int num_outputs() const { return static_cast<int>(outputs_.size()); }
  /// Of every input, those without gradient too; an undefined input has the empty shape.
  const std::vector<Shape>& input_shapes() const { return input_shapes_; }
  /// What the operation recorded. Throws when that is nothing, or of another type.
  template <class T>
  const T& attributes() const {
    const T* found = std::any_cast<T>(&attributes_);
    check(found != nullptr, operation(), "expected attributes of type {}, got {}", typeid(T).name(),
          attributes_.type().name());
    return *found;
  }
  /// Increases with creation: a node's inputs have smaller ids.
  uint64_t id() const { return id_; }

 private:
  friend struct Engine;
  friend class BackwardContext;
  friend Variables record(const Operation&, std::vector<Tensor>, Variables, Backward, SaveOutputs, Attributes);
  struct Output {
    Shape shape;
    DType dtype;
    Tensor value;  ///< defined with SaveOutputs::yes
    uint64_t version = 0;
  };
  Node() = default;

  Operation kind_ = "";
  uint64_t id_ = 0;
  std::vector<Edge> edges_;
  std::vector<Shape> input_shapes_;
  Attributes attributes_;
  std::vector<Output> outputs_;
  Backward backward_;
  bool released_ = false;  ///< backward has run and freed what it needed
};

}  // namespace espalier
