// A convolution as its descriptors give it, for the files that choose its algorithm and that compute it.
#pragma once

#include "cuda/emulation/cudnn_descriptors.h"

namespace espalier::emulation {

enum class Pass { forward, backward_data, backward_filter };

/// The sizes of y (N,K,P,Q) = x (N,C,H,W) convolved with w (K,C/groups,R,S).
struct Convolution {
  int64_t n, c, h, w, k, r, s, p, q, groups;
  std::array<int, 2> pad, stride, dilation;
  bool flipped;  ///< CUDNN_CONVOLUTION: the filter is turned by 180 degrees
  cudnnMathType_t math;
  cudnnDataType_t type;

  int64_t rows() const { return c / groups * r * s; }  ///< of a group's lowered input: one for each weight of a filter
};

/// Fills `out` from the descriptors, or returns the status that the documentation gives for their misfit.
cudnnStatus_t describe(const cudnnTensorStruct* x, const cudnnFilterStruct* w,
                       const cudnnConvolutionStruct* convolution, const cudnnTensorStruct* y, Convolution& out);

// Of the algorithms, known by their enumerators in the pass:

/// Whether the algorithm takes this convolution, according to the tables of the cuDNN documentation.
bool takes(Pass pass, int algorithm, const Convolution& convolution);
/// Bytes of workspace that the algorithm asks for.
size_t workspace_bytes(Pass pass, int algorithm, const Convolution& convolution);
/// Whether the same inputs always give the same bits.
bool is_deterministic(Pass pass, int algorithm);

}  // namespace espalier::emulation
