#include "datasets/image.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include <png.h>
#include <zlib.h>

#include "core/error.h"
#include "core/file_errors.h"
#include "core/safetensors.h"

namespace espalier {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 20;
constexpr int64_t kMaxPixels = 40'000'000;

std::vector<char> read_file(const std::string& path) {
  if (std::filesystem::is_directory(path)) fail<FileError>("read_png", "{}: expected a file, found a folder", path);
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) fail<FileError>("read_png", "{}: can't open: {}", path, std::strerror(errno));
  const std::streamoff size = file.tellg();
  if (size < 0 || !file.seekg(0)) fail<FileError>("read_png", "{}: expected a file, found something else", path);
  if (size > kMaxFileBytes)
    fail<FileError>("read_png", "{}: expected at most {} bytes, found {}", path, kMaxFileBytes, size);
  std::vector<char> bytes(static_cast<size_t>(size));
  if (!file.read(bytes.data(), size)) fail<FileError>("read_png", "{}: can't read: {}", path, std::strerror(errno));
  return bytes;
}

/// A libpng image with its memory.
struct PngImage : png_image {
  PngImage() : png_image() { version = PNG_IMAGE_VERSION; }
  ~PngImage() { png_image_free(this); }
  PngImage(const PngImage&) = delete;
  PngImage& operator=(const PngImage&) = delete;
};

/// Walks the chunks: lengths that stay in the file, right checksums, IHDR first, IEND last. libpng is lenient about
/// some of it and would show half a picture.
void check_chunks(const std::string& path, const std::vector<char>& bytes) {
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  const size_t size = bytes.size();
  constexpr std::array<unsigned char, 8> kSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  if (size < kSignature.size() || std::memcmp(data, kSignature.data(), kSignature.size()) != 0) {
    fail<FileError>("read_png", "{}, offset 0: expected a PNG image, found something else; convert it to PNG first",
                    path);
  }
  const auto word = [&](size_t at) {
    return uint32_t{data[at]} << 24 | uint32_t{data[at + 1]} << 16 | uint32_t{data[at + 2]} << 8 | data[at + 3];
  };
  size_t at = kSignature.size();
  for (bool first = true;; first = false) {
    if (size - at < 12)
      fail<FileError>("read_png", "{}, offset {}: expected a chunk, found the end: cut short", path, at);
    const uint32_t length = word(at);
    if (length > size - at - 12) {
      fail<FileError>("read_png", "{}, offset {}: expected a chunk of {} bytes, found {}: cut short or corrupt", path,
                      at, length, size - at - 12);
    }
    if (first && std::memcmp(data + at + 4, "IHDR", 4) != 0)
      fail<FileError>("read_png", "{}, offset {}: expected the header IHDR first: corrupt", path, at);
    const auto sum = crc32_z(0, data + at + 4, length + 4);
    if (static_cast<uint32_t>(sum) != word(at + 8 + length)) {
      fail<FileError>("read_png", "{}, offset {}: expected checksum {:08x}, found {:08x}: corrupt", path, at,
                      word(at + 8 + length), static_cast<uint32_t>(sum));
    }
    if (std::memcmp(data + at + 4, "IEND", 4) == 0) return;
    at += 12 + size_t{length};
  }
}

/// Weights of source pixels for each target pixel of one axis: a triangle filter.
struct Taps {
  int64_t first;
  std::vector<double> weights;
};

std::vector<Taps> triangle_taps(int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to), reach = std::max(scale, 1.0);
  std::vector<Taps> taps(static_cast<size_t>(to));
  for (int64_t i = 0; i < to; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(std::floor(centre - reach)));
    const auto last = std::min<int64_t>(from, static_cast<int64_t>(std::ceil(centre + reach)));
    Taps& tap = taps[static_cast<size_t>(i)];
    tap.first = first;
    double total = 0;
    for (int64_t j = first; j < last; ++j) {
      const double weight = std::max(0.0, 1 - std::abs(static_cast<double>(j) + 0.5 - centre) / reach);
      tap.weights.push_back(weight);
      total += weight;
    }
    for (double& weight : tap.weights) weight /= total;
  }
  return taps;
}

