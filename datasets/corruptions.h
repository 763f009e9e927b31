// Corruptions: images that are worse than those a network was trained on, to ask how much of that it bears. In the
// manner of Hendrycks & Dietterich 2019 (CIFAR-10-C), made here, so that every data set has them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace espalier {

/// One way of making images worse, at one strength.
struct CorruptionInfo {
  std::string name;         ///< "salt-and-pepper"
  std::string description;  ///< "5 % of the pixels are black or white"
};

/// The twelve corruptions that corrupt() knows.
const std::vector<CorruptionInfo>& corruptions();

/// Corrupts images u8 (N,C,H,W) and returns images of the same shape. What happens to image i depends only on (seed,
/// name, i). Throws ArgumentError for an unknown name, with the nearest.
Tensor corrupt(const Tensor& images, const std::string& name, uint64_t seed = 0);

}  // namespace espalier
