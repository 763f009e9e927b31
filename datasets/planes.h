// One image as planes of f32, and how it is turned, scaled and shifted. Internal: included by .cpp files only.
#pragma once

#include <cstdint>
#include <vector>

namespace espalier {

/// Pixels 0..255 of one image, planes (C,H,W), with room for the next version of it.
struct Planes {
  int64_t channels, height, width;
  std::vector<float> pixels, scratch;

  int64_t plane() const { return height * width; }
};

/// A rotation, then a scaling, then a shift, about the centre of an image.
struct Warp {
  double radians = 0, scale = 1;
  double shift_y = 0, shift_x = 0;  ///< in pixels
};

/// Warps an image with bilinear interpolation; zeros come in from outside.
void apply(const Warp& warp, Planes& image);

}  // namespace espalier
