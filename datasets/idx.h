// The IDX format of MNIST: two zero bytes, the element type, the rank, big-endian 32-bit sizes, then the elements.
#pragma once

#include <string>

#include "core/tensor.h"
#include "datasets/byte_reader.h"

namespace espalier {

/// Reads images (N,H,W) of unsigned bytes as u8 (N,1,H,W); `transposed` swaps rows and columns (EMNIST). The file may
/// be compressed. Throws FileError with file, offset, expected and found, also when the file holds more than
/// `most_bytes`, for which no memory is taken.
Tensor read_idx_images(const std::string& path, bool transposed = false, uint64_t most_bytes = kMostContents);

/// Reads N labels as i64 (N), less `first_label`, and checks that each is in [0, num_classes).
Tensor read_idx_labels(const std::string& path, int64_t num_classes, int first_label = 0,
                       uint64_t most_bytes = kMostContents);

}  // namespace espalier
