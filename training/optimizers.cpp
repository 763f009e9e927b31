// The update rules' options and their kernel calls.
#include <nlohmann/json.hpp>

#include "core/kernels.h"
#include "training/optimizer.h"

namespace espalier {

namespace {

std::vector<std::string> slots_if(bool momentum, std::vector<std::string> slots) {
  if (momentum) slots.push_back("velocity");
  return slots;
}

void check_unit(double value, const char* optimizer, const char* name) {
  check(value >= 0 && value < 1, optimizer, "expected 0 <= {} < 1, got {}", name, value);
}

void check_momentum_kept(const Optimizer& optimizer, const char* name) {
  const auto& slots = optimizer.slots();
  check(!slots.empty() && slots.back() == "velocity", name,
        "the momentum can vary only if the optimiser was built with momentum > 0 (it keeps a velocity then)");
}

}  // namespace

Sgd::Sgd(ParameterGroups groups, SgdOptions options)
    : Optimizer(std::move(groups), options.lr, options.weight_decay, slots_if(options.momentum > 0, {})),
      options_(options) {
  check_unit(options.momentum, "Sgd", "momentum");
  check(!options.nesterov || (options.momentum > 0 && options.dampening == 0), "Sgd",
        "Nesterov needs momentum > 0 and dampening 0, got {} and {}", options.momentum, options.dampening);
}

nlohmann::json Sgd::config() const {
  nlohmann::json config = Optimizer::config();
  config["momentum"] = options_.momentum;
  config["dampening"] = options_.dampening;
  config["nesterov"] = options_.nesterov;
  return config;
}

void Sgd::set_momentum(double momentum) {
  check_unit(momentum, "Sgd", "momentum");
  check_momentum_kept(*this, "Sgd::set_momentum");
  options_.momentum = momentum;
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
    : Optimizer(std::move(groups), options.lr, options.weight_decay, {"m", "v"}),
      options_(options),
      decoupled_(decoupled) {
  check_unit(options.beta1, "Adam", "beta1");
  check_unit(options.beta2, "Adam", "beta2");
}

nlohmann::json Adam::config() const {
  nlohmann::json config = Optimizer::config();
  config["beta1"] = options_.beta1;
  config["beta2"] = options_.beta2;
  config["epsilon"] = options_.epsilon;
  return config;
}

void Adam::set_momentum(double momentum) {
  check_unit(momentum, "Adam", "beta1");
  options_.beta1 = momentum;
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
    : Optimizer(std::move(groups), options.lr, options.weight_decay, slots_if(options.momentum > 0, {"v"})),
      options_(options) {
  check_unit(options.alpha, "RmsProp", "alpha");
  check_unit(options.momentum, "RmsProp", "momentum");
}

nlohmann::json RmsProp::config() const {
  nlohmann::json config = Optimizer::config();
  config["alpha"] = options_.alpha;
  config["epsilon"] = options_.epsilon;
  config["momentum"] = options_.momentum;
  return config;
}

void RmsProp::set_momentum(double momentum) {
  check_unit(momentum, "RmsProp", "momentum");
  check_momentum_kept(*this, "RmsProp::set_momentum");
  options_.momentum = momentum;
}

void RmsProp::update(const Settings& settings, Device device, std::span<const ParameterStep> parameters) {
  const RmspropUpdate rule{.lr = settings.lr,
                           .alpha = options_.alpha,
                           .epsilon = options_.epsilon,
                           .weight_decay = settings.weight_decay,
                           .momentum = options_.momentum};
  kernels(device).rmsprop(rule, parameters);
}

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, ParameterGroups groups,
                                          const OptimizerOptions& options) {
  check(!options.nesterov || name == "sgd", "make_optimizer", "Nesterov momentum belongs to sgd, got '{}'", name);
  const auto adam = [&](auto defaults) {
    defaults.lr = options.lr.value_or(defaults.lr);
    defaults.beta1 = options.momentum.value_or(defaults.beta1);
    defaults.weight_decay = options.weight_decay.value_or(defaults.weight_decay);
    return defaults;
  };
  const auto with_momentum = [&](auto defaults) {
    defaults.lr = options.lr.value_or(defaults.lr);
    defaults.momentum = options.momentum.value_or(defaults.momentum);
    defaults.weight_decay = options.weight_decay.value_or(defaults.weight_decay);
    return defaults;
  };
  if (name == "sgd")
    return std::make_unique<Sgd>(std::move(groups), with_momentum(SgdOptions{.nesterov = options.nesterov}));
  if (name == "adam") return std::make_unique<Adam>(std::move(groups), adam(AdamOptions{}));
  if (name == "adamw") return std::make_unique<AdamW>(std::move(groups), adam(AdamWOptions{}));
  if (name == "rmsprop") return std::make_unique<RmsProp>(std::move(groups), with_momentum(RmsPropOptions{}));
  fail("make_optimizer", "unknown optimiser '{}'{}; known: sgd, adam, adamw, rmsprop", name,
       did_you_mean(name, {"sgd", "adam", "adamw", "rmsprop"}));
}

}  // namespace espalier
