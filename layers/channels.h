// A layer's own account of its channels: what pruning asks of a layer, whatever its type.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/kernels.h"

namespace espalier {

/// Where a layer's input and output have their channels.
enum class ChannelAxis : uint8_t {
  images,  ///< axis 1 of (N,C,H,W), the last axis of anything else
  second,  ///< axis 1, of sequences (N,C,L) too
  last,    ///< the last axis of anything
};

/// The channel axis of a tensor of that rank; -1 of a scalar.
int channel_axis(ChannelAxis axis, int rank);

/// A weight that reads channels: value r that it computes is bias[r] + sum over columns c of weight[r,c] * channel[c].
/// Parameters and buffers are given by the names under which the layer has added them.
struct ChannelReader {
  std::string weight = "weight";  ///< (rows,columns,...)
  /// (rows): takes what channels have added that are constant and go. Undefined in a layer without one: compaction then
  /// defines it. "": the layer has no place for it, and such channels stay.
  std::string bias = "bias";
  std::vector<int64_t> inputs = {};  ///< the channel of each column, increasing; empty: column c reads channel c
  /// Of a convolution, weight (rows,columns,KH,KW). With groups column c of group g reads channel g*columns + c.
  std::optional<Conv2dShape> window = {};
  /// Of a convolution with padding: a buffer (rows,1,KH,KW), what each tap adds where it lies on the image. It takes
  /// what constant channels have added, because the padding was 0 where they were not.
  std::string border = "";

  bool is_padded() const { return window && (window->padding_h != 0 || window->padding_w != 0); }
};

/// What Module::channels returns. The axes of weights that make, scale and read channels need not be told: the
/// operations that a forward pass calls know them (pruning/structure/graph.h).
struct ChannelAccount {
  ChannelAxis axis = ChannelAxis::images;
  /// The weights that read the layer's input.
  std::vector<ChannelReader> readers = {};
  /// The weights that read what the layer computes on the way. It shows ReadObservers what that is
  /// (Module::observe_read).
  std::vector<ChannelReader> inner_readers = {};
  /// There is one reader, and forward is linear(x, weight, bias), with its window conv2d: its rows are the output.
  bool is_affine = false;
  /// Module::select_inputs makes the only reader read a part of the input.
  bool selects_inputs = false;
  /// The layer has no parameter or buffer of the channels' size, and yet takes and gives the same ones in every call.
  bool has_sizes = false;
};

}  // namespace espalier
