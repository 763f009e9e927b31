// The products of a Linear layer with a masked weight: of the weights that don't exist nothing is computed.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/sparse/csr.h"
#include "core/sparse/spmm.h"

namespace espalier {

/// The plan of one masked weight (O,I). All tensors are f32, contiguous and on the CPU.
class SparseLinear {
 public:
  SparseLinear(const Mask& mask, const Tensor& weight);

  /// Takes the weight's new values; its mask is the same.
  void refill(const Tensor& weight);

  /// y = x W^T + bias: x (N,I), bias (O) or undefined -> (N,O).
  Tensor forward(const Tensor& x, const Tensor& bias) const;
  /// dx = dy W: dy (N,O) -> (N,I).
  Tensor input_gradient(const Tensor& dy);
  /// dW = dy^T x where weights exist, 0 elsewhere: dy (N,O), x (N,I) -> (O,I).
  Tensor weight_gradient(const Tensor& dy, const Tensor& x) const;

 private:
  Csr structure_;                ///< without values
  std::vector<float> values_;    ///< of each entry
  std::vector<int32_t> places_;  ///< of each entry in the weight
  SpmmPlan forward_;
  std::optional<SpmmPlan> backward_;  ///< of the transposed weight, made when it is first asked for
  std::vector<int32_t> from_;         ///< of each of its entries, which one of the weight it is
  bool backward_is_stale_ = false;
};

}  // namespace espalier
