// The update rules' options and their kernel calls.
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/kernels.h"
#include "training/optimizer.h"

namespace espalier {

namespace {

std::vector<std::string> slots_if(bool momentum, std::vector<std::string> slots) {
  if (momentum) slots.push_back("velocity");
  return slots;
}

template <class Options>
void visit_adam(FieldVisitor& f, Options& o) {
  lr_field(f, o.lr);
  f("beta1", o.beta1, share_below_one(), "Decay of the mean of the gradients");
  f("beta2", o.beta2, share_below_one(), "Decay of the mean of their squares");
  f("epsilon", o.epsilon, at_least(0), "Beside the root of that mean");
  weight_decay_field(f, o.weight_decay);
}

void check_momentum_kept(const Optimizer& optimizer, const char* name) {
  const auto& slots = optimizer.slots();
  check(!slots.empty() && slots.back() == "velocity", name,
        "the momentum can vary only if the optimiser was built with momentum > 0 (it keeps a velocity then)");
}

}  // namespace

void fields(FieldVisitor& f, SgdOptions& o) {
  lr_field(f, o.lr);
  momentum_field(f, o.momentum);
  f("dampening", o.dampening, "Share of the gradient that doesn't enter the velocity");
  weight_decay_field(f, o.weight_decay);
  nesterov_field(f, o.nesterov);
  f.judge([&o] {
    check(!o.nesterov || (o.momentum > 0 && o.dampening == 0), "Sgd",
          "Nesterov needs momentum > 0 and dampening 0, got {} and {}", o.momentum, o.dampening);
  });
}

void fields(FieldVisitor& f, AdamOptions& o) { visit_adam(f, o); }
void fields(FieldVisitor& f, AdamWOptions& o) { visit_adam(f, o); }

void fields(FieldVisitor& f, RmsPropOptions& o) {
  lr_field(f, o.lr);
  f("alpha", o.alpha, share_below_one(), "Decay of the mean of the gradients' squares");
  f("epsilon", o.epsilon, at_least(0), "Beside the root of that mean");
  weight_decay_field(f, o.weight_decay);
  momentum_field(f, o.momentum);
}

Sgd::Sgd(ParameterGroups groups, SgdOptions options)
    : Optimizer(std::move(groups), checked("Sgd", options).lr, options.weight_decay,
                slots_if(options.momentum > 0, {})),
      options_(options) {}

nlohmann::json Sgd::config() const {
  nlohmann::json config = Optimizer::config();
  config["momentum"] = options_.momentum;
  config["dampening"] = options_.dampening;
  config["nesterov"] = options_.nesterov;
  return config;
}

void Sgd::set_momentum(double momentum) {
  check_momentum_kept(*this, "Sgd::set_momentum");
  SgdOptions options = options_;
  options.momentum = momentum;
  options_ = checked("Sgd", options);
}

void Sgd::update(const Settings& settings, Device device, std::span<const ParameterStep> parameters) {
  const SgdUpdate rule{.lr = settings.lr,
                       .momentum = options_.momentum,
                       .dampening = options_.dampening,
                       .weight_decay = settings.weight_decay,
                       .nesterov = options_.nesterov,
                       .first_step = settings.step == 1};
  kernels(device).sgd(rule, parameters);
}

Adam::Adam(ParameterGroups groups, AdamOptions options) : Adam(std::move(groups), options, false) {}

Adam::Adam(ParameterGroups groups, AdamOptions options, bool decoupled)
    : Optimizer(std::move(groups), checked("Adam", options).lr, options.weight_decay, {"m", "v"}),
      options_(options),
      decoupled_(decoupled) {}

nlohmann::json Adam::config() const {
  nlohmann::json config = Optimizer::config();
  config["beta1"] = options_.beta1;
  config["beta2"] = options_.beta2;
  config["epsilon"] = options_.epsilon;
  return config;
}

void Adam::set_momentum(double momentum) {
  AdamOptions options = options_;
  options.beta1 = momentum;
  options_ = checked("Adam", options);
}

void Adam::update(const Settings& settings, Device device, std::span<const ParameterStep> parameters) {
  const AdamUpdate rule{.lr = settings.lr,
                        .beta1 = options_.beta1,
                        .beta2 = options_.beta2,
                        .epsilon = options_.epsilon,
                        .weight_decay = settings.weight_decay,
                        .decoupled = decoupled_,
                        .step = settings.step};
  kernels(device).adam(rule, parameters);
}

AdamW::AdamW(ParameterGroups groups, AdamWOptions options)
    : Adam(std::move(groups),
           {.lr = options.lr,
            .beta1 = options.beta1,
            .beta2 = options.beta2,
            .epsilon = options.epsilon,
            .weight_decay = options.weight_decay},
           true) {}

RmsProp::RmsProp(ParameterGroups groups, RmsPropOptions options)
    : Optimizer(std::move(groups), checked("RmsProp", options).lr, options.weight_decay,
                slots_if(options.momentum > 0, {"v"})),
      options_(options) {}

nlohmann::json RmsProp::config() const {
  nlohmann::json config = Optimizer::config();
  config["alpha"] = options_.alpha;
  config["epsilon"] = options_.epsilon;
  config["momentum"] = options_.momentum;
  return config;
}

void RmsProp::set_momentum(double momentum) {
  check_momentum_kept(*this, "RmsProp::set_momentum");
  RmsPropOptions options = options_;
  options.momentum = momentum;
  options_ = checked("RmsProp", options);
}

void RmsProp::update(const Settings& settings, Device device, std::span<const ParameterStep> parameters) {
  const RmspropUpdate rule{.lr = settings.lr,
                           .alpha = options_.alpha,
                           .epsilon = options_.epsilon,
                           .weight_decay = settings.weight_decay,
                           .momentum = options_.momentum};
  kernels(device).rmsprop(rule, parameters);
}

Registry<std::unique_ptr<OptimizerMaker>()>& optimizer_registry() {
  static Registry<std::unique_ptr<OptimizerMaker>()> optimizers("optimiser",
                                                                {{"sgd", maker_of<Sgd, SgdOptions>},
                                                                 {"adam", maker_of<Adam, AdamOptions>},
                                                                 {"adamw", maker_of<AdamW, AdamWOptions>},
                                                                 {"rmsprop", maker_of<RmsProp, RmsPropOptions>}});
  return optimizers;
}

std::function<void(FieldVisitor&)> optimizer_fields(const std::string& name) {
  return [maker = std::shared_ptr(optimizer_registry().find("make_optimizer", name)())](FieldVisitor& f) {
    maker->fields(f);
  };
}

namespace {

/// What an optimiser calls its momentum.
const char* momentum_name(const std::string& optimizer) {
  const nlohmann::json options = json_of_fields(optimizer_fields(optimizer));
  return !options.contains("momentum") && options.contains("beta1") ? "beta1" : "momentum";
}

}  // namespace

OptimizerOptions take_shared_options(PartChoice& chosen) {
  OptimizerOptions taken;
  if (chosen.options.empty()) return taken;
  nlohmann::json options = parse_json(chosen.options);
  const auto take = [&](const char* name, auto& value) {
    if (const auto found = options.find(name); found != options.end()) {
      value = found->get<typename std::remove_reference_t<decltype(value)>::value_type>();
      options.erase(found);
    }
  };
  take("lr", taken.lr);
  take(momentum_name(chosen.name), taken.momentum);
  take("weight_decay", taken.weight_decay);
  take("nesterov", taken.nesterov);
  chosen.options = options.empty() ? "" : options.dump();
  return taken;
}

std::unique_ptr<Optimizer> make_optimizer(const PartChoice& chosen, ParameterGroups groups,
                                          const OptimizerOptions& options) {
  const std::unique_ptr<OptimizerMaker> maker = optimizer_registry().find("make_optimizer", chosen.name)();
  nlohmann::json given = chosen.options.empty() ? nlohmann::json::object() : parse_json(chosen.options);
  if (options.lr) given["lr"] = *options.lr;
  if (options.momentum) given[momentum_name(chosen.name)] = *options.momentum;
  if (options.weight_decay) given["weight_decay"] = *options.weight_decay;
  if (options.nesterov) given["nesterov"] = *options.nesterov;
  read_fields(chosen.name.c_str(), given, [&](FieldVisitor& f) { maker->fields(f); });
  return maker->make(std::move(groups));
}

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, ParameterGroups groups,
                                          const OptimizerOptions& options) {
  return make_optimizer(PartChoice{.name = name}, std::move(groups), options);
}

}  // namespace espalier
