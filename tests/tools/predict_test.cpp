// espalier predict: PNG images of all kinds, good and bad.
#include <algorithm>
#include <filesystem>
#include <limits>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <png.h>

#include "core/safetensors.h"
#include "run_command.h"

namespace espalier::testing {
namespace {

/// One network for all tests of this file.
class Predict : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new Folder();
    const Said train = run(*folder_, "train --model mlp:64 --data digits --epochs 15 --out r --quiet");
    ASSERT_EQ(train.status, 0) << train.err;
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }

  /// Saves test image i as i.png; gives its class.
  static std::string save(int i) {
    const Said said =
        run(*folder_, fmt::format("datasets show digits --split test --index {0} --save {0}.png --json", i));
    EXPECT_EQ(said.status, 0) << said.err;
    return said.json()["images"][0]["class"];
  }
  static Said predict(const std::string& options) { return run(*folder_, "predict --model r --json " + options); }
  static std::string answer(const Said& said, size_t image = 0) {
    EXPECT_EQ(said.status, 0) << said.all();
    return said.json()["images"][image]["predictions"][0]["class"];
  }

  static Folder* folder_;
};
Folder* Predict::folder_ = nullptr;

/// Pixels of a PNG in a libpng format.
std::vector<png_byte> read_pixels(const std::string& path, png_uint_32 format, png_image& image) {
  image = {};
  image.version = PNG_IMAGE_VERSION;
  EXPECT_NE(png_image_begin_read_from_file(&image, path.c_str()), 0);
  image.format = format;
  std::vector<png_byte> pixels(PNG_IMAGE_SIZE(image));
  EXPECT_NE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr), 0);
  return pixels;
}

void write_pixels(const std::string& path, png_uint_32 format, png_uint_32 width, png_uint_32 height,
                  const void* pixels) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.format = format;
  image.width = width;
  image.height = height;
  ASSERT_NE(png_image_write_to_file(&image, path.c_str(), 0, pixels, 0, nullptr), 0) << image.message;
}

TEST_F(Predict, NetworksThatBecameNaNEndWithAnError) {
  std::filesystem::create_directories(*folder_ / "nan");
  SafetensorsFile file = load_safetensors(*folder_ / "r/model.safetensors");
  for (auto& [name, tensor] : file.tensors)
    if (name == "fc1.weight") tensor.fill_(std::numeric_limits<double>::quiet_NaN());
  save_safetensors(*folder_ / "nan/model.safetensors", file.tensors, file.metadata);
  save(7);
  for (const char* command : {"eval nan", "eval nan --json", "predict 7.png --model nan", "compare r nan --rounds 1",
                              "sensitivity nan --images 64", "compact nan", "prune nan --sparsity 0.5 --epochs 0",
                              "distill r --teacher nan --student mlp:4 --epochs 1"}) {
    const Said said = run(*folder_, command);
    EXPECT_EQ(said.status, 1) << command << "\n" << said.all();
    EXPECT_NE(said.err.find("NaN"), std::string::npos) << said.err;
    EXPECT_EQ(said.out.find("nan %"), std::string::npos) << said.out;
  }
}

TEST_F(Predict, ReadsTheDigitsOfTheTestSet) {
  int right = 0;
  std::string files;
  std::vector<std::string> classes;
  for (int i : {3, 40, 80, 120, 160, 200, 240, 280, 320, 359}) {
    classes.push_back(save(i));
    files += fmt::format(" {}.png", i);
  }
  const Said said = predict(files);
  ASSERT_EQ(said.status, 0) << said.err;
  for (size_t i = 0; i < classes.size(); ++i) right += answer(said, i) == classes[i];
  EXPECT_GE(right, 8);
  const nlohmann::json first = said.json()["images"][0]["predictions"];
  ASSERT_EQ(first.size(), 5u);
  double total = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    total += first[i]["probability"].get<double>();
    EXPECT_LE(first[i]["probability"], first[i == 0 ? 0 : i - 1]["probability"]);
  }
  EXPECT_LE(total, 1 + 1e-6);
  EXPECT_EQ(predict("3.png --top 10").json()["images"][0]["predictions"].size(), 10u);
  const Said people = run(*folder_, "predict 3.png --model r/model.safetensors --show");
  EXPECT_TRUE(contains(people.out, " %  ##")) << people.out;
}

