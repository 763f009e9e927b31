#include "core/ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace espalier {
namespace {

const char* name_of(UnaryOp op) {
  constexpr const char* kNames[] = {"neg", "abs",  "sign",  "square", "sqrt",        "rsqrt", "reciprocal",
                                    "exp", "log",  "log1p", "sin",    "cos",         "tanh",  "sigmoid",
                                    "erf", "relu", "floor", "round",  "logical_not", "isnan"};
  return kNames[static_cast<int>(op)];
}

const char* name_of(BinaryOp op) {
  constexpr const char* kNames[] = {"add",     "sub",       "mul",         "div",        "pow",        "maximum",
                                    "minimum", "relu_grad", "logical_and", "logical_or", "logical_xor"};
  return kNames[static_cast<int>(op)];
}

bool is_logical(BinaryOp op) { return op >= BinaryOp::logical_and; }

void require_defined(const Tensor& x, const char* operation) {
  check(x.defined(), operation, "expected a tensor, got an undefined one");
}

void require_dtype(const Tensor& x, DType dtype, const char* operation, const char* what) {
  require_defined(x, operation);
  check(x.dtype() == dtype, operation, "expected {} of dtype {}, got {}; convert it with .to(DType::{})", what,
        name_of(dtype), describe(x), dtype == DType::boolean ? "boolean" : name_of(dtype));  // bool is a keyword
}

void require_same_kind(const Tensor& a, const Tensor& b, const char* operation) {
  require_defined(a, operation);
  require_defined(b, operation);
  check(a.device() == b.device(), operation, "expected tensors on one device, got {} and {}; move one with .to(device)",
        describe(a), describe(b));
  check(a.dtype() == b.dtype(), operation, "expected tensors of one dtype, got {} and {}; convert one with .to(dtype)",
        describe(a), describe(b));
}

void require_arithmetic(const Tensor& x, const char* operation) {
  check(is_floating(x.dtype()) || x.dtype() == DType::i64 || x.dtype() == DType::i32, operation,
        "expected f32, f64, i64 or i32, got {}; convert it with .to(dtype)", describe(x));
}

void require_operand(BinaryOp op, const Tensor& x) {
  if (is_logical(op))
    require_dtype(x, DType::boolean, name_of(op), "a tensor");
  else
    require_arithmetic(x, name_of(op));
}

/// a and b expanded to their common shape.
Shape broadcast(Tensor& a, Tensor& b, const char* operation) {
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), operation);
  a = a.expand(shape);
  b = b.expand(shape);
  return shape;
}

Tensor binary_scalar(BinaryOp op, const Tensor& a, double b, bool reversed) {
  require_defined(a, name_of(op));
  check(!is_logical(op), name_of(op), "expected two bool tensors, got a number");
  require_operand(op, a);
  check(is_floating(a.dtype()) || b == std::floor(b), name_of(op),
        "expected a whole number with an integer tensor, got {} and {}", describe(a), b);
  Tensor out = Tensor::empty_like(a);
  kernels(a.device()).binary_scalar(op, a, b, reversed, out);
  return out;
}

std::vector<bool> axis_set(const Axes& axes, int rank, const char* operation) {
  std::vector<bool> set(static_cast<size_t>(rank), axes.empty());
  for (int axis : axes) set[static_cast<size_t>(normalize_axis(axis, rank, operation))] = true;
  return set;
}

/// Removes the axes that were reduced to size 1.
Tensor drop_axes(const Tensor& x, const std::vector<bool>& axes) {
  Tensor out = x;
  for (int i = x.rank() - 1; i >= 0; --i)
    if (axes[static_cast<size_t>(i)]) out = out.select(i, 0);
  return out;
}

Tensor arg_reduce(bool maximum, const Tensor& x, int axis, bool keep_axis) {
  const char* name = maximum ? "argmax" : "argmin";
  require_defined(x, name);
  require_arithmetic(x, name);
  axis = normalize_axis(axis, x.rank(), name);
  check(x.size(axis) > 0, name, "expected at least one element along axis {}, got shape {}", axis, x.shape());
  Shape shape = x.shape();
  shape[axis] = 1;
  Tensor out = Tensor::empty(shape, DType::i64, x.device());
  kernels(x.device()).arg_reduce(maximum, x, axis, out);
  return keep_axis ? out : out.select(axis, 0);
}

