#include "datasets/idx.h"

#include <array>
#include <limits>
#include <vector>

namespace espalier {
namespace {

// Checks the header against `rank` and the file's size, and returns the sizes. No memory is taken on the header's word.
std::array<int64_t, 3> read_header(ByteReader& file, int rank) {
  std::array<uint8_t, 4> magic;
  file.read(magic.data(), magic.size(), "IDX magic number");
  const std::array<uint8_t, 4> expected = {0, 0, 8, static_cast<uint8_t>(rank)};
  if (magic != expected) {
    file.bad(0, "expected the IDX magic number 0x{:02x} ({} of unsigned bytes), found 0x{:02x}; {}",
             fmt::join(expected, ""), rank == 3 ? "images" : "labels", fmt::join(magic, ""),
             "is this the right file, and not an HTML page?");
  }
  std::array<int64_t, 3> sizes = {1, 1, 1};
  uint64_t total = 1;
  for (int i = 0; i < rank; ++i) {
    std::array<uint8_t, 4> bytes;
    file.read(bytes.data(), bytes.size(), "IDX sizes");
    const uint32_t size = uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
    if (size == 0) file.bad(file.offset() - 4, "expected a size of at least 1 for axis {}, found 0", i);
    // 2^96 can't be held; most_bytes_left is far below the limit.
    if (__builtin_mul_overflow(total, uint64_t{size}, &total)) total = std::numeric_limits<uint64_t>::max();
    sizes[static_cast<size_t>(i)] = size;
  }
  if (total > file.most_bytes_left()) {
    file.bad(
        4,
        "the header promises {} elements ({}), the file can hold at most {}; it is cut short, damaged or another one",
        sizes[0], fmt::join(sizes.begin(), sizes.begin() + rank, "x"), file.most_bytes_left());
  }
  return sizes;
}

}  // namespace

Tensor read_idx_images(const std::string& path, bool transposed, uint64_t most_bytes) {
  ByteReader file(path, most_bytes);
  const auto [count, height, width] = read_header(file, 3);
  Tensor images = Tensor::empty({count, 1, height, width}, DType::u8);
  uint8_t* pixels = images.data<uint8_t>();
  file.read(pixels, images.bytes(), "pixels");
  file.expect_end();
  if (!transposed) return images;

  if (height != width) file.bad(8, "expected square images, found {}x{}", height, width);
  for (int64_t n = 0; n < count; ++n, pixels += height * width) {
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < y; ++x) std::swap(pixels[y * width + x], pixels[x * width + y]);
    }
  }
  return images;
}

Tensor read_idx_labels(const std::string& path, int64_t num_classes, int first_label, uint64_t most_bytes) {
  ByteReader file(path, most_bytes);
  const int64_t count = read_header(file, 1)[0];
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  file.read(bytes.data(), bytes.size(), "labels");
  file.expect_end();
  Tensor labels = Tensor::empty({count}, DType::i64);
  int64_t* out = labels.data<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    out[i] = bytes[static_cast<size_t>(i)] - first_label;
    if (out[i] < 0 || out[i] >= num_classes) {
      file.bad(static_cast<uint64_t>(8 + i), "expected labels in {}..{}, found {} for example {}", first_label,
               first_label + num_classes - 1, bytes[static_cast<size_t>(i)], i);
    }
  }
  return labels;
}

}  // namespace espalier
