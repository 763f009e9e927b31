// Parameter: a trainable tensor with a name and an identity.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "autograd/weight_view.h"

namespace espalier {

class Module;
using ModulePtr = std::shared_ptr<Module>;

/// "masked", "dense".
const char* name_of(GradientFlow flow);
/// The inverse of name_of. Throws ArgumentError.
GradientFlow parse_gradient_flow(const std::string& text);

/// A trainable tensor, with an optional mask: a masked weight is exactly 0, before and after every step. The handle is
/// shared: an optimiser and the module that owns it see the same value.
class Parameter {
 public:
  /// Undefined: defined() is false. As an operand it is an undefined Variable, which operations take for "no bias".
  Parameter() = default;
  /// A leaf that requires a gradient. Throws unless the value is f32 or f64.
  Parameter(std::string name, Tensor value);

  bool defined() const { return state_ != nullptr; }
  /// The full name in the network it was last added to, such as "stage1.0.conv1.weight".
  const std::string& name() const;
  void set_name(std::string name);

  /// The leaf Variable: its value, its gradient.
  const Variable& variable() const;
  /// What operations compute with: the leaf, through the transforms in their order, and then through the mask. A masked
  /// parameter's operand carries the mask (Variable::weight_view).
  Variable operand() const;
  operator Variable() const { return operand(); }
  const Tensor& data() const { return variable().data(); }
  const Shape& shape() const { return data().shape(); }
  int64_t size(int axis) const { return data().size(axis); }
  int64_t numel() const { return data().numel(); }

  /// Replaces the tensor (moves, conversions, compaction); the identity stays. A gradient is forgotten, because it
  /// belonged to the old tensor. A masked parameter keeps its shape and its zeros.
  void set_data(Tensor data);
  /// Moves the value, and the gradient if there is one.
  void to(Device device);
  void to(DType dtype);

  /// Undefined before the first backward.
  Tensor grad() const;
  void zero_grad();
  /// A frozen parameter (false) gets no gradient and optimisers leave it alone.
  bool requires_grad() const { return variable().requires_grad(); }
  void set_requires_grad(bool requires_grad);

  /// Undefined (mask().defined() is false) when every weight exists.
  const Mask& mask() const;
  GradientFlow gradient_flow() const;
  /// Sets the masked weights, and their gradients under GradientFlow::masked, to 0. Optimisers forget what they kept of
  /// them. Throws unless the mask has the parameter's shape.
  void set_mask(const Mask& mask, GradientFlow flow = GradientFlow::masked);
  /// Every weight exists again; those that were masked start from 0.
  void clear_mask();

  /// Operations compute with what the transforms make of the leaf, in its shape, in place of the leaf: learned masks,
  /// gates, noise (layers/transforms.h). The mask comes last. Module::clone copies transforms, checkpoints hold them,
  /// and Module::train reaches them; their own parameters are for whoever adds the transform.
  const std::vector<ModulePtr>& transforms() const;
  void add_transform(ModulePtr transform);
  void set_transforms(std::vector<ModulePtr> transforms);
  /// Hardens the transforms: the value becomes what operations see of it in evaluation, and no transform is left.
  void fold_transforms();

  /// Identity, the key of optimiser state. Stays when the data is replaced.
  const void* id() const { return state_.get(); }

 private:
  struct State {
    std::string name;
    Variable variable;
    WeightViewPtr view = nullptr;  ///< nullptr: every weight exists
    std::vector<ModulePtr> transforms = {};

    void set_view(WeightViewPtr view);
  };
  State& state(const char* operation) const;

  std::shared_ptr<State> state_;
};

}  // namespace espalier
