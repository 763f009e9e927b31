// Module: a tree of named parameters, buffers and children with a forward function.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "autograd/ops.h"
#include "layers/bundle.h"
#include "layers/channels.h"
#include "layers/parameter.h"

namespace espalier {

class Module;
using ModulePtr = std::shared_ptr<Module>;

/// A state: tensors by full name.
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// Two full names of one parameter or module: {"4.weight", "0.weight"}. State is kept under the first name.
struct Tie {
  std::string name, first;
  bool operator==(const Tie&) const = default;
};

/// Base of all layers and networks. Networks hold modules by shared_ptr; a layer written as a value,
/// `Conv2d(3, 64, {.kernel = 3})`, is moved into one by Sequential::add, add_child and share.
class Module : public std::enable_shared_from_this<Module> {
 public:
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  Module& operator=(Module&&) = delete;

  virtual Variable forward(const Variable& x) = 0;
  /// The same for modules of several inputs or outputs, which override it: forward is its short form then, such as
  /// { return forward_all(x); }. By default the inputs are one, and so are the outputs.
  virtual Bundle forward_all(const Bundle& inputs);
  /// forward, seen by the ForwardObservers of this thread. Modules call their children like this.
  Variable operator()(const Variable& x);
  /// forward_all, seen by them too: the first input and the first output.
  Bundle call(const Bundle& inputs);

  /// While set, whoever calls the module gets what this transform makes of its output, in the same shape: noise, gates,
  /// quantised activations. It is a layer behind the layer: a part of the network with the name "output_transform",
  /// whose parameters are the network's, and which observers, tracing and compaction see by itself. nullptr: none.
  void set_output_transform(ModulePtr transform);
  const ModulePtr& output_transform() const { return output_transform_; }

  /// "Conv2d", "Sequential", ...: the "type" of config().
  virtual std::string type() const = 0;
  /// JSON that rebuilds the module with fresh parameters: module_from_config(m->config()). Sizes are read from the
  /// parameters, so that a module whose tensors were replaced by smaller ones describes itself.
  virtual nlohmann::json config() const = 0;
  /// Multiply-accumulates that this module itself (not its children) spends on an input of that shape.
  virtual int64_t macs(const Shape& input, const Shape& output) const;
  /// Called by compaction, before this module's parameters are replaced by narrower ones: from now on it takes only
  /// these channels of its input and gives only these of its output (old indices, increasing; axis 1 of (N,C,...), the
  /// last axis of sequences and features). Override it in a module that holds anything of the channels' size besides
  /// its parameters: running statistics, positions, groups. The parameters themselves and sizes read from them follow
  /// without it; so do children. It must either throw or change everything.
  virtual void keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs);
  /// Where this module itself (not its children) has its channels and which of its weights read them; the default: no
  /// weight does. With it compaction folds constants into the module, and what goes by layers (Wanda, recovery) sees
  /// it.
  virtual ChannelAccount channels() const;
  /// Called by compaction, before the weight gets one column for each of them: from now on only these of the input's
  /// `channels` are read. For modules whose account says selects_inputs; throws in all others.
  virtual void select_inputs(int64_t channels, const std::vector<int64_t>& inputs);
  /// "Conv2d stage1.0.conv1", or the type alone where the place is unknown. For messages.
  std::string label() const;

  /// All parameters (buffers: running statistics) of this module and its children, depth first, with full names
  /// such as "stage1.0.conv1.weight". A parameter shared by two modules is listed once, under its first name.
  /// Also gives each Parameter that name.
  std::vector<std::pair<std::string, Parameter>> named_parameters() const;
  std::vector<Parameter> parameters() const;
  NamedTensors named_buffers() const;
  /// This module (name "") and all below it, parents first; a module used twice is listed once.
  std::vector<std::pair<std::string, ModulePtr>> named_modules() const;
  const std::vector<std::pair<std::string, ModulePtr>>& children() const { return children_; }
  /// The module of a full name. Throws, naming the nearest.
  ModulePtr find(const std::string& name) const;
  /// The same, as a layer type. Throws when it is of another type.
  template <class M>
  std::shared_ptr<M> find(const std::string& name) const;
  /// The module's own parameter, or buffer, of that name; undefined where it was built without. Throws when it has
  /// none, naming the nearest.
  const Parameter& parameter(const std::string& name) const;
  const Tensor& buffer(const std::string& name) const;
  /// Gives the module a parameter that it was built without, such as a bias. Optimisers don't know it. Throws when it
  /// is there already.
  void define_parameter(const std::string& name, Tensor value);
  /// Replaces a buffer, or gives the module one that it was built without.
  void set_buffer(const std::string& name, Tensor value);
  /// Elements of all parameters; shared ones count once.
  int64_t num_parameters() const;

  /// Makes this module use `parameter` in place of its own `name` ("weight"): weight tying. Throws on another shape.
  void share_parameter(const std::string& name, const Parameter& parameter);
  /// What this network uses in several places: a parameter of several modules, a module of several containers.
  std::vector<Tie> ties() const;
  /// Makes one parameter, or one module of a Sequential, of the two that have these full names; nothing where they are
  /// one already. config() does not tell of ties: whoever rebuilds a network from it ties the rest. Throws when one of
  /// them does not exist or they differ in kind or shape.
  void tie(const Tie& tie);

