// Inputs like an example, to see what a network does with others. Not for others.
#pragma once

#include <vector>

#include "pruning/structure/graph.h"

namespace espalier {

/// `count` examples like `example`. Each input has normal values of growing size. Integers that look up rows of a
/// table: as many more examples as it takes to ask for every row. Other integers: those of the example in another
/// order.
std::vector<Bundle> probes_like(const DependencyGraph& graph, const Bundle& example, int count);

}  // namespace espalier
