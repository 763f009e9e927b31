// read_png: what samples of every kind of PNG mean.
#include "datasets/image.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <vector>

#include <gtest/gtest.h>
#include <png.h>
#include <unistd.h>

namespace espalier {
namespace {

enum class Chunk { none, srgb, gamma_srgb, gamma_linear };

struct Picture {
  int colour_type;  ///< PNG_COLOR_TYPE_*
  int bits;
  Chunk chunk;
};

/// The bytes of one opaque pixel whose colour is 128 of 255, which is 0x8080 in 16 bits; index 0 of a palette.
std::vector<png_byte> pixel(const Picture& picture) {
  if (picture.colour_type == PNG_COLOR_TYPE_PALETTE) return {0};
  const size_t bytes = static_cast<size_t>(picture.bits / 8);
  std::vector<png_byte> samples((picture.colour_type & PNG_COLOR_MASK_COLOR) != 0 ? 3 * bytes : bytes, 0x80);
  if ((picture.colour_type & PNG_COLOR_MASK_ALPHA) != 0) samples.insert(samples.end(), bytes, 0xff);
  return samples;
}

/// Written by hand: libpng's simple writer always says in a chunk what samples mean.
std::string write_pixel(const Picture& picture) {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("espalier-pixel-{}.png", getpid())).string();
  std::FILE* file = std::fopen(path.c_str(), "wb");
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_init_io(png, file);
  png_set_IHDR(png, info, 1, 1, picture.bits, picture.colour_type, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  const png_color grey = {128, 128, 128};
  if (picture.colour_type == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(png, info, &grey, 1);
  if (picture.chunk == Chunk::srgb) png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
  if (picture.chunk == Chunk::gamma_srgb) png_set_gAMA_fixed(png, info, 45455);
  if (picture.chunk == Chunk::gamma_linear) png_set_gAMA_fixed(png, info, 100000);
  png_write_info(png, info);
  png_write_row(png, pixel(picture).data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  std::fclose(file);
  return path;
}

std::vector<int> read(const Picture& picture) {
  const std::string path = write_pixel(picture);
  const Tensor image = read_png(path);
  std::filesystem::remove(path);
  EXPECT_EQ(image.shape(), Shape({3, 1, 1}));
  return image.to_vector<int>();
}

TEST(ReadPng, SamplesAreSrgbUnlessAChunkSaysOtherwise) {
  const std::vector<int> grey(3, 128);
  for (const Chunk chunk : {Chunk::none, Chunk::srgb, Chunk::gamma_srgb}) {
    for (const int bits : {8, 16})
      for (const int type :
           {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB_ALPHA})
        EXPECT_EQ(read({type, bits, chunk}), grey)
            << "colour type " << type << ", " << bits << " bits, chunk " << static_cast<int>(chunk);
    EXPECT_EQ(read({PNG_COLOR_TYPE_PALETTE, 8, chunk}), grey) << static_cast<int>(chunk);
  }
}

TEST(ReadPng, LinearLightBecomesSrgb) {
  // 255 * (1.055 * (128/255)^(1/2.4) - 0.055) = 188.0; for 8 bits libpng uses a power, 255 * (128/255)^(1/2.2) = 186.4.
  for (const int type : {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_RGB})
    for (const int bits : {8, 16})
      for (const int sample : read({type, bits, Chunk::gamma_linear})) {
        EXPECT_GE(sample, 186) << type << ", " << bits << " bits";
        EXPECT_LE(sample, 188) << type << ", " << bits << " bits";
      }
}

}  // namespace
}  // namespace espalier
