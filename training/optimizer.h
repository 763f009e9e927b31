// Optimisers: parameter groups, state by parameter, and the update rules SGD, Adam, AdamW and RMSprop.
// The semantics are PyTorch's; the arithmetic is one fused kernel call for many parameters (core/kernels.h).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/fields.h"
#include "core/kernels.h"
#include "core/registry.h"
#include "core/safetensors.h"
#include "layers/module.h"

namespace espalier {

using NamedParameters = std::vector<std::pair<std::string, Parameter>>;

/// Parameters that share settings.
struct ParameterGroup {
  NamedParameters parameters;
  double lr_scale = 1;                      ///< the group's learning rate is lr() * lr_scale
  std::optional<double> weight_decay = {};  ///< instead of the optimiser's
};

/// What an optimiser trains: implicit from a module, from parameters, or from explicit groups.
struct ParameterGroups {
  ParameterGroups(const Module& module) : ParameterGroups(module.named_parameters()) {}
  ParameterGroups(NamedParameters parameters) { groups.push_back({std::move(parameters)}); }
  ParameterGroups(const std::vector<Parameter>& parameters);
  ParameterGroups(std::vector<ParameterGroup> list) : groups(std::move(list)) {}
  std::vector<ParameterGroup> groups;
};

/// Two groups: weights with `weight_decay`; biases and the parameters of normalisation layers without.
std::vector<ParameterGroup> no_decay_groups(const Module& module, double weight_decay);

/// Everything an optimiser remembers, by name: tensors "SLOT/PARAMETER", numbers "lr" and "steps/PARAMETER".
struct OptimizerState {
  std::string type;
  NamedTensors tensors;
  std::map<std::string, double> scalars;
};

/// Base of the optimisers. It never writes a gradient, and leaves alone parameters that are frozen or have
/// no gradient. What it remembers of a masked weight is 0 from the moment the weight is masked, so that neither
/// momentum nor decay can revive it.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// "sgd", "adam", "adamw", "rmsprop".
  virtual std::string type() const = 0;
  /// All that decides its updates, as JSON: {"type", "lr", "groups": [{"lr_scale", "weight_decay"}], ...}.
  virtual nlohmann::json config() const;

  /// One update of every parameter that has a gradient. Throws when the shape of a weight, its gradient and its state
  /// disagree (a weight was resized without its state).
  void step();
  /// Forgets all gradients; their memory goes back to the allocator.
  void zero_grad();

  double lr() const { return lr_; }
  void set_lr(double lr);
  /// Momentum, or Adam's beta1: what one-cycle schedules vary. Throws where the optimiser was built without it.
  virtual double momentum() const = 0;
  virtual void set_momentum(double momentum) = 0;

  const std::vector<ParameterGroup>& groups() const { return groups_; }
  /// All parameters of all groups.
  std::vector<Parameter> parameters() const;

  /// Names of the state tensors this optimiser keeps for each parameter: "velocity"; "m", "v".
  const std::vector<std::string>& slots() const { return slots_; }
  /// The state tensor of a parameter, in the parameter's shape: to be masked or replaced together with the weight.
  /// nullptr before the parameter's first step. Throws on an unknown slot or a parameter of another optimiser.
  Tensor* state(const Parameter& parameter, const std::string& slot);
  /// Trains `parameter` too, with the settings of the group of `beside`: a bias that a layer gained. Throws when the
  /// parameter or the name is known already, and when `beside` is not.
  void add(const std::string& name, const Parameter& parameter, const Parameter& beside);
  /// Forgets a parameter that left the network, and its state. Throws on a parameter of another optimiser.
  void remove(const Parameter& parameter);
  /// Updates of this parameter so far.
  int64_t steps(const Parameter& parameter) const;

  /// The tensors share storage with the optimiser's.
  OptimizerState state_dict() const;
  /// Copies. Throws, listing everything missing, unknown and misshapen, and changes nothing then.
  void load_state_dict(const OptimizerState& state);
  /// Throws as load_state_dict would.
  void check_state_dict(const OptimizerState& state) const;

 protected:
  struct Settings {
    double lr, weight_decay;
    int64_t step;  ///< 1 for the parameter's first
    bool operator==(const Settings&) const = default;
  };
  Optimizer(ParameterGroups groups, double lr, double weight_decay, std::vector<std::string> slots);
  /// The update of parameters on one device; their states are the slots, in that order.
  virtual void update(const Settings& settings, Device device, std::span<const ParameterStep> parameters) = 0;

 private:
  struct State {
    int64_t steps = 0;
    std::vector<Tensor> slots;          ///< empty before the first step
    mutable uint64_t mask_version = 0;  ///< of the mask that the slots follow
  };
  /// Clears what the slots hold of weights that were masked since.
  static void follow_mask(const State& state, const Parameter& parameter);
  std::unordered_map<const void*, State> read(const OptimizerState& saved) const;
  /// A parameter whose turn it is: its step stands at the same place in steps_.
  struct Pending {
    Settings settings;
    State* state;
    Tensor weight;
  };
  /// Checks one parameter and, if it has a gradient, adds it to pending_ and steps_.
  void prepare(const ParameterGroup& group, const std::string& name, const Parameter& parameter);

  std::vector<ParameterGroup> groups_;
  double lr_, weight_decay_;
  std::vector<std::string> slots_;
  std::unordered_map<const void*, State> states_;  ///< by Parameter::id()
  std::vector<Pending> pending_;                   ///< of the step that runs; members, so that a step allocates nothing
  std::vector<ParameterStep> steps_;
};

