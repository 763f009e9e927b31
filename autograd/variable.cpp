#include "autograd/variable.h"

#include "autograd/engine.h"

namespace espalier {
namespace {

thread_local bool grad_is_enabled = true;

/// The gradient to start from: as given, or 1 for an output of one element.
Variable initial_gradient(const Variable& output, const Variable& given, const char* operation) {
  check(output.defined(), operation, "expected a variable, got an undefined one");
  check(output.requires_grad(), operation, "the output {} depends on nothing that requires a gradient",
        describe(output.data()));
  if (!given.defined()) {
    check(output.numel() == 1, operation,
          "expected a gradient for an output of shape {}; only one element has a default", output.shape());
    return Tensor::ones_like(output.data());
  }
  check(given.shape() == output.shape() && given.dtype() == output.dtype(), operation,
        "expected a gradient like the output, {}, got {}", describe(output.data()), describe(given.data()));
  return given;
}

}  // namespace

Variable::Variable(Tensor data, bool requires_grad) : impl_(std::make_shared<Impl>()) {
  impl_->data = std::move(data);
  if (requires_grad) set_requires_grad(true);
}

const Tensor& Variable::data() const {
  check(defined(), "variable", "expected a variable, got an undefined one");
  return impl_->data;
}

void Variable::set_data(Tensor data) {
  check(is_leaf(), "set_data", "expected a leaf, got the result of {}", impl_->node ? impl_->node->operation() : "");
  impl_->data = std::move(data);
}

bool Variable::requires_grad() const { return impl_ && (impl_->requires_grad || impl_->node); }

void Variable::set_requires_grad(bool requires_grad) {
  check(is_leaf(), "set_requires_grad", "expected a leaf; detach() the result of {} first",
        impl_->node ? impl_->node->operation() : "");
  check(!requires_grad || is_floating(dtype()), "set_requires_grad", "only f32 and f64 have gradients, got {}",
        describe(data()));
  impl_->requires_grad = requires_grad;
}

bool Variable::is_leaf() const {
  check(defined(), "variable", "expected a variable, got an undefined one");
  return !impl_->node;
}

Variable Variable::grad() const {
  check(defined(), "grad", "expected a variable, got an undefined one");
  return impl_->grad;
}

void Variable::set_grad(Variable grad) {
  check(!grad.defined() || (grad.shape() == shape() && grad.dtype() == dtype()), "set_grad",
        "expected a gradient like the variable, {}, got {}", describe(data()),
        grad.defined() ? describe(grad.data()) : "");
  impl_->grad = std::move(grad);
}

void Variable::zero_grad() {
  if (impl_) impl_->grad = Variable();
}

void Variable::backward(const Variable& gradient, BackwardOptions options) const {
  const Variable start = initial_gradient(*this, gradient, "backward");
  Engine::run({{*this, start}}, nullptr, options);
}

Variable Variable::detach() const { return Variable(data()); }

const std::string& Variable::name() const {
  static const std::string kNone;
  return impl_ ? impl_->name : kNone;
}

void Variable::set_name(std::string name) { impl_->name = std::move(name); }

const std::shared_ptr<Node>& Variable::node() const {
  check(defined(), "variable", "expected a variable, got an undefined one");
  return impl_->node;
}

int Variable::output_index() const { return impl_->output_index; }

const std::shared_ptr<const WeightView>& Variable::weight_view() const {
  static const std::shared_ptr<const WeightView> kNone;
  return impl_ ? impl_->weight_view : kNone;
}

void Variable::set_weight_view(std::shared_ptr<const WeightView> view) {
  check(defined(), "set_weight_view", "expected a variable, got an undefined one");
  impl_->weight_view = std::move(view);
}

Variable Engine::make_result(Tensor data, std::shared_ptr<Node> node, int index) {
  Variable result(std::move(data));
  result.impl_->node = std::move(node);
  result.impl_->output_index = index;
  return result;
}

bool Engine::is_only_handle(const Variable& variable) {
  return variable.impl_.use_count() == 1 && variable.data().storage().use_count() == 1;
}

Tensor Engine::take(Variable variable) {
  const Tensor& data = variable.data();
  if (!data.is_contiguous()) return data.contiguous();
  return is_only_handle(variable) ? data : data.clone();
}

Variables grad(const Variables& outputs, const Variables& inputs, GradOptions options) {
  check(options.grad_outputs.empty() || options.grad_outputs.size() == outputs.size(), "grad",
        "expected a gradient for each of the {} outputs, got {}", outputs.size(), options.grad_outputs.size());
  std::vector<Engine::Root> roots;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Variable given = options.grad_outputs.empty() ? Variable() : options.grad_outputs[i];
    roots.push_back({outputs[i], initial_gradient(outputs[i], given, "grad")});
  }
  for (size_t i = 0; i < inputs.size(); ++i)
    check(inputs[i].requires_grad(), "grad", "input {} ('{}') requires no gradient", i, inputs[i].name());
  Variables gradients =
      Engine::run(roots, &inputs, {.retain_graph = options.retain_graph, .create_graph = options.create_graph});
  for (size_t i = 0; i < inputs.size(); ++i)
    check(gradients[i].defined() || options.allow_unused, "grad",
          "the outputs do not depend on input {} ('{}'); set allow_unused to get an undefined gradient", i,
          inputs[i].name());
  return gradients;
}

NoGrad::NoGrad() : before_(grad_is_enabled) { grad_is_enabled = false; }
NoGrad::~NoGrad() { grad_is_enabled = before_; }
bool grad_enabled() { return grad_is_enabled; }
void set_grad_enabled(bool enabled) { grad_is_enabled = enabled; }

}  // namespace espalier
