// The reference vectors that tests/torch/make_reference.py wrote, and how closely ours must agree with them.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "autograd/ops.h"

namespace espalier::torch_reference {

/// The names of the cases that begin with `prefix` and a dot, in no particular order: conv2d.0, conv2d.1, ...
std::vector<std::string> cases(const std::string& prefix);

/// One case of the file: its options and its tensors, floats converted to `dtype`.
class Case {
 public:
  Case(std::string name, DType dtype);

  const nlohmann::json& options() const { return options_; }
  bool has(const std::string& field) const;
  /// Fails the program when the field is missing: then the file and the test don't belong together.
  Tensor tensor(const std::string& field) const;
  /// The tensor as a leaf that takes a gradient; undefined where the case has no such field.
  Variable leaf(const std::string& field) const;
  const std::string& name() const { return name_; }
  DType dtype() const { return dtype_; }

  /// Expects a tensor equal to the field but for rounding. `terms` is the length of the longest sum behind an element;
  /// the error allowed grows with its square root, relative to the largest element.
  void expect(const std::string& field, const Tensor& actual, int64_t terms) const;
  /// Expects the gradient "d" + field of a leaf made by leaf(); a field that the case lacks is skipped.
  void expect_grad(const std::string& field, const Variable& leaf, int64_t terms) const;

 private:
  std::string name_;
  DType dtype_;
  nlohmann::json options_;
};

}  // namespace espalier::torch_reference
