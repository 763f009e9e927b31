// conv2d and its two gradients. Each is linear in each argument, and the three are closed under differentiation:
// with <a,b> the sum of products, <conv2d(x,w), dy> = <x, input_grad(dy,w)> = <w, weight_grad(dy,x)>.
#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

/// Checks the arguments and returns the shape of y.
Shape checked_output_shape(const Shape& x, const Shape& w, const Conv2dShape& s) {
  check(x.rank() == 4, "conv2d", "expected images (N,C,H,W), got shape {}", x);
  check(w.rank() == 4, "conv2d", "expected a weight (F,C/groups,KH,KW), got shape {}", w);
  check(s.stride_h >= 1 && s.stride_w >= 1 && s.dilation_h >= 1 && s.dilation_w >= 1 && s.padding_h >= 0 &&
            s.padding_w >= 0 && s.groups >= 1,
        "conv2d",
        "expected stride, dilation and groups of at least 1 and padding of at least 0, got {}x{}, {}x{}, {}, "
        "{}x{}",
        s.stride_h, s.stride_w, s.dilation_h, s.dilation_w, s.groups, s.padding_h, s.padding_w);
  check(w[1] * s.groups == x[1], "conv2d",
        "weight has {} input channels in {} groups, input has {}: shapes {} and {}; build the layer with "
        "in_channels={}",
        w[1] * s.groups, s.groups, x[1], x, w, x[1]);
  check(w[0] % s.groups == 0, "conv2d", "expected output channels that {} groups divide, got weight {}", s.groups, w);
  const int64_t kernel_h = s.dilation_h * (w[2] - 1) + 1, kernel_w = s.dilation_w * (w[3] - 1) + 1;
  check(w[2] >= 1 && w[3] >= 1 && kernel_h <= x[2] + 2 * s.padding_h && kernel_w <= x[3] + 2 * s.padding_w, "conv2d",
        "a kernel of {}x{} (dilated) does not fit a padded image of {}x{}: shapes {} and {}; add padding", kernel_h,
        kernel_w, x[2] + 2 * s.padding_h, x[3] + 2 * s.padding_w, x, w);
  return {x[0], w[0], output_size(x[2], w[2], s.stride_h, s.padding_h, s.dilation_h),
          output_size(x[3], w[3], s.stride_w, s.padding_w, s.dilation_w)};
}

void check_dtypes(const Tensor& a, const Tensor& b) {
  check(a.device() == b.device() && a.dtype() == b.dtype() && is_floating(a.dtype()), "conv2d",
        "expected f32 or f64 tensors of one dtype and device, got {} and {}", describe(a), describe(b));
}

Shape bias_shape(const Variable& bias) { return bias.defined() ? bias.shape() : Shape{}; }

/// x (N,C,H,W), weight (F,C/groups,KH,KW), bias (F).
std::vector<TracedTensor> conv2d_axes(const AxisCall& c) {
  const TracedTensor &x = c.in(0), &w = c.in(1);
  const TracedAxis &in = x.axes[1], &filters = w.axes[0], &columns = w.axes[1];
  const int64_t groups = c.node.attributes<Conv2dShape>().groups, outputs_each = filters.size() / groups;
  AxisIndices& indices = c.trace.indices;
  axes::use_as_data(c.trace, x, 1);
  for (const int axis : {2, 3}) c.trace.fix(x.axis(axis), axes::kPositions);
  const bool depthwise = groups > 1 && columns.size() == 1;
  if (!depthwise) c.trace.declare(columns, kReads);
  c.trace.declare(filters, depthwise ? kProduces | kScales : kProduces);
  if (!c.has(1)) c.trace.fix(filters, "filtered by a kernel that is no parameter");
  if (depthwise) {
    for (int64_t f = 0; f < filters.size(); ++f)
      indices.unite(in.indices[static_cast<size_t>(f / outputs_each)], filters.indices[static_cast<size_t>(f)]);
  } else {
    if (!c.has(1)) c.trace.fix(columns, "filtered by a kernel that is no parameter");
    // All groups are slices of one rectangular weight: each loses the same channels.
    for (int64_t channel = 0; channel < in.size(); ++channel)
      indices.unite(in.indices[static_cast<size_t>(channel)],
                    columns.indices[static_cast<size_t>(channel % columns.size())]);
    for (int64_t f = outputs_each; f < filters.size(); ++f)
      indices.unite(filters.indices[static_cast<size_t>(f)], filters.indices[static_cast<size_t>(f % outputs_each)]);
  }
  if (c.has(2)) {
    c.trace.unite(filters, c.in(2).axes[0]);
    c.trace.declare(c.in(2).axes[0], kProduces);
  }
  const Shape& shape = c.shape();
  return {{.kind = TracedTensor::Kind::data,
           .axes = {axes::as_data(x.axes[0]), axes::as_data(filters), c.trace.fresh(shape[2], axes::kPositions),
                    c.trace.fresh(shape[3], axes::kPositions)}}};
}