  /// Switches dropout and batch normalisation between training and evaluation, in all children too.
  void train(bool training = true);
  void eval() { train(false); }
  bool is_training() const { return training_; }

  /// Where its parameters are; the CPU without any.
  Device device() const;
  void to(Device device);
  /// Converts parameters and floating-point buffers.
  void to(DType dtype);
  /// An independent copy: same configuration, own parameters and buffers, same modes, frozen parameters and ties.
  /// Draws no random numbers from the default generator.
  ModulePtr clone() const;
  void zero_grad();

 protected:
  Module() = default;
  /// Parameters, buffers and children live on the heap: references to them survive the move.
  Module(Module&&) = default;

  /// An undefined value makes an undefined Parameter, which no list mentions: the bias of a layer without one.
  Parameter& add_parameter(const std::string& name, Tensor value);
  /// Buffers are held by handle: the returned reference stays valid and is what forward updates, in place. An undefined
  /// value makes an undefined Tensor, which no list mentions.
  Tensor& add_buffer(const std::string& name, Tensor value);
  template <class M>
  std::shared_ptr<M> add_child(const std::string& name, std::shared_ptr<M> child) {
    adopt(name, child);
    return child;
  }
  /// Moves a layer into the tree: conv1_ = add_child("conv1", Conv2d(3, 64, {.kernel = 3})).
  template <std::derived_from<Module> M>
  std::shared_ptr<M> add_child(const std::string& name, M&& child) {
    return add_child(name, std::make_shared<M>(std::forward<M>(child)));
  }
  /// For containers that reach their children through children() only.
  void replace_child(const std::string& name, ModulePtr child);
  /// Tells this thread's ForwardObservers, and gives what the output transform makes of the output; for modules whose
  /// call has more than one input.
  Variable finish(const Variable& input, const Variable& output);
  /// Tells this thread's ReadObservers what a weight of this module reads, where that isn't the input of forward. Its
  /// channels lie where channels() says.
  void observe_read(const std::string& weight, const Variable& x);
  /// Whether there are any: for what is computed for them only.
  static bool reads_are_observed();

 private:
  friend class EvalMode;
  /// This module, all below it, and the transforms of their parameters.
  std::vector<ModulePtr> everything() const;
  void observe(const Variable& input, const Variable& output);
  void adopt(const std::string& name, ModulePtr child);
  void check_name(const char* what, const std::string& name) const;
  /// The parameter or buffer of that name. Throws, naming the nearest.
  template <class Held>
  const std::unique_ptr<Held>& slot(const std::vector<std::pair<std::string, std::unique_ptr<Held>>>& all,
                                    const char* what, const std::string& name) const;
  /// The module of any of its full names; nullptr where there is none.
  ModulePtr descendant(const std::string& path) const;

  std::vector<std::pair<std::string, std::unique_ptr<Parameter>>> parameters_;
  std::vector<std::pair<std::string, std::unique_ptr<Tensor>>> buffers_;
  std::vector<std::pair<std::string, ModulePtr>> children_;
  ModulePtr output_transform_;
  bool training_ = true;
};

template <class M>
std::shared_ptr<M> Module::find(const std::string& name) const {
  const ModulePtr found = find(name);
  std::shared_ptr<M> typed = std::dynamic_pointer_cast<M>(found);
  check(typed != nullptr, "find", "'{}' is a {}, not of the type asked for", name, found->type());
  return typed;
}

/// Moves a layer to the heap: share(Conv2d(3, 64, {.kernel = 3})).
template <std::derived_from<Module> M>
std::shared_ptr<M> share(M&& layer) {
  return std::make_shared<M>(std::forward<M>(layer));
}

/// While alive, `callback` sees every module that this thread calls: summaries, activation statistics, feature taps.
class ForwardObserver {
 public:
  using Callback = std::function<void(Module& module, const Variable& input, const Variable& output)>;
  explicit ForwardObserver(Callback callback);
  ~ForwardObserver();
  ForwardObserver(const ForwardObserver&) = delete;
  ForwardObserver& operator=(const ForwardObserver&) = delete;

 private:
  friend class Module;
  Callback callback_;
  ForwardObserver* previous_;
};

/// While alive, `callback` sees what weights inside of modules read that isn't the module's input.
class ReadObserver {
 public:
  using Callback = std::function<void(Module& module, const Parameter& weight, const Variable& x)>;
  explicit ReadObserver(Callback callback);
  ~ReadObserver();
  ReadObserver(const ReadObserver&) = delete;
  ReadObserver& operator=(const ReadObserver&) = delete;

 private:
  friend class Module;
  Callback callback_;
  ReadObserver* previous_;
};

/// Evaluation mode while alive; then every module of the tree gets its own mode back.
class EvalMode {
 public:
  explicit EvalMode(Module& module);
  ~EvalMode();
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  std::vector<std::pair<ModulePtr, bool>> before_;
};

/// Rebuilds any module of the library from its config(), with fresh parameters. {"model": "resnet20", "classes": 100}
/// builds a network of the zoo (layers/models/zoo.h). Throws on an unknown type or key, naming the nearest.
ModulePtr module_from_config(const nlohmann::json& config);

/// Copies parameters and buffers by full name, converting their dtype. Throws, listing every missing, unknown and
/// misshapen tensor at once; then nothing has changed.
void load_state(Module& module, const NamedTensors& state);
/// Parameters and buffers by full name, sharing storage.
NamedTensors state_of(const Module& module);

}  // namespace espalier