TEST_F(Predict, ColourSizeDepthAndTransparencyDoNotMatter) {
  save(40);
  png_image image;
  const std::string original = answer(predict("40.png"));
  const double sure = predict("40.png").json()["images"][0]["predictions"][0]["probability"];
  const std::vector<png_byte> grey = read_pixels(*folder_ / "40.png", PNG_FORMAT_GRAY, image);
  ASSERT_EQ(grey.size(), 64u);

  // The same picture, as RGB, is the same to the last digit.
  write_pixels(*folder_ / "rgb.png", PNG_FORMAT_RGB, 8, 8,
               read_pixels(*folder_ / "40.png", PNG_FORMAT_RGB, image).data());
  EXPECT_EQ(predict("rgb.png").json()["images"][0]["predictions"][0]["probability"], sure);

  // Black on white, transparent around the strokes, 12 times as large, and wider than high.
  constexpr png_uint_32 kScale = 12, kWide = 8 * kScale + 40, kHigh = 8 * kScale;
  std::vector<png_byte> rgba(size_t{4} * kWide * kHigh, 0);
  for (png_uint_32 y = 0; y < kHigh; ++y)
    for (png_uint_32 x = 0; x < 8 * kScale; ++x) rgba[4 * (y * kWide + 20 + x) + 3] = grey[y / kScale * 8 + x / kScale];
  write_pixels(*folder_ / "large.png", PNG_FORMAT_RGBA, kWide, kHigh, rgba.data());
  // A wide image is fitted by its width, so the digit gets smaller: look at the square middle for the answer.
  std::vector<png_byte> square(size_t{4} * kHigh * kHigh, 0);
  for (png_uint_32 y = 0; y < kHigh; ++y)
    std::copy_n(&rgba[4 * (y * kWide + 20)], 4 * kHigh, &square[size_t{4} * y * kHigh]);
  write_pixels(*folder_ / "square.png", PNG_FORMAT_RGBA, kHigh, kHigh, square.data());
  const Said inverted = predict("square.png large.png");
  EXPECT_EQ(answer(inverted), original);
  EXPECT_TRUE(inverted.json()["images"][0]["inverted"]);
  EXPECT_TRUE(inverted.json()["images"][1]["inverted"]);
  EXPECT_FALSE(predict("square.png --invert no").json()["images"][0]["inverted"]);
}

TEST_F(Predict, ExtremeShapesAreFitted) {
  const std::vector<png_byte> pixels(5000, 200);
  write_pixels(*folder_ / "flat.png", PNG_FORMAT_GRAY, 5000, 1, pixels.data());
  write_pixels(*folder_ / "high.png", PNG_FORMAT_GRAY, 1, 5000, pixels.data());
  write_pixels(*folder_ / "dot.png", PNG_FORMAT_GRAY, 1, 1, pixels.data());
  EXPECT_EQ(predict("flat.png high.png dot.png").status, 0);
}

TEST_F(Predict, BadImagesAreRefused) {
  save(3);
  const std::string good = read_file(*folder_ / "3.png");
  const auto refused = [&](const std::string& contents, const std::string& what) {
    write_file(*folder_ / "bad.png", contents);
    const Said said = predict("bad.png");
    EXPECT_EQ(said.status, 2) << what << "\n" << said.all();
    EXPECT_TRUE(contains(said.err, "[read_png] bad.png")) << what << "\n" << said.err;
  };
  refused("", "empty");
  refused("\xff\xd8\xff\xe0 JPEG", "another format");
  for (size_t size = 1; size < good.size(); size += good.size() / 12)
    refused(good.substr(0, size), fmt::format("cut to {}", size));
  refused(good.substr(0, good.size() - 1), "cut by one byte");
  for (size_t at = 8; at < good.size(); at += good.size() / 15) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
    refused(flipped, fmt::format("byte {} changed", at));
  }
  EXPECT_EQ(predict("no-such.png").status, 2);
  EXPECT_EQ(predict(".").status, 2) << "a folder";
  // Right checksums around wrong contents: a size that no memory holds.
  std::string huge = good.substr(0, 8);
  const auto chunk = [&](const std::string& type_and_data) {
    const auto word = [](uint32_t v) {
      return std::string{static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
                         static_cast<char>(v)};
    };
    uint32_t crc = ~0u;
    for (unsigned char c : type_and_data) {
      crc ^= c;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0);
    }
    return word(static_cast<uint32_t>(type_and_data.size() - 4)) + type_and_data + word(~crc);
  };
  const std::string grey8("\x08\x00\x00\x00\x00", 5);
  refused(huge + chunk(std::string("IHDR\x00\x0f\x00\x00\x00\x0f\x00\x00", 12) + grey8) + chunk("IDAT") + chunk("IEND"),
          "983,040 x 983,040");
  refused(huge + chunk(std::string("IHDR\x00\x00\x00\x00\x00\x00\x00\x08", 12) + grey8) + chunk("IDAT") + chunk("IEND"),
          "no columns");
  refused(huge + chunk(std::string("IHDR\x00\x00\x00\x08\x00\x00\x00\x08", 12) + grey8) + chunk("IEND"), "no pixels");
  refused(huge + chunk(std::string("IHDR\x00\x00\x00\x08\x00\x00\x00\x08", 12) + grey8) + chunk("IDATnot zlib") +
              chunk("IEND"),
          "pixels that are no zlib stream");
  // Half of a right stream: pixels are missing.
  const size_t idat = good.find("IDAT");
  const auto length = static_cast<size_t>(static_cast<unsigned char>(good[idat - 1]));
  refused(good.substr(0, idat - 4) + chunk(good.substr(idat, 4 + length / 2)) + chunk("IEND"), "half of the pixels");
}

}  // namespace
}  // namespace espalier::testing
