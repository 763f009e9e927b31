// From stored u8 images to the f32 batches that a network takes: augmentation, then normalisation.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/random.h"
#include "core/tensor.h"

namespace espalier {

/// Pads every side and cuts a window of the original size at a random place.
struct RandomCrop {
  int64_t padding = 4;
  bool reflect = false;  ///< mirror the border (without repeating it) instead of zeros
};

struct HorizontalFlip {
  double probability = 0.5;
};

/// Rotates, scales and shifts about the centre, with bilinear interpolation; zeros come in from outside.
struct RandomAffine {
  double degrees = 0;    ///< angle uniform in [-degrees, degrees]
  double translate = 0;  ///< shift of each axis uniform in +-translate times its size
  double min_scale = 1, max_scale = 1;
};

/// Blanks a square at a random centre with the channel's mean (DeVries & Taylor 2017); it may reach over the border.
struct Cutout {
  int64_t size = 8;
};

using Augmentation = std::variant<RandomCrop, HorizontalFlip, RandomAffine, Cutout>;
/// The kind and its numbers: "crop padding=4 reflect=false".
std::string to_text(const Augmentation& augmentation);

/// Turns u8 images into a normalised f32 batch. What happens to an example depends only on (seed, epoch, index of the
/// example), never on the batch it is in or on threads.
class Transform {
 public:
  /// Only scales pixels to [0,1].
  Transform() = default;
  /// (pixel/255 - mean) / stddev for each channel, after the augmentations in their order.
  Transform(std::vector<float> mean, std::vector<float> stddev, std::vector<Augmentation> augmentations = {});

  /// images u8 (N,C,H,W), contiguous; indices of B examples -> f32 (B,C,H,W).
  Tensor operator()(const Tensor& images, std::span<const int64_t> indices, uint64_t seed = 0, int64_t epoch = 0) const;
  /// All images without augmentation: u8 (N,C,H,W) -> f32 (N,C,H,W).
  Tensor normalize(const Tensor& images) const;

  const std::vector<Augmentation>& augmentations() const { return augmentations_; }

 private:
  std::vector<float> mean_, stddev_;  // (C), or empty for 0 and 1
  std::vector<Augmentation> augmentations_;
};

}  // namespace espalier
