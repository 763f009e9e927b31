#include "datasets/planes.h"

#include <cmath>
#include <utility>

namespace espalier {

void apply(const Warp& warp, Planes& image) {
  // Where each output pixel comes from: the inverse of rotate, scale, shift, about the centre.
  const int64_t height = image.height, width = image.width;
  const double centre_y = 0.5 * static_cast<double>(height - 1), centre_x = 0.5 * static_cast<double>(width - 1);
  const double cosine = std::cos(warp.radians) / warp.scale, sine = std::sin(warp.radians) / warp.scale;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const double v = static_cast<double>(y) - centre_y - warp.shift_y;
      const double u = static_cast<double>(x) - centre_x - warp.shift_x;
      const double from_y = centre_y - sine * u + cosine * v, from_x = centre_x + cosine * u + sine * v;
      const double floor_y = std::floor(from_y), floor_x = std::floor(from_x);
      const int64_t y0 = static_cast<int64_t>(floor_y), x0 = static_cast<int64_t>(floor_x);
      const float wy = static_cast<float>(from_y - floor_y), wx = static_cast<float>(from_x - floor_x);
      for (int64_t c = 0; c < image.channels; ++c) {
        const float* in = image.pixels.data() + c * image.plane();
        const auto at = [&](int64_t row, int64_t column) {
          return row >= 0 && row < height && column >= 0 && column < width ? in[row * width + column] : 0.0f;
        };
        const float top = (1 - wx) * at(y0, x0) + wx * at(y0, x0 + 1);
        const float bottom = (1 - wx) * at(y0 + 1, x0) + wx * at(y0 + 1, x0 + 1);
        image.scratch[static_cast<size_t>(c * image.plane() + y * width + x)] = (1 - wy) * top + wy * bottom;
      }
    }
  }
  std::swap(image.pixels, image.scratch);
}

}  // namespace espalier