/// Checks what gather and scatter share: ranks equal, index no larger than x outside the axis.
int check_indexed(const Tensor& x, int axis, const Tensor& index, const char* operation) {
  require_defined(x, operation);
  require_dtype(index, DType::i64, operation, "an index");
  axis = normalize_axis(axis, x.rank(), operation);
  check(index.rank() == x.rank(), operation, "expected an index of rank {} as the tensor's, got {} for {}", x.rank(),
        index.shape(), x.shape());
  for (int i = 0; i < x.rank(); ++i)
    check(i == axis || index.size(i) <= x.size(i), operation,
          "expected an index no larger than the tensor outside axis {}, got {} for {}", axis, index.shape(), x.shape());
  return axis;
}

int check_index_list(const Tensor& x, int axis, const Tensor& index, const char* operation) {
  require_defined(x, operation);
  require_dtype(index, DType::i64, operation, "an index");
  check(index.rank() == 1, operation, "expected an index of rank 1, got shape {}", index.shape());
  return normalize_axis(axis, x.rank(), operation);
}

Tensor scattered(bool add, const Tensor& x, int axis, const Tensor& index, const Tensor& values) {
  const char* name = add ? "scatter_add" : "scatter";
  axis = check_indexed(x, axis, index, name);
  require_same_kind(x, values, name);
  check(values.shape() == index.shape(), name, "expected values of the index's shape {}, got {}", index.shape(),
        values.shape());
  Tensor out = x.clone();
  const Kernels& k = kernels(x.device());
  (add ? k.scatter_add : k.scatter)(out, axis, index, values);
  return out;
}

}  // namespace

// --- elementwise ---------------------------------------------------------------------------------------------------

Tensor unary(UnaryOp op, const Tensor& x) {
  require_defined(x, name_of(op));
  DType dtype = x.dtype();
  if (op == UnaryOp::logical_not) {
    require_dtype(x, DType::boolean, name_of(op), "a tensor");
  } else if (op == UnaryOp::isnan) {
    if (!is_floating(dtype)) return Tensor::zeros(x.shape(), DType::boolean, x.device());
    dtype = DType::boolean;
  } else {
    const bool integers_too = op <= UnaryOp::square || op == UnaryOp::relu;
    check(is_floating(dtype) || (integers_too && (dtype == DType::i64 || dtype == DType::i32)), name_of(op),
          "expected {}, got {}; convert it with .to(DType::f32)", integers_too ? "f32, f64, i64 or i32" : "f32 or f64",
          describe(x));
  }
  Tensor out = Tensor::empty(x.shape(), dtype, x.device());
  kernels(x.device()).unary(op, x, out);
  return out;
}

Tensor binary(BinaryOp op, const Tensor& a, const Tensor& b) {
  require_same_kind(a, b, name_of(op));
  require_operand(op, a);
  Tensor x = a, y = b;
  const Shape shape = broadcast(x, y, name_of(op));
  Tensor out = Tensor::empty(shape, a.dtype(), a.device());
  kernels(a.device()).binary(op, x, y, out);
  return out;
}

Tensor binary(BinaryOp op, const Tensor& a, double b) { return binary_scalar(op, a, b, false); }
Tensor binary(BinaryOp op, double a, const Tensor& b) { return binary_scalar(op, b, a, true); }

Tensor compare(CompareOp op, const Tensor& a, const Tensor& b) {
  require_same_kind(a, b, "compare");
  Tensor x = a, y = b;
  const Shape shape = broadcast(x, y, "compare");
  Tensor out = Tensor::empty(shape, DType::boolean, a.device());
  kernels(a.device()).compare(op, x, y, out);
  return out;
}

Tensor compare(CompareOp op, const Tensor& a, double b) {
  require_defined(a, "compare");
  // An integer tensor is compared in f64, so that x < 2.5 means what it says.
  const DType dtype = is_floating(a.dtype()) ? a.dtype() : DType::f64;
  return compare(op, a.to(dtype), Tensor::scalar(b, dtype, a.device()));
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  require_dtype(condition, DType::boolean, "where", "a condition");
  require_same_kind(a, b, "where");
  check(condition.device() == a.device(), "where", "expected tensors on one device, got {} and {}", describe(condition),
        describe(a));
  const Shape shape = broadcast_shapes(broadcast_shapes(a.shape(), b.shape(), "where"), condition.shape(), "where");
  Tensor out = Tensor::empty(shape, a.dtype(), a.device());
  kernels(a.device()).where(condition.expand(shape), a.expand(shape), b.expand(shape), out);
  return out;
}

