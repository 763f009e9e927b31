#include "pruning/structure/dead_units.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <unordered_map>

#include "pruning/structure/probes.h"
#include "pruning/structure/training_run.h"

namespace espalier {

AxisRefs axis_refs(const DependencyGraph& graph, const Parameter& parameter) {
  const Shape& shape = parameter.shape();
  AxisRefs refs{std::vector<ChannelRef>(static_cast<size_t>(shape.rank() > 0 ? shape[0] : 1)),
                std::vector<ChannelRef>(static_cast<size_t>(shape.rank() > 1 ? shape[1] : 1))};
  for (size_t group = 0; group < graph.groups().size(); ++group)
    for (const GroupMember& member : graph.groups()[group].members) {
      if (member.parameter.id() != parameter.id()) continue;
      const size_t each = member.units.size();
      const auto fill = [&](std::vector<ChannelRef>& axis) {
        for (size_t i = 0; i < axis.size(); ++i)
          if (const int64_t unit = member.units[i % each]; unit >= 0) axis[i] = {static_cast<int>(group), unit};
      };
      if (member.axis == 0) fill(refs.rows);
      if (member.axis == 1 || member.recurrent) fill(refs.columns);
    }
  return refs;
}

namespace {

/// What an axis of a parameter does with its channels; several things where the weight is used in two directions.
struct AxisUses {
  bool makes = false, multiplies = false, reads = false;
};

/// A parameter as a matrix of "does any weight exist here", axes from the third on joined.
struct WeightView {
  Parameter parameter;
  AxisRefs refs;
  AxisUses row_uses = {}, column_uses = {};
  int64_t gates = 1;
  std::vector<bool> exists;  // empty: everywhere

  size_t rows() const { return refs.rows.size(); }
  size_t columns() const { return refs.columns.size(); }
  bool at(size_t row, size_t column) const { return exists.empty() || exists[row * columns() + column]; }
  /// Whether any weight exists in that row (axis 0) or column (axis 1).
  bool has_any(int axis, size_t index) const {
    const size_t others = axis == 0 ? columns() : rows();
    for (size_t other = 0; other < others; ++other)
      if (axis == 0 ? at(index, other) : at(other, index)) return true;
    return false;
  }
};

/// The smallest and largest value that each channel has of a layer's input, or of what one of its weights reads inside.
struct Seen {
  std::string name;
  ModulePtr module;
  std::vector<ChannelRef> refs;
  std::vector<double> low, high;
  bool in_training_only = false;
  ChannelAxis axis = ChannelAxis::images;
  std::vector<ChannelReader> readers = {};

  void add(const Tensor& x);
  /// Whether constants can go into biases.
  bool takes_constants() const {
    return !readers.empty() && std::all_of(readers.begin(), readers.end(),
                                           [](const ChannelReader& reader) { return !reader.bias.empty(); });
  }
};

void Seen::add(const Tensor& x) {
  const int own_axis = channel_axis(axis, x.rank());
  if (own_axis < 0 || x.numel() == 0 || x.size(own_axis) != static_cast<int64_t>(low.size())) return;
  Axes others;
  for (int i = 0; i < x.rank(); ++i)
    if (i != own_axis) others.push_back(i);
  const std::vector<double> lowest = (others.empty() ? x : min(x, others)).to_vector<double>();
  const std::vector<double> highest = (others.empty() ? x : max(x, others)).to_vector<double>();
  for (size_t i = 0; i < low.size(); ++i) {
    low[i] = std::min(low[i], lowest[i]);
    high[i] = std::max(high[i], highest[i]);
  }
}

class Analysis {
 public:
  Analysis(Module& net, const DependencyGraph& graph, const Bundle& example, const std::vector<bool>& whole);
  DeadUnits run();

 private:
  void collect_owners();
  void add_seen(const ModuleChannels& call, const std::vector<ChannelRef>& refs,
                const std::vector<ChannelReader>& readers);
  void collect_weights();
  void add_weight(size_t group, const GroupMember& member);
  void measure(Module& net, const Bundle& example);
  void measure_calls(Module& net, const std::vector<Bundle>& probes, bool in_training);
  void spread();
  bool spread_once();
  bool verify();
  bool keep_one_of_each();
  std::vector<std::vector<size_t>> living_readers() const;
  std::optional<std::string> obstacle(size_t unit, const std::vector<size_t>& readers) const;
  std::optional<std::string> obstacle_at(const Seen& seen, size_t channel) const;
  DeadUnits result() const;

