#include "layers/parameter.h"

#include "autograd/ops.h"
#include "layers/module.h"

namespace espalier {

const char* name_of(GradientFlow flow) { return flow == GradientFlow::masked ? "masked" : "dense"; }

GradientFlow parse_gradient_flow(const std::string& text) {
  for (GradientFlow flow : {GradientFlow::masked, GradientFlow::dense})
    if (text == name_of(flow)) return flow;
  fail("gradient flow", "expected 'masked' or 'dense', got '{}'", text);
}

Parameter::Parameter(std::string name, Tensor value) {
  check(value.defined() && is_floating(value.dtype()), "Parameter", "'{}' must be a f32 or f64 tensor, got {}", name,
        value.defined() ? name_of(value.dtype()) : "an undefined one");
  state_ = std::make_shared<State>(State{name, Variable(std::move(value), true)});
  state_->variable.set_name(std::move(name));
}

Parameter::State& Parameter::state(const char* operation) const {
  check(defined(), operation, "expected a parameter, got an undefined one (a layer built without bias?)");
  return *state_;
}

const std::string& Parameter::name() const { return state("Parameter::name").name; }

void Parameter::set_name(std::string name) {
  State& state = this->state("Parameter::set_name");
  state.variable.set_name(name);
  state.name = std::move(name);
}

const Variable& Parameter::variable() const {
  static const Variable kUndefined;
  return state_ ? state_->variable : kUndefined;
}

Variable Parameter::operand() const {
  if (!state_) return variable();
  if (state_->transforms.empty()) {  // masked weights are 0 as they are
    const bool masks_gradient = state_->view && state_->view->flow == GradientFlow::masked;
    return masks_gradient ? mask_gradient(state_->variable, state_->view) : state_->variable;
  }
  Variable x = state_->variable;
  for (const ModulePtr& transform : state_->transforms) {
    x = transform->forward(x);
    check(x.shape() == shape(), "Parameter::operand", "the {} of '{}' gives {}, expected the parameter's shape {}",
          transform->type(), state_->name, x.shape(), shape());
  }
  return state_->view ? apply_mask(x, state_->view) : x;
}

/// With dense gradients the leaf itself is the operand.
void Parameter::State::set_view(WeightViewPtr changed) {
  view = std::move(changed);
  variable.set_weight_view(view && view->flow == GradientFlow::dense ? view : nullptr);
}

void Parameter::set_data(Tensor data) {
  State& state = this->state("Parameter::set_data");
  if (state.view) {
    const Mask& mask = state.view->mask;
    check(data.shape() == mask.shape(), "Parameter::set_data",
          "'{}' is masked, so its shape stays {}, got {}; clear or replace the mask first", state.name, mask.shape(),
          data.shape());
    state.set_view(
        std::make_shared<WeightView>(WeightView{mask.to(data.device()), state.view->flow, state.view->plan}));
    data = data.contiguous();
    state.view->mask.apply_(data);
  }
  state.variable.zero_grad();
  state.variable.set_data(std::move(data));
}

namespace {
/// Replaces value and gradient by their conversions.
template <class Target>
void convert(Parameter& parameter, Target target) {
  const Tensor gradient = parameter.grad();
  parameter.set_data(parameter.data().to(target));
  if (!gradient.defined()) return;
  Variable variable = parameter.variable();
  variable.set_grad(gradient.to(target));
}
}  // namespace

void Parameter::to(Device device) {
  if (data().device() != device) convert(*this, device);
}

void Parameter::to(DType dtype) {
  check(is_floating(dtype), "Parameter::to", "parameters are f32 or f64, got {}", name_of(dtype));
  if (data().dtype() != dtype) convert(*this, dtype);
}

Tensor Parameter::grad() const {
  const Variable gradient = variable().defined() ? variable().grad() : Variable();
  return gradient.defined() ? gradient.data() : Tensor();
}

const Mask& Parameter::mask() const {
  static const Mask kUndefined;
  const State& state = this->state("Parameter::mask");
  return state.view ? state.view->mask : kUndefined;
}

GradientFlow Parameter::gradient_flow() const {
  const State& state = this->state("Parameter::gradient_flow");
  return state.view ? state.view->flow : GradientFlow::masked;
}

void Parameter::set_mask(const Mask& mask, GradientFlow flow) {
  State& state = this->state("Parameter::set_mask");
  check(mask.defined() && mask.shape() == shape(), "Parameter::set_mask", "'{}' expects a mask of shape {}, got {}",
        state.name, shape(), mask.defined() ? mask.shape().to_string() : "an undefined one");
  const std::shared_ptr<PlanSlot> plan = state.view ? state.view->plan : std::make_shared<PlanSlot>();
  state.set_view(std::make_shared<WeightView>(WeightView{mask.to(data().device()), flow, plan}));
  if (!data().is_contiguous()) state.variable.set_data(data().clone());
  Tensor values = data();
  state.view->mask.apply_(values);
  if (flow == GradientFlow::masked && grad().defined()) state.variable.set_grad(state.view->mask.apply(grad()));
}

void Parameter::clear_mask() { state("Parameter::clear_mask").set_view(nullptr); }

const std::vector<ModulePtr>& Parameter::transforms() const { return state("Parameter::transforms").transforms; }

void Parameter::add_transform(ModulePtr transform) {
  check(transform != nullptr, "Parameter::add_transform", "expected a transform for '{}', got a null pointer", name());
  state("Parameter::add_transform").transforms.push_back(std::move(transform));
}

void Parameter::set_transforms(std::vector<ModulePtr> transforms) {
  State& state = this->state("Parameter::set_transforms");
  state.transforms.clear();
  for (ModulePtr& transform : transforms) add_transform(std::move(transform));
}

void Parameter::fold_transforms() {
  if (transforms().empty()) return;
  const NoGrad no_grad;
  for (const ModulePtr& transform : transforms()) transform->eval();
  Tensor values = data();
  values.copy_(operand().data());
  set_transforms({});
}

void Parameter::zero_grad() { state("Parameter::zero_grad").variable.zero_grad(); }

void Parameter::set_requires_grad(bool requires_grad) {
  state("Parameter::set_requires_grad").variable.set_requires_grad(requires_grad);
}

}  // namespace espalier