Tensor clamp(const Tensor& x, double low, double high) {
  require_defined(x, "clamp");
  require_arithmetic(x, "clamp");
  check(low <= high, "clamp", "expected low <= high, got {} and {}", low, high);
  Tensor out = Tensor::empty_like(x);
  kernels(x.device()).clamp(x, low, high, out);
  return out;
}

void axpy_(double alpha, const Tensor& x, Tensor& out) {
  require_same_kind(x, out, "axpy_");
  check(is_floating(x.dtype()), "axpy_", "expected f32 or f64, got {}", describe(x));
  kernels(out.device()).axpy(alpha, x.expand(out.shape()), out);
  out.bump_version();
}

// --- reductions ----------------------------------------------------------------------------------------------------

Tensor reduce(ReduceOp op, const Tensor& x, const Axes& axes, bool keep_axes) {
  require_defined(x, "reduce");
  const std::vector<bool> set = axis_set(axes, x.rank(), "reduce");
  Shape shape = x.shape();
  for (int i = 0; i < x.rank(); ++i)
    if (set[static_cast<size_t>(i)]) shape[i] = 1;
  const bool logical = op == ReduceOp::any || op == ReduceOp::all;
  const bool adds = op == ReduceOp::sum || op == ReduceOp::prod;
  if (logical) require_dtype(x, DType::boolean, "reduce", "a tensor");
  if (!logical && !adds)
    check(x.numel() > 0 || shape.numel() == 0, "reduce", "max and min need at least one element, got shape {}",
          x.shape());
  const DType dtype = adds && !is_floating(x.dtype()) ? DType::i64 : x.dtype();
  Tensor out = Tensor::empty(shape, dtype, x.device());
  kernels(x.device()).reduce(op, x, set, out);
  return keep_axes ? out : drop_axes(out, set);
}

Tensor sum(const Tensor& x, const Axes& axes, bool keep_axes) { return reduce(ReduceOp::sum, x, axes, keep_axes); }
Tensor max(const Tensor& x, const Axes& axes, bool keep_axes) { return reduce(ReduceOp::max, x, axes, keep_axes); }
Tensor min(const Tensor& x, const Axes& axes, bool keep_axes) { return reduce(ReduceOp::min, x, axes, keep_axes); }
Tensor prod(const Tensor& x, const Axes& axes, bool keep_axes) { return reduce(ReduceOp::prod, x, axes, keep_axes); }
Tensor any(const Tensor& x, const Axes& axes, bool keep_axes) { return reduce(ReduceOp::any, x, axes, keep_axes); }
Tensor all(const Tensor& x, const Axes& axes, bool keep_axes) { return reduce(ReduceOp::all, x, axes, keep_axes); }

Tensor mean(const Tensor& x, const Axes& axes, bool keep_axes) {
  require_defined(x, "mean");
  check(is_floating(x.dtype()), "mean", "expected f32 or f64, got {}; convert it with .to(DType::f32)", describe(x));
  const Tensor total = sum(x, axes, keep_axes);
  const auto count = static_cast<double>(x.numel()) / static_cast<double>(std::max<int64_t>(total.numel(), 1));
  return total * (1.0 / count);
}

Tensor variance(const Tensor& x, const Axes& axes, bool keep_axes, int correction) {
  const Tensor squares = square(x - mean(x, axes, true));
  const Tensor total = sum(squares, axes, keep_axes);
  const auto count = static_cast<double>(x.numel()) / static_cast<double>(std::max<int64_t>(total.numel(), 1));
  // With a correction of the count or more nothing is left to divide by: infinite, or NaN where all are equal.
  return total * (1.0 / std::max(count - correction, 0.0));
}

Tensor argmax(const Tensor& x, int axis, bool keep_axis) { return arg_reduce(true, x, axis, keep_axis); }
Tensor argmin(const Tensor& x, int axis, bool keep_axis) { return arg_reduce(false, x, axis, keep_axis); }

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  const int added = x.rank() - shape.rank();
  check(added >= 0, "sum_to", "shape {} does not broadcast to {}", shape, x.shape());
  Axes axes;
  for (int i = 0; i < x.rank(); ++i) {
    if (i < added || (shape[i - added] == 1 && x.size(i) != 1))
      axes.push_back(i);
    else
      check(shape[i - added] == x.size(i), "sum_to", "shape {} does not broadcast to {}", shape, x.shape());
  }
  return (axes.empty() ? x : sum(x, axes, true)).reshape(shape);
}

