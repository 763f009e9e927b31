#include "pruning/structure/axis_trace.h"

#include <algorithm>

namespace espalier {

std::vector<int> AxisIndices::make(int64_t count, bool of_parameter) {
  std::vector<int> made;
  for (int64_t i = 0; i < count; ++i) {
    made.push_back(static_cast<int>(parent_.size()));
    parent_.push_back(made.back());
    reason_.push_back(0);
    of_parameter_.push_back(of_parameter);
    without_weight_.push_back(false);
  }
  return made;
}

int AxisIndices::find(int index) const {
  while (parent_[static_cast<size_t>(index)] != index) {
    int& parent = parent_[static_cast<size_t>(index)];
    parent = parent_[static_cast<size_t>(parent)];
    index = parent;
  }
  return index;
}

void AxisIndices::unite(int a, int b) {
  const int left = find(a), right = find(b);
  if (left == right) return;
  // The older one stays the root: which it is doesn't depend on the order of hash tables or addresses.
  const auto [root, child] = std::minmax({static_cast<size_t>(left), static_cast<size_t>(right)});
  parent_[child] = static_cast<int>(root);
  if (reason_[root] == 0 || (reason_[child] != 0 && reason_[child] < reason_[root])) reason_[root] = reason_[child];
  if (of_parameter_[child]) of_parameter_[root] = true;
  if (without_weight_[child]) without_weight_[root] = true;
}

void AxisIndices::unite(const std::vector<int>& a, const std::vector<int>& b) {
  check(a.size() == b.size(), "DependencyGraph", "axes of {} and {} indices can't be tied one to one", a.size(),
        b.size());
  for (size_t i = 0; i < a.size(); ++i) unite(a[i], b[i]);
}

void AxisIndices::fix(const std::vector<int>& indices, const std::string& reason) {
  const auto known = std::find(reasons_.begin(), reasons_.end(), reason);
  const int position = static_cast<int>(known - reasons_.begin());
  if (known == reasons_.end()) reasons_.push_back(reason);
  for (int index : indices) {
    int& own = reason_[static_cast<size_t>(find(index))];
    if (own == 0) own = position;
  }
}

void AxisIndices::read_without_weight(const std::vector<int>& indices) {
  for (const int index : indices) without_weight_[static_cast<size_t>(find(index))] = true;
}

const std::string& AxisIndices::fixed(int index) const {
  return reasons_[static_cast<size_t>(reason_[static_cast<size_t>(find(index))])];
}

TracedAxis AxisTrace::fresh(int64_t size, const std::string& fixed) {
  TracedAxis axis{indices.make(size)};
  if (!fixed.empty()) fix(axis, fixed);
  return axis;
}

void AxisTrace::declare(const TracedAxis& axis, ChannelRoles roles, int64_t gates, bool recurrent) {
  for (const TracedAxis::Source& source : axis.sources) {
    TracedParameter& parameter = parameters[static_cast<size_t>(source.parameter)];
    ParameterAxis& own = parameter.axes[static_cast<size_t>(source.axis)];
    if (!source.keeps_zeros)
      indices.fix(own.indices, fmt::format("'{}' is used through an operation that makes something of masked weights",
                                           parameter.name));
    if (source.axis > 1)
      indices.fix(own.indices, fmt::format("no mask has units along axis {} of '{}'", source.axis, parameter.name));
    own.roles = own.roles | roles;
    if (own.first_use < 0) {
      own.first_use = uses++;
      own.gates = gates;
      own.recurrent = recurrent;
      continue;
    }
    if (own.gates != gates || own.recurrent != recurrent)
      indices.fix(own.indices, fmt::format("'{}' serves an LSTM and another operation", parameter.name));
  }
}

}  // namespace espalier
