#include "datasets/corruptions.h"

#include <algorithm>
#include <set>

#include "core/ops.h"
#include "datasets/dataset.h"
#include "tests/datasets/fixtures.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;

std::vector<int> corrupted(const std::vector<uint8_t>& pixels, const Shape& shape, const std::string& name) {
  return corrupt(Tensor::from<uint8_t>(pixels, shape), name).to_vector<int>();
}

TEST(Corruptions, TwelveWithNamesOfTheirOwn) {
  std::set<std::string> names;
  for (const CorruptionInfo& c : corruptions()) {
    names.insert(c.name);
    EXPECT_FALSE(c.description.empty());
  }
  EXPECT_EQ(names.size(), 12U);
}

TEST(Corruptions, WithoutRandomnessByHand) {
  const std::vector<uint8_t> ramp = {0, 100, 200, 100};  // mean 100
  EXPECT_EQ(corrupted(ramp, {1, 1, 2, 2}, "contrast"), (std::vector<int>{60, 100, 140, 100}));
  EXPECT_EQ(corrupted(ramp, {1, 1, 2, 2}, "brightness"), (std::vector<int>{51, 151, 251, 151}));
  EXPECT_EQ(corrupted({250, 0, 10, 0}, {1, 1, 2, 2}, "brightness"), (std::vector<int>{255, 51, 61, 51}));
  // The third column is a block of its own.
  EXPECT_EQ(corrupted({0, 4, 9, 8, 8, 9}, {1, 1, 2, 3}, "pixelate"), (std::vector<int>{5, 5, 9, 5, 5, 9}));
}

TEST(Corruptions, BlursKeepAnEvenImageAndSpreadASpot) {
  const std::vector<uint8_t> even(49, 77);
  for (const char* name : {"blur", "motion"})
    EXPECT_EQ(corrupted(even, {1, 1, 7, 7}, name), std::vector<int>(49, 77)) << name;
  std::vector<uint8_t> spot(49, 0);
  spot[24] = 200;
  // The middle of the Gaussian's seven weights is 0.39905: 200 * 0.39905^2 = 31.8.
  EXPECT_EQ(corrupted(spot, {1, 1, 7, 7}, "blur")[24], 32);
  const std::vector<int> moved = corrupted(spot, {1, 1, 7, 7}, "motion");
  EXPECT_EQ(std::count(moved.begin(), moved.end(), 40), 5);
}

TEST(Corruptions, ShiftMovesByTwoPixelsAndLetsBlackIn) {
  std::vector<uint8_t> spot(49, 0);
  spot[24] = 200;  // row 3, column 3
  const std::vector<int> moved = corrupted(spot, {1, 1, 7, 7}, "shift");
  const std::set<size_t> corners = {8, 12, 36, 40};  // rows and columns 1 and 5
  const auto where = static_cast<size_t>(std::find(moved.begin(), moved.end(), 200) - moved.begin());
  EXPECT_TRUE(corners.contains(where)) << where;
  EXPECT_EQ(std::count(moved.begin(), moved.end(), 0), 48);
}

TEST(Corruptions, OcclusionCoversAThirdOfEachSide) {
  const std::vector<int> seen = corrupted(std::vector<uint8_t>(2 * 81, 255), {1, 2, 9, 9}, "occlusion");
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 128), 2 * 9);
}

// All channels of a pixel together.
TEST(Corruptions, SaltAndPepperMeetsOnePixelInTwenty) {
  const std::vector<int> seen = corrupted(std::vector<uint8_t>(3 * 10000, 100), {1, 3, 100, 100}, "salt-and-pepper");
  int64_t met = 0;
  for (size_t i = 0; i < 10000; ++i) {
    EXPECT_TRUE(seen[i] == seen[10000 + i] && seen[i] == seen[20000 + i]);
    met += seen[i] == 100 ? 0 : 1;
  }
  EXPECT_NEAR(static_cast<double>(met), 500, 75);  // 3.4 standard deviations
}

TEST(Corruptions, EachChangesRealImagesAndDependsOnSeedAndIndexOnly) {
  const Tensor images = load_dataset("digits").test.first(6).images;
  for (const CorruptionInfo& c : corruptions()) {
    const Tensor once = corrupt(images, c.name, 3);
    EXPECT_EQ(once.shape(), images.shape());
    EXPECT_EQ(once.dtype(), DType::u8);
    EXPECT_FALSE(identical(once, images)) << c.name;
    EXPECT_TRUE(identical(once, corrupt(images, c.name, 3))) << c.name;
    EXPECT_TRUE(identical(corrupt(images.slice(0, 0, 2), c.name, 3), once.slice(0, 0, 2).contiguous())) << c.name;
  }
  EXPECT_FALSE(identical(corrupt(images, "noise", 3), corrupt(images, "noise", 4)));
}

TEST(Corruptions, UnknownNamesAndWrongImagesAreErrors) {
  const Tensor images = Tensor::zeros({1, 1, 4, 4}, DType::u8);
  expect_contains(message_of([&] { corrupt(images, "nose"); }), {"[corrupt]", "nose", "noise"});
  expect_contains(message_of([&] { corrupt(images.to(DType::f32), "noise"); }), "expected u8 images (N,C,H,W)");
}

}  // namespace
}  // namespace espalier
