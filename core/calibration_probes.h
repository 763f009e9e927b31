// Loops that do nothing but one thing. Internal to core/calibration.
#pragma once

#include <cstdint>
#include <memory>

#include "core/sparse/spmm.h"

namespace espalier {

/// Code that keeps one resource busy.
class Probe {
 public:
  virtual ~Probe() = default;
  /// Runs `rounds` times.
  virtual void run(const void* data, int64_t rounds) const = 0;
  double per_round = 0;  ///< operations or bytes
};

/// Multiply-adds without a load. per_round: floating-point operations.
std::unique_ptr<Probe> make_fma_probe(VectorIsa isa);
/// Loads of all vectors of `bytes` bytes, a multiple of 4096. per_round: bytes.
std::unique_ptr<Probe> make_load_probe(VectorIsa isa, int64_t bytes);
/// Bytes of a vector.
int64_t vector_bytes(VectorIsa isa);

}  // namespace espalier
