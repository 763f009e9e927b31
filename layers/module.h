// Module: a tree of named parameters, buffers and children with a forward function.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "autograd/ops.h"

namespace espalier {

/// A trainable tensor. The handle is shared: an optimiser and the module that owns it see the same value.
class Parameter {
 public:
  Parameter() = default;
  Parameter(std::string name, Tensor value);

  const std::string& name() const { return state_->name; }
  void set_name(std::string name);
  /// The leaf Variable; operations on it record gradients.
  const Variable& variable() const { return state_->variable; }
  operator const Variable&() const { return variable(); }
  const Tensor& data() const { return state_->variable.data(); }
  const Shape& shape() const { return data().shape(); }
  int64_t numel() const { return data().numel(); }
  /// Undefined before the first backward.
  Tensor grad() const;
  void zero_grad() { state_->variable.zero_grad(); }
  bool defined() const { return state_ != nullptr; }
  /// Identity, the key of optimiser state. Stays when the data is replaced.
  const void* id() const { return state_.get(); }

 private:
  struct State {
    std::string name;
    Variable variable;
  };
  std::shared_ptr<State> state_;
};

/// Base of all layers and networks. Always held by shared_ptr.
class Module {
 public:
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  virtual Variable forward(const Variable& x) = 0;
  Variable operator()(const Variable& x) { return forward(x); }

  /// "Conv2d", "Sequential", ...: the "type" of config().
  virtual std::string type() const = 0;
  /// JSON that rebuilds the module with fresh parameters: module_from_config(m->config()).
  virtual nlohmann::json config() const = 0;

  /// All parameters (buffers: running statistics) of this module and its children, depth first, with full names
  /// such as "stage1.0.conv1.weight". A parameter shared by two modules is listed once, under its first name.
  std::vector<Parameter> parameters() const;
  std::vector<std::pair<std::string, Parameter>> named_parameters() const;
  std::vector<std::pair<std::string, Tensor>> named_buffers() const;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> named_modules() const;
  const std::vector<std::pair<std::string, std::shared_ptr<Module>>>& children() const { return children_; }
  int64_t num_parameters() const;

  /// Switches dropout and batch normalisation between training and evaluation, in all children too.
  void train(bool training = true);
  void eval() { train(false); }
  bool is_training() const { return training_; }

  void to(Device device);
  void to(DType dtype);
  /// An independent copy: same configuration, own parameters and buffers, same mode.
  std::shared_ptr<Module> clone() const;
  void zero_grad();

 protected:
  Module() = default;
  Parameter& add_parameter(const std::string& name, Tensor value);
  /// Buffers are held by handle: the returned reference stays valid and is what forward updates.
  Tensor& add_buffer(const std::string& name, Tensor value);
  template <class M>
  std::shared_ptr<M> add_child(const std::string& name, std::shared_ptr<M> child) {
    children_.emplace_back(name, child);
    return child;
  }

 private:
  std::vector<std::pair<std::string, std::unique_ptr<Parameter>>> parameters_;
  std::vector<std::pair<std::string, std::unique_ptr<Tensor>>> buffers_;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> children_;
  bool training_ = true;
};

using ModulePtr = std::shared_ptr<Module>;

/// Rebuilds any module of the library from its config(). Throws on an unknown type, naming the nearest.
ModulePtr module_from_config(const nlohmann::json& config);

/// Copies parameters and buffers by full name. Throws, listing every missing, unknown and misshapen tensor at once.
void load_state(Module& module, const std::vector<std::pair<std::string, Tensor>>& state);
/// Parameters and buffers by full name, sharing storage.
std::vector<std::pair<std::string, Tensor>> state_of(const Module& module);

}  // namespace espalier