constexpr Operation kConv2d{"conv2d", conv2d_axes};
constexpr Operation kConv2dInputGrad{"conv2d_input_grad", axes::stay_whole};
constexpr Operation kConv2dWeightGrad{"conv2d_weight_grad", axes::stay_whole};

}  // namespace

Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias, const Conv2dShape& shape) {
  check_dtypes(x.data(), weight.data());
  Tensor y = Tensor::empty(checked_output_shape(x.shape(), weight.shape(), shape), x.dtype(), x.device());
  check(!bias.defined() || bias.shape() == Shape{weight.size(0)}, "conv2d", "expected a bias of shape ({}), got {}",
        weight.size(0), bias_shape(bias));
  if (bias.defined()) check_dtypes(x.data(), bias.data());
  announce_product("conv2d", WeightProduct::forward, weight.weight_view());
  kernels(x.device())
      .conv2d(x.data().contiguous(), weight.data().contiguous(), bias.defined() ? bias.data().contiguous() : Tensor(),
              shape, y);
  const auto backward = [xs = Saved(x), ws = Saved(weight), shape](const BackwardContext& c) {
    const Variable &input = xs.unpack(c), &w = ws.unpack(c), &dy = c.grad();
    Variables grads(3);
    if (c.needs(0)) grads[0] = conv2d_input_grad(dy, w, input.shape(), shape);
    if (c.needs(1)) grads[1] = conv2d_weight_grad(dy, input, w.shape(), shape, w.weight_view());
    if (c.needs(2)) grads[2] = sum(dy, {0, 2, 3});
    return grads;
  };
  return record(kConv2d, y, {x, weight, bias}, backward, SaveOutputs::no, shape);
}

Variable conv2d_input_grad(const Variable& dy, const Variable& weight, const Shape& x_shape, const Conv2dShape& shape) {
  const Shape y_shape = checked_output_shape(x_shape, weight.shape(), shape);
  check(dy.shape() == y_shape, "conv2d_input_grad", "expected a gradient of shape {}, got {}", y_shape, dy.shape());
  check_dtypes(dy.data(), weight.data());
  Tensor dx = Tensor::empty(x_shape, dy.dtype(), dy.device());
  announce_product("conv2d", WeightProduct::input_gradient, weight.weight_view());
  kernels(dy.device()).conv2d_input_grad(dy.data().contiguous(), weight.data().contiguous(), shape, dx);
  return record(kConv2dInputGrad, dx, {dy, weight},
                [gs = Saved(dy), ws = Saved(weight), shape](const BackwardContext& c) {
                  const Variable &g = gs.unpack(c), &w = ws.unpack(c), &ddx = c.grad();
                  Variables grads(2);
                  if (c.needs(0)) grads[0] = conv2d(ddx, w, {}, shape);
                  if (c.needs(1)) grads[1] = conv2d_weight_grad(g, ddx, w.shape(), shape);
                  return grads;
                });
}

Variable conv2d_weight_grad(const Variable& dy, const Variable& x, const Shape& weight_shape, const Conv2dShape& shape,
                            const WeightViewPtr& view) {
  const Shape y_shape = checked_output_shape(x.shape(), weight_shape, shape);
  check(dy.shape() == y_shape, "conv2d_weight_grad", "expected a gradient of shape {}, got {}", y_shape, dy.shape());
  check_dtypes(dy.data(), x.data());
  Tensor dw = Tensor::empty(weight_shape, dy.dtype(), dy.device());
  announce_product("conv2d", WeightProduct::weight_gradient, view);
  kernels(dy.device()).conv2d_weight_grad(dy.data().contiguous(), x.data().contiguous(), shape, dw);
  const auto backward = [gs = Saved(dy), xs = Saved(x), shape](const BackwardContext& c) {
    const Variable &g = gs.unpack(c), &input = xs.unpack(c), &ddw = c.grad();
    Variables grads(2);
    if (c.needs(0)) grads[0] = conv2d(input, ddw, {}, shape);
    if (c.needs(1)) grads[1] = conv2d_input_grad(g, ddw, input.shape(), shape);
    return grads;
  };
  return weight_gradient(record(kConv2dWeightGrad, std::move(dw), {dy, x}, backward), view);
}

}  // namespace espalier
