// Conv2d: 2-D convolution.
#pragma once

#include "layers/module.h"
#include "layers/size2d.h"

namespace espalier {

struct Conv2dOptions {
  Size2d kernel = 3;
  Size2d stride = 1;
  Size2d padding = 0;  ///< zeros on each side
  Size2d dilation = 1;
  int64_t groups = 1;  ///< in_channels: depthwise
  bool bias = true;
};

/// Cross-correlation of images. x (N,in,H,W) -> (N,out,OH,OW), OH = (H + 2*padding - dilation*(KH-1) - 1)/stride + 1.
/// weight (out,in/groups,KH,KW), bias (out), both uniform in +-1/sqrt(fan_in) at first.
/// Throws on sizes that are not positive, on groups that do not divide the channels, on images of other channels or
/// smaller than the window. Compaction may leave a layer that reads a part of x only, whose weight has a slice for each
/// of these channels and whose config() lists them as "inputs"; and one with a buffer `constant` (out,1,KH,KW), what
/// each tap of the window adds where it lies on the image and not on the padding: the part of constant channels that
/// went.
class Conv2d : public Module {
 public:
  Conv2d(int64_t in_channels, int64_t out_channels, const Conv2dOptions& options = {});
  Variable forward(const Variable& x) override;
  std::string type() const override { return "Conv2d"; }
  nlohmann::json config() const override;
  static ModulePtr from_config(const nlohmann::json& config);
  /// Of the weight: what the constant adds depends on no image.
  int64_t macs(const Shape& input, const Shape& output) const override;
  /// Groups change with the channels: whole ones may go, or as many channels of each.
  void keep_channels(const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs) override;
  ChannelAccount channels() const override;
  void select_inputs(int64_t channels, const std::vector<int64_t>& inputs) override;

  /// Channels that x must have.
  int64_t in_channels() const { return inputs_.empty() ? weight_.size(1) * options_.groups : in_channels_; }
  int64_t out_channels() const { return weight_.size(0); }
  const Conv2dOptions& options() const { return options_; }
  const Parameter& weight() const { return weight_; }
  /// Undefined when built without bias.
  const Parameter& bias() const { return bias_; }
  /// The options as conv2d takes them.
  Conv2dShape geometry() const;

 private:
  Conv2dOptions options_;
  int64_t in_channels_;          // of x; used with inputs_ only
  std::vector<int64_t> inputs_;  // the channels of x that are read; empty: all
  Parameter& weight_;
  Parameter& bias_;
  Tensor& constant_;  // undefined where nothing is added
};

/// A Conv2d whose weights start Kaiming normal by fan_out, as residual networks and VGG with BatchNorm are trained.
/// He et al. 2015, eq. 14.
Conv2d kaiming_conv2d(int64_t in_channels, int64_t out_channels, const Conv2dOptions& options = {});

}  // namespace espalier
