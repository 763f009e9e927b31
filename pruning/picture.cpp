#include "pruning/picture.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <png.h>

#include "core/file_errors.h"
#include "core/safetensors.h"

namespace espalier {

void save_mask_png(const std::string& path, const Mask& mask, int scale, int largest) {
  check(mask.defined() && mask.num_elements() > 0, "save_mask_png", "expected a mask with weights, got {}",
        mask.defined() ? mask.shape().to_string() : "an undefined one");
  check(scale > 0 && largest > 0, "save_mask_png", "expected scale and largest above 0, got {} and {}", scale, largest);
  const std::vector<bool> exists = mask.expand().to_vector<bool>();
  const int64_t rows = mask.layout().rows, columns = mask.layout().columns;
  const int64_t height = std::min<int64_t>(rows, largest), width = std::min<int64_t>(columns, largest);

  // How dense each cell of the picture is.
  std::vector<double> weights(static_cast<size_t>(height * width)), present(weights.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      const auto cell = static_cast<size_t>((r * height / rows) * width + c * width / columns);
      weights[cell] += 1;
      present[cell] += exists[static_cast<size_t>(r * columns + c)];
    }
  constexpr double kLight = 235, kDark = 20;
  std::vector<uint8_t> pixels(static_cast<size_t>(height * width) * static_cast<size_t>(scale * scale));
  for (int64_t y = 0; y < height * scale; ++y)
    for (int64_t x = 0; x < width * scale; ++x) {
      const auto cell = static_cast<size_t>(y / scale * width + x / scale);
      pixels[static_cast<size_t>(y * width * scale + x)] =
          static_cast<uint8_t>(std::lround(kLight + (kDark - kLight) * present[cell] / weights[cell]));
    }

  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width * scale);
  image.height = static_cast<png_uint_32>(height * scale);
  image.format = PNG_FORMAT_GRAY;
  png_alloc_size_t bytes = 0;
  std::string file;
  bool good = png_image_write_get_memory_size(image, bytes, 0, pixels.data(), 0, nullptr) != 0;
  if (good) {
    file.resize(bytes);
    good = png_image_write_to_memory(&image, file.data(), &bytes, 0, pixels.data(), 0, nullptr) != 0;
    file.resize(bytes);
  }
  if (!good) fail<WriteError>("save_mask_png", "cannot write {}: {}", path, image.message);
  write_file_atomically(path, file);
}

}  // namespace espalier
