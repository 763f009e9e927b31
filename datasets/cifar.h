// The binary version of CIFAR-10 and CIFAR-100: records of the label bytes, then 3072 bytes: R, G and B planes of
// 32x32.
#pragma once

#include <string>
#include <vector>

#include "core/tensor.h"
#include "datasets/byte_reader.h"

namespace espalier {

struct CifarOptions {
  int label_bytes = 1;  ///< CIFAR-100 has a coarse and a fine label; the last byte is used
  int64_t num_classes = 10;
  uint64_t most_bytes = kMostContents;  ///< in each file; more are refused before memory is taken for them
};

struct CifarImages {
  Tensor images;  ///< u8 (N,3,32,32)
  Tensor labels;  ///< i64 (N)
};

/// Reads the records of all `files`, which lie in a folder or in a tar archive (compressed with gzip or not, in any
/// folder of it). All files hold the same number of records. Throws FileError with file, offset, expected and found.
CifarImages read_cifar(const std::string& folder_or_archive, const std::vector<std::string>& files,
                       const CifarOptions& options);

}  // namespace espalier