// --- matrix products -----------------------------------------------------------------------------------------------

Tensor matmul(const Tensor& a, const Tensor& b) {
  require_same_kind(a, b, "matmul");
  check(is_floating(a.dtype()), "matmul", "expected f32 or f64, got {}; convert it with .to(DType::f32)", describe(a));
  check(a.rank() >= 1 && b.rank() >= 1, "matmul", "expected at least one axis, got shapes {} and {}", a.shape(),
        b.shape());
  const Tensor left = a.rank() == 1 ? a.unsqueeze(0) : a;
  const Tensor right = b.rank() == 1 ? b.unsqueeze(1) : b;
  const int64_t m = left.size(-2), k = left.size(-1), n = right.size(-1);
  check(right.size(-2) == k, "matmul", "expected the inner sizes to agree, got {} and {}: shapes {} and {}", k,
        right.size(-2), a.shape(), b.shape());
  const Shape left_batch(left.shape().begin(), left.shape().end() - 2);
  const Shape right_batch(right.shape().begin(), right.shape().end() - 2);
  Shape batch = broadcast_shapes(left_batch, right_batch, "matmul");
  const auto with_batch = [&](const Tensor& x) {  // (B,rows,columns), batch axes joined
    Shape full = batch;
    full.push_back(x.size(-2));
    full.push_back(x.size(-1));
    if (x.rank() == 2) {  // one matrix for all: stride 0
      return x.unsqueeze(0).expand({batch.numel(), x.size(-2), x.size(-1)});
    }
    return x.expand(full).reshape({batch.numel(), x.size(-2), x.size(-1)});
  };
  Tensor out = Tensor::empty({batch.numel(), m, n}, a.dtype(), a.device());
  kernels(a.device()).matmul(with_batch(left), with_batch(right), false, out);
  Shape shape = batch;
  if (a.rank() > 1) shape.push_back(m);
  if (b.rank() > 1) shape.push_back(n);
  return out.reshape(shape);
}

// --- joining and indexing ------------------------------------------------------------------------------------------

Tensor cat(const std::vector<Tensor>& parts, int axis) {
  check(!parts.empty(), "cat", "expected at least one tensor, got none");
  const Tensor& first = parts.front();
  require_defined(first, "cat");
  axis = normalize_axis(axis, first.rank(), "cat");
  Shape shape = first.shape();
  shape[axis] = 0;
  for (const Tensor& part : parts) {
    require_same_kind(first, part, "cat");
    bool fits = part.rank() == first.rank();
    for (int i = 0; fits && i < first.rank(); ++i) fits = i == axis || part.size(i) == first.size(i);
    check(fits, "cat", "expected shapes equal outside axis {}, got {} and {}", axis, first.shape(), part.shape());
    shape[axis] += part.size(axis);
  }
  Tensor out = Tensor::empty(shape, first.dtype(), first.device());
  int64_t at = 0;
  for (const Tensor& part : parts) {
    out.slice(axis, at, at + part.size(axis)).copy_(part);
    at += part.size(axis);
  }
  return out;
}

Tensor stack(const std::vector<Tensor>& parts, int axis) {
  std::vector<Tensor> expanded;
  for (const Tensor& part : parts) expanded.push_back(part.unsqueeze(axis));
  return cat(expanded, axis);
}

Tensor pad(const Tensor& x, const std::vector<std::pair<int64_t, int64_t>>& widths, double value) {
  require_defined(x, "pad");
  check(static_cast<int>(widths.size()) == x.rank(), "pad", "expected {} pairs for shape {}, got {}", x.rank(),
        x.shape(), widths.size());
  Shape shape = x.shape();
  for (int i = 0; i < x.rank(); ++i) {
    const auto [before, after] = widths[static_cast<size_t>(i)];
    check(before >= 0 && after >= 0, "pad", "expected widths of at least 0, got {} and {}", before, after);
    shape[i] += before + after;
  }
  Tensor out = Tensor::full(shape, value, x.dtype(), x.device());
  Tensor inside = out;
  for (int i = 0; i < x.rank(); ++i) {
    const int64_t before = widths[static_cast<size_t>(i)].first;
    inside = inside.slice(i, before, before + x.size(i));
  }
  inside.copy_(x);
  return out;
}

