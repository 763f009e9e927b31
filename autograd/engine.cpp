#include "autograd/engine.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "autograd/ops.h"

namespace espalier {
namespace {

/// Restores whether history is recorded, also after an exception.
class GradModeGuard {
 public:
  explicit GradModeGuard(bool enabled) : before_(grad_enabled()) { set_grad_enabled(enabled); }
  ~GradModeGuard() { set_grad_enabled(before_); }

 private:
  bool before_;
};

/// All nodes that the roots depend on, newest first: every node comes before the nodes of its inputs.
std::vector<std::shared_ptr<Node>> nodes_behind(const std::vector<Engine::Root>& roots) {
  std::vector<std::shared_ptr<Node>> found;
  std::unordered_set<const Node*> seen;
  const auto visit = [&](const std::shared_ptr<Node>& node) {
    if (node && seen.insert(node.get()).second) found.push_back(node);
  };
  for (const Engine::Root& root : roots) visit(root.variable.node());
  for (size_t i = 0; i < found.size(); ++i) {
    const std::shared_ptr<Node> node = found[i];  // a copy: visit may move the vector
    for (const Node::Edge& edge : node->edges()) visit(edge.node);
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a->id() > b->id(); });
  return found;
}

void accumulate(Variable& into, const Variable& gradient) {
  if (!gradient.defined()) return;
  into = into.defined() ? into + gradient : gradient;
}

/// A leaf's gradient is its own: nothing else may see it change (clipping), and optimisers want it contiguous.
Variable own(Variable gradient, bool create_graph) {
  const Tensor& data = gradient.data();
  if (Engine::is_only_handle(gradient) && data.is_contiguous()) return gradient;
  return create_graph ? gradient * 1.0 : Variable(data.clone());
}

/// Where gradients asked for by name are collected.
class Targets {
 public:
  explicit Targets(const Variables& targets) : targets_(targets), gradients_(targets.size()) {
    for (size_t i = 0; i < targets.size(); ++i) {
      if (targets[i].node())
        by_node_[targets[i].node().get()].push_back(i);
      else
        by_leaf_[targets[i].id()].push_back(i);
    }
  }
  bool contain(const Node::Edge& edge) const {
    return edge.node ? by_node_.contains(edge.node.get()) : edge.leaf.defined() && by_leaf_.contains(edge.leaf.id());
  }
  void add(const Variable& leaf, const Variable& gradient) {
    const auto found = by_leaf_.find(leaf.id());
    if (found == by_leaf_.end()) return;
    for (size_t i : found->second) accumulate(gradients_[i], gradient);
  }
  void take_outputs_of(const Node* node, const Variables& gradients) {
    const auto found = by_node_.find(node);
    if (found == by_node_.end()) return;
    for (size_t i : found->second) gradients_[i] = gradients[static_cast<size_t>(targets_[i].output_index())];
  }
  Variables take() { return std::move(gradients_); }

 private:
  const Variables& targets_;
  Variables gradients_;
  std::unordered_map<const Node*, std::vector<size_t>> by_node_;
  std::unordered_map<const void*, std::vector<size_t>> by_leaf_;
};

/// Decides which gradients are worth computing: all, or those on a way to a target.
class Wanted {
 public:
  /// `newest_first` as from nodes_behind.
  Wanted(const Targets* targets, const std::vector<std::shared_ptr<Node>>& newest_first) : targets_(targets) {
    if (!targets) return;
    for (auto node = newest_first.rbegin(); node != newest_first.rend(); ++node)
      for (const Node::Edge& edge : (*node)->edges())
        if (wants(edge)) {
          useful_.insert(node->get());
          break;
        }
  }
  bool wants(const Node* node) const { return !targets_ || useful_.contains(node); }
  bool wants(const Node::Edge& edge) const {
    if (!targets_) return edge.needs_grad();
    return targets_->contain(edge) || (edge.node && useful_.contains(edge.node.get()));
  }

 private:
  const Targets* targets_;
  std::unordered_set<const Node*> useful_;
};

/// Tells a hook of each leaf whose gradient is final: nothing that is still to run has the leaf as an input.
class FinalGradients {
 public:
  FinalGradients(const LeafHook& hook, const std::vector<std::shared_ptr<Node>>& nodes) : hook_(hook) {
    if (!hook_) return;
    for (const std::shared_ptr<Node>& node : nodes)
      for (const Node::Edge& edge : node->edges())
        if (edge.leaf.defined()) ++leaves_[edge.leaf.id()].uses;
  }
  void add_gradient(const Variable& leaf) {
    if (hook_) leaves_[leaf.id()].has_gradient = true;
  }
  /// The node has run, or it never will.
  void close(const Node& node) {
    if (!hook_) return;
    for (const Node::Edge& edge : node.edges()) {
      if (!edge.leaf.defined()) continue;
      --leaves_.at(edge.leaf.id()).uses;
      tell_if_final(edge.leaf);
    }
  }
  void tell_if_final(const Variable& leaf) {
    if (!hook_) return;
    const Leaf& state = leaves_.at(leaf.id());
    if (state.uses == 0 && state.has_gradient) hook_(leaf);
  }

