// Dense or sparse: decided in one place, for a product with a masked weight.
#pragma once

#include <cstdint>

#include "core/sparse/spmm.h"

namespace espalier {

/// What an operation computes with a weight: of a Linear's (O,I) and a batch of N, (N,I) -> (N,O), (N,O) -> (N,I) and
/// (N,O), (N,I) -> (O,I).
enum class WeightProduct : uint8_t { forward, input_gradient, weight_gradient };

/// What was predicted, in seconds of one thread, and what follows.
struct KernelChoice {
  double dense = 0, sparse = 0;
  /// Sparse only where it is predicted at least 5 % faster.
  bool is_sparse() const { return sparse * 1.05 < dense; }
};

/// Predicts a product with a weight of which `nnz` elements exist. It depends on its arguments alone, never on a clock:
/// a run that is repeated makes the same choices and gets the same bits. The rates are those of a Zen 4 core
/// (docs/sparse.md), whose quotients hold elsewhere: both sides scale with the vector units.
KernelChoice choose_linear(WeightProduct product, int64_t outputs, int64_t inputs, int64_t nnz, int64_t n,
                           VectorIsa isa = vector_isa());

/// Whether sparse kernels may be used at all: not with ESPALIER_SPARSE=off in the environment, nor after
/// set_sparse_enabled(false).
bool sparse_enabled();
void set_sparse_enabled(bool enabled);

}  // namespace espalier
