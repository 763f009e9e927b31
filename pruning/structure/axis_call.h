// What the rules of the operations (axis_rules.cpp, axis_rules_shape.cpp) share. Not for others.
#pragma once

#include <string>
#include <vector>

#include "autograd/node.h"
#include "pruning/structure/axis_trace.h"

namespace espalier::axis_rules {

using Kind = TracedTensor::Kind;
using Tensors = std::vector<TracedTensor>;

inline constexpr const char* kPositions = "positions of an image";
inline constexpr const char* kSteps = "steps of a sequence";

/// One operation on the tape.
struct Call {
  AxisTrace& trace;
  const Node& node;
  const Tensors& inputs;

  const TracedTensor& in(size_t i) const { return inputs[i]; }
  bool has(size_t i) const { return i < inputs.size() && inputs[i].kind != Kind::constant; }
  const Shape& shape() const { return node.output_shape(0); }
  int64_t attribute(size_t i) const { return node.attributes().at(i); }
  /// Of what is computed from all inputs.
  Kind kind() const {
    Kind result = Kind::constant;
    for (const TracedTensor& input : inputs) result = std::max(result, input.kind);
    return result;
  }
  std::string name() const { return node.operation(); }
};

/// An axis of a tensor that holds data, made from one of an operand.
inline TracedAxis as_data(const TracedAxis& axis) { return {axis.indices}; }

/// Something learned that takes the place of data, such as an LSTM's first state.
inline void use_as_data(const Call& c, const TracedTensor& x, int axis) {
  if (x.kind == Kind::parameter) c.trace.declare(x.axes[static_cast<size_t>(axis)], kProduces);
}

/// The rules of what moves, joins, splits and chooses indices.
Tensors reshape(const Call& c);
Tensors permute(const Call& c);
Tensors transpose(const Call& c);
Tensors slice(const Call& c);
Tensors squeeze(const Call& c);
Tensors unsqueeze(const Call& c);
Tensors expand(const Call& c);
Tensors cat(const Call& c);
Tensors pad(const Call& c);
Tensors index_select(const Call& c);
Tensors gather(const Call& c);

}  // namespace espalier::axis_rules
