// NumPy's arrays: .npy files, and .npz files, which are zip archives of them.
#pragma once

#include <map>
#include <string>

#include "core/tensor.h"
#include "datasets/byte_reader.h"

namespace espalier {

/// Reads a .npy file, compressed with gzip or not. Floats of 4 and 8 bytes give f32, unsigned bytes u8, other whole
/// numbers and truth values i64. Throws FileError with file, offset, expected and found: for other types, big-endian
/// numbers, columns first ("fortran_order"), and sizes that the file doesn't have, for which no memory is taken.
Tensor read_npy(const std::string& path, uint64_t most_bytes = kMostContents);

/// Writes f32, f64, u8 or i64 values as NumPy reads them. Throws FileError when it can't.
void write_npy(const std::string& path, const Tensor& values);

/// All arrays of a .npz file by name, "x_train" of "x_train.npy". Together they have at most `most_bytes`, whatever the
/// archive promises. Throws FileError as read_npy does, naming the member.
std::map<std::string, Tensor> read_npz(const std::string& path, uint64_t most_bytes = kMostContents);

}  // namespace espalier
