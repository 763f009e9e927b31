// How fast a sparse product can be at most on a calibrated machine, and what bounds it.
#pragma once

#include <cstdint>
#include <string>

#include "core/calibration.h"
#include "core/sparse/csr.h"

namespace espalier {

/// The least time of a computation and the resource that sets it.
struct Ceiling {
  double seconds = 0;
  std::string resource;  ///< "multiply-adds", "loads" or "bytes"
};

/// Y (rows, n) = A X (columns, n), each of the following at the rate of one thread, the slowest of which counts:
///  - multiply-adds: one for each entry and column of X;
///  - loads from the first-level cache: vectors of X and values of A, as few as the vector registers allow. With sums
///  of
///    R rows x T vectors in registers, each panel of R rows loads T vectors of X for each column in which it has an
///    entry, and each entry's value; R, T are those with the fewest;
///  - bytes: A's values, X and Y once, at the rate of the cache that holds all of them together, or of the memory.
/// A last vector that n doesn't fill counts whole.
Ceiling spmm_ceiling(const Csr& a, int64_t n, const Calibration& machine, VectorIsa isa);

}  // namespace espalier
