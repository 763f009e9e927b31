// safetensors files (https://github.com/huggingface/safetensors): 8 bytes header length (little endian), a JSON header,
// then the tensors' bytes. Readable by that ecosystem's own tools.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace espalier {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

struct SafetensorsFile {
  NamedTensors tensors;                         ///< in file order
  std::map<std::string, std::string> metadata;  ///< "__metadata__": strings only, as the format says
};

/// Writes to a temporary name in the same folder, flushes it to the disk, then renames: a crash or a full disk leaves
/// the old file or the new one. Throws FileError with path and cause.
void save_safetensors(const std::string& path, const NamedTensors& tensors,
                      const std::map<std::string, std::string>& metadata = {});

/// F16 and BF16 become f32. Trusts nothing in the file: header length, JSON, dtypes, shapes, offsets (no overlap, no
/// hole, no overflow) are checked. Throws FileError with path, offset, expected and found.
SafetensorsFile load_safetensors(const std::string& path);

/// Writes a whole file as above (temporary name, flush, rename).
void write_file_atomically(const std::string& path, std::string_view contents);

/// Removes the temporary files that processes which died while they wrote left in a folder. What is being written now,
/// by whatever process, stays.
void remove_abandoned_files(const std::string& folder);

}  // namespace espalier
