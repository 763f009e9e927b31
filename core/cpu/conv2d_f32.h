// The fast convolution, for f32 (conv2d_f32.cpp); conv2d.cpp holds the plain loops and chooses.
#pragma once

#include "core/kernels.h"

namespace espalier::cpu {

/// Sizes of one convolution: x (N,C,H,W), w (F,C/groups,KH,KW), y (N,F,OH,OW).
struct Conv2dSizes {
  Conv2dSizes(const Tensor& input, const Tensor& weight, const Tensor& output, const Conv2dShape& s)
      : n(input.size(0)),
        c(input.size(1)),
        h(input.size(2)),
        w(input.size(3)),
        f(output.size(1)),
        oh(output.size(2)),
        ow(output.size(3)),
        kh(weight.size(2)),
        kw(weight.size(3)),
        group_c(c / s.groups),
        group_f(f / s.groups),
        shape(s) {}

  int64_t n, c, h, w, f, oh, ow, kh, kw;
  int64_t group_c, group_f;  ///< input and output channels of a group
  Conv2dShape shape;
};

void conv2d_f32(const Conv2dSizes& sizes, const float* x, const float* w, const float* bias, float* y);
void conv2d_input_grad_f32(const Conv2dSizes& sizes, const float* dy, const float* w, float* dx);
void conv2d_weight_grad_f32(const Conv2dSizes& sizes, const float* dy, const float* x, float* dw);

}  // namespace espalier::cpu
