// Which axes of which tensors and parameters belong together: what the rules of the operations (axis_rules.h) build.
#pragma once

#include <string>
#include <vector>

#include "pruning/structure/graph.h"

namespace espalier {

/// Indices of axes, of tensors and of parameters. Those that can only exist together are one class (union-find).
class AxisIndices {
 public:
  /// New indices, each in a class of its own.
  std::vector<int> make(int64_t count, bool of_parameter = false);
  int find(int index) const;
  void unite(int a, int b);
  void unite(const std::vector<int>& a, const std::vector<int>& b);
  /// The classes stay whole. The first reason counts.
  void fix(const std::vector<int>& indices, const std::string& reason);
  /// Why the class stays whole, or "".
  const std::string& fixed(int index) const;
  /// The classes are read by an operation that has no weight for them.
  void read_without_weight(const std::vector<int>& indices);
  bool is_read_without_weight(int index) const { return without_weight_[static_cast<size_t>(find(index))]; }
  /// Whether the class holds an index of a parameter.
  bool has_parameter(int index) const { return of_parameter_[static_cast<size_t>(find(index))]; }

 private:
  mutable std::vector<int> parent_;
  std::vector<int> reason_;  // of a class: position in reasons_
  std::vector<bool> of_parameter_, without_weight_;
  std::vector<std::string> reasons_ = {""};
};

/// An axis of a tensor on the tape.
struct TracedAxis {
  struct Source {
    int parameter = 0, axis = 0;
    bool keeps_zeros = true;  ///< masked weights are 0 in this tensor, too
  };
  std::vector<int> indices;
  /// The parameters' axes that this one is, as long as nothing of the network's input is in the tensor.
  std::vector<Source> sources = {};

  int64_t size() const { return static_cast<int64_t>(indices.size()); }
};

struct TracedTensor {
  enum class Kind : uint8_t {
    constant,   ///< neither of the two
    parameter,  ///< computed from parameters only: a transposed or masked weight
    data,       ///< depends on the network's input
  };
  Kind kind = Kind::data;
  std::vector<TracedAxis> axes;

  int rank() const { return static_cast<int>(axes.size()); }
};

/// How the operations use an axis of a parameter.
struct ParameterAxis {
  std::vector<int> indices;
  int first_use = -1;  ///< counts the uses of all parameters; -1: no operation makes or reads channels with it
  ChannelRoles roles;
  int64_t gates = 1;
  bool recurrent = false;
};

struct TracedParameter {
  std::string name;
  Parameter parameter;
  std::vector<ParameterAxis> axes;
  int operations = 0;  ///< that have it as an operand
};

/// What the rules build.
struct AxisTrace {
  AxisIndices indices;
  std::vector<TracedParameter> parameters;
  std::vector<Lookup> lookups;
  int uses = 0;

  /// New tensor axes. fixed: why they stay whole, or "".
  TracedAxis fresh(int64_t size, const std::string& fixed = "");
  void fix(const TracedAxis& axis, const std::string& reason) { indices.fix(axis.indices, reason); }
  void unite(const TracedAxis& a, const TracedAxis& b) { indices.unite(a.indices, b.indices); }
  /// Says what the parameters behind an axis do with its channels.
  void declare(const TracedAxis& axis, ChannelRoles roles, int64_t gates = 1, bool recurrent = false);
};

}  // namespace espalier
