#include <algorithm>

#include "autograd/axes.h"
#include "autograd/ops.h"
#include "core/sparse/sparse_linear.h"

namespace espalier {

namespace axes {
using Kind = TracedTensor::Kind;

TracedTensor product(const AxisCall& c, const TracedTensor& a, const TracedTensor& b, const Shape& shape) {
  const TracedAxis &a_k = a.axes.back(), &b_k = b.axis(std::max(b.rank() - 2, 0));
  const bool has_a = a.kind != Kind::constant, has_b = b.kind != Kind::constant;
  if (has_a && has_b) {
    c.trace.unite(a_k, b_k);
    if (a.kind == Kind::data && b.kind == Kind::data) c.trace.indices.read_without_weight(a_k.indices);
  } else {
    c.trace.fix(has_a ? a_k : b_k, "multiplied by a matrix that is no parameter");
  }
  if (a.kind == Kind::parameter) {
    c.trace.declare(a_k, kReads);
    if (b.kind == Kind::data && a.rank() > 1) c.trace.declare(a.axis(a.rank() - 2), kProduces);
  }
  if (b.kind == Kind::parameter) {
    c.trace.declare(b_k, a.kind == Kind::parameter ? kProduces : kReads);
    if (a.kind == Kind::data && b.rank() > 1) c.trace.declare(b.axes.back(), kProduces);
  }
  const int free_axes = (a.rank() > 1) + (b.rank() > 1), batch_axes = shape.rank() - free_axes;
  TracedTensor y{.kind = std::max(a.kind, b.kind), .axes = {}};
  for (int axis = 0; axis < batch_axes; ++axis) {
    TracedAxis batch;
    for (const TracedTensor* operand : {&a, &b}) {
      const int own = axis - (batch_axes - (operand->rank() - 2));
      if (operand->kind == Kind::constant || own < 0 || own >= operand->rank() - 2) continue;
      const TracedAxis& x = operand->axis(own);
      if (x.size() != shape[axis]) {
        c.trace.fix(x, "one matrix for all of another tensor's in " + c.name());
      } else if (batch.indices.empty()) {
        batch = as_data(x);
      } else {
        c.trace.unite(batch, x);
      }
    }
    y.axes.push_back(batch.indices.empty() ? c.trace.fresh(shape[axis]) : batch);
  }
  const auto add = [&](const TracedAxis& axis) { y.axes.push_back(y.kind == Kind::data ? as_data(axis) : axis); };
  if (a.rank() > 1) add(a.axis(a.rank() - 2));
  if (b.rank() > 1) add(b.axes.back());
  return y;
}

}  // namespace axes

namespace {

std::vector<TracedTensor> matmul_axes(const AxisCall& c) { return {axes::product(c, c.in(0), c.in(1), c.shape())}; }

/// As the product and the sum that it is: (N,I)(O,I)^T + (O), whatever stands before I in x.
std::vector<TracedTensor> linear_axes(const AxisCall& c) {
  const Shape& shape = c.shape();
  const int64_t outputs = shape[shape.rank() - 1], rows = shape.numel() / std::max<int64_t>(outputs, 1);
  const TracedTensor x = axes::reshaped(c, c.in(0), {rows, c.in(1).axis(1).size()});
  TracedTensor weight = c.in(1);
  std::swap(weight.axes[0], weight.axes[1]);
  TracedTensor y = axes::product(c, x, weight, {rows, outputs});
  if (c.node.input_shapes()[2].rank() > 0) y = axes::broadcast(c, {y, c.in(2)}, {rows, outputs}, kProduces);
  return {axes::reshaped(c, y, shape)};
}

constexpr Operation kMatmul{"matmul", matmul_axes, Zeros::of_any}, kLinear{"linear", linear_axes, Zeros::of_any};
constexpr Operation kLinearWithBias{"linear", linear_axes, Zeros::none};

/// As matrices: rank 1 is a row on the left of a product.
Variable as_row(const Variable& x) { return x.rank() == 1 ? unsqueeze(x, 0) : x; }
Variable as_column(const Variable& x) { return x.rank() == 1 ? unsqueeze(x, 1) : x; }

void check_linear(const Variable& x, const Variable& weight, const Variable& bias) {
  check(weight.rank() == 2, "linear", "expected a weight (O,I), got shape {}", weight.shape());
  check(x.rank() >= 1 && x.size(-1) == weight.size(1), "linear",
        "expected {} input features as in the weight, got {}: shapes {} and {}", weight.size(1),
        x.rank() ? x.size(-1) : 0, x.shape(), weight.shape());
  check(!bias.defined() || bias.shape() == Shape{weight.size(0)}, "linear", "expected a bias of shape ({}), got {}",
        weight.size(0), bias.defined() ? bias.shape() : Shape{});
}

/// The plan by which sparse kernels compute a product with a masked weight and `rows` rows of the batch; nullptr where
/// the dense product is predicted to be as fast, and where the backward pass is recorded, which takes operations that
/// can be differentiated again.
SparseLinear* sparse_plan(WeightProduct product, const Variable& weight, int64_t rows) {
  const WeightViewPtr& view = weight.weight_view();
  if (!view || !view->plan || weight.dtype() != DType::f32 || !weight.device().is_cpu() || !sparse_enabled())
    return nullptr;
  if (product != WeightProduct::forward && grad_enabled()) return nullptr;
  if (product == WeightProduct::weight_gradient && view->flow == GradientFlow::dense) return nullptr;
  const Tensor values = weight.data();
  if (!values.is_contiguous() ||
      !choose_linear(product, values.size(0), values.size(1), view->plan->count(view->mask), rows).is_sparse())
    return nullptr;
  return &view->plan->get<SparseLinear>(
      view->mask, values, [](const Mask& mask, const Tensor& w) { return SparseLinear(mask, w); },
      [](SparseLinear& plan, const Tensor& w) { plan.refill(w); });
}

}  // namespace

Variable matmul(const Variable& a, const Variable& b) {
  return record(kMatmul, matmul(a.data(), b.data()), {a, b}, [x = Saved(a), y = Saved(b)](const BackwardContext& c) {
    const Variable &u = x.unpack(c), &v = y.unpack(c);
    const Variable left = as_row(u), right = as_column(v);  // (...,M,K) (...,K,N)
    Variable dy = c.grad();                                 // (...,M,N)
    if (v.rank() == 1) dy = unsqueeze(dy, -1);
    if (u.rank() == 1) dy = unsqueeze(dy, -2);
    Variables grads(2);
    // (...,M,N)(...,K,N)^T -> (...,M,K)
    if (c.needs(0)) {
      grads[0] = reshape(sum_to(matmul(dy, transpose(right, -1, -2)), left.shape()), u.shape());
    }
    // (...,M,K)^T(...,M,N) -> (...,K,N)
    if (c.needs(1)) {
      grads[1] = reshape(sum_to(matmul(transpose(left, -1, -2), dy), right.shape()), v.shape());
    }
    return grads;
  });
}

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  check_linear(x, weight, bias);
  const int64_t inputs = weight.size(1), outputs = weight.size(0);
  announce_product("linear", WeightProduct::forward, weight.weight_view());
  // As one product of matrices: (N,I)(O,I)^T -> (N,O).
  const Tensor rows = x.data().reshape({-1, inputs});
  Tensor y;
  if (const SparseLinear* plan = sparse_plan(WeightProduct::forward, weight, rows.size(0))) {
    y = plan->forward(rows.contiguous(), bias.defined() ? bias.data().contiguous() : Tensor());
  } else {
    y = matmul(rows, weight.data().transpose(0, 1));
    if (bias.defined()) y = y + bias.data();
  }
  Shape shape = x.shape();
  shape[shape.rank() - 1] = outputs;
  const auto backward = [xs = Saved(x), ws = Saved(weight), inputs, outputs](const BackwardContext& c) {
    const Variable &input = xs.unpack(c), &w = ws.unpack(c), dy = reshape(c.grad(), {-1, outputs});
    const WeightViewPtr& view = w.weight_view();
    Variables grads(3);
    if (c.needs(0)) {  // (N,O)(O,I) -> (N,I)
      announce_product("linear", WeightProduct::input_gradient, view);
      SparseLinear* plan = sparse_plan(WeightProduct::input_gradient, w, dy.size(0));
      const Variable dx = plan ? Variable(plan->input_gradient(dy.data().contiguous())) : matmul(dy, w);
      grads[0] = reshape(dx, input.shape());
    }
    if (c.needs(1)) {  // (N,I)^T(N,O) -> (I,O)
      announce_product("linear", WeightProduct::weight_gradient, view);
      const Variable batch = reshape(input, {-1, inputs});
      if (const SparseLinear* plan = sparse_plan(WeightProduct::weight_gradient, w, dy.size(0))) {
        grads[1] = plan->weight_gradient(dy.data().contiguous(), batch.data().contiguous());
        grads[1].set_weight_view(view);
      } else {
        grads[1] = weight_gradient(transpose(matmul(transpose(batch, 0, 1), dy), 0, 1), view);
      }
    }
    if (c.needs(2)) grads[2] = sum_to(dy, {outputs});
    return grads;
  };
  return record(bias.defined() ? kLinearWithBias : kLinear, y.reshape(shape), {x, weight, bias}, backward);
}

}  // namespace espalier
