// Axes: which channels of an operation's operands and results belong together. Every operation hands record() a rule
// that says it; the dependency graph of pruning (pruning/structure/graph.h) goes along the tape and calls the rules.
// What this page declares is all that an operation of your own needs for its rule.
#pragma once

#include <string>
#include <vector>

#include "autograd/node.h"

namespace espalier {

/// What an axis of a parameter is to a channel. A weight that is used in two directions, such as an embedding that is
/// also the output's weight, makes a channel and reads it.
struct ChannelRoles {
  bool produces =
      false;            ///< its rows compute the channel: conv2d weight axis 0 and bias, linear, lstm, embedding axis 1
  bool scales = false;  ///< multiplies the channel, which is constant without it: BatchNorm weight, a depthwise filter
  bool shifts = false;  ///< one value a channel that is added: BatchNorm bias
  bool reads = false;   ///< its columns take the channel as input: conv2d and linear weight axis 1, lstm w_ih axis 1

  /// Whether the axis is part of a channel, not only of what reads it: masking the channel masks its slice.
  bool makes() const { return produces || scales || shifts; }
  ChannelRoles operator|(const ChannelRoles& other) const {
    return {produces || other.produces, scales || other.scales, shifts || other.shifts, reads || other.reads};
  }
  bool operator==(const ChannelRoles&) const = default;
};
inline constexpr ChannelRoles kProduces{.produces = true}, kScales{.scales = true}, kShifts{.shifts = true},
    kReads{.reads = true};

/// A table, a parameter, whose rows were looked up by number, and the numbers that the example asked for.
struct Lookup {
  int64_t rows = 0;
  std::vector<int64_t> numbers;
};

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
  const TracedAxis& axis(int a) const { return axes[static_cast<size_t>(a)]; }
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

/// One operation on the tape, as its rule sees it. A rule returns the axes of each output, and on the way ties indices
/// that exist together (trace.unite), keeps whole what it can't cut (trace.fix), and says what parameters do with
/// channels (trace.declare).
struct AxisCall {
  AxisTrace& trace;
  const Node& node;
  const std::vector<TracedTensor>& inputs;

  const TracedTensor& in(size_t i) const { return inputs[i]; }
  bool has(size_t i) const { return i < inputs.size() && inputs[i].kind != TracedTensor::Kind::constant; }
  /// Of the first output.
  const Shape& shape() const { return node.output_shape(0); }
  std::string name() const { return node.operation(); }
  /// Of what is computed from all inputs.
  TracedTensor::Kind kind() const;
};

/// The outputs' axes of one operation. Throws, naming it, on an operation without a rule and on a rule that doesn't fit
/// the outputs' shapes.
std::vector<TracedTensor> follow_axes(AxisTrace& trace, const Node& node, const std::vector<TracedTensor>& inputs);

/// Rules that many operations share, and parts of rules.
namespace axes {

/// One value from the values at one place; operands are broadcast: equal axes are one, an axis of size 1 is repeated.
std::vector<TracedTensor> elementwise(const AxisCall& call);
/// The same for products and quotients: a parameter scales the channels that it is laid on.
std::vector<TracedTensor> scaling(const AxisCall& call);
/// For operations that no channel can be taken out of: all axes of all operands stay whole.
std::vector<TracedTensor> stay_whole(const AxisCall& call);

inline constexpr const char* kPositions = "positions of an image";
inline constexpr const char* kSteps = "steps of a sequence";

/// An axis of a tensor that holds data, made from one of an operand.
inline TracedAxis as_data(const TracedAxis& axis) { return {axis.indices}; }
/// Something learned that takes the place of data, such as an LSTM's first state.
void use_as_data(AxisTrace& trace, const TracedTensor& x, int axis);
/// x in another shape of as many elements.
TracedTensor reshaped(const AxisCall& call, const TracedTensor& x, const Shape& shape);
/// a (...,M,K) b (...,K,N), whose product has that shape: K is tied.
TracedTensor product(const AxisCall& call, const TracedTensor& a, const TracedTensor& b, const Shape& shape);
/// Operands that are broadcast to that shape.
TracedTensor broadcast(const AxisCall& call, const std::vector<TracedTensor>& operands, const Shape& shape,
                       ChannelRoles parameters);

}  // namespace axes
}  // namespace espalier
