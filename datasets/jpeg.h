// JPEG files.
#pragma once

#include <string>

#include "core/tensor.h"

namespace espalier {

/// Reads a JPEG as u8 (3,H,W), RGB. Nothing in the file is trusted: at most 64 MiB and 40 million pixels, and what the
/// decoder only warns of, such as an end that is missing, is an error. Throws FileError with the path and what is
/// wrong.
Tensor read_jpeg(const std::string& path);

}  // namespace espalier