/// Options that optimisers have in common, and what chooses an optimiser too.
template <class T>
void lr_field(FieldVisitor& f, T& lr) {
  f("lr", lr, at_least(0), "Learning rate; with onecycle the highest");
}
template <class T>
void momentum_field(FieldVisitor& f, T& momentum) {
  f("momentum", momentum, share_below_one(), "Momentum (beta1 of the Adams)");
}
template <class T>
void nesterov_field(FieldVisitor& f, T& nesterov) {
  f("nesterov", nesterov, "Nesterov momentum, sgd only");
}
template <class T>
void weight_decay_field(FieldVisitor& f, T& weight_decay) {
  f("weight_decay", weight_decay, at_least(0), "Not applied to biases and normalisation");
}

struct SgdOptions {
  double lr = 0.1;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
};
void fields(FieldVisitor& f, SgdOptions& o);

/// Stochastic gradient descent: v = momentum*v + (1-dampening)*(g + decay*w); w -= lr*v (Nesterov: lr*(g +
/// momentum*v)). Slot "velocity" if momentum > 0.
class Sgd : public Optimizer {
 public:
  explicit Sgd(ParameterGroups groups, SgdOptions options = {});
  std::string type() const override { return "sgd"; }
  nlohmann::json config() const override;
  double momentum() const override { return options_.momentum; }
  void set_momentum(double momentum) override;

 protected:
  void update(const Settings& settings, Device device, std::span<const ParameterStep> parameters) override;

 private:
  SgdOptions options_;
};

struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};
void fields(FieldVisitor& f, AdamOptions& o);

/// Kingma & Ba 2015; weight decay joins the gradient. Slots "m" and "v".
class Adam : public Optimizer {
 public:
  explicit Adam(ParameterGroups groups, AdamOptions options = {});
  std::string type() const override { return "adam"; }
  nlohmann::json config() const override;
  double momentum() const override { return options_.beta1; }
  void set_momentum(double momentum) override;

 protected:
  Adam(ParameterGroups groups, AdamOptions options, bool decoupled);
  void update(const Settings& settings, Device device, std::span<const ParameterStep> parameters) override;

 private:
  AdamOptions options_;
  bool decoupled_;
};

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;
};
void fields(FieldVisitor& f, AdamWOptions& o);

/// Loshchilov & Hutter 2019: as Adam, the decay multiplies the weight by 1 - lr*decay.
class AdamW : public Adam {
 public:
  explicit AdamW(ParameterGroups groups, AdamWOptions options = {});
  std::string type() const override { return "adamw"; }
};

struct RmsPropOptions {
  double lr = 1e-2;
  double alpha = 0.99;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double momentum = 0;
};
void fields(FieldVisitor& f, RmsPropOptions& o);

/// v = alpha*v + (1-alpha)*g^2; w -= lr * g/(sqrt(v)+epsilon), through a velocity if momentum > 0.
/// Slots "v", and "velocity" if momentum > 0.
class RmsProp : public Optimizer {
 public:
  explicit RmsProp(ParameterGroups groups, RmsPropOptions options = {});
  std::string type() const override { return "rmsprop"; }
  nlohmann::json config() const override;
  double momentum() const override { return options_.momentum; }
  void set_momentum(double momentum) override;

 protected:
  void update(const Settings& settings, Device device, std::span<const ParameterStep> parameters) override;

 private:
  RmsPropOptions options_;
};

/// An optimiser that is chosen by name: its options, before there is anything to train.
class OptimizerMaker {
 public:
  virtual ~OptimizerMaker() = default;
  virtual void fields(FieldVisitor& f) = 0;
  virtual std::unique_ptr<Optimizer> make(ParameterGroups groups) const = 0;
};

/// The maker of an optimiser Rule(ParameterGroups, Options), whose options have a list of fields.
template <class Rule, class Options>
std::unique_ptr<OptimizerMaker> maker_of() {
  class Maker : public OptimizerMaker {
   public:
    void fields(FieldVisitor& f) override { visit_fields(f, options_); }
    std::unique_ptr<Optimizer> make(ParameterGroups groups) const override {
      return std::make_unique<Rule>(std::move(groups), options_);
    }

   private:
    Options options_;
  };
  return std::make_unique<Maker>();
}

/// The optimisers by name: add("lion", maker_of<Lion, LionOptions>) before you name it.
Registry<std::unique_ptr<OptimizerMaker>()>& optimizer_registry();

/// What is said beside the name of an optimiser; what is not set keeps that optimiser's default.
struct OptimizerOptions {
  std::optional<double> lr = {}, momentum = {};  ///< momentum is beta1 for the Adams
  std::optional<double> weight_decay = {};
  std::optional<bool> nesterov = {};  ///< sgd only
};
/// Takes those of a choice's own options that can be said beside it.
OptimizerOptions take_shared_options(PartChoice& chosen);

/// "sgd", "adam", "adamw", "rmsprop" or a program's own, with options of its own: {.name = "adam", .options =
/// R"({"beta2": 0.99})"}. Throws on an unknown name, naming the nearest, and on options that it doesn't have.
std::unique_ptr<Optimizer> make_optimizer(const PartChoice& chosen, ParameterGroups groups,
                                          const OptimizerOptions& options = {});
std::unique_ptr<Optimizer> make_optimizer(const std::string& name, ParameterGroups groups,
                                          const OptimizerOptions& options = {});
/// The list of fields of a fresh optimiser of that name: for FieldVisitor::part.
std::function<void(FieldVisitor&)> optimizer_fields(const std::string& name);
/// An optimiser as an option of something: a PartChoice, or an optional one.
template <class Choice>
void optimizer_field(FieldVisitor& f, Choice& chosen) {
  f.part("optimizer", chosen, optimizer_fields, "sgd, adam, adamw or rmsprop; with options of its own adam:beta2=0.99");
}

}  // namespace espalier
