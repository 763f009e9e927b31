// Engine: what Variable and Node share inside this folder. Not for others.
#pragma once

#include "autograd/node.h"

namespace espalier {

struct Variable::Impl {
  Tensor data;
  bool requires_grad = false;
  Variable grad;
  std::shared_ptr<Node> node;  // nullptr: a leaf
  int output_index = 0;
  std::string name;
  std::shared_ptr<const WeightView> weight_view;
};

struct Engine {
  /// A Variable that is output `index` of `node`.
  static Variable make_result(Tensor data, std::shared_ptr<Node> node, int index);
  /// Whether nothing but this handle sees the value, so that it may change in place.
  static bool is_only_handle(const Variable& variable);
  /// The value, contiguous, for changes in place: copied where others hold it.
  static Tensor take(Variable variable);

  struct Root {
    Variable variable, gradient;
  };
  /// Walks back from the roots. With `targets` their gradients are returned (undefined where there is none) and
  /// nothing else is computed; without, the leaves' .grad accumulate, and the options' hook hears of them.
  static Variables run(const std::vector<Root>& roots, const Variables* targets, const BackwardOptions& options);
};

}  // namespace espalier
