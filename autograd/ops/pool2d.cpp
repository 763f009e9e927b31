#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

std::vector<TracedTensor> pool2d_axes(const AxisCall& c) {
  const TracedTensor& x = c.in(0);
  for (const int axis : {2, 3}) c.trace.fix(x.axis(axis), axes::kPositions);
  return {{.kind = x.kind,
           .axes = {x.axes[0], x.axes[1], c.trace.fresh(c.shape()[2], axes::kPositions),
                    c.trace.fresh(c.shape()[3], axes::kPositions)}}};
}

constexpr Operation kMaxPool2d{"max_pool2d", pool2d_axes}, kAvgPool2d{"avg_pool2d", pool2d_axes};
constexpr Operation kAdaptiveAvgPool2d{"adaptive_avg_pool2d", pool2d_axes};
// What they do with positions is the same the other way round.
constexpr Operation kMaxPool2dGrad{"max_pool2d_grad", pool2d_axes}, kAvgPool2dGrad{"avg_pool2d_grad", pool2d_axes};
constexpr Operation kAdaptiveAvgPool2dGrad{"adaptive_avg_pool2d_grad", pool2d_axes};

void check_images(const Variable& x, const char* operation) {
  check(x.rank() == 4 && is_floating(x.dtype()), operation, "expected f32 or f64 images (N,C,H,W), got {}",
        describe(x.data()));
}

Shape pooled_shape(const Variable& x, const Pool2dShape& s, const char* operation) {
  check_images(x, operation);
  check(s.kernel_h >= 1 && s.kernel_w >= 1 && s.stride_h >= 1 && s.stride_w >= 1, operation,
        "expected kernel and stride of at least 1, got {}x{} and {}x{}", s.kernel_h, s.kernel_w, s.stride_h,
        s.stride_w);
  check(s.padding_h >= 0 && s.padding_w >= 0 && 2 * s.padding_h <= s.kernel_h && 2 * s.padding_w <= s.kernel_w,
        operation, "expected padding from 0 to half the kernel {}x{}, got {}x{}", s.kernel_h, s.kernel_w, s.padding_h,
        s.padding_w);
  const int64_t h = x.size(2) + 2 * s.padding_h, w = x.size(3) + 2 * s.padding_w;
  check(s.kernel_h <= h && s.kernel_w <= w, operation,
        "a window of {}x{} does not fit a padded image of {}x{}: shape {}", s.kernel_h, s.kernel_w, h, w, x.shape());
  return {x.size(0), x.size(1), (h - s.kernel_h) / s.stride_h + 1, (w - s.kernel_w) / s.stride_w + 1};
}

/// Sends each gradient to the winner of its window; adjoint: picks the winners.
Variable max_pool2d_grad(const Variable& dy, const Tensor& index, const Shape& x_shape) {
  Tensor dx = Tensor::empty(x_shape, dy.dtype(), dy.device());
  kernels(dy.device()).max_pool2d_grad(dy.data().contiguous(), index, dx);
  return record(kMaxPool2dGrad, dx, {dy}, [index](const BackwardContext& c) -> Variables {
    return {reshape(gather(flatten(c.grad(), 2), 2, index.flatten(2)), index.shape())};
  });
}

Variable avg_pool2d_grad(const Variable& dy, const Shape& x_shape, const Pool2dShape& shape) {
  Tensor dx = Tensor::empty(x_shape, dy.dtype(), dy.device());
  kernels(dy.device()).avg_pool2d_grad(dy.data().contiguous(), shape, dx);
  return record(kAvgPool2dGrad, dx, {dy},
                [shape](const BackwardContext& c) -> Variables { return {avg_pool2d(c.grad(), shape)}; });
}

Variable adaptive_avg_pool2d_grad(const Variable& dy, const Shape& x_shape) {
  Tensor dx = Tensor::empty(x_shape, dy.dtype(), dy.device());
  kernels(dy.device()).adaptive_avg_pool2d_grad(dy.data().contiguous(), dx);
  return record(kAdaptiveAvgPool2dGrad, dx, {dy},
                [h = dy.size(2), w = dy.size(3)](const BackwardContext& c) -> Variables {
                  return {adaptive_avg_pool2d(c.grad(), h, w)};
                });
}

}  // namespace

Variable max_pool2d(const Variable& x, const Pool2dShape& shape) {
  const Shape y_shape = pooled_shape(x, shape, "max_pool2d");
  Tensor y = Tensor::empty(y_shape, x.dtype(), x.device());
  Tensor index = Tensor::empty(y_shape, DType::i64, x.device());
  kernels(x.device()).max_pool2d(x.data().contiguous(), shape, y, index);
  return record(kMaxPool2d, y, {x}, [index, x_shape = x.shape()](const BackwardContext& c) -> Variables {
    return {max_pool2d_grad(c.grad(), index, x_shape)};
  });
}

Variable avg_pool2d(const Variable& x, const Pool2dShape& shape) {
  Tensor y = Tensor::empty(pooled_shape(x, shape, "avg_pool2d"), x.dtype(), x.device());
  kernels(x.device()).avg_pool2d(x.data().contiguous(), shape, y);
  return record(kAvgPool2d, y, {x}, [shape, x_shape = x.shape()](const BackwardContext& c) -> Variables {
    return {avg_pool2d_grad(c.grad(), x_shape, shape)};
  });
}

Variable adaptive_avg_pool2d(const Variable& x, int64_t out_h, int64_t out_w) {
  check_images(x, "adaptive_avg_pool2d");
  check(out_h >= 1 && out_w >= 1 && x.size(2) >= 1 && x.size(3) >= 1, "adaptive_avg_pool2d",
        "expected sizes of at least 1, got output {}x{} from shape {}", out_h, out_w, x.shape());
  Tensor y = Tensor::empty({x.size(0), x.size(1), out_h, out_w}, x.dtype(), x.device());
  kernels(x.device()).adaptive_avg_pool2d(x.data().contiguous(), y);
  return record(kAdaptiveAvgPool2d, y, {x}, [x_shape = x.shape()](const BackwardContext& c) -> Variables {
    return {adaptive_avg_pool2d_grad(c.grad(), x_shape)};
  });
}

}  // namespace espalier
