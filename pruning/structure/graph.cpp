#include "pruning/structure/graph.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "pruning/structure/training_run.h"

namespace espalier {
namespace {

/// A call of a module without children, as an observer saw it.
struct SeenCall {
  Module* module;
  Variable input, output;
  bool in_training_only = false;
};

/// Whether every call takes and gives the same channels: the module holds something of their size.
bool holds_channels(const Module& module) {
  return !module.parameters().empty() || !module.named_buffers().empty() || module.channels().has_sizes;
}

/// While alive, operations are recorded, frozen parameters' too: they have channels like all others.
class RecordEverything {
 public:
  explicit RecordEverything(const Module& module) {
    set_grad_enabled(true);
    for (Parameter& parameter : module.parameters()) {
      if (parameter.requires_grad()) continue;
      parameter.set_requires_grad(true);
      frozen_.push_back(parameter);
    }
  }
  ~RecordEverything() {
    for (Parameter& parameter : frozen_) parameter.set_requires_grad(false);
    set_grad_enabled(before_);
  }
  RecordEverything(const RecordEverything&) = delete;
  RecordEverything& operator=(const RecordEverything&) = delete;

 private:
  bool before_ = grad_enabled();
  std::vector<Parameter> frozen_;
};

/// A forward pass in evaluation mode, one in training mode for what the first doesn't call, and everything that their
/// tapes say about axes.
class Tracer {
 public:
  Tracer(Module& module, const Bundle& example);

  AxisTrace& trace() { return trace_; }
  /// In the order of the trace's.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<SeenCall>& calls() const { return calls_; }
  const std::unordered_set<const void*>& used_outside() const { return used_outside_; }
  int training_copies() const { return training_copies_; }
  /// nullptr: nothing that requires a gradient.
  const TracedTensor* find(const Variable& variable) const;

 private:
  void add_parameters(const Module& module);
  static std::vector<SeenCall> run(Module& module, const Bundle& inputs, Bundle& outputs);
  void follow_run(const Bundle& outputs, const std::vector<SeenCall>& calls);
  void follow_training(Module& module);
  void tie_calls();
  void fix_parts_in_use(const Module& module);
  void count_outside_uses();
  void follow(const std::vector<const Node*>& nodes);
  TracedTensor operand(const Node::Edge& edge, const Shape& shape);