/// One channel: (h,w) -> (to_h,to_w), rows first.
std::vector<double> resized(const uint8_t* from, int64_t h, int64_t w, int64_t to_h, int64_t to_w) {
  const std::vector<Taps> columns = triangle_taps(w, to_w), rows = triangle_taps(h, to_h);
  std::vector<double> wide(static_cast<size_t>(h * to_w)), result(static_cast<size_t>(to_h * to_w));
  for (int64_t y = 0; y < h; ++y)
    for (int64_t x = 0; x < to_w; ++x) {
      const Taps& tap = columns[static_cast<size_t>(x)];
      double sum = 0;
      for (size_t k = 0; k < tap.weights.size(); ++k)
        sum += tap.weights[k] * from[y * w + tap.first + static_cast<int64_t>(k)];
      wide[static_cast<size_t>(y * to_w + x)] = sum;
    }
  for (int64_t y = 0; y < to_h; ++y)
    for (int64_t x = 0; x < to_w; ++x) {
      const Taps& tap = rows[static_cast<size_t>(y)];
      double sum = 0;
      for (size_t k = 0; k < tap.weights.size(); ++k)
        sum += tap.weights[k] * wide[static_cast<size_t>((tap.first + static_cast<int64_t>(k)) * to_w + x)];
      result[static_cast<size_t>(y * to_w + x)] = sum;
    }
  return result;
}

/// Sum and number of the outermost pixels of one channel.
double border_mean(const uint8_t* pixels, int64_t h, int64_t w) {
  double sum = 0;
  int64_t count = 0;
  for (int64_t y = 0; y < h; ++y)
    for (int64_t x = 0; x < w; ++x)
      if (y == 0 || y == h - 1 || x == 0 || x == w - 1) sum += pixels[y * w + x], ++count;
  return sum / static_cast<double>(count);
}

uint8_t to_byte(double value) { return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0, 255.0))); }

}  // namespace

Tensor read_png(const std::string& path) {
  const std::vector<char> bytes = read_file(path);
  check_chunks(path, bytes);
  PngImage png;
  if (png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()) == 0)
    fail<FileError>("read_png", "{}: not a readable PNG image: {}", path, png.message);
  const int64_t width = png.width, height = png.height;
  if (width <= 0 || height <= 0 || width > kMaxPixels / height)
    fail<FileError>("read_png", "{}: expected at most {} pixels, found {}x{}", path, kMaxPixels, width, height);
  png.format = PNG_FORMAT_RGB;
  // Without a chunk that says otherwise samples are sRGB, however many bits they have; libpng takes those of 16 bits
  // for linear light, and would show 128 as 188.
  png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  const Tensor interleaved = Tensor::empty({height, width, 3}, DType::u8);
  const png_color white = {255, 255, 255};
  if (png_image_finish_read(&png, &white, interleaved.data<uint8_t>(), 0, nullptr) == 0)
    fail<FileError>("read_png", "{}: not a readable PNG image: {}", path, png.message);
  // libpng only warns about pixels that are missing, and leaves them black.
  if (PNG_IMAGE_FAILED(png) || std::string_view(png.message).find("IDAT") != std::string_view::npos)
    fail<FileError>("read_png", "{}: not a readable PNG image: {}", path, png.message);
  return interleaved.permute({2, 0, 1}).contiguous();
}

namespace {
void check_is_picture_or_new(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 8> start{};
  file.read(start.data(), start.size());
  std::array<png_byte, 8> signature{};
  std::copy(start.begin(), start.end(), signature.begin());
  check(file.gcount() == 0 || png_sig_cmp(signature.data(), 0, signature.size()) == 0, "save",
        "{} is there already and no PNG image; choose another name", path);
}
}  // namespace

