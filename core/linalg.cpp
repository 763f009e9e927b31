#include "core/linalg.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace espalier {
namespace {

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

bool cholesky(std::span<double> a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    double* const row = a.data() + i * n;
    for (int64_t j = 0; j < i; ++j) {
      const double* const other = a.data() + j * n;
      row[j] = (row[j] - dot(row, other, j)) / other[j];
    }
    const double pivot = row[i] - dot(row, row, i);
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    row[i] = std::sqrt(pivot);
  }
  return true;
}

void cholesky_solve(std::span<const double> l, int64_t n, std::span<double> b) {
  double* const x = b.data();
  for (int64_t i = 0; i < n; ++i) {
    const double* const row = l.data() + i * n;
    x[i] = (x[i] - dot(row, x, i)) / row[i];
  }
  for (int64_t i = n - 1; i >= 0; --i) {
    const double* const row = l.data() + i * n;
    x[i] /= row[i];
    for (int64_t j = 0; j < i; ++j) x[j] -= row[j] * x[i];
  }
}

bool orthonormalize(std::span<double> rows, int64_t count, int64_t n) {
  for (int64_t i = 0; i < count; ++i) {
    double* const row = rows.data() + i * n;
    const double before = dot(row, row, n);
    for (int pass = 0; pass < 2; ++pass) {  // Gram-Schmidt; twice is enough (Giraud et al. 2005)
      for (int64_t j = 0; j < i; ++j) {
        const double* const other = rows.data() + j * n;
        double product = 0;
        for (int64_t k = 0; k < n; ++k) product += row[k] * other[k];
        for (int64_t k = 0; k < n; ++k) row[k] -= product * other[k];
      }
    }
    double square = 0;
    for (int64_t k = 0; k < n; ++k) square += row[k] * row[k];
    constexpr double kRounding = 16 * std::numeric_limits<double>::epsilon();  // of the length, what rounding may leave
    if (!(square > kRounding * kRounding * before)) return false;
    const double scale = 1 / std::sqrt(square);
    for (int64_t k = 0; k < n; ++k) row[k] *= scale;
  }
  return true;
}

int64_t rank_in_place(std::span<double> a, int64_t rows, int64_t columns, double tolerance) {
  const auto at = [&](int64_t r, int64_t c) -> double& { return a[static_cast<size_t>(r * columns + c)]; };
  double threshold = 0;
  for (int64_t k = 0; k < std::min(rows, columns); ++k) {
    int64_t row = k, column = k;
    for (int64_t r = k; r < rows; ++r)
      for (int64_t c = k; c < columns; ++c)
        if (std::abs(at(r, c)) > std::abs(at(row, column))) {
          row = r;
          column = c;
        }
    const double pivot = std::abs(at(row, column));
    if (k == 0) threshold = tolerance * static_cast<double>(std::max(rows, columns)) * pivot;
    if (!(pivot > threshold)) return k;
    for (int64_t c = 0; c < columns; ++c) std::swap(at(k, c), at(row, c));
    for (int64_t r = 0; r < rows; ++r) std::swap(at(r, k), at(r, column));
    for (int64_t r = k + 1; r < rows; ++r) {
      const double factor = at(r, k) / at(k, k);
      for (int64_t c = k; c < columns; ++c) at(r, c) -= factor * at(k, c);
    }
  }
  return std::min(rows, columns);
}

int64_t matrix_rank(const Tensor& matrix, double tolerance) {
  check(matrix.rank() == 2 && tolerance >= 0, "matrix_rank",
        "expected a matrix (M,N) and a tolerance of at least 0, got {} and {}", describe(matrix), tolerance);
  std::vector<double> values = matrix.to_vector<double>();
  return rank_in_place(values, matrix.size(0), matrix.size(1), tolerance);
}

}  // namespace espalier
