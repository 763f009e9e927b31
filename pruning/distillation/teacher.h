// What a network makes of a batch, seen from outside: its outputs and what chosen layers put out; and the teacher of a
// distillation, which remembers its outputs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "training/loss.h"

namespace espalier {

/// One forward pass.
struct NetworkView {
  Bundle outputs;
  std::map<std::string, Variable> features = {};  ///< outputs of the layers asked for, by full module name

  /// Throws when the layer was not asked for.
  const Variable& feature(const std::string& layer) const;
};

/// Runs the network and keeps the outputs of `layers` (names of Module::find). Of a layer called several times the last
/// output counts. Throws, naming the nearest, on an unknown layer and on one that the forward pass does not call.
NetworkView run_and_watch(Module& module, const Bundle& inputs, const std::vector<std::string>& layers);

class EnumNames;

/// Whether a teacher's outputs are remembered by the index of the example.
enum class TeacherCache : uint8_t {
  automatic,  ///< while images stay the same: not with augmentations, and not where features are needed
  always,     ///< an image that changed, and a request for features, are errors
  never,
};
/// "automatic", "always", "never".
const char* name_of(TeacherCache cache);
/// The inverse of name_of. Throws ArgumentError, naming the nearest.
TeacherCache parse_teacher_cache(const std::string& text);
EnumNames names_of(TeacherCache);

/// A network to learn from. It always runs in evaluation mode and without gradients; its weights, gradients and modes
/// stay as they are. With a cache each example's outputs are computed once, (N,C) numbers for N examples, until the
/// teacher's weights change; outputs of another rank and those of several heads are never remembered. An image is
/// recognised by a checksum of its pixels, so that the cache gives the same with augmentations, with another data set
/// and with other parts of one.
class Teacher {
 public:
  explicit Teacher(ModulePtr module, TeacherCache cache = TeacherCache::automatic);

  /// Its outputs, (B,C) most of the time, and features for a batch, on the batch's device.
  NetworkView operator()(const Batch& batch, const std::vector<std::string>& layers = {});

  const ModulePtr& module() const { return module_; }
  TeacherCache cache() const { return cache_; }
  /// Forward passes so far.
  int64_t forwards() const { return forwards_; }
  /// Examples remembered.
  int64_t cached() const { return cached_; }
  /// Before a training: with augmentations an automatic cache is left out from the start, one that has to be used
  /// throws.
  void expect_augmentations(bool augmented);

  /// A checksum of its weights and buffers, the same in every process.
  uint64_t fingerprint() const;
  /// What it remembers, for checkpoints: outputs (N,C), checksums (N), and which teacher it was.
  NamedTensors state() const;
  /// Throws FileError when the state is another teacher's.
  void load_state(const NamedTensors& state);

 private:
  NetworkView forward(const Batch& batch, const std::vector<std::string>& layers);
  bool look_up(const Batch& batch, const std::vector<uint64_t>& checksums, Tensor& outputs) const;
  void remember(const Batch& batch, const std::vector<uint64_t>& checksums, const Tensor& outputs);
  void forget();
  /// Changes with every write to the teacher's weights and buffers.
  std::vector<std::pair<const void*, uint64_t>> versions() const;

  ModulePtr module_;
  TeacherCache cache_;
  bool bypass_ = false;  ///< images change, so remembering is in vain
  int64_t forwards_ = 0, cached_ = 0, changed_ = 0, classes_ = 0;
  std::vector<float> outputs_;       ///< (N,C)
  std::vector<uint64_t> checksums_;  ///< (N); 0: not remembered
  std::vector<std::pair<const void*, uint64_t>> versions_;
};

}  // namespace espalier
