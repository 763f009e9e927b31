// What the tests of compaction and costs share.
#pragma once

#include "layers/norm.h"
#include "pruning/structure/compact.h"
#include "tests/layers/expect.h"

namespace espalier {

using Indices = std::vector<int64_t>;
using Units = std::vector<std::vector<bool>>;

/// Biases, BatchNorm scales, shifts and statistics that are neither 0 nor 1.
inline void randomize(Module& net, uint64_t seed) {
  Generator generator(seed);
  for (Parameter& parameter : net.parameters()) {
    if (parameter.shape().rank() != 1) continue;
    Tensor values = parameter.data();
    values.copy_(randn(values.shape(), generator) * 0.3 + 0.5);
  }
  for (auto& [name, buffer] : net.named_buffers()) {
    if (name.ends_with("mean")) buffer.copy_(randn(buffer.shape(), generator) * 0.2);
    if (name.ends_with("var")) buffer.copy_(square(randn(buffer.shape(), generator)) + 0.5);
  }
}

/// For each group whether each unit is to stay; groups that are fixed stay whole. One unit of each stays.
inline std::vector<std::vector<bool>> random_units(const DependencyGraph& graph, double keep, uint64_t seed) {
  Generator generator(seed);
  std::vector<std::vector<bool>> units;
  for (const ChannelGroup& group : graph.groups()) {
    std::vector<bool>& bits = units.emplace_back(static_cast<size_t>(group.units), true);
    if (!group.fixed.empty()) continue;
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = generator.next_uniform() < keep;
    bits[generator.next_below(bits.size())] = true;
  }
  return units;
}

/// Masks the units that are not to stay; `all` also what scales and shifts them, else only the weights that make them.
inline void mask_units(const DependencyGraph& graph, const std::vector<std::vector<bool>>& units, bool all = true) {
  size_t group = 0;
  for (const ChannelGroup& g : graph.groups()) {
    const std::vector<bool>& stays = units[group++];
    if (!g.fixed.empty()) continue;
    for (const GroupMember& member : g.members) {
      if (!member.roles.makes()) continue;
      if (!all && (!member.roles.produces || member.parameter.shape().rank() < 2)) continue;
      const Pattern pattern = member.recurrent ? Pattern::recurrent() : Pattern::channel(member.axis, member.gates);
      Parameter parameter = member.parameter;
      const Mask before = parameter.mask();
      std::vector<bool> bits(member.units.size(), true);
      if (before.defined() && before.pattern() == pattern) bits = before.units();
      for (size_t i = 0; i < bits.size(); ++i)
        if (member.units[i] >= 0) bits[i] = stays[static_cast<size_t>(member.units[i])];
      parameter.set_mask(Mask::from_units(parameter.shape(), pattern, bits));
    }
  }
}

/// Elements of each parameter's rows and columns whose units stay, by the groups alone.
inline int64_t count_left(const Module& net, const DependencyGraph& graph,
                          const std::vector<std::vector<bool>>& units) {
  int64_t total = 0;
  for (const auto& [name, parameter] : net.named_parameters()) {
    std::vector<int64_t> left(parameter.shape().begin(), parameter.shape().end());
    size_t group = 0;
    for (const ChannelGroup& g : graph.groups()) {
      const std::vector<bool>& stays = units[group++];
      for (const GroupMember& member : g.members) {
        if (member.parameter.id() != parameter.id()) continue;
        int64_t gone = 0;
        for (const int64_t unit : member.units) gone += unit >= 0 && !stays[static_cast<size_t>(unit)] ? 1 : 0;
        left[static_cast<size_t>(member.axis)] -= gone * (member.recurrent ? 4 : member.gates);
        if (member.recurrent) left[1] -= gone;
      }
    }
    int64_t product = 1;
    for (const int64_t size : left) product *= size;
    total += product;
  }
  return total;
}

/// The output in evaluation mode.
inline Tensor output_of(Module& net, const Tensor& x) {
  const EvalMode eval(net);
  const NoGrad no_grad;
  return net(Variable(x)).data();
}

/// Largest difference, relative to the largest value of `a`.
inline double relative_difference(const Tensor& a, const Tensor& b) {
  return max_difference(a, b) / max(abs(a)).item();
}

inline Tensor example(const Shape& shape, uint64_t seed = 1) { return noise(shape, seed, DType::f32); }

inline Parameter parameter_of(const Module& net, const std::string& name) {
  for (const auto& [own, parameter] : net.named_parameters())
    if (own == name) return parameter;
  throw ArgumentError("no parameter " + name);
}

/// The channels of its input that a layer reads; empty: all.
inline Indices inputs_read(const Module& layer) { return layer.channels().readers.at(0).inputs; }

/// Masks these rows (axis 0) or columns (axis 1).
inline void mask_axis(const Module& net, const std::string& name, int axis, const Indices& gone) {
  Parameter parameter = parameter_of(net, name);
  std::vector<bool> bits(static_cast<size_t>(parameter.size(axis)), true);
  for (const int64_t index : gone) bits[static_cast<size_t>(index)] = false;
  const Mask mask = Mask::from_units(parameter.shape(), Pattern::channel(axis), bits);
  parameter.set_mask(parameter.mask().defined() ? parameter.mask() & mask : mask);
}

/// Compacts, and expects the same outputs on an input that compact() has not seen.
inline CompactionReport compact_and_compare(Module& net, const Shape& input, const CompactOptions& options = {}) {
  const Tensor x = example(input, 99);
  const Tensor before = output_of(net, x);
  const CompactionReport report = compact(net, example(input), options);
  EXPECT_LT(relative_difference(before, output_of(net, x)), 1e-5);
  EXPECT_EQ(report.parameters_after, net.num_parameters());
  return report;
}

}  // namespace espalier
