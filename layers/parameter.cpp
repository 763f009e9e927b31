#include "layers/parameter.h"

namespace espalier {

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

void Parameter::set_data(Tensor data) {
  State& state = this->state("Parameter::set_data");
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

void Parameter::zero_grad() { state("Parameter::zero_grad").variable.zero_grad(); }

void Parameter::set_requires_grad(bool requires_grad) {
  state("Parameter::set_requires_grad").variable.set_requires_grad(requires_grad);
}

}  // namespace espalier
