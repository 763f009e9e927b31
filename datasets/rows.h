// Taking examples out of tensors that have a row for each. Internal: included by .cpp files only.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace espalier {

/// The rows of a contiguous tensor (N,...) at these indices, each in 0..N-1.
Tensor rows_of(const Tensor& all, std::span<const int64_t> indices);

}  // namespace espalier
