// Files of sparse matrices: .smtx of the Deep Learning Matrix Collection, and Matrix Market.
#pragma once

#include <string>

#include "core/sparse/csr.h"

namespace espalier {

/// Reads a matrix by the ending of its name.
///
/// .smtx (https://github.com/google-research/google-research/tree/master/sgk): three lines: "rows, columns, nnz", the
/// row offsets, the columns; values are not in it, so Csr::value is empty. .mtx (Matrix Market exchange format, NIST):
/// "matrix coordinate real|integer|pattern general|symmetric", indices from 1, entries in any order; those that occur
/// twice are refused. Nothing in the file is trusted: sizes are compared with what the file can hold before memory is
/// taken. Throws FileError with path, line, expected and found.
Csr read_matrix(const std::string& path);

/// Writes the same formats, replacing the file atomically. Throws FileError.
void write_matrix(const std::string& path, const Csr& a);

}  // namespace espalier
