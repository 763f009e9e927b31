// The table of operations: each case is declared once, and run as a comparison with a double reference, a check of
// first and second derivatives, a run on poisoned memory and one on strided inputs (autograd/op_cases_test.cpp), and
// between devices where there are several. Cases name no device: constants are moved to that of the first input.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/ops.h"

namespace espalier::op_cases {

using Index = std::vector<int64_t>;

/// Values in row-major order, for references that are loops written from the definition.
struct Array {
  Array() = default;
  explicit Array(const Shape& s, double value = 0) : shape(s), values(static_cast<size_t>(s.numel()), value) {}

  double& operator()(const Index& index) { return values[offset(index)]; }
  double operator()(const Index& index) const { return values[offset(index)]; }
  /// The element that NumPy's broadcasting puts at `index` of a larger shape.
  double broadcast(const Index& index) const;

  Shape shape;
  std::vector<double> values;

 private:
  size_t offset(const Index& index) const;
};
using Arrays = std::vector<Array>;

/// Calls f with every index of a shape, in row-major order.
void for_each(const Shape& shape, const std::function<void(const Index&)>& f);
/// An array filled by f(index).
Array fill(const Shape& shape, const std::function<double(const Index&)>& f);

/// How to draw an input: uniform in [low, high).
struct OpInput {
  Shape shape;
  double low = -2, high = 2;
  double away_from_zero = 0;  ///< for operations with a kink at 0
  bool distinct = false;      ///< any two values differ clearly: for max, which has a kink where they meet
  bool requires_grad = true;
};

struct OpCase {
  std::string name;
  std::vector<OpInput> inputs;
  std::function<Variables(const Variables&)> run;
  std::function<Arrays(const Arrays&)> reference;
  /// The longest sum behind one output. Tolerances grow with it; those of gradients with it and the outputs' number.
  int64_t terms = 1;
  double scale = 1;     ///< the size of one term
  int derivatives = 2;  ///< how often to differentiate numerically; 0 where there are too many elements for that
  GradcheckOptions gradcheck = {};
};

/// What a sum of `terms` numbers of size `scale` may be off by: each addition rounds once.
double tolerance(DType dtype, int64_t terms, double scale = 1);

/// All cases. Names are unique, of the form operation.variant.
const std::vector<OpCase>& all();

// One function for each file of autograd/ops.
void add_elementwise(std::vector<OpCase>& cases);
void add_reductions(std::vector<OpCase>& cases);
void add_shape(std::vector<OpCase>& cases);
void add_indexing(std::vector<OpCase>& cases);
void add_matmul(std::vector<OpCase>& cases);
void add_conv2d(std::vector<OpCase>& cases);
void add_pooling(std::vector<OpCase>& cases);
void add_normalization(std::vector<OpCase>& cases);
void add_losses(std::vector<OpCase>& cases);
void add_lstm(std::vector<OpCase>& cases);

/// The inputs of a case, the same on every run. The values are exact in f32, whatever the dtype.
Variables make_inputs(const OpCase& op_case, DType dtype, Device device = Device::cpu());
/// Weights for the outputs, in (0.5, 1.5): what backward starts from.
Variables make_output_gradients(const Variables& outputs);
Arrays to_arrays(const Variables& variables);

/// For references: 1 / (1 + exp(-x)).
double sigmoid_of(double x);

}  // namespace espalier::op_cases