void write_png(const std::string& path, const Tensor& image) {
  check(image.rank() == 3 && image.dtype() == DType::u8 && (image.size(0) == 1 || image.size(0) == 3), "write_png",
        "expected u8 (1,H,W) or (3,H,W), got {}", describe(image));
  const Tensor interleaved = image.permute({1, 2, 0}).contiguous();
  PngImage png;
  png.width = static_cast<png_uint_32>(image.size(2));
  png.height = static_cast<png_uint_32>(image.size(1));
  png.format = image.size(0) == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string bytes(size, '\0');
  if (png_image_write_to_memory(&png, bytes.data(), &size, 0, interleaved.data<uint8_t>(), 0, nullptr) == 0)
    fail<WriteError>("save", "{}: can't write the image: {}", path, png.message);
  bytes.resize(size);
  check_is_picture_or_new(path);
  write_file_atomically(path, bytes);
}

Tensor to_channels(const Tensor& image, int64_t channels) {
  if (image.size(0) == channels) return image;
  const int64_t h = image.size(1), w = image.size(2), n = h * w;
  if (image.size(0) == 1 && channels == 3) return image.expand({3, h, w}).contiguous();
  check(image.size(0) == 3 && channels == 1, "to_channels", "expected a network for 1 or 3 channels, got {}", channels);
  const Tensor grey = Tensor::empty({1, h, w}, DType::u8);
  const Tensor source = image.contiguous();
  const auto* rgb = source.data<uint8_t>();
  auto* out = grey.data<uint8_t>();
  for (int64_t i = 0; i < n; ++i) out[i] = to_byte(0.299 * rgb[i] + 0.587 * rgb[n + i] + 0.114 * rgb[2 * n + i]);
  return grey;
}

Tensor inverted(const Tensor& image) {
  const Tensor result = image.contiguous().clone();
  auto* pixels = result.data<uint8_t>();
  for (int64_t i = 0; i < result.numel(); ++i) pixels[i] = static_cast<uint8_t>(255 - pixels[i]);
  return result;
}

double border_brightness(const Tensor& image) {
  const Tensor source = image.contiguous();
  const int64_t c = image.size(0), h = image.size(1), w = image.size(2);
  double sum = 0;
  for (int64_t channel = 0; channel < c; ++channel) sum += border_mean(source.data<uint8_t>() + channel * h * w, h, w);
  return sum / (255 * static_cast<double>(c));
}

Tensor fitted(const Tensor& image, int64_t height, int64_t width) {
  const int64_t c = image.size(0), h = image.size(1), w = image.size(2);
  if (h == height && w == width) return image;
  const double scale = std::min(static_cast<double>(height) / static_cast<double>(h),
                                static_cast<double>(width) / static_cast<double>(w));
  const auto side = [&](int64_t from, int64_t most) {
    return std::clamp<int64_t>(std::llround(scale * static_cast<double>(from)), 1, most);
  };
  const int64_t inner_h = side(h, height), inner_w = side(w, width);
  const int64_t top = (height - inner_h) / 2, left = (width - inner_w) / 2;
  const Tensor source = image.contiguous(), result = Tensor::empty({c, height, width}, DType::u8);
  for (int64_t channel = 0; channel < c; ++channel) {
    const auto* from = source.data<uint8_t>() + channel * h * w;
    auto* to = result.data<uint8_t>() + channel * height * width;
    std::fill_n(to, height * width, to_byte(border_mean(from, h, w)));
    const std::vector<double> inner = resized(from, h, w, inner_h, inner_w);
    for (int64_t y = 0; y < inner_h; ++y)
      for (int64_t x = 0; x < inner_w; ++x)
        to[(top + y) * width + left + x] = to_byte(inner[static_cast<size_t>(y * inner_w + x)]);
  }
  return result;
}

}  // namespace espalier
