// Which of its input's channels a layer reads. Shared by Linear and Conv2d, which compaction narrows.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "autograd/ops.h"

namespace espalier {

/// How many of `size` channels are read: all when `inputs` is empty. Throws unless inputs are increasing and from 0 to
/// size - 1.
int64_t count_inputs(std::string_view where, const std::vector<int64_t>& inputs, int64_t size);

/// These indices of an axis of x; empty: x itself.
Variable selected(const Variable& x, int axis, const std::vector<int64_t>& inputs);

/// The selection once x has only the channels `kept` of `size` left: positions in the new x. Empty when all of those
/// are read. Throws when kept are no increasing indices.
std::vector<int64_t> keep_inputs(std::string_view where, const std::vector<int64_t>& inputs, int64_t size,
                                 const std::vector<int64_t>& kept);

}  // namespace espalier
