#include "datasets/jpeg.h"

#include <csetjmp>
#include <cstdio>
#include <vector>

#include <jpeglib.h>

#include "core/error.h"
#include "datasets/byte_reader.h"

namespace espalier {

namespace {

constexpr uint64_t kMostFileBytes = uint64_t{64} << 20;
constexpr int64_t kMostJpegPixels = 40'000'000;

/// libjpeg reports by calling back, and must not be left but by longjmp.
struct JpegErrors {
  jpeg_error_mgr manager;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX] = {};
};

void stop(j_common_ptr decoder) {
  auto* errors = reinterpret_cast<JpegErrors*>(decoder->err);
  decoder->err->format_message(decoder, errors->message);
  std::longjmp(errors->back, 1);
}
/// A warning says that the data is damaged and goes on with something grey.
void note(j_common_ptr decoder, int level) {
  if (level < 0) stop(decoder);
}

/// Decodes into `pixels`, rows of RGB. No object with a destructor lives here, since errors jump out. False: see
/// errors.
bool decode(const std::vector<unsigned char>& bytes, jpeg_decompress_struct& decoder, JpegErrors& errors,
            std::vector<unsigned char>& pixels) {
  if (setjmp(errors.back) != 0) return false;
  jpeg_create_decompress(&decoder);
  jpeg_mem_src(&decoder, bytes.data(), bytes.size());
  jpeg_read_header(&decoder, TRUE);
  decoder.out_color_space = JCS_RGB;
  if (int64_t{decoder.image_width} * decoder.image_height > kMostJpegPixels) {
    std::snprintf(errors.message, sizeof errors.message, "%u x %u pixels, more than %lld", decoder.image_width,
                  decoder.image_height, static_cast<long long>(kMostJpegPixels));
    return false;
  }
  jpeg_start_decompress(&decoder);
  const size_t row = size_t{decoder.output_width} * 3;
  pixels.resize(row * decoder.output_height);
  while (decoder.output_scanline < decoder.output_height) {
    JSAMPROW to = pixels.data() + decoder.output_scanline * row;
    jpeg_read_scanlines(&decoder, &to, 1);
  }
  jpeg_finish_decompress(&decoder);
  return true;
}

}  // namespace

Tensor read_jpeg(const std::string& path) {
  ByteReader file(path, kMostFileBytes);
  std::vector<unsigned char> bytes(file.most_bytes_left());
  bytes.resize(file.read_some(bytes.data(), bytes.size()));
  file.expect_end();
  JpegErrors errors{};
  jpeg_decompress_struct decoder{};
  decoder.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = stop;
  errors.manager.emit_message = note;
  std::vector<unsigned char> pixels;
  const bool good = decode(bytes, decoder, errors, pixels);
  const auto height = static_cast<int64_t>(decoder.output_height), width = static_cast<int64_t>(decoder.output_width);
  jpeg_destroy_decompress(&decoder);
  if (!good)
    fail<FileError>("read_jpeg", "{}: expected a JPEG image, found: {}; save it again, as PNG or JPEG", path,
                    errors.message);
  Tensor image = Tensor::empty({3, height, width}, DType::u8);
  auto* out = image.data<uint8_t>();
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t i = 0; i < height * width; ++i) *out++ = pixels[static_cast<size_t>(3 * i + c)];
  return image;
}

}  // namespace espalier
