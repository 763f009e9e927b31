#include "layers/module.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include <nlohmann/json.hpp>

#include "layers/containers.h"
#include "layers/transforms.h"

namespace espalier {

namespace {
constexpr const char* kOutputTransform = "output_transform";

thread_local ForwardObserver* t_observers = nullptr;
thread_local ReadObserver* t_read_observers = nullptr;

std::string joined(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

/// Depth-first walk over each module once; f(prefix, module).
template <class F>
void walk(const std::string& prefix, const Module& module, std::unordered_set<const Module*>& seen, F&& f) {
  if (!seen.insert(&module).second) return;
  f(prefix, module);
  for (const auto& [name, child] : module.children()) walk(joined(prefix, name), *child, seen, f);
  if (module.output_transform()) walk(joined(prefix, kOutputTransform), *module.output_transform(), seen, f);
}

/// The network's name for a parameter replaces a shorter one; listing a part of the network changes nothing.
void give_name(Parameter parameter, const std::string& full) {
  const std::string& now = parameter.name();
  if (now == full || now.ends_with("." + full)) return;
  parameter.set_name(full);
}
}  // namespace

Variable Module::operator()(const Variable& x) { return finish(x, forward(x)); }

Variable Module::finish(const Variable& input, const Variable& output) {
  observe(input, output);
  if (!output_transform_) return output;
  Variable y = (*output_transform_)(output);
  if (y.shape() != output.shape())
    fail(label(), "its output transform, a {}, gives {}, expected the output's shape {}", output_transform_->type(),
         y.shape(), output.shape());
  return y;
}

void Module::set_output_transform(ModulePtr transform) {
  output_transform_ = std::move(transform);
  if (output_transform_)
    for (const auto& [name, parameter] : output_transform_->named_parameters())
      give_name(parameter, joined(kOutputTransform, name));
}

std::vector<ModulePtr> Module::everything() const {
  std::vector<ModulePtr> all;
  for (const auto& [name, module] : named_modules()) {
    all.push_back(module);
    for (const auto& [parameter_name, parameter] : module->parameters_) {
      if (!parameter->defined()) continue;
      for (const ModulePtr& transform : parameter->transforms())
        for (const auto& [part_name, part] : transform->named_modules()) all.push_back(part);
    }
  }
  return all;
}

Bundle Module::forward_all(const Bundle& inputs) {
  if (inputs.size() != 1)
    fail(label(), "expected one input, got {}; a network of several inputs overrides forward_all", inputs.size());
  return forward(inputs.first());
}

Bundle Module::call(const Bundle& inputs) {
  const Bundle given = forward_all(inputs);
  Variables outputs = given.all();
  outputs.front() = finish(inputs.first(), given.first());
  return outputs;
}

void Module::observe(const Variable& input, const Variable& output) {
  for (ForwardObserver* observer = t_observers; observer != nullptr; observer = observer->previous_)
    observer->callback_(*this, input, output);
}

void Module::observe_read(const std::string& weight, const Variable& x) {
  for (ReadObserver* observer = t_read_observers; observer != nullptr; observer = observer->previous_)
    observer->callback_(*this, parameter(weight), x);
}

bool Module::reads_are_observed() { return t_read_observers != nullptr; }

int64_t Module::macs(const Shape&, const Shape&) const { return 0; }

void Module::keep_channels(const std::vector<int64_t>&, const std::vector<int64_t>&) {}

ChannelAccount Module::channels() const { return {}; }

void Module::select_inputs(int64_t, const std::vector<int64_t>&) {
  fail(label(), "can't read a part of its input; override select_inputs, or don't set selects_inputs in channels()");
}

std::string Module::label() const {
  for (const auto& [name, parameter] : parameters_) {
    if (!parameter->defined()) continue;
    const std::string& full = parameter->name();
    if (full.ends_with("." + name)) return type() + " " + full.substr(0, full.size() - name.size() - 1);
  }
  return type();
}

std::vector<std::pair<std::string, Parameter>> Module::named_parameters() const {
  std::vector<std::pair<std::string, Parameter>> result;
  std::unordered_set<const Module*> seen;
  std::unordered_set<const void*> listed;
  walk("", *this, seen, [&](const std::string& prefix, const Module& module) {
    for (const auto& [name, parameter] : module.parameters_) {
      if (!parameter->defined() || !listed.insert(parameter->id()).second) continue;
      result.emplace_back(joined(prefix, name), *parameter);
      give_name(*parameter, result.back().first);
    }
  });
  return result;
}

std::vector<Parameter> Module::parameters() const {
  std::vector<Parameter> result;
  for (auto& [name, parameter] : named_parameters()) result.push_back(std::move(parameter));
  return result;
}

NamedTensors Module::named_buffers() const {
  NamedTensors result;
  std::unordered_set<const Module*> seen;
  walk("", *this, seen, [&](const std::string& prefix, const Module& module) {
    for (const auto& [name, buffer] : module.buffers_)
      if (buffer->defined()) result.emplace_back(joined(prefix, name), *buffer);
  });
  return result;
}

std::vector<std::pair<std::string, ModulePtr>> Module::named_modules() const {
  std::vector<std::pair<std::string, ModulePtr>> result;
  std::unordered_set<const Module*> seen;
  walk("", *this, seen, [&](const std::string& prefix, const Module& visited) {
    Module& module = const_cast<Module&>(visited);
    ModulePtr pointer = module.weak_from_this().lock();
    // A module on the stack (the root only) has no owner to share.
    if (!pointer) pointer = ModulePtr(ModulePtr(), &module);
    result.emplace_back(prefix, std::move(pointer));
  });
  return result;
}

ModulePtr Module::find(const std::string& name) const {
  std::vector<std::string> names;
  for (const auto& [full, module] : named_modules()) {
    if (full == name) return module;
    names.push_back(full);
  }
  fail("find", "{} has no module '{}'{}", type(), name, did_you_mean(name, names));
}

const Parameter& Module::parameter(const std::string& name) const { return *slot(parameters_, "parameter", name); }

const Tensor& Module::buffer(const std::string& name) const { return *slot(buffers_, "buffer", name); }

void Module::define_parameter(const std::string& name, Tensor value) {
  Parameter& own = *slot(parameters_, "parameter", name);
  check(!own.defined(), "define_parameter", "{} has '{}' already", label(), name);
  own = Parameter(name, std::move(value));
}

void Module::set_buffer(const std::string& name, Tensor value) { *slot(buffers_, "buffer", name) = std::move(value); }

int64_t Module::num_parameters() const {
  int64_t total = 0;
  for (const auto& [name, parameter] : named_parameters()) total += parameter.numel();
  return total;
}

void Module::share_parameter(const std::string& name, const Parameter& parameter) {
  std::vector<std::string> names;
  for (auto& [own, slot] : parameters_) {
    if (slot->defined()) names.push_back(own);
    if (own != name || !slot->defined()) continue;
    check(parameter.defined() && parameter.shape() == slot->shape(), "share_parameter",
          "{}.{} has shape {}, the parameter to share has {}", label(), name, slot->shape(),
          parameter.defined() ? parameter.shape().to_string() : "none: it is undefined");
    *slot = parameter;
    return;
  }
  fail("share_parameter", "{} has no parameter '{}'{}", label(), name, did_you_mean(name, names));
}

std::vector<Tie> Module::ties() const {
  std::vector<Tie> result;
  std::unordered_map<const void*, std::string> first_names;
  const auto is_new = [&](const void* id, const std::string& name) {
    const auto [known, inserted] = first_names.emplace(id, name);
    if (!inserted) result.push_back({name, known->second});
    return inserted;
  };
  const std::function<void(const std::string&, const Module&)> visit = [&](const std::string& path,
                                                                           const Module& module) {
    if (!is_new(&module, path)) return;
    for (const auto& [name, parameter] : module.parameters_)
      if (parameter->defined()) is_new(parameter->id(), joined(path, name));
    for (const auto& [name, child] : module.children_) visit(joined(path, name), *child);
    if (module.output_transform_) visit(joined(path, kOutputTransform), *module.output_transform_);
  };
  visit("", *this);
  return result;
}

ModulePtr Module::descendant(const std::string& path) const {
  ModulePtr module;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    const Module& parent = module ? *module : *this;
    const auto& children = parent.children_;
    const auto child =
        std::find_if(children.begin(), children.end(), [&](const auto& entry) { return entry.first == name; });
    if (child != children.end()) {
      module = child->second;
    } else if (name == kOutputTransform && parent.output_transform_) {
      module = ModulePtr(parent.output_transform_);
    } else {
      return nullptr;
    }
    begin = end + 1;
  }
  return module;
}

void Module::tie(const Tie& tie) {
  const auto parent_of = [&](const std::string& path) -> Module* {
    const size_t dot = path.rfind('.');
    return dot == std::string::npos ? this : descendant(path.substr(0, dot)).get();
  };
  const auto own_name = [](const std::string& path) { return path.substr(path.rfind('.') + 1); };
  Module* parent = parent_of(tie.name);
  check(parent != nullptr, "tie", "{} has no module or parameter '{}'", type(), tie.name);

  if (const ModulePtr module = descendant(tie.name)) {
    const ModulePtr first = descendant(tie.first);
    if (first == module) return;
    check(first != nullptr && first->config() == module->config(), "tie",
          "'{}' is a {} and can only be another one with the same options; '{}' is {}", tie.name, module->type(),
          tie.first, first ? "a " + first->type() + " with others" : "no module");
    check(dynamic_cast<Sequential*>(parent) != nullptr, "tie",
          "'{}' is a part of a {}, whose modules can't be replaced; build it with the module that it shares", tie.name,
          parent->type());
    for (const auto& [name, part] : first->named_modules())
      check(part.get() != parent, "tie", "'{}' can't be '{}', of which it is a part", tie.name, tie.first);
    parent->replace_child(own_name(tie.name), first);
    return;
  }

  const Module* owner = parent_of(tie.first);
  const std::string first = own_name(tie.first);
  const Parameter* parameter = nullptr;
  if (owner != nullptr)
    for (const auto& [name, slot] : owner->parameters_)
      if (name == first) parameter = slot.get();
  check(parameter != nullptr, "tie", "{} has no parameter '{}' that '{}' could be", type(), tie.first, tie.name);
  parent->share_parameter(own_name(tie.name), *parameter);
}

void Module::train(bool training) {
  for (const ModulePtr& module : everything()) module->training_ = training;
}

Device Module::device() const {
  const std::vector<Parameter> all = parameters();
  return all.empty() ? Device::cpu() : all.front().data().device();
}

void Module::to(Device device) {
  for (Parameter& parameter : parameters()) parameter.to(device);
  for (const auto& [name, module] : named_modules())
    for (auto& [buffer_name, buffer] : module->buffers_)
      if (buffer->defined()) *buffer = buffer->to(device);
}

void Module::to(DType dtype) {
  for (Parameter& parameter : parameters()) parameter.to(dtype);
  for (const auto& [name, module] : named_modules())
    for (auto& [buffer_name, buffer] : module->buffers_)
      if (buffer->defined() && is_floating(buffer->dtype())) *buffer = buffer->to(dtype);
}

ModulePtr Module::clone() const {
  // The fresh parameters are overwritten: whatever they drew is put back.
  const Generator before = default_generator();
  ModulePtr copy = module_from_config(config());
  build_transforms(*copy, transforms_config(*this));
  default_generator() = before;
  for (const Tie& each : ties()) copy->tie(each);
  if (const auto transforms = parameter_transforms(*this); transforms->size() > 0)
    set_parameter_transforms(*copy, dynamic_cast<const Sequential&>(*transforms->clone()));

  const auto sources = named_modules(), targets = copy->named_modules();
  check(sources.size() == targets.size(), "clone", "config() of {} rebuilds {} modules, it has {}", type(),
        targets.size(), sources.size());
  std::unordered_set<const void*> copied;
  for (size_t i = 0; i < sources.size(); ++i) {
    const Module& source = *sources[i].second;
    Module& target = *targets[i].second;
    check(source.type() == target.type() && source.parameters_.size() == target.parameters_.size() &&
              source.buffers_.size() == target.buffers_.size(),
          "clone", "config() of {} does not rebuild it: got {}", source.label(), target.type());
    for (size_t p = 0; p < source.parameters_.size(); ++p) {
      const Parameter& from = *source.parameters_[p].second;
      Parameter& to = *target.parameters_[p].second;
      if (!from.defined() || !copied.insert(from.id()).second) continue;
      check(to.defined() && to.shape() == from.shape(), "clone", "config() of {} rebuilds {} with another shape",
            source.label(), source.parameters_[p].first);
      to.set_data(from.data().clone());
      to.set_requires_grad(from.requires_grad());
      if (from.mask().defined()) to.set_mask(from.mask(), from.gradient_flow());
    }
    for (size_t b = 0; b < source.buffers_.size(); ++b)
      if (const Tensor& from = *source.buffers_[b].second; from.defined()) *target.buffers_[b].second = from.clone();
    target.training_ = source.training_;
  }
  copy->named_parameters();  // names of tied parameters
  return copy;
}

void Module::zero_grad() {
  for (Parameter& parameter : parameters()) parameter.zero_grad();
}

void Module::check_name(const char* what, const std::string& name) const {
  check(!name.empty() && name.find('.') == std::string::npos && name != kOutputTransform, "Module",
        "the name of a {} must not be empty, contain '.' or be '{}', got '{}'", what, kOutputTransform, name);
  const auto taken = [&](const auto& entries) {
    return std::any_of(entries.begin(), entries.end(), [&](const auto& entry) { return entry.first == name; });
  };
  check(!taken(parameters_) && !taken(buffers_) && !taken(children_), "Module",
        "the name '{}' is taken; choose another for this {}", name, what);
}

template <class Held>
const std::unique_ptr<Held>& Module::slot(const std::vector<std::pair<std::string, std::unique_ptr<Held>>>& all,
                                          const char* what, const std::string& name) const {
  std::vector<std::string> names;
  for (const auto& [own, held] : all) {
    if (own == name) return held;
    names.push_back(own);
  }
  fail(label(), "has no {} '{}' of its own{}", what, name, did_you_mean(name, names));
}

Parameter& Module::add_parameter(const std::string& name, Tensor value) {
  check_name("parameter", name);
  parameters_.emplace_back(
      name, std::make_unique<Parameter>(value.defined() ? Parameter(name, std::move(value)) : Parameter()));
  return *parameters_.back().second;
}

Tensor& Module::add_buffer(const std::string& name, Tensor value) {
  check_name("buffer", name);
  buffers_.emplace_back(name, std::make_unique<Tensor>(std::move(value)));
  return *buffers_.back().second;
}

void Module::adopt(const std::string& name, ModulePtr child) {
  check_name("child", name);
  check(child != nullptr, "Module", "child '{}' is a null pointer", name);
  children_.emplace_back(name, child);
  const bool known_before =
      std::count_if(children_.begin(), children_.end(), [&](const auto& entry) { return entry.second == child; }) > 1;
  if (known_before) return;  // the first name stays
  for (const auto& [parameter_name, parameter] : child->named_parameters())
    give_name(parameter, joined(name, parameter_name));
}

void Module::replace_child(const std::string& name, ModulePtr child) {
  check(child != nullptr, "Module", "child '{}' is a null pointer", name);
  const auto place =
      std::find_if(children_.begin(), children_.end(), [&](const auto& entry) { return entry.first == name; });
  check(place != children_.end(), "Module", "{} has no child '{}'", label(), name);
  place->second = std::move(child);
  for (const auto& [parameter_name, parameter] : place->second->named_parameters())
    give_name(parameter, joined(name, parameter_name));
}

ForwardObserver::ForwardObserver(Callback callback) : callback_(std::move(callback)), previous_(t_observers) {
  t_observers = this;
}

ForwardObserver::~ForwardObserver() { t_observers = previous_; }

ReadObserver::ReadObserver(Callback callback) : callback_(std::move(callback)), previous_(t_read_observers) {
  t_read_observers = this;
}

ReadObserver::~ReadObserver() { t_read_observers = previous_; }

EvalMode::EvalMode(Module& module) {
  for (const ModulePtr& part : module.everything()) {
    before_.emplace_back(part, part->training_);
    part->training_ = false;
  }
}

EvalMode::~EvalMode() {
  for (auto& [module, training] : before_) module->training_ = training;
}

NamedTensors state_of(const Module& module) {
  NamedTensors result;
  for (const auto& [name, parameter] : module.named_parameters()) result.emplace_back(name, parameter.data());
  for (const auto& [name, buffer] : module.named_buffers()) result.emplace_back(name, buffer);
  return result;
}

void load_state(Module& module, const NamedTensors& state) {
  NamedTensors own = state_of(module);
  std::vector<std::string> own_names;
  for (const auto& [name, tensor] : own) own_names.push_back(name);
  std::map<std::string, const Tensor*> given;
  std::vector<std::string> problems;
  for (const auto& [name, tensor] : state) {
    if (!given.emplace(name, &tensor).second) problems.push_back(fmt::format("twice: {}", name));
    if (std::find(own_names.begin(), own_names.end(), name) == own_names.end())
      problems.push_back(fmt::format("unknown: {} {}{}", name, tensor.shape(), did_you_mean(name, own_names)));
  }
  for (const auto& [name, tensor] : own) {
    const auto found = given.find(name);
    if (found == given.end())
      problems.push_back(fmt::format("missing: {} {}", name, tensor.shape()));
    else if (!found->second->defined())
      problems.push_back(fmt::format("undefined: {}", name));
    else if (found->second->shape() != tensor.shape())
      problems.push_back(fmt::format("shape: {} expected {}, got {}", name, tensor.shape(), found->second->shape()));
  }
  check(problems.empty(), "load_state", "the state does not fit this {} of {} tensors; {} problem(s):\n  {}",
        module.type(), own.size(), problems.size(), fmt::join(problems, "\n  "));
  for (auto& [name, tensor] : own) tensor.copy_(*given[name]);
  for (Parameter& parameter : module.parameters())  // the mask is the truth, whatever the file says
    if (parameter.mask().defined()) parameter.set_mask(parameter.mask(), parameter.gradient_flow());
}

}  // namespace espalier
