// Residual blocks: the generic sum of two branches, and the block of the CIFAR ResNets.
#pragma once

#include <memory>

#include "layers/conv.h"
#include "layers/norm.h"

namespace espalier {

/// What a block is that adds its input to what its body makes of it: without the body the input comes through. A block
/// of your own derives from Module and from this, and is bypassed as the library's are (pruning/structure/blocks.h).
class SkipConnection {
 public:
  virtual ~SkipConnection() = default;
  /// The module whose output is the body's.
  virtual const Module& body_end() const = 0;
  /// The child through which the input goes; nullptr where the input itself is added.
  virtual const ModulePtr& shortcut() const = 0;
  /// Whether relu(body + shortcut) comes out, not body + shortcut.
  virtual bool ends_in_relu() const = 0;
};

/// nullptr of a module that is no such block.
const SkipConnection* skip_connection(const Module& module);

struct ResidualOptions {
  bool relu = true;  ///< after the sum
};

/// relu(body(x) + shortcut(x)); without a shortcut x itself is added. Throws when the branches' shapes differ.
/// He et al. 2016, "Deep residual learning", eq. 1 and 2.
class Residual : public Module, public SkipConnection {
 public:
  explicit Residual(ModulePtr body, ModulePtr shortcut = nullptr, ResidualOptions options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "Residual"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

  const ModulePtr& body() const { return body_; }
  const Module& body_end() const override { return *body_; }
  const ModulePtr& shortcut() const override { return shortcut_; }
  bool ends_in_relu() const override { return options_.relu; }
  const ResidualOptions& options() const { return options_; }

 private:
  ModulePtr body_, shortcut_;
  ResidualOptions options_;
};

struct PadShortcutOptions {
  int64_t stride = 2;
  std::vector<int64_t> positions = {};  ///< where each input channel lands, increasing; empty: in the middle
};

/// The shortcut without parameters: every stride-th pixel, and channels of zeros around the input's own.
/// x (N,in,H,W) -> (N,out,ceil(H/stride),ceil(W/stride)); half of the new channels come first, rounded down, unless
/// `positions` says otherwise. Throws when out < in, on positions outside the outputs and on images of other channels.
/// He et al. 2016, section 3.3, option A.
class PadShortcut : public Module {
 public:
  PadShortcut(int64_t in_channels, int64_t out_channels, PadShortcutOptions options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "PadShortcut"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);
  ChannelAccount channels() const override { return {.has_sizes = true}; }
  /// Throws when an input channel stays whose output goes.
  void keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs) override;

  int64_t in_channels() const { return in_channels_; }
  int64_t out_channels() const { return out_channels_; }
  /// Where each input channel lands among the outputs.
  std::vector<int64_t> positions() const;

 private:
  int64_t in_channels_, out_channels_;
  PadShortcutOptions options_;
};

enum class Shortcut : uint8_t {
  pad,         ///< option A: PadShortcut
  projection,  ///< option B: 1x1 convolution and BatchNorm
};

struct BasicBlockOptions {
  int64_t stride = 1;
  Shortcut shortcut = Shortcut::pad;  ///< used where stride or channels change; elsewhere the input itself
  int64_t width = 0;                  ///< channels between the two convolutions; 0: out_channels
};

/// Two 3x3 convolutions with BatchNorm beside a shortcut: relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).
/// x (N,in,H,W) -> (N,out,ceil(H/stride),ceil(W/stride)). He et al. 2016, figure 2 and section 4.2; convolutions start
/// Kaiming normal by fan_out.
class BasicBlock : public Module, public SkipConnection {
 public:
  BasicBlock(int64_t in_channels, int64_t out_channels, const BasicBlockOptions& options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "BasicBlock"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

  const std::shared_ptr<Conv2d>& conv1() const { return conv1_; }
  const std::shared_ptr<Conv2d>& conv2() const { return conv2_; }
  const std::shared_ptr<BatchNorm2d>& bn1() const { return bn1_; }
  const std::shared_ptr<BatchNorm2d>& bn2() const { return bn2_; }
  const Module& body_end() const override { return *bn2_; }
  const ModulePtr& shortcut() const override { return shortcut_; }
  bool ends_in_relu() const override { return true; }

 private:
  BasicBlock() = default;
  bool is_regular() const;

  BasicBlockOptions options_;
  std::shared_ptr<Conv2d> conv1_, conv2_;
  std::shared_ptr<BatchNorm2d> bn1_, bn2_;
  ModulePtr shortcut_;
};

}  // namespace espalier
