// The IDX format of MNIST: two zero bytes, the element type, the rank, big-endian 32-bit sizes, then the elements.
#pragma once

#include <string>

#include "core/tensor.h"

namespace espalier {

/// Reads images (N,H,W) of unsigned bytes as u8 (N,1,H,W); `transposed` swaps rows and columns (EMNIST). The file may
/// be compressed. Throws FileError with file, offset, expected and found.
Tensor read_idx_images(const std::string& path, bool transposed = false);

/// Reads N labels as i64 (N), less `first_label`, and checks that each is in [0, num_classes).
Tensor read_idx_labels(const std::string& path, int64_t num_classes, int first_label = 0);

}  // namespace espalier