  AxisTrace trace_;
  std::vector<Parameter> parameters_;
  Bundle inputs_;
  std::vector<SeenCall> calls_;
  std::unordered_set<const void*> used_outside_;
  int training_copies_ = 1;
  std::unordered_map<const void*, TracedTensor> leaves_;
  std::unordered_map<const Node*, std::vector<TracedTensor>> nodes_;
};

/// All operations behind these variables, in the order in which they ran.
std::vector<const Node*> operations_behind(const Variables& variables) {
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> nodes, open;
  const auto add = [&](const Node* node) {
    if (node && seen.insert(node).second) open.push_back(node);
  };
  for (const Variable& variable : variables) add(variable.node().get());
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    nodes.push_back(node);
    for (const Node::Edge& edge : node->edges()) add(edge.node.get());
  }
  std::sort(nodes.begin(), nodes.end(), [](const Node* a, const Node* b) { return a->id() < b->id(); });
  return nodes;
}

Tracer::Tracer(Module& module, const Bundle& example) {
  check(example.size() > 0, "DependencyGraph", "expected an example, an input of the network, got none");
  Variables inputs;
  for (const Variable& input : example) {
    const bool is_there = input.defined() && input.data().defined();
    check(is_there && input.numel() > 0, "DependencyGraph",
          "expected an example, an input of the network with a batch of at least 1, got {}",
          is_there ? describe(input.data()) : "an undefined one");
    inputs.emplace_back(input.data(), is_floating(input.dtype()));
  }
  inputs_ = inputs;
  const EvalMode eval(module);
  const RecordEverything recording(module);
  Bundle outputs;
  calls_ = run(module, inputs_, outputs);
  for (const Variable& output : outputs)
    check(output.defined() && output.node() != nullptr, "DependencyGraph",
          "the output of this {} depends neither on a parameter nor on the input", module.type());

  add_parameters(module);
  for (const Variable& input : inputs_) {
    if (!input.requires_grad()) continue;
    TracedTensor& x = leaves_[input.id()];
    for (int64_t size : input.shape()) x.axes.push_back(trace_.fresh(size, "input of the network"));
  }
  follow_run(outputs, calls_);
  count_outside_uses();
  if (std::any_of(trace_.parameters.begin(), trace_.parameters.end(), [](const auto& p) { return p.operations == 0; }))
    follow_training(module);
  tie_calls();
  fix_parts_in_use(module);
}

/// A module that isn't called itself, but whose weight is used elsewhere, while its bias is not.
void Tracer::fix_parts_in_use(const Module& module) {
  std::unordered_map<const void*, const TracedParameter*> traced;
  for (size_t i = 0; i < parameters_.size(); ++i) traced[parameters_[i].id()] = &trace_.parameters[i];
  std::unordered_set<const Module*> called;
  for (const SeenCall& call : calls_) called.insert(call.module);
  for (const auto& [name, part] : module.named_modules()) {
    if (!part->children().empty() || called.contains(part.get())) continue;
    const std::vector<Parameter> own = part->parameters();
    const auto is_used = [&](const Parameter& parameter) { return traced.at(parameter.id())->operations > 0; };
    if (std::none_of(own.begin(), own.end(), is_used) || std::all_of(own.begin(), own.end(), is_used)) continue;
    for (const Parameter& parameter : own)
      for (const ParameterAxis& axis : traced.at(parameter.id())->axes)
        trace_.indices.fix(axis.indices, fmt::format("a part of '{}', which isn't called itself", name));
  }
  module.named_parameters();  // full names again
}

/// The calls of a forward pass, in the mode the module is in.
std::vector<SeenCall> Tracer::run(Module& module, const Bundle& inputs, Bundle& outputs) {
  std::vector<SeenCall> calls;
  const ForwardObserver observer([&](Module& called, const Variable& in, const Variable& out) {
    if (called.children().empty()) calls.push_back({&called, in, out});
  });
  outputs = module.call(inputs);
  return calls;
}

void Tracer::follow_run(const Bundle& outputs, const std::vector<SeenCall>& calls) {
  Variables ends = outputs.all();
  for (const SeenCall& call : calls) ends.push_back(call.output);
  follow(operations_behind(ends));
  for (const Variable& output : outputs)
    if (const TracedTensor* y = find(output))
      for (const TracedAxis& axis : y->axes) trace_.fix(axis, "output of the network");
}

/// What only training calls reads channels, too, and has to stay consistent with what makes them.
void Tracer::follow_training(Module& module) {
  Bundle outputs;
  std::vector<SeenCall> calls;
  const auto runs = [&](int copies) {
    try {
      const TrainingRun training(module);
      Variables inputs = inputs_.all();
      if (copies > 1)
        for (Variable& input : inputs) input = cat(Variables{input, input}, 0);
      calls = run(module, inputs, outputs);
      training_copies_ = copies;
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  if (!runs(1) && !runs(2)) return;  // what it calls is reported as not called
  follow_run(outputs, calls);
  std::unordered_set<const Module*> known;
  for (const SeenCall& call : calls_) known.insert(call.module);
  for (SeenCall& call : calls) {
    if (known.contains(call.module)) continue;
    call.in_training_only = true;
    calls_.push_back(std::move(call));
  }
}

/// A parameter that more operations have as an operand than modules which hold it were called.
void Tracer::count_outside_uses() {
  std::unordered_map<const void*, int> calls;
  for (const SeenCall& call : calls_)
    for (const Parameter& parameter : call.module->parameters()) ++calls[parameter.id()];
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (trace_.parameters[i].operations > calls[parameters_[i].id()]) used_outside_.insert(parameters_[i].id());
}

/// A module that is called several times takes and gives the same channels each time, those that it doesn't read too.
void Tracer::tie_calls() {
  std::unordered_map<const Module*, const SeenCall*> first;
  for (const SeenCall& call : calls_) {
    if (!holds_channels(*call.module)) continue;
    const auto [before, is_new] = first.emplace(call.module, &call);
    if (is_new) continue;
    const auto tie = [&](const Variable& a, const Variable& b) {
      const TracedTensor *x = find(a), *y = find(b);
      if (x == nullptr || y == nullptr || x->rank() != y->rank()) return;
      const auto axis = static_cast<size_t>(channel_axis(call.module->channels().axis, x->rank()));
      if (axis < x->axes.size() && x->axes[axis].size() == y->axes[axis].size())
        trace_.unite(x->axes[axis], y->axes[axis]);
    };
    tie(before->second->input, call.input);
    tie(before->second->output, call.output);
  }
}

void Tracer::add_parameters(const Module& module) {
  for (const auto& [name, parameter] : module.named_parameters()) {
    TracedParameter traced{name, {}};
    TracedTensor tensor{.kind = TracedTensor::Kind::parameter, .axes = {}};
    const int number = static_cast<int>(trace_.parameters.size());
    for (int axis = 0; axis < parameter.shape().rank(); ++axis) {
      const std::vector<int> indices = trace_.indices.make(parameter.size(axis), true);
      traced.axes.push_back({.indices = indices, .roles = {}});
      tensor.axes.push_back({indices, {{number, axis}}});
    }
    leaves_[parameter.variable().id()] = std::move(tensor);
    trace_.parameters.push_back(std::move(traced));
    parameters_.push_back(parameter);
  }
}

TracedTensor Tracer::operand(const Node::Edge& edge, const Shape& shape) {
  if (edge.node) return nodes_.at(edge.node.get())[static_cast<size_t>(edge.output)];
  if (edge.leaf.defined())
    if (const auto leaf = leaves_.find(edge.leaf.id()); leaf != leaves_.end()) {
      if (leaf->second.kind == TracedTensor::Kind::parameter)
        ++trace_.parameters[static_cast<size_t>(leaf->second.axes[0].sources[0].parameter)].operations;
      return leaf->second;
    }
  TracedTensor constant{.kind = TracedTensor::Kind::constant, .axes = {}};
  for (int64_t size : shape) constant.axes.push_back(trace_.fresh(size));
  return constant;
}

void Tracer::follow(const std::vector<const Node*>& nodes) {
  for (const Node* node : nodes) {
    std::vector<TracedTensor> inputs;
    for (size_t i = 0; i < node->edges().size(); ++i)
      inputs.push_back(operand(node->edges()[i], node->input_shapes()[i]));
    nodes_[node] = follow_axes(trace_, *node, inputs);
  }
}

const TracedTensor* Tracer::find(const Variable& variable) const {
  if (const auto node = nodes_.find(variable.node().get()); node != nodes_.end())
    return &node->second[static_cast<size_t>(variable.output_index())];
  const auto leaf = leaves_.find(variable.id());
  return leaf == leaves_.end() ? nullptr : &leaf->second;
}

/// An axis of a parameter that makes or reads channels.
struct Use {
  const TracedParameter* traced;
  Parameter parameter;
  int axis;
  const ParameterAxis& own() const { return traced->axes[static_cast<size_t>(axis)]; }
  /// Indices of one gate.
  int64_t size() const { return static_cast<int64_t>(own().indices.size()) / own().gates; }
};

/// All uses in their order. A recurrent weight's column goes with its rows.
std::vector<Use> uses_in_order(const AxisTrace& trace, const std::vector<Parameter>& parameters) {
  std::vector<Use> uses;
  for (size_t i = 0; i < parameters.size(); ++i)
    for (size_t axis = 0; axis < trace.parameters[i].axes.size(); ++axis) {
      const ParameterAxis& own = trace.parameters[i].axes[axis];
      if (own.first_use >= 0 && !(own.recurrent && axis == 1))
        uses.push_back({&trace.parameters[i], parameters[i], static_cast<int>(axis)});
    }
  std::sort(uses.begin(), uses.end(), [](const Use& a, const Use& b) { return a.own().first_use < b.own().first_use; });
  return uses;
}

/// "conv1" of "conv1.weight"; "lstm.l1_reverse" of "lstm.weight_ih_l1_reverse", "lstm" of its first layer.
std::string layer_of(const GroupMember& member) {
  const size_t dot = member.name.rfind('.');
  const std::string layer = member.name.substr(0, dot == std::string::npos ? member.name.size() : dot);
  const size_t place = member.name.rfind("_l");
  if (member.gates == 1 || place == std::string::npos || member.name.ends_with("_l0")) return layer;
  return layer + "." + member.name.substr(place + 1);
}

std::string name_of(const ChannelGroup& group) {
  std::vector<std::string> layers;
  const auto add = [&](bool weights_only) {
    for (const GroupMember& member : group.members) {
      if (weights_only ? !member.roles.produces : !member.roles.makes()) continue;
      if (weights_only && member.parameter.shape().rank() < 2) continue;
      const std::string layer = layer_of(member);
      if (std::find(layers.begin(), layers.end(), layer) == layers.end()) layers.push_back(layer);
    }
  };
  add(true);
  if (layers.empty()) add(false);
  if (layers.empty()) return group.fixed == "input of the network" ? "input" : "constant";
  return fmt::format("{}", fmt::join(layers, " + "));
}

/// Classes of indices as units of groups.
class Grouping {
 public:
  Grouping(AxisTrace& trace, const std::vector<Parameter>& parameters)
      : indices_(trace.indices), uses_(uses_in_order(trace, parameters)) {
    fix_unexplained(trace);
    collect_classes();
    make_groups();
  }
  std::vector<ChannelGroup> take() { return std::move(groups_); }

  std::vector<ChannelRef> refs(const TracedAxis& axis) const {
    std::vector<ChannelRef> result;
    for (int index : axis.indices) {
      const auto found = refs_.find(indices_.find(index));
      result.push_back(found == refs_.end() ? ChannelRef{} : found->second);
    }
    return result;
  }

 private:
  /// An axis of a parameter that came to be tied to channels by operations that don't use it for channels.
  void fix_unexplained(AxisTrace& trace) {
    for (const TracedParameter& parameter : trace.parameters)
      for (size_t axis = 0; axis < parameter.axes.size(); ++axis)
        if (parameter.axes[axis].first_use < 0)
          trace.indices.fix(parameter.axes[axis].indices,
                            fmt::format("tied to axis {} of '{}', which doesn't hold channels", axis, parameter.name));
  }

  /// Which uses each class has, in order.
  void collect_classes() {
    for (size_t use = 0; use < uses_.size(); ++use)
      for (int index : uses_[use].own().indices) {
        std::vector<size_t>& own = classes_[indices_.find(index)];
        if (own.empty() || own.back() != use) own.push_back(use);
      }
  }

  void make_groups() {
    std::map<std::tuple<std::vector<size_t>, std::string, bool>, int> by_signature;
    for (const Use& use : uses_)
      for (int index : use.own().indices) {
        const int root = indices_.find(index);
        if (refs_.contains(root)) continue;
        const std::vector<size_t>& members = classes_.at(root);
        const bool without_weight = indices_.is_read_without_weight(root);
        const auto [group, is_new] = by_signature.emplace(std::tuple(members, indices_.fixed(root), without_weight),
                                                          static_cast<int>(groups_.size()));
        if (is_new) {
          groups_.push_back(new_group(members, indices_.fixed(root)));
          groups_.back().read_without_weight = without_weight;
        }
        refs_[root] = {group->second, groups_[static_cast<size_t>(group->second)].units++};
      }
    std::map<std::string, int> names;
    for (size_t i = 0; i < groups_.size(); ++i) {
      ChannelGroup& group = groups_[i];
      for (GroupMember& member : group.members) fill_units(member, static_cast<int>(i));
      group.name = name_of(group);
      if (const int count = ++names[group.name]; count > 1) group.name += fmt::format("#{}", count);
    }
  }

  ChannelGroup new_group(const std::vector<size_t>& members, const std::string& fixed) const {
    ChannelGroup group;
    group.fixed = fixed;
    bool made = false;
    for (size_t i : members) {
      const ParameterAxis& own = uses_[i].own();
      group.members.push_back({.name = uses_[i].traced->name,
                               .parameter = uses_[i].parameter,
                               .axis = uses_[i].axis,
                               .gates = own.gates,
                               .recurrent = own.recurrent,
                               .roles = own.roles,
                               .units = {}});
      made |= own.roles.makes();
    }
    if (!made && fixed.empty()) group.fixed = "constants that no parameter makes";
    return group;
  }

  void fill_units(GroupMember& member, int group) const {
    const auto use = std::find_if(uses_.begin(), uses_.end(), [&](const Use& candidate) {
      return candidate.axis == member.axis && candidate.parameter.id() == member.parameter.id();
    });
    for (int64_t i = 0; i < use->size(); ++i) {
      const ChannelRef& ref = refs_.at(indices_.find(use->own().indices[static_cast<size_t>(i)]));
      member.units.push_back(ref.group == group ? ref.unit : -1);
    }
  }

  const AxisIndices& indices_;
  std::vector<Use> uses_;
  std::unordered_map<int, std::vector<size_t>> classes_;
  std::unordered_map<int, ChannelRef> refs_;
  std::vector<ChannelGroup> groups_;
};

}  // namespace

DependencyGraph DependencyGraph::trace(Module& module, const Bundle& example) {
  Tracer tracer(module, example);
  Grouping grouping(tracer.trace(), tracer.parameters());
  DependencyGraph graph;
  std::unordered_map<const Module*, std::pair<std::string, ModulePtr>> places;
  for (const auto& [name, place] : module.named_modules()) places[place.get()] = {name, place};
  const auto channels = [&](const Module& called, const Variable& variable) {
    const TracedTensor* tensor = tracer.find(variable);
    const int axis = channel_axis(called.channels().axis, variable.rank());
    if (axis < 0) return std::vector<ChannelRef>();
    if (!tensor) return std::vector<ChannelRef>(static_cast<size_t>(variable.size(axis)));
    return grouping.refs(tensor->axes[static_cast<size_t>(axis)]);
  };
  for (const SeenCall& call : tracer.calls()) {
    const auto place = places.find(call.module);
    if (place == places.end()) continue;  // made and called within a forward, no part of the network
    graph.modules_.push_back({.name = place->second.first,
                              .module = place->second.second,
                              .inputs = channels(*call.module, call.input),
                              .outputs = channels(*call.module, call.output),
                              .input = call.input.shape(),
                              .output = call.output.shape(),
                              .in_training_only = call.in_training_only});
  }
  graph.groups_ = grouping.take();
  graph.lookups_ = std::move(tracer.trace().lookups);
  graph.used_outside_ = tracer.used_outside();
  graph.training_copies_ = tracer.training_copies();
  for (const TracedParameter& parameter : tracer.trace().parameters)
    if (parameter.operations == 0) graph.not_called_.push_back(parameter.name);
  return graph;
}

bool DependencyGraph::has_training_only() const {
  return std::any_of(modules_.begin(), modules_.end(), [](const auto& call) { return call.in_training_only; });
}

Bundle DependencyGraph::training_input(const Bundle& input) const {
  if (training_copies_ == 1) return input;
  Variables twice;
  for (const Variable& one : input) twice.emplace_back(cat(std::vector<Tensor>{one.data(), one.data()}, 0));
  return twice;
}

const ChannelGroup& DependencyGraph::find(const std::string& name) const {
  std::vector<std::string> names;
  for (const ChannelGroup& group : groups_) {
    if (group.name == name) return group;
    names.push_back(group.name);
  }
  fail("DependencyGraph", "no group of channels is called '{}'{}; there are {}", name, did_you_mean(name, names),
       fmt::join(names, ", "));
}

std::vector<Site> channel_sites(const DependencyGraph& graph) {
  std::vector<Site> sites;
  for (const ChannelGroup& group : graph.groups()) {
    if (!group.fixed.empty()) continue;
    Site& site = sites.emplace_back(Site{.name = group.name, .units = group.units, .members = {}});
    for (const GroupMember& member : group.members)
      site.members.push_back(
          {.parameter = member.parameter,
           .pattern = member.recurrent ? Pattern::recurrent() : Pattern::channel(member.axis, member.gates),
           .site_units = member.units,
           .masked = member.roles.makes()});
  }
  return sites;
}

std::vector<Site> input_feature_sites(const Module& module, const std::vector<std::string>& weights) {
  const std::vector<std::pair<std::string, Parameter>> parameters = module.named_parameters();
  std::vector<std::string> known;
  for (const auto& [name, parameter] : parameters)
    if (parameter.shape().rank() >= 2) known.push_back(name);
  std::vector<Site> sites;
  for (const std::string& name : weights) {
    const auto found =
        std::find_if(parameters.begin(), parameters.end(), [&](const auto& p) { return p.first == name; });
    check(found != parameters.end() && found->second.shape().rank() >= 2, "input_feature_sites",
          "{} has no weight '{}' of two axes or more{}", module.type(), name, did_you_mean(name, known));
    sites.push_back(site_of(name, found->second, Pattern::channel(1)));
  }
  return sites;
}

}  // namespace espalier
