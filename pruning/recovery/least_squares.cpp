#include "pruning/recovery/least_squares.h"

#include <algorithm>
#include <cmath>

#include "core/linalg.h"
#include "core/ops.h"

namespace espalier {

namespace {
/// to += a^T b with a (rows,m), b (rows,n).
void add_product(const Tensor& a, const Tensor& b, std::vector<double>& to) {
  const Tensor product = matmul(a.transpose(0, 1), b).contiguous();  // (rows,m)^T (rows,n) -> (m,n)
  const double* from = product.data<double>();
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}
}  // namespace

NormalEquations::NormalEquations(int64_t columns, int64_t targets)
    : columns_(columns),
      targets_(targets),
      gram_(static_cast<size_t>(columns * columns), 0),
      moments_(static_cast<size_t>(columns * targets), 0),
      squares_(static_cast<size_t>(targets), 0) {
  check(columns > 0 && targets > 0, "NormalEquations", "expected columns and targets, got {} and {}", columns, targets);
}

void NormalEquations::add(const std::vector<double>& x, const std::vector<double>& y) {
  const int64_t rows = static_cast<int64_t>(x.size()) / columns_;
  check(static_cast<int64_t>(x.size()) == rows * columns_ && static_cast<int64_t>(y.size()) == rows * targets_,
        "NormalEquations", "expected rows of {} and {} values, got {} and {} values", columns_, targets_, x.size(),
        y.size());
  if (rows == 0) return;
  const Tensor inputs = Tensor::from<double>(x, {rows, columns_}), values = Tensor::from<double>(y, {rows, targets_});
  add_product(inputs, inputs, gram_);
  add_product(inputs, values, moments_);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t t = 0; t < targets_; ++t) {
      const double value = y[static_cast<size_t>(row * targets_ + t)];
      squares_[static_cast<size_t>(t)] += value * value;
    }
  rows_ += rows;
}

std::vector<double> NormalEquations::solve(const std::vector<int64_t>& columns, const std::vector<int64_t>& targets,
                                           double ridge) const {
  const auto n = static_cast<int64_t>(columns.size());
  std::vector<double> solutions(columns.size() * targets.size(), 0);
  double trace = 0;
  for (const int64_t c : columns) trace += gram_[static_cast<size_t>(c * columns_ + c)];
  if (!std::isfinite(trace))
    fail<NumericError>("NormalEquations", "the inputs are NaN or infinite; look at the layers before this one");
  if (n == 0 || trace == 0) return solutions;  // inputs that are all 0 can fit nothing
  const double scale = trace / static_cast<double>(n);

  std::vector<double> factor;
  // A Gram matrix of rank r < n has pivots of about epsilon*scale: a ridge of that size always ends this.
  for (double strength = ridge;; strength = std::max(strength * 100, 1e-14)) {
    factor.assign(static_cast<size_t>(n * n), 0);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j <= i; ++j)
        factor[static_cast<size_t>(i * n + j)] =
            gram_[static_cast<size_t>(columns[static_cast<size_t>(i)] * columns_ + columns[static_cast<size_t>(j)])];
    for (int64_t i = 0; i < n; ++i) factor[static_cast<size_t>(i * n + i)] += strength * scale;
    if (cholesky(factor, n)) break;
    if (strength > 1) fail<NumericError>("NormalEquations", "the {} equations have no finite solution", n);
  }
  for (size_t t = 0; t < targets.size(); ++t) {
    double* d = solutions.data() + t * columns.size();
    for (size_t i = 0; i < columns.size(); ++i)
      d[i] = moments_[static_cast<size_t>(columns[i] * targets_ + targets[t])];
    cholesky_solve(factor, n, std::span(d, columns.size()));
  }
  return solutions;
}

double NormalEquations::reduction(const std::vector<int64_t>& columns, int64_t target, const double* d) const {
  // ||y||^2 - ||X d - y||^2 = 2 d.(X^T y) - d.(X^T X d)
  double gained = 0;
  for (size_t i = 0; i < columns.size(); ++i) {
    double projected = 0;
    const double* row = gram_.data() + columns[i] * columns_;
    for (size_t j = 0; j < columns.size(); ++j) projected += row[columns[j]] * d[j];
    gained += d[i] * (2 * moments_[static_cast<size_t>(columns[i] * targets_ + target)] - projected);
  }
  return gained;
}

}  // namespace espalier
