// Pooling of images: MaxPool2d, AvgPool2d, AdaptiveAvgPool2d.
#pragma once

#include "layers/module.h"
#include "layers/size2d.h"

namespace espalier {

struct Pool2dOptions {
  Size2d kernel = 2;
  Size2d stride = 0;   ///< 0: the kernel
  Size2d padding = 0;  ///< at most half the kernel
};

/// What the two window poolings share. x (N,C,H,W) -> (N,C,OH,OW), OH = (H + 2*padding - KH)/stride + 1, rounded down.
/// Throws on inputs of another rank or smaller than the window.
class WindowPool2d : public Module {
 public:
  nlohmann::json config() const override;
  const Pool2dOptions& options() const { return options_; }

 protected:
  WindowPool2d(const char* type, const Pool2dOptions& options);
  /// The kernel's geometry, once the input is known to fit.
  Pool2dShape shape_for(const Variable& x) const;

 private:
  Pool2dOptions options_;
};

/// The largest value of each window; padding never wins.
class MaxPool2d : public WindowPool2d {
 public:
  explicit MaxPool2d(const Pool2dOptions& options = {}) : WindowPool2d("MaxPool2d", options) {}
  Variable forward(const Variable& x) override { return max_pool2d(x, shape_for(x)); }
  std::string type() const override { return "MaxPool2d"; }
  static ModulePtr from_config(const nlohmann::json& config);
};

/// The mean of each window; padding counts as zeros.
class AvgPool2d : public WindowPool2d {
 public:
  explicit AvgPool2d(const Pool2dOptions& options = {}) : WindowPool2d("AvgPool2d", options) {}
  Variable forward(const Variable& x) override { return avg_pool2d(x, shape_for(x)); }
  std::string type() const override { return "AvgPool2d"; }
  static ModulePtr from_config(const nlohmann::json& config);
};

struct AdaptiveAvgPool2dOptions {
  Size2d output = 1;
};

/// Means over windows that cover the image evenly, whatever its size. x (N,C,H,W) -> (N,C,output). Throws on another
/// rank.
class AdaptiveAvgPool2d : public Module {
 public:
  explicit AdaptiveAvgPool2d(AdaptiveAvgPool2dOptions options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "AdaptiveAvgPool2d"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);

 private:
  AdaptiveAvgPool2dOptions options_;
};

}  // namespace espalier
