// The dependency graph for people: a table, a group in words, a drawing.
#include <algorithm>
#include <array>
#include <map>

#include "pruning/structure/graph.h"

namespace espalier {
namespace {

/// What one index of a member's axis is called.
const char* slice_word(const GroupMember& member) {
  const int rank = member.parameter.shape().rank();
  if (rank == 1) return "value";
  if (member.axis == 0) return rank == 4 ? "filter" : "row";
  return rank == 4 ? "input channel" : "column";
}

/// "3u+1", "u+8", "u".
std::string linear(int64_t factor, int64_t offset) {
  const std::string unit = factor == 1 ? "u" : fmt::format("{}u", factor);
  if (offset == 0) return unit;
  return offset > 0 ? fmt::format("{}+{}", unit, offset) : fmt::format("{}-{}", unit, -offset);
}

/// The indices of each unit.
std::vector<std::vector<int64_t>> indices_of_units(const GroupMember& member, int64_t units) {
  std::vector<std::vector<int64_t>> indices(static_cast<size_t>(units));
  for (size_t i = 0; i < member.units.size(); ++i)
    if (const int64_t unit = member.units[i]; unit >= 0)
      indices[static_cast<size_t>(unit)].push_back(static_cast<int64_t>(i));
  return indices;
}

/// "row u", "columns 16u to 16u+15", "rows u, u+8, u+16", or the first units one by one.
std::string slices_in_words(const GroupMember& member, int64_t units) {
  const std::vector<std::vector<int64_t>> indices = indices_of_units(member, units);
  const std::vector<int64_t>& first = indices[0];
  const auto count = static_cast<int64_t>(first.size());
  const int64_t step = units > 1 && !indices[1].empty() && count > 0 ? indices[1][0] - first[0] : 1;
  bool regular = count > 0;
  for (int64_t u = 0; u < units && regular; ++u) {
    std::vector<int64_t> expected = first;
    for (int64_t& index : expected) index += u * step;
    regular = indices[static_cast<size_t>(u)] == expected;
  }
  const std::string word = slice_word(member);
  if (!regular) {
    std::vector<std::string> listed;
    for (int64_t u = 0; u < std::min<int64_t>(units, 3); ++u)
      listed.push_back(fmt::format("{} for unit {}", fmt::join(indices[static_cast<size_t>(u)], " "), u));
    return fmt::format("{}s {}{}", word, fmt::join(listed, ", "), units > 3 ? ", ..." : "");
  }
  std::vector<std::string> places;
  for (int64_t gate = 0; gate < member.gates; ++gate)
    for (int64_t index : first)
      places.push_back(linear(step, index + gate * static_cast<int64_t>(member.units.size())));
  if (places.size() == 1) return word + " " + places[0];
  const bool consecutive = count > 2 && member.gates == 1 && first.back() - first.front() == count - 1;
  if (consecutive) return fmt::format("{}s {} to {}", word, places.front(), places.back());
  return fmt::format("{}s {}", word, fmt::join(places, ", "));
}

std::string roles_in_words(const ChannelRoles& roles) {
  std::vector<const char*> verbs;
  if (roles.produces) verbs.push_back("makes");
  if (roles.scales) verbs.push_back("scales");
  if (roles.shifts) verbs.push_back("shifts");
  if (roles.reads) verbs.push_back("reads");
  return fmt::format("{} it", fmt::join(verbs, " and "));
}

/// The name without the parameter's own: boxes of the drawing.
std::string layer_name(const std::string& parameter) {
  const size_t dot = parameter.rfind('.');
  return dot == std::string::npos ? parameter : parameter.substr(0, dot);
}

/// In quotes, as Graphviz reads it.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

/// Light colours that differ for neighbouring groups.
std::string colour_of(size_t group) {
  constexpr std::array<const char*, 10> kColours = {"#a6cee3", "#fdbf6f", "#b2df8a", "#fb9a99", "#cab2d6",
                                                    "#ffff99", "#8dd3c7", "#fccde5", "#d9d9d9", "#bebada"};
  return kColours[group % kColours.size()];
}

}  // namespace

std::string DependencyGraph::to_table() const {
  // The name stands last: that of a residual stream is long.
  std::string text = "units  members  group\n";
  for (const ChannelGroup& group : groups_)
    text += fmt::format("{:>5}  {:>7}  {}{}\n", group.units, group.members.size(), group.name,
                        group.fixed.empty() ? "" : fmt::format("  (stays whole: {})", group.fixed));
  return text;
}

std::string DependencyGraph::explain(const std::string& name) const {
  const ChannelGroup& group = find(name);
  std::string text = fmt::format("{}: {} units", group.name, group.units);
  text += group.fixed.empty() ? ", each of which can go.\nunit u is\n"
                              : fmt::format(", which stay: {}.\nunit u is\n", group.fixed);
  for (const GroupMember& member : group.members)
    text += fmt::format("  {}{} of {} {}: {}\n", slices_in_words(member, group.units),
                        member.recurrent ? " and column u" : "", member.name, member.parameter.shape(),
                        roles_in_words(member.roles));
  return text;
}

std::string DependencyGraph::to_dot() const {
  std::map<std::string, size_t> layers;  // what a layer makes or scales, else what it reads, colours it
  std::vector<std::string> order, edges;
  for (bool reading : {false, true})
    for (size_t i = 0; i < groups_.size(); ++i)
      for (const GroupMember& member : groups_[i].members)
        if (member.roles.makes() != reading && layers.emplace(layer_name(member.name), i).second)
          order.push_back(layer_name(member.name));
  std::string text = "digraph \"channels\" {\n  node [shape=box, style=filled];\n";
  for (const std::string& layer : order)
    text += fmt::format("  {} [fillcolor=\"{}\"];\n", quoted(layer), colour_of(layers.at(layer)));

  for (size_t i = 0; i < groups_.size(); ++i) {
    const ChannelGroup& group = groups_[i];
    const auto add = [&](const std::string& from, const std::string& to, const char* style) {
      std::string edge = fmt::format("  {} -> {} [label=\"{}\", color=\"{}\"{}];\n", quoted(from), quoted(to),
                                     group.units, colour_of(i), style);
      if (std::find(edges.begin(), edges.end(), edge) == edges.end()) edges.push_back(std::move(edge));
    };
    // Members stand in the order of the forward pass: a layer takes what layers before it made.
    std::vector<std::string> makers;
    for (const GroupMember& member : group.members) {
      const std::string layer = layer_name(member.name);
      if (member.roles.scales && !makers.empty()) add(makers.back(), layer, ", style=dashed");
      if (member.roles.reads) {
        if (makers.empty()) add(group.name, layer, "");
        for (const std::string& maker : makers) add(maker, layer, "");
      }
      if (member.roles.produces && std::find(makers.begin(), makers.end(), layer) == makers.end())
        makers.push_back(layer);
    }
  }
  for (const std::string& edge : edges) text += edge;
  return text + "}\n";
}

}  // namespace espalier