 private:
  struct Leaf {
    int64_t uses = 0;  ///< by nodes that are still to run
    bool has_gradient = false;
  };
  const LeafHook& hook_;
  std::unordered_map<const void*, Leaf> leaves_;
};

}  // namespace

Variables Engine::run(const std::vector<Root>& roots, const Variables* inputs, const BackwardOptions& options) {
  const bool create_graph = options.create_graph, retain_graph = options.retain_graph || create_graph;
  const GradModeGuard mode(create_graph);
  std::unordered_map<const Node*, Variables> pending;  // gradients of each node's outputs, so far
  std::optional<Targets> targets;
  if (inputs) targets.emplace(*inputs);

  const std::vector<std::shared_ptr<Node>> nodes = nodes_behind(roots);
  const Wanted wanted(targets ? &*targets : nullptr, nodes);
  FinalGradients final_gradients(options.on_leaf_gradient, nodes);

  const auto deliver_to_leaf = [&](const Variable& leaf, Variable gradient) {
    if (targets) return targets->add(leaf, gradient);
    Variable& grad = leaf.impl_->grad;
    grad = grad.defined() ? grad + gradient : own(std::move(gradient), create_graph);
    final_gradients.add_gradient(leaf);
  };
  const auto deliver_to_node = [&](const Node* node, int output, const Variable& gradient) {
    Variables& gradients = pending[node];
    gradients.resize(node->outputs_.size());
    accumulate(gradients[static_cast<size_t>(output)], gradient);
  };

  for (const Root& root : roots) {
    if (root.variable.node())
      deliver_to_node(root.variable.node().get(), root.variable.output_index(), root.gradient);
    else
      deliver_to_leaf(root.variable, root.gradient);
  }
  for (const Root& root : roots)
    if (!root.variable.node()) final_gradients.tell_if_final(root.variable);

  const auto run_node = [&](const std::shared_ptr<Node>& node) {
    const auto found = pending.find(node.get());
    if (found == pending.end()) return;  // only reached through gradients that are zero
    Variables gradients = std::move(found->second);
    pending.erase(found);
    if (targets) targets->take_outputs_of(node.get(), gradients);
    if (!wanted.wants(node.get())) return;
    check(!node->released_, "backward",
          "the graph through {} was freed by an earlier backward; give that one retain_graph, or run forward again",
          node->operation());
    std::vector<bool> needed;
    for (const Node::Edge& edge : node->edges_) needed.push_back(wanted.wants(edge));
    Variables results = node->backward_(BackwardContext(*node, gradients, needed));
    check(results.size() == node->edges_.size(), "backward", "{} returned {} gradients for {} inputs",
          node->operation(), results.size(), node->edges_.size());
    for (size_t i = 0; i < results.size(); ++i) {
      const Node::Edge& edge = node->edges_[i];
      Variable gradient = std::move(results[i]);
      if (!gradient.defined() || !needed[i]) continue;
      const Shape& shape = edge.node ? edge.node->output_shape(edge.output) : edge.leaf.shape();
      const DType dtype = edge.node ? edge.node->outputs_[static_cast<size_t>(edge.output)].dtype : edge.leaf.dtype();
      check(gradient.shape() == shape && gradient.dtype() == dtype, "backward",
            "{} returned {} as the gradient of input {}, expected {} {}", node->operation(), describe(gradient.data()),
            i, name_of(dtype), shape);
      if (edge.node)
        deliver_to_node(edge.node.get(), edge.output, gradient);
      else
        deliver_to_leaf(edge.leaf, std::move(gradient));
    }
    if (!retain_graph) {
      node->backward_ = nullptr;
      for (Node::Output& output : node->outputs_) output.value = Tensor();
      node->released_ = true;
    }
  };
  for (const std::shared_ptr<Node>& node : nodes) {
    run_node(node);
    final_gradients.close(*node);
  }
  return targets ? targets->take() : Variables();
}

}  // namespace espalier
