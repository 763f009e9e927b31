// Tensor operations: they check, allocate the result and call a kernel. No gradients here: autograd/ops.h
// has the same names on Variables. Axes may be negative; an empty axis list means all axes.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "core/kernels.h"
#include "core/tensor.h"

namespace espalier {

using Axes = std::vector<int>;

// Elementwise. Two tensors are broadcast (NumPy's rules) and must have one dtype and device.
Tensor unary(UnaryOp op, const Tensor& x);
Tensor binary(BinaryOp op, const Tensor& a, const Tensor& b);
Tensor binary(BinaryOp op, const Tensor& a, double b);
Tensor binary(BinaryOp op, double a, const Tensor& b);
/// Comparisons give bool; NaN is unequal to everything and neither less nor greater.
Tensor compare(CompareOp op, const Tensor& a, const Tensor& b);
Tensor compare(CompareOp op, const Tensor& a, double b);
/// condition ? a : b, broadcast.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
Tensor clamp(const Tensor& x, double low, double high);
/// out += alpha * x, in place; x is broadcast.
void axpy_(double alpha, const Tensor& x, Tensor& out);

inline Tensor operator+(const Tensor& a, const Tensor& b) { return binary(BinaryOp::add, a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return binary(BinaryOp::sub, a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return binary(BinaryOp::mul, a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return binary(BinaryOp::div, a, b); }
inline Tensor operator+(const Tensor& a, double b) { return binary(BinaryOp::add, a, b); }
inline Tensor operator-(const Tensor& a, double b) { return binary(BinaryOp::sub, a, b); }
inline Tensor operator*(const Tensor& a, double b) { return binary(BinaryOp::mul, a, b); }
inline Tensor operator/(const Tensor& a, double b) { return binary(BinaryOp::div, a, b); }
inline Tensor operator+(double a, const Tensor& b) { return binary(BinaryOp::add, a, b); }
inline Tensor operator-(double a, const Tensor& b) { return binary(BinaryOp::sub, a, b); }
inline Tensor operator*(double a, const Tensor& b) { return binary(BinaryOp::mul, a, b); }
inline Tensor operator/(double a, const Tensor& b) { return binary(BinaryOp::div, a, b); }
inline Tensor operator-(const Tensor& x) { return unary(UnaryOp::neg, x); }
inline Tensor operator&(const Tensor& a, const Tensor& b) { return binary(BinaryOp::logical_and, a, b); }
inline Tensor operator|(const Tensor& a, const Tensor& b) { return binary(BinaryOp::logical_or, a, b); }
inline Tensor operator^(const Tensor& a, const Tensor& b) { return binary(BinaryOp::logical_xor, a, b); }
inline Tensor operator~(const Tensor& x) { return unary(UnaryOp::logical_not, x); }
inline Tensor operator==(const Tensor& a, const Tensor& b) { return compare(CompareOp::eq, a, b); }
inline Tensor operator==(const Tensor& a, double b) { return compare(CompareOp::eq, a, b); }
inline Tensor operator!=(const Tensor& a, const Tensor& b) { return compare(CompareOp::ne, a, b); }
inline Tensor operator!=(const Tensor& a, double b) { return compare(CompareOp::ne, a, b); }
inline Tensor operator<(const Tensor& a, const Tensor& b) { return compare(CompareOp::lt, a, b); }
inline Tensor operator<(const Tensor& a, double b) { return compare(CompareOp::lt, a, b); }
inline Tensor operator<=(const Tensor& a, const Tensor& b) { return compare(CompareOp::le, a, b); }
inline Tensor operator<=(const Tensor& a, double b) { return compare(CompareOp::le, a, b); }
inline Tensor operator>(const Tensor& a, const Tensor& b) { return compare(CompareOp::gt, a, b); }
inline Tensor operator>(const Tensor& a, double b) { return compare(CompareOp::gt, a, b); }
inline Tensor operator>=(const Tensor& a, const Tensor& b) { return compare(CompareOp::ge, a, b); }
inline Tensor operator>=(const Tensor& a, double b) { return compare(CompareOp::ge, a, b); }

inline Tensor abs(const Tensor& x) { return unary(UnaryOp::abs, x); }
inline Tensor sqrt(const Tensor& x) { return unary(UnaryOp::sqrt, x); }
inline Tensor square(const Tensor& x) { return unary(UnaryOp::square, x); }
inline Tensor exp(const Tensor& x) { return unary(UnaryOp::exp, x); }
inline Tensor log(const Tensor& x) { return unary(UnaryOp::log, x); }
inline Tensor isnan(const Tensor& x) { return unary(UnaryOp::isnan, x); }
inline Tensor maximum(const Tensor& a, const Tensor& b) { return binary(BinaryOp::maximum, a, b); }
inline Tensor minimum(const Tensor& a, const Tensor& b) { return binary(BinaryOp::minimum, a, b); }

// Reductions. max and min propagate NaN. Integer sums are i64; the sum of a bool tensor counts.
Tensor reduce(ReduceOp op, const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
/// Variance over the axes, divided by n - correction.
Tensor variance(const Tensor& x, const Axes& axes = {}, bool keep_axes = false, int correction = 1);
Tensor max(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
Tensor min(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
Tensor prod(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
Tensor any(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
Tensor all(const Tensor& x, const Axes& axes = {}, bool keep_axes = false);
/// Index of the first largest (smallest) value along an axis, i64; a NaN counts as the largest (smallest).
Tensor argmax(const Tensor& x, int axis, bool keep_axis = false);
Tensor argmin(const Tensor& x, int axis, bool keep_axis = false);
/// Sums x down to `shape`, the inverse of broadcasting.
Tensor sum_to(const Tensor& x, const Shape& shape);

/// (..., M, K) (..., K, N) -> (..., M, N); leading axes are broadcast. Rank 1 is a row on the left, a column on
/// the right, and its axis goes away.
Tensor matmul(const Tensor& a, const Tensor& b);

// Joining and indexing.
Tensor cat(const std::vector<Tensor>& parts, int axis);
Tensor stack(const std::vector<Tensor>& parts, int axis);
/// Adds before[i] and after[i] elements of `value` around axis i; one pair for each axis.
Tensor pad(const Tensor& x, const std::vector<std::pair<int64_t, int64_t>>& widths, double value = 0);
Tensor gather(const Tensor& x, int axis, const Tensor& index);
Tensor scatter(const Tensor& x, int axis, const Tensor& index, const Tensor& values);
Tensor scatter_add(const Tensor& x, int axis, const Tensor& index, const Tensor& values);
Tensor index_select(const Tensor& x, int axis, const Tensor& index);
/// A copy of x with values added at the index.
Tensor index_add(const Tensor& x, int axis, const Tensor& index, const Tensor& values);
Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype = DType::f32);

// Order. NaN counts as the largest value; equal values keep their order.
struct Sorted {
  Tensor values, index;
};
Sorted sort(const Tensor& x, int axis = -1, bool descending = false);
Sorted topk(const Tensor& x, int64_t k, int axis = -1, bool largest = true);
/// The k-th smallest value (k from 1) along an axis, and its index.
Sorted kthvalue(const Tensor& x, int64_t k, int axis = -1);

// Checks.
bool all_close(const Tensor& a, const Tensor& b, double relative = 1e-5, double absolute = 1e-8);
/// Same shape, dtype and bits (NaN equals NaN of the same bits).
bool identical(const Tensor& a, const Tensor& b);

}  // namespace espalier
