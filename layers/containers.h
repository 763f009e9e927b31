// Containers and shape layers: Sequential, Flatten, Identity.
#pragma once

#include "layers/module.h"

namespace espalier {

/// Runs its layers one after the other. Layers are values or pointers, named by their position or as given:
///   Sequential net(Conv2d(1, 20, {.kernel = 5}), ReLU(), Flatten(), Linear(11520, 10));   // "0", "1", "2", "3"
///   net.add("head", Linear(10, 2));
/// The same pointer added twice is one layer used twice: its parameters are shared.
class Sequential : public Module {
 public:
  Sequential() = default;
  Sequential(Sequential&&) = default;
  template <class... Layers>
  requires(sizeof...(Layers) > 0) explicit Sequential(Layers&&... layers) { (add(std::forward<Layers>(layers)), ...); }

  Sequential& add(const std::string& name, ModulePtr layer);
  Sequential& add(ModulePtr layer) { return add(std::to_string(size()), std::move(layer)); }
  template <std::derived_from<Module> M>
  Sequential& add(const std::string& name, M&& layer) {
    return add(name, ModulePtr(share(std::forward<M>(layer))));
  }
  template <std::derived_from<Module> M>
  Sequential& add(M&& layer) {
    return add(ModulePtr(share(std::forward<M>(layer))));
  }

  /// Puts another layer in the place and name of layer i. An optimiser that trains the old one's parameters keeps them.
  void replace(size_t i, ModulePtr layer);

  size_t size() const { return children().size(); }
  const ModulePtr& operator[](size_t i) const { return children().at(i).second; }

  Variable forward(const Variable& x) override;
  std::string type() const override { return "Sequential"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);
};

/// Joins all axes after the first: (N,C,H,W) -> (N,C*H*W). Throws on scalars.
class Flatten : public Module {
 public:
  Variable forward(const Variable& x) override;
  std::string type() const override { return "Flatten"; }
  nlohmann::json config() const override;
};

/// Gives back its input.
class Identity : public Module {
 public:
  Variable forward(const Variable& x) override { return x; }
  std::string type() const override { return "Identity"; }
  nlohmann::json config() const override;
};

}  // namespace espalier
