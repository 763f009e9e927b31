#include "autograd/node.h"

#include <atomic>
#include <utility>

#include "autograd/engine.h"
#include "autograd/ops.h"

namespace espalier {

Saved::Saved(const Variable& variable) : variable_(variable) {
  if (!variable.defined()) return;
  storage_ = variable.data().storage();
  version_ = variable.data().version();
}

const Variable& Saved::unpack(const BackwardContext& context) const {
  if (!variable_.defined()) return variable_;
  const bool replaced = variable_.data().storage() != storage_;
  check(!replaced && variable_.data().version() == version_, "backward",
        "{} needs {}{} as it was in the forward pass, but it was {} since (version {}, expected {}); "
        "run backward before changing it, or change a clone",
        context.operation(), describe(variable_.data()),
        variable_.name().empty() ? "" : fmt::format(" '{}'", variable_.name()),
        replaced ? "replaced" : "changed in place", variable_.data().version(), version_);
  return variable_;
}

const char* BackwardContext::operation() const { return node_.operation(); }

Variable BackwardContext::pass_grad() const { return std::exchange(grads_.front(), Variable()); }

Tensor BackwardContext::take_grad() const { return Engine::take(pass_grad()); }

Variable BackwardContext::output(int i) const {
  const Node::Output& output = node_.outputs_[static_cast<size_t>(i)];
  check(output.value.version() == output.version, "backward",
        "{} needs its output {} as it was in the forward pass, but it was changed in place since (version {}, "
        "expected {}); run backward before changing it, or change a clone",
        node_.operation(), describe(output.value), output.value.version(), output.version);
  return Engine::make_result(output.value, node_.shared_from_this(), i);
}

Variable record(const Operation& operation, Tensor value, Variables inputs, Backward backward, SaveOutputs save,
                Attributes attributes) {
  std::vector<Tensor> values;
  values.push_back(std::move(value));
  return record(operation, std::move(values), std::move(inputs), std::move(backward), save, std::move(attributes))
      .front();
}

Variables record(const Operation& operation, std::vector<Tensor> values, Variables inputs, Backward backward,
                 SaveOutputs save, Attributes attributes) {
  static std::atomic<uint64_t> next_id = 1;
  bool needed = false;
  if (grad_enabled())
    for (const Variable& input : inputs) needed |= input.requires_grad();
  if (!needed) return Variables(values.begin(), values.end());

  const std::shared_ptr<Node> node(new Node);
  node->kind_ = operation;
  node->id_ = next_id.fetch_add(1, std::memory_order_relaxed);
  for (const Variable& input : inputs) {
    node->input_shapes_.push_back(input.defined() ? input.shape() : Shape{});
    Node::Edge& edge = node->edges_.emplace_back();
    if (!input.requires_grad()) continue;
    if (input.node()) {
      edge.node = input.node();
      edge.output = input.output_index();
    } else {
      edge.leaf = input;
    }
  }
  node->backward_ = std::move(backward);
  node->attributes_ = std::move(attributes);
  Variables results;
  for (size_t i = 0; i < values.size(); ++i) {
    const Tensor& value = values[i];
    node->outputs_.push_back(
        {value.shape(), value.dtype(), save == SaveOutputs::yes ? value : Tensor(), value.version()});
    // Integer outputs (indices) have no gradient.
    results.push_back(is_floating(value.dtype()) ? Engine::make_result(value, node, static_cast<int>(i))
                                                 : Variable(value));
  }
  return results;
}

void require_first_derivative_only(const BackwardContext& context) {
  check(!grad_enabled(), "backward",
        "{} has no second derivative; differentiate without create_graph, or build it from operations that have one",
        context.operation());
}

Variables gradients_by_recomputing(const std::function<Variables(const Variables&)>& forward,
                                   const std::vector<Saved>& inputs, const BackwardContext& context) {
  // Every input gets a node of its own, so that one variable given twice has two gradients.
  Variables aliases;
  for (const Saved& input : inputs) {
    const Variable& value = input.unpack(context);
    aliases.push_back(value.defined() ? reshape(value, value.shape()) : value);
  }
  const Variables outputs = forward(aliases);
  Variables used_outputs, used_gradients, wanted;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!context.grad(static_cast<int>(i)).defined()) continue;
    used_outputs.push_back(outputs[i]);
    used_gradients.push_back(context.grad(static_cast<int>(i)));
  }
  std::vector<size_t> positions;
  for (size_t i = 0; i < aliases.size(); ++i) {
    if (!context.needs(static_cast<int>(i))) continue;
    wanted.push_back(aliases[i]);
    positions.push_back(i);
  }
  const Variables found =
      grad(used_outputs, wanted, {.create_graph = true, .allow_unused = true, .grad_outputs = used_gradients});
  Variables gradients(inputs.size());
  for (size_t i = 0; i < positions.size(); ++i) gradients[positions[i]] = found[i];
  return gradients;
}

Node::~Node() {
  // What a node owns may own the previous node, and so on to the start of a long chain. Hand it to whoever is already
  // tearing down on this thread, so that the depth of the stack does not grow with the length of the graph.
  struct Remains {
    std::vector<Edge> edges;
    Backward backward;
  };
  thread_local std::vector<Remains>* pending = nullptr;
  if (pending) {
    pending->push_back({std::move(edges_), std::move(backward_)});
    return;
  }
  std::vector<Remains> queue;
  pending = &queue;
  queue.push_back({std::move(edges_), std::move(backward_)});
  while (!queue.empty()) {
    const Remains last = std::move(queue.back());
    queue.pop_back();
  }
  pending = nullptr;
}

}  // namespace espalier
