// What each operation does with the axes of its operands.
#pragma once

#include "autograd/node.h"
#include "pruning/structure/axis_trace.h"

namespace espalier {

/// The outputs' axes of one operation. Throws, naming it, on an operation without a rule.
std::vector<TracedTensor> follow_axes(AxisTrace& trace, const Node& node, const std::vector<TracedTensor>& inputs);

}  // namespace espalier
