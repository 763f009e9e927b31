#include "training/optimizer.h"

#include <cmath>
#include <set>

#include <nlohmann/json.hpp>

namespace espalier {

namespace {

NamedParameters with_names(const std::vector<Parameter>& parameters) {
  NamedParameters named;
  std::set<std::string> used;
  for (const Parameter& p : parameters) {
    check(p.defined(), "Optimizer", "expected parameters, got an undefined one at position {}", named.size());
    std::string name = p.name();
    // Parameters collected by hand may share a local name ("weight"); the position tells them apart.
    if (!used.insert(name).second) used.insert(name = fmt::format("{}#{}", p.name(), named.size()));
    named.emplace_back(name, p);
  }
  return named;
}

std::string parent_of(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

}  // namespace

ParameterGroups::ParameterGroups(const std::vector<Parameter>& parameters) : ParameterGroups(with_names(parameters)) {}

std::vector<ParameterGroup> no_decay_groups(const Module& module, double weight_decay) {
  std::set<std::string> norms;
  for (const auto& [name, child] : module.named_modules())
    if (child->type().find("Norm") != std::string::npos) norms.insert(name);

  ParameterGroup decayed{.parameters = {}, .weight_decay = weight_decay};
  ParameterGroup rest{.parameters = {}, .weight_decay = 0.0};
  for (const auto& [name, parameter] : module.named_parameters()) {
    (norms.contains(parent_of(name)) || parameter.shape().rank() <= 1 ? rest : decayed)
        .parameters.emplace_back(name, parameter);
  }
  return {std::move(decayed), std::move(rest)};
}

Optimizer::Optimizer(ParameterGroups groups, double lr, double weight_decay, std::vector<std::string> slots)
    : groups_(std::move(groups.groups)), lr_(0), weight_decay_(weight_decay), slots_(std::move(slots)) {
  set_lr(lr);
  std::set<std::string> names;
  for (const ParameterGroup& group : groups_) {
    check_ranges("Optimizer", [decay = group.weight_decay.value_or(weight_decay)](FieldVisitor& f) mutable {
      weight_decay_field(f, decay);
    });
    for (const auto& [name, parameter] : group.parameters) {
      check(parameter.defined(), "Optimizer", "parameter '{}' is undefined", name);
      check(names.insert(name).second, "Optimizer", "two parameters are named '{}'; state is saved under the name",
            name);
      check(states_.emplace(parameter.id(), State{}).second, "Optimizer",
            "parameter '{}' is listed twice; one parameter belongs to one group", name);
    }
  }
  check(!names.empty(), "Optimizer", "expected at least one parameter, got none");
}

void Optimizer::set_lr(double lr) {
  check(lr >= 0 && std::isfinite(lr), "Optimizer", "expected a finite learning rate >= 0, got {}", lr);  // each step
  lr_ = lr;
}

nlohmann::json Optimizer::config() const {
  nlohmann::json groups = nlohmann::json::array();
  for (const ParameterGroup& group : groups_)
    groups.push_back({{"lr_scale", group.lr_scale}, {"weight_decay", group.weight_decay.value_or(weight_decay_)}});
  return {{"type", type()}, {"lr", lr_}, {"groups", groups}};
}

std::vector<Parameter> Optimizer::parameters() const {
  std::vector<Parameter> all;
  for (const ParameterGroup& group : groups_)
    for (const auto& [name, parameter] : group.parameters) all.push_back(parameter);
  return all;
}

void Optimizer::zero_grad() {
  for (ParameterGroup& group : groups_)
    for (auto& [name, parameter] : group.parameters) parameter.zero_grad();
}

void Optimizer::step() {
  // Everything is checked before anything changes.
  pending_.clear();
  steps_.clear();
  for (const ParameterGroup& group : groups_)
    for (const auto& [name, parameter] : group.parameters) prepare(group, name, parameter);
  // Neighbours of one rule, device and type share a kernel call.
  for (size_t begin = 0, end = 0; begin < steps_.size(); begin = end) {
    const Tensor& first = steps_[begin].weight;
    while (end < steps_.size() && pending_[end].settings == pending_[begin].settings &&
           steps_[end].weight.device() == first.device() && steps_[end].weight.dtype() == first.dtype())
      ++end;
    update(pending_[begin].settings, first.device(), std::span(steps_).subspan(begin, end - begin));
  }
  for (size_t i = 0; i < steps_.size(); ++i) {
    ++pending_[i].state->steps;
    if (steps_[i].weight.storage() != pending_[i].weight.storage()) {
      pending_[i].weight.copy_(steps_[i].weight);
    } else {
      pending_[i].weight.bump_version();
    }
  }
  pending_.clear();
  steps_.clear();
}

void Optimizer::follow_mask(const State& state, const Parameter& parameter) {
  const Mask& mask = parameter.mask();
  if (!mask.defined() || mask.version() == state.mask_version) return;
  for (Tensor slot : state.slots) mask.apply_(slot);
  state.mask_version = mask.version();
}

void Optimizer::prepare(const ParameterGroup& group, const std::string& name, const Parameter& parameter) {
  const Tensor grad = parameter.grad();
  if (!grad.defined() || !parameter.requires_grad()) return;
  Tensor weight = parameter.data();
  check(grad.shape() == weight.shape() && grad.dtype() == weight.dtype() && grad.device() == weight.device(),
        "Optimizer::step", "the gradient of '{}' is {}, the weight {}; call zero_grad() after changing a weight", name,
        describe(grad), describe(weight));

  State& state = states_.at(parameter.id());
  if (state.slots.empty())
    for (size_t i = 0; i < slots_.size(); ++i)
      state.slots.push_back(Tensor::zeros(weight.shape(), weight.dtype(), weight.device()));
  for (size_t i = 0; i < slots_.size(); ++i) {
    Tensor& slot = state.slots[i];
    if (slot.device() != weight.device()) slot = slot.to(weight.device());  // the module has moved
    check(slot.shape() == weight.shape() && slot.dtype() == weight.dtype(), "Optimizer::step",
          "state '{}' of '{}' is {}, the weight {}; change both together", slots_[i], name, describe(slot),
          describe(weight));
    slot = slot.contiguous();
  }
  follow_mask(state, parameter);
  const Mask& mask = parameter.mask();
  const auto slot = [&](size_t i) { return i < state.slots.size() ? state.slots[i] : Tensor(); };
  pending_.push_back(
      {{lr_ * group.lr_scale, group.weight_decay.value_or(weight_decay_), state.steps + 1}, &state, weight});
  steps_.push_back({grad.contiguous(), weight.contiguous(), slot(0), slot(1), mask});
}

Tensor* Optimizer::state(const Parameter& parameter, const std::string& slot) {
  const auto found = states_.find(parameter.id());
  check(found != states_.end(), "Optimizer::state", "parameter '{}' is not one of this optimiser's", parameter.name());
  follow_mask(found->second, parameter);
  for (size_t i = 0; i < slots_.size(); ++i)
    if (slots_[i] == slot) return found->second.slots.empty() ? nullptr : &found->second.slots[i];
  fail("Optimizer::state", "{} has no slot '{}'{}; it has: {}", type(), slot, did_you_mean(slot, slots_),
       slots_.empty() ? "none" : fmt::format("{}", fmt::join(slots_, ", ")));
}

void Optimizer::add(const std::string& name, const Parameter& parameter, const Parameter& beside) {
  check(parameter.defined() && !states_.contains(parameter.id()), "Optimizer::add",
        "expected a parameter that is not one of this optimiser's yet, got '{}'", name);
  ParameterGroup* home = nullptr;
  for (ParameterGroup& group : groups_)
    for (const auto& [known, own] : group.parameters) {
      check(known != name, "Optimizer::add", "two parameters are named '{}'; state is saved under the name", name);
      if (own.id() == beside.id()) home = &group;
    }
  check(home != nullptr, "Optimizer::add", "parameter '{}' is not one of this optimiser's", beside.name());
  states_.emplace(parameter.id(), State{});
  home->parameters.emplace_back(name, parameter);
}

void Optimizer::remove(const Parameter& parameter) {
  check(states_.erase(parameter.id()) == 1, "Optimizer::remove", "parameter '{}' is not one of this optimiser's",
        parameter.name());
  for (ParameterGroup& group : groups_)
    std::erase_if(group.parameters, [&](const auto& entry) { return entry.second.id() == parameter.id(); });
}

int64_t Optimizer::steps(const Parameter& parameter) const {
  const auto found = states_.find(parameter.id());
  check(found != states_.end(), "Optimizer::steps", "parameter '{}' is not one of this optimiser's", parameter.name());
  return found->second.steps;
}

OptimizerState Optimizer::state_dict() const {
  OptimizerState result{.type = type(), .tensors = {}, .scalars = {{"lr", lr_}}};
  for (const ParameterGroup& group : groups_) {
    for (const auto& [name, parameter] : group.parameters) {
      const State& state = states_.at(parameter.id());
      if (state.steps == 0) continue;
      follow_mask(state, parameter);
      result.scalars["steps/" + name] = static_cast<double>(state.steps);
      for (size_t i = 0; i < slots_.size(); ++i) result.tensors.emplace_back(slots_[i] + "/" + name, state.slots[i]);
    }
  }
  return result;
}

std::unordered_map<const void*, Optimizer::State> Optimizer::read(const OptimizerState& saved) const {
  if (saved.type != type())
    fail<FileError>("Optimizer::load_state_dict", "expected the state of '{}', got that of '{}'", type(), saved.type);
  std::map<std::string, Tensor> tensors(saved.tensors.begin(), saved.tensors.end());
  std::set<std::string> known;
  std::unordered_map<const void*, State> loaded;
  std::string problems;
  for (const ParameterGroup& group : groups_) {
    for (const auto& [name, parameter] : group.parameters) {
      State& state = loaded[parameter.id()];
      const auto steps = saved.scalars.find("steps/" + name);
      known.insert("steps/" + name);
      if (steps == saved.scalars.end()) continue;  // this parameter never had a gradient
      state.steps = static_cast<int64_t>(steps->second);
      for (const std::string& slot : slots_) {
        const std::string key = slot + "/" + name;
        known.insert(key);
        const auto tensor = tensors.find(key);
        if (tensor == tensors.end()) {
          problems += fmt::format("\n  missing:   {} {}", key, parameter.shape());
        } else if (tensor->second.shape() != parameter.shape()) {
          problems +=
              fmt::format("\n  misshapen: {}: expected {}, got {}", key, parameter.shape(), tensor->second.shape());
        } else {
          Tensor copy = Tensor::empty(parameter.shape(), parameter.data().dtype(), parameter.data().device());
          copy.copy_(tensor->second);
          state.slots.push_back(copy);
        }
      }
    }
  }
  for (const auto& [key, tensor] : saved.tensors)
    if (!known.contains(key)) problems += fmt::format("\n  unknown:   {} {}", key, tensor.shape());
  for (const auto& [key, value] : saved.scalars)
    if (key != "lr" && !known.contains(key)) problems += fmt::format("\n  unknown:   {}", key);
  if (!problems.empty())
    fail<FileError>("Optimizer::load_state_dict", "the state does not fit these parameters:{}", problems);

  return loaded;
}

void Optimizer::check_state_dict(const OptimizerState& saved) const { read(saved); }

void Optimizer::load_state_dict(const OptimizerState& saved) {
  states_ = read(saved);
  if (const auto lr = saved.scalars.find("lr"); lr != saved.scalars.end()) set_lr(lr->second);
}

}  // namespace espalier