  size_t id(const ChannelRef& ref) const {
    return first_[static_cast<size_t>(ref.group)] + static_cast<size_t>(ref.unit);
  }
  bool removed(size_t unit) const { return constant_[unit] || unused_[unit]; }
  bool removed(const ChannelRef& ref) const { return ref.group >= 0 && removed(id(ref)); }
  bool is_constant(const ChannelRef& ref) const { return ref.group >= 0 && constant_[id(ref)]; }

  const DependencyGraph& graph_;
  std::vector<size_t> first_;                                    // of each group: the number of its first unit
  std::vector<size_t> group_of_;                                 // of each unit
  std::unordered_map<const void*, std::vector<size_t>> owners_;  // parameter -> calls in seen_
  std::unordered_map<const void*, size_t> inner_;                // parameter -> what it reads inside, in seen_
  std::vector<Seen> seen_;
  std::vector<WeightView> weights_;
  // By group: only LSTMs make it; it can be removed. By unit: multiplying weights, those that exist, g-gate biases are
  // 0.
  std::vector<bool> gated_, movable_;
  std::vector<int> multipliers_, alive_multipliers_;
  std::vector<bool> resting_;
  std::vector<bool> constant_, unused_;  // the answer so far
  std::vector<bool> varies_, kept_;      // may not be called constant, may not go
  std::vector<std::string> notes_;       // by group
};

Analysis::Analysis(Module& net, const DependencyGraph& graph, const Bundle& example, const std::vector<bool>& whole)
    : graph_(graph) {
  size_t total = 0;
  for (const ChannelGroup& group : graph.groups()) {
    first_.push_back(total);
    total += static_cast<size_t>(group.units);
    group_of_.resize(total, first_.size() - 1);
  }
  const size_t groups = graph.groups().size();
  gated_.assign(groups, false);
  movable_.assign(groups, false);
  notes_.assign(groups, "");
  multipliers_.assign(total, 0);
  alive_multipliers_.assign(total, 0);
  resting_.assign(total, true);
  varies_.assign(total, false);
  kept_.assign(total, false);
  collect_owners();
  collect_weights();
  for (size_t group = 0; group < whole.size(); ++group)
    if (whole[group]) movable_[group] = false;
  measure(net, example);
}

/// What the layers take and their weights read inside of them, once for each layer.
void Analysis::collect_owners() {
  for (const ModuleChannels& call : graph_.modules()) {
    if (std::any_of(seen_.begin(), seen_.end(), [&](const Seen& s) { return s.module == call.module; })) continue;
    for (const Parameter& parameter : call.module->parameters()) owners_[parameter.id()].push_back(seen_.size());
    const ChannelAccount account = call.module->channels();
    add_seen(call, call.inputs, account.readers);
    for (const ChannelReader& reader : account.inner_readers) {
      const Parameter& weight = call.module->parameter(reader.weight);
      owners_[weight.id()].push_back(seen_.size());
      inner_[weight.id()] = seen_.size();
      add_seen(call, axis_refs(graph_, weight).columns, {reader});
    }
  }
}

void Analysis::add_seen(const ModuleChannels& call, const std::vector<ChannelRef>& refs,
                        const std::vector<ChannelReader>& readers) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  seen_.push_back({.name = call.name,
                   .module = call.module,
                   .refs = refs,
                   .low = std::vector<double>(refs.size(), kInfinity),
                   .high = std::vector<double>(refs.size(), -kInfinity),
                   .in_training_only = call.in_training_only,
                   .axis = call.module->channels().axis,
                   .readers = readers});
}

void Analysis::collect_weights() {
  for (size_t g = 0; g < graph_.groups().size(); ++g) {
    const ChannelGroup& group = graph_.groups()[g];
    movable_[g] = group.fixed.empty();
    int makers = 0, gated = 0;
    for (const GroupMember& member : group.members) {
      add_weight(g, member);
      if (member.axis > 1 && movable_[g]) {
        movable_[g] = false;
        notes_[g] = fmt::format("axis {} of '{}' holds channels; only the first two can be made smaller", member.axis,
                                member.name);
      }
      if (!member.roles.makes()) continue;
      ++makers;
      gated += member.gates > 1 ? 1 : 0;
    }
    gated_[g] = makers > 0 && makers == gated;
  }
}

void Analysis::add_weight(size_t group, const GroupMember& member) {
  auto view = std::find_if(weights_.begin(), weights_.end(),
                           [&](const WeightView& w) { return w.parameter.id() == member.parameter.id(); });
  if (view == weights_.end()) {
    weights_.push_back({.parameter = member.parameter, .refs = axis_refs(graph_, member.parameter), .exists = {}});
    view = weights_.end() - 1;
    if (const Mask& mask = member.parameter.mask(); mask.defined()) {
      const std::vector<uint8_t> all = mask.expand(DType::u8).to_vector<uint8_t>();
      const size_t cells = view->rows() * view->columns(), each = all.size() / std::max<size_t>(cells, 1);
      view->exists.assign(cells, false);
      for (size_t i = 0; i < all.size(); ++i)
        if (all[i] != 0) view->exists[i / each] = true;
    }
  }
  view->gates = std::max(view->gates, member.gates);
  const bool is_matrix = member.parameter.shape().rank() >= 2;
  const AxisUses uses{.makes = member.roles.produces && is_matrix && !member.roles.scales,
                      .multiplies = member.roles.scales,
                      .reads = member.roles.reads};
  if (member.axis == 0) view->row_uses = uses;
  if (member.axis == 1) view->column_uses = uses;
  if (member.recurrent) view->column_uses = {.reads = true};

  const std::vector<double> values =
      member.gates > 1 && !is_matrix ? member.parameter.data().to_vector<double>() : std::vector<double>();
  for (size_t i = 0; i < member.units.size(); ++i) {
    if (member.units[i] < 0) continue;
    const size_t unit = id({static_cast<int>(group), member.units[i]});
    if (uses.multiplies) {
      ++multipliers_[unit];
      alive_multipliers_[unit] += view->has_any(member.axis, i) ? 1 : 0;
    }
    // The cell's input is tanh of the third gate: without a bias there, a cell that reads nothing stays 0.
    if (!values.empty() && values[2 * member.units.size() + i] != 0) resting_[unit] = false;
  }
}

void Analysis::measure(Module& net, const Bundle& example) {
  const std::vector<Bundle> probes = probes_like(graph_, example, 2);
  {
    const EvalMode eval(net);
    measure_calls(net, probes, false);
  }
  if (!graph_.has_training_only()) return;
  const TrainingRun training(net);
  std::vector<Bundle> batches;
  for (const Bundle& probe : probes) batches.push_back(graph_.training_input(probe));
  measure_calls(net, batches, true);
}

/// Of the modules that only training calls, or of the others.
void Analysis::measure_calls(Module& net, const std::vector<Bundle>& probes, bool in_training) {
  std::unordered_map<const Module*, size_t> places;
  for (size_t i = seen_.size(); i-- > 0;) places[seen_[i].module.get()] = i;  // the first is of the input
  const auto add = [&](size_t place, const Variable& x) {
    if (seen_[place].in_training_only == in_training && is_floating(x.dtype())) seen_[place].add(x.data());
  };
  const NoGrad no_grad;
  const ForwardObserver observer([&](Module& module, const Variable& input, const Variable&) {
    const auto place = places.find(&module);
    if (place != places.end() && !module.parameters().empty()) add(place->second, input);
  });
  const ReadObserver inner_observer([&](Module&, const Parameter& weight, const Variable& x) {
    if (const auto place = inner_.find(weight.id()); place != inner_.end()) add(place->second, x);
  });
  for (const Bundle& probe : probes) net.call(probe);
}

/// Marks everything that is constant or unused, until nothing changes.
void Analysis::spread() {
  constant_.assign(group_of_.size(), false);
  unused_.assign(group_of_.size(), false);
  while (spread_once()) {
  }
}

bool Analysis::spread_once() {
  std::vector<bool> made(group_of_.size()), is_made(group_of_.size()), read(group_of_.size()),
      is_read(group_of_.size());
  for (const WeightView& w : weights_) {
    const auto visit = [&](AxisUses uses, const ChannelRef& ref, AxisUses other_uses, const ChannelRef& other,
                           bool exists) {
      if (ref.group < 0) return;
      const size_t unit = id(ref);
      const bool itself = other.group == ref.group && other.unit == ref.unit;
      if (uses.makes) {
        is_made[unit] = true;
        // A constant other than 0 moves a cell: only hidden units, which are 0 when constant, count as nothing there.
        const bool from_nothing =
            other_uses.reads &&
            (itself || (is_constant(other) && (w.gates == 1 || gated_[static_cast<size_t>(other.group)])));
        if (exists && !from_nothing) made[unit] = true;
      }
      if (uses.reads) {
        is_read[unit] = true;
        const bool always = graph_.groups()[static_cast<size_t>(ref.group)].read_without_weight;
        if (always || (exists && !itself && !removed(other))) read[unit] = true;
      }
    };
    for (size_t r = 0; r < w.rows(); ++r)
      for (size_t c = 0; c < w.columns(); ++c) {
        visit(w.row_uses, w.refs.rows[r], w.column_uses, w.refs.columns[c], w.at(r, c));
        visit(w.column_uses, w.refs.columns[c], w.row_uses, w.refs.rows[r], w.at(r, c));
      }
  }
  bool changed = false;
  for (size_t unit = 0; unit < group_of_.size(); ++unit) {
    const size_t group = group_of_[unit];
    if (!movable_[group] || kept_[unit] || removed(unit)) continue;
    const bool unmade = is_made[unit] && !made[unit] && resting_[unit];
    const bool silenced = multipliers_[unit] > 0 && alive_multipliers_[unit] == 0;
    if ((unmade || silenced) && !varies_[unit])
      constant_[unit] = true;
    else if (is_read[unit] && !read[unit])
      unused_[unit] = true;
    changed = changed || removed(unit);
  }
  return changed;
}

/// Why the constant at a channel of a layer's input can't go into the layer.
std::optional<std::string> Analysis::obstacle_at(const Seen& seen, size_t channel) const {
  const double low = seen.low[channel], high = seen.high[channel];
  if (!(low <= high)) return fmt::format("what {} reads was not seen: it isn't called with ()", seen.name);
  const DType dtype = seen.module->parameters().front().data().dtype();
  if (high - low > 64 * epsilon_of(dtype) * std::max(std::abs(low), std::abs(high)))
    return fmt::format("{} sees values from {:.4g} to {:.4g}", seen.name, low, high);
  if ((low == 0 && high == 0) || seen.takes_constants()) return std::nullopt;
  return fmt::format("{} sees {:.4g}, and this {} has no bias that could take it", seen.name, high,
                     seen.module->type());
}

/// For each unit the weights that read it in rows that stay: positions in weights_.
std::vector<std::vector<size_t>> Analysis::living_readers() const {
  std::vector<std::vector<size_t>> readers(group_of_.size());
  for (size_t i = 0; i < weights_.size(); ++i) {
    const WeightView& w = weights_[i];
    const auto visit = [&](AxisUses uses, const ChannelRef& ref, const ChannelRef& other) {
      if (!uses.reads || ref.group < 0 || removed(other)) return;
      std::vector<size_t>& own = readers[id(ref)];
      if (own.empty() || own.back() != i) own.push_back(i);
    };
    for (size_t r = 0; r < w.rows(); ++r)
      for (size_t c = 0; c < w.columns(); ++c) {
        if (!w.at(r, c)) continue;
        visit(w.column_uses, w.refs.columns[c], w.refs.rows[r]);
        visit(w.row_uses, w.refs.rows[r], w.refs.columns[c]);
      }
  }
  return readers;
}

/// Why a constant unit can't go.
std::optional<std::string> Analysis::obstacle(size_t unit, const std::vector<size_t>& readers) const {
  const size_t group = group_of_[unit];
  const ChannelRef own{static_cast<int>(group), static_cast<int64_t>(unit - first_[group])};
  for (const size_t reader : readers) {
    const Parameter& weight = weights_[reader].parameter;
    if (graph_.is_used_outside(weight))
      return fmt::format("'{}' is used outside its module, too, where what it reads can't be seen", weight.name());
    const auto owners = owners_.find(weight.id());
    bool seen_there = false;
    for (const size_t call : owners == owners_.end() ? std::vector<size_t>() : owners->second)
      for (size_t channel = 0; channel < seen_[call].refs.size(); ++channel) {
        const ChannelRef& ref = seen_[call].refs[channel];
        if (ref.group != own.group || ref.unit != own.unit) continue;
        seen_there = true;
        if (auto reason = obstacle_at(seen_[call], channel)) return reason;
      }
    if (gated_[group] && weights_[reader].gates > 1) continue;  // within the LSTM: 0 from zero states on
    if (!seen_there) return fmt::format("what '{}' reads can't be seen from outside its module", weight.name());
  }
  return std::nullopt;
}

/// Whether every unit called constant can go; those that can't are not called so any more.
bool Analysis::verify() {
  bool good = true;
  const std::vector<std::vector<size_t>> readers = living_readers();
  std::map<size_t, std::pair<int64_t, std::string>> problems;  // by group: units, the first reason
  for (size_t unit = 0; unit < constant_.size(); ++unit) {
    if (!constant_[unit]) continue;
    const std::optional<std::string> reason = obstacle(unit, readers[unit]);
    if (!reason) continue;
    varies_[unit] = true;
    good = false;
    auto& [count, first] = problems[group_of_[unit]];
    if (count++ == 0) first = *reason;
  }
  for (const auto& [group, problem] : problems)
    notes_[group] += fmt::format("{}{} masked unit{} stay{}: {}", notes_[group].empty() ? "" : "; ", problem.first,
                                 problem.first == 1 ? "" : "s", problem.first == 1 ? "s" : "", problem.second);
  return good;
}

/// No group may become empty, and no weight lose all its rows or columns.
bool Analysis::keep_one_of_each() {
  bool good = true;
  const auto keep = [&](size_t unit) {
    kept_[unit] = true;
    good = false;
    std::string& note = notes_[group_of_[unit]];
    note += note.empty() ? "" : "; ";
    note += "a unit stays although nothing needs it: no layer may become empty";
  };
  for (size_t group = 0; group < first_.size(); ++group) {
    const size_t begin = first_[group], end = begin + static_cast<size_t>(graph_.groups()[group].units);
    bool any = begin == end;
    for (size_t unit = begin; unit < end; ++unit) any = any || !removed(unit);
    if (!any) keep(begin);
  }
  if (!good) return false;
  for (const WeightView& w : weights_)
    for (const auto* axis : {&w.refs.rows, &w.refs.columns})
      if (good && !axis->empty() &&
          std::all_of(axis->begin(), axis->end(), [&](const auto& ref) { return removed(ref); }))
        keep(id(axis->front()));
  return good;
}

DeadUnits Analysis::result() const {
  DeadUnits dead{.removed = {}, .notes = notes_, .constants = {}};
  for (size_t group = 0; group < first_.size(); ++group) {
    std::vector<bool>& removed_units = dead.removed.emplace_back();
    for (int64_t unit = 0; unit < graph_.groups()[group].units; ++unit)
      removed_units.push_back(removed(first_[group] + static_cast<size_t>(unit)));
  }
  for (const Seen& seen : seen_) {
    if (!seen.takes_constants()) continue;
    std::vector<double> values(seen.refs.size(), 0.0);
    bool any = false;
    for (size_t i = 0; i < values.size(); ++i) {
      const ChannelRef& ref = seen.refs[i];
      if (!is_constant(ref) || !(seen.low[i] <= seen.high[i])) continue;
      if (obstacle_at(seen, i)) continue;  // read by masked weights only
      values[i] = (seen.low[i] + seen.high[i]) / 2;
      any = any || values[i] != 0;
    }
    if (!any) continue;
    for (const ChannelReader& reader : seen.readers) dead.constants.push_back({seen.name, seen.module, reader, values});
  }
  return dead;
}

DeadUnits Analysis::run() {
  do {
    do spread();
    while (!verify());
  } while (!keep_one_of_each());
  return result();
}

}  // namespace

DeadUnits find_dead_units(Module& net, const DependencyGraph& graph, const Bundle& example,
                          const std::vector<bool>& whole) {
  return Analysis(net, graph, example, whole).run();
}

}  // namespace espalier
