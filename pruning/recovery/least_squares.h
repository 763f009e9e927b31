// Least squares in double by normal equations, for weights that are fitted to what a layer should put out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace espalier {

/// X^T X of many rows, and with it the solutions of ridge regressions on chosen columns.
class NormalEquations {
 public:
  /// For rows of `columns` inputs and `targets` values to be fitted.
  NormalEquations(int64_t columns, int64_t targets);

  /// x (rows,columns) and y (rows,targets), row-major.
  void add(const std::vector<double>& x, const std::vector<double>& y);

  int64_t columns() const { return columns_; }
  int64_t targets() const { return targets_; }
  int64_t rows() const { return rows_; }
  /// Sum of y^2 over the rows: the error of d = 0.
  double squares(int64_t target) const { return squares_[static_cast<size_t>(target)]; }

  /// Solutions d for several targets on the same increasing columns: the minimum of ||X d - y||^2 + ridge*m*||d||^2, m
  /// the mean of the columns' squared norms. (targets, columns.size()), row-major. The ridge grows until the equations
  /// can be solved. Throws NumericError when they are not finite.
  std::vector<double> solve(const std::vector<int64_t>& columns, const std::vector<int64_t>& targets,
                            double ridge) const;
  /// How much ||X d - y||^2 is below ||y||^2 for these columns' d.
  double reduction(const std::vector<int64_t>& columns, int64_t target, const double* d) const;

 private:
  int64_t columns_, targets_, rows_ = 0;
  std::vector<double> gram_;     ///< X^T X (columns,columns)
  std::vector<double> moments_;  ///< X^T y (columns,targets)
  std::vector<double> squares_;  ///< (targets)
};

}  // namespace espalier