Tensor gather(const Tensor& x, int axis, const Tensor& index) {
  axis = check_indexed(x, axis, index, "gather");
  Tensor out = Tensor::empty(index.shape(), x.dtype(), x.device());
  kernels(x.device()).gather(x, axis, index, out);
  return out;
}

Tensor scatter(const Tensor& x, int axis, const Tensor& index, const Tensor& values) {
  return scattered(false, x, axis, index, values);
}

Tensor scatter_add(const Tensor& x, int axis, const Tensor& index, const Tensor& values) {
  return scattered(true, x, axis, index, values);
}

Tensor index_select(const Tensor& x, int axis, const Tensor& index) {
  axis = check_index_list(x, axis, index, "index_select");
  Shape shape = x.shape();
  shape[axis] = index.numel();
  Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  kernels(x.device()).index_select(x, axis, index, out);
  return out;
}

Tensor index_add(const Tensor& x, int axis, const Tensor& index, const Tensor& values) {
  axis = check_index_list(x, axis, index, "index_add");
  require_same_kind(x, values, "index_add");
  Shape expected = x.shape();
  expected[axis] = index.numel();
  check(values.shape() == expected, "index_add", "expected values of shape {}, got {}", expected, values.shape());
  Tensor out = x.clone();
  kernels(x.device()).index_add(out, axis, index, values);
  return out;
}

Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype) {
  require_dtype(labels, DType::i64, "one_hot", "labels");
  Shape shape = labels.shape();
  shape.push_back(classes);
  const Tensor index = labels.unsqueeze(-1);
  return scatter(Tensor::zeros(shape, dtype, labels.device()), -1, index,
                 Tensor::ones(index.shape(), dtype, labels.device()));
}

// --- order ---------------------------------------------------------------------------------------------------------

Sorted sort(const Tensor& x, int axis, bool descending) {
  require_defined(x, "sort");
  require_arithmetic(x, "sort");
  axis = normalize_axis(axis, x.rank(), "sort");
  Sorted result{Tensor::empty_like(x), Tensor::empty(x.shape(), DType::i64, x.device())};
  kernels(x.device()).sort(x, axis, descending, result.values, result.index);
  return result;
}

Sorted topk(const Tensor& x, int64_t k, int axis, bool largest) {
  require_defined(x, "topk");
  require_arithmetic(x, "topk");
  axis = normalize_axis(axis, x.rank(), "topk");
  check(k >= 0 && k <= x.size(axis), "topk", "expected k from 0 to {}, the size of axis {} of shape {}, got {}",
        x.size(axis), axis, x.shape(), k);
  Shape shape = x.shape();
  shape[axis] = k;
  Sorted result{Tensor::empty(shape, x.dtype(), x.device()), Tensor::empty(shape, DType::i64, x.device())};
  kernels(x.device()).topk(x, axis, k, largest, result.values, result.index);
  return result;
}

Sorted kthvalue(const Tensor& x, int64_t k, int axis) {
  require_defined(x, "kthvalue");
  axis = normalize_axis(axis, x.rank(), "kthvalue");
  check(k >= 1 && k <= x.size(axis), "kthvalue", "expected k from 1 to {}, the size of axis {} of shape {}, got {}",
        x.size(axis), axis, x.shape(), k);
  const Sorted smallest = topk(x, k, axis, false);
  return {smallest.values.select(axis, k - 1), smallest.index.select(axis, k - 1)};
}

// --- checks --------------------------------------------------------------------------------------------------------

bool all_close(const Tensor& a, const Tensor& b, double relative, double absolute) {
  if (a.shape() != b.shape()) return false;
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  for (size_t i = 0; i < x.size(); ++i)
    // A tolerance relative to infinity would let everything pass.
    if (!(x[i] == y[i] || (std::isfinite(y[i]) && std::fabs(x[i] - y[i]) <= absolute + relative * std::fabs(y[i]))))
      return false;
  return true;
}

bool identical(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  if (a.numel() == 0) return true;
  const Tensor x = a.to(Device::cpu()).contiguous(), y = b.to(Device::cpu()).contiguous();
  return std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

}  // namespace espalier
