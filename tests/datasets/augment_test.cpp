// What augmentation must leave as it is, and what its randomness may depend on.
#include "datasets/augment.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/ops.h"
#include "tests/datasets/fixtures.h"

namespace espalier {
namespace {

Tensor some_images(int64_t count = 4, int64_t channels = 3, int64_t size = 8) {
  Tensor images = Tensor::empty({count, channels, size, size}, DType::u8);
  const std::string pixels = noise(static_cast<size_t>(images.numel()));
  std::copy(pixels.begin(), pixels.end(), images.data<uint8_t>());
  return images;
}

std::vector<int64_t> all_of(const Tensor& images) {
  std::vector<int64_t> indices(static_cast<size_t>(images.size(0)));
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int64_t>(i);
  return indices;
}

// Pixels 0..255 after the augmentations: with this mean and deviation nothing else is done to them.
Tensor augmented(const Tensor& images, std::vector<Augmentation> steps, uint64_t seed = 0, int64_t epoch = 0) {
  const size_t channels = static_cast<size_t>(images.size(1));
  const Transform transform(std::vector<float>(channels, 0), std::vector<float>(channels, 1.0f / 255),
                            std::move(steps));
  return transform(images, all_of(images), seed, epoch);
}

TEST(Augment, NormalizesByChannel) {
  const Tensor images = Tensor::from<uint8_t>({0, 255, 51, 102}, {1, 2, 1, 2});
  const Tensor plain = Transform().normalize(images);
  EXPECT_TRUE(all_close(plain, Tensor::from<float>({0, 1, 0.2f, 0.4f}, {1, 2, 1, 2}), 1e-6, 1e-7));
  const Tensor normal = Transform({0.5f, 0.2f}, {0.25f, 0.1f}).normalize(images);
  EXPECT_TRUE(all_close(normal, Tensor::from<float>({-2, 2, 0, 2}, {1, 2, 1, 2}), 1e-6, 1e-6));
}

TEST(Augment, IdentitiesChangeNothing) {
  const Tensor images = some_images();
  const Tensor plain = images.to(DType::f32);
  EXPECT_TRUE(identical(augmented(images, {}), plain));
  EXPECT_TRUE(identical(augmented(images, {RandomCrop{.padding = 0}}), plain));
  EXPECT_TRUE(identical(augmented(images, {HorizontalFlip{.probability = 0}}), plain));
  EXPECT_TRUE(identical(augmented(images, {HorizontalFlip{1}, HorizontalFlip{1}}), plain));
  EXPECT_TRUE(identical(augmented(images, {RandomAffine{}}), plain));
}

TEST(Augment, FlipMirrorsRows) {
  const Tensor images = Tensor::from<uint8_t>({1, 2, 3, 4, 5, 6}, {1, 1, 2, 3});
  EXPECT_EQ(augmented(images, {HorizontalFlip{1}}).to_vector<int>(), (std::vector<int>{3, 2, 1, 6, 5, 4}));
}

// Every crop is one of the windows of the padded image, and all of them come up.
TEST(Augment, CropCutsAWindowOfThePaddedImage) {
  const int64_t size = 4, padding = 2;
  const Tensor images = some_images(1, 1, size);
  const std::vector<int> in = images.to_vector<int>();
  for (const bool reflect : {false, true}) {
    std::map<std::vector<int>, int> windows;
    for (int64_t dy = -padding; dy <= padding; ++dy) {
      for (int64_t dx = -padding; dx <= padding; ++dx) {
        std::vector<int> window;
        for (int64_t y = dy; y < dy + size; ++y) {
          for (int64_t x = dx; x < dx + size; ++x) {
            const bool inside = y >= 0 && y < size && x >= 0 && x < size;
            const auto mirror = [&](int64_t i) { return i < 0 ? -i : i >= size ? 2 * size - 2 - i : i; };
            window.push_back(inside || reflect ? in[static_cast<size_t>(mirror(y) * size + mirror(x))] : 0);
          }
        }
        windows[window] = 0;
      }
    }
    ASSERT_EQ(windows.size(), 25u);
    for (int64_t epoch = 0; epoch < 500; ++epoch) {
      const auto window = windows.find(augmented(images, {RandomCrop{padding, reflect}}, 1, epoch).to_vector<int>());
      ASSERT_NE(window, windows.end());
      ++window->second;
    }
    for (const auto& [window, count] : windows) EXPECT_GT(count, 0);
  }
  EXPECT_THROW(augmented(images, {RandomCrop{.padding = 4, .reflect = true}}), ArgumentError);
  EXPECT_THROW(augmented(images, {RandomCrop{.padding = -1}}), ArgumentError);
}

TEST(Augment, RotationTurnsAboutTheCentre) {
  // A ring is the same however it is turned; its sum stays, to what interpolation loses at the edges.
  const int64_t size = 33;
  Tensor ring = Tensor::zeros({1, 1, size, size}, DType::u8);
  double sum = 0;
  for (int64_t y = 0; y < size; ++y) {
    for (int64_t x = 0; x < size; ++x) {
      const double r = std::hypot(static_cast<double>(y - 16), static_cast<double>(x - 16));
      const double value = 255 * std::exp(-0.1 * (r - 8) * (r - 8));
      ring.data<uint8_t>()[y * size + x] = static_cast<uint8_t>(value);
      sum += static_cast<uint8_t>(value);
    }
  }
  const Tensor turned = augmented(ring, {RandomAffine{.degrees = 180}}, 3);
  const std::vector<float> before = ring.to_vector<float>(), after = turned.to_vector<float>();
  double total = 0, worst = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    total += after[i];
    worst = std::max<double>(worst, std::abs(before[i] - after[i]));
  }
  EXPECT_NEAR(total / sum, 1, 0.01);
  EXPECT_LT(worst, 0.1 * 255);

  // Doubling the size of everything quadruples a blob's sum.
  Tensor blob = Tensor::zeros({1, 1, size, size}, DType::u8);
  for (int64_t y = 13; y < 20; ++y) {
    for (int64_t x = 13; x < 20; ++x) blob.data<uint8_t>()[y * size + x] = 100;
  }
  const Tensor doubled = augmented(blob, {RandomAffine{.min_scale = 2, .max_scale = 2}});
  EXPECT_NEAR(sum_to(doubled, {}).item() / (49 * 100), 4, 0.05);
  const Tensor shifted = augmented(blob, {RandomAffine{.translate = 0.1}}, 5);
  EXPECT_NEAR(sum_to(shifted, {}).item() / (49 * 100), 1, 1e-3);
}

TEST(Augment, CutoutBlanksAtMostItsSquareWithTheMean) {
  const Tensor images = Tensor::full({200, 2, 8, 8}, 200, DType::u8);
  const Transform transform({0.5f, 0.25f}, {0.5f, 0.5f}, {Cutout{.size = 3}});
  const Tensor batch = transform(images, all_of(images), 1);
  int64_t most = 0;
  for (int64_t n = 0; n < 200; ++n) {
    const std::vector<float> first = batch.select(0, n).select(0, 0).to_vector<float>();
    const int64_t blank = std::count_if(first.begin(), first.end(), [](float v) { return std::abs(v) < 1e-6f; });
    EXPECT_GE(blank, 4);
    EXPECT_LE(blank, 9);
    most = std::max(most, blank);
    const std::vector<float> second = batch.select(0, n).select(0, 1).to_vector<float>();
    EXPECT_EQ(std::count_if(second.begin(), second.end(), [](float v) { return std::abs(v) < 1e-6f; }), blank);
  }
  EXPECT_EQ(most, 9);
}

TEST(Augment, DependsOnSeedEpochAndExampleOnly) {
  const Tensor images = some_images(16);
  const std::vector<Augmentation> steps = {RandomCrop{2}, HorizontalFlip{}, RandomAffine{15, 0.1, 0.9, 1.1}, Cutout{3}};
  const Transform transform({}, {}, steps);
  const Tensor together = transform(images, all_of(images), 7, 3);
  for (int64_t i : {15, 0, 4}) {  // alone and in another order
    const std::vector<int64_t> one = {i};
    EXPECT_TRUE(identical(transform(images, one, 7, 3), together.slice(0, i, i + 1).contiguous()));
  }
  EXPECT_FALSE(identical(transform(images, all_of(images), 7, 4), together));
  EXPECT_FALSE(identical(transform(images, all_of(images), 8, 3), together));
}

TEST(Augment, RefusesWhatDoesNotFit) {
  const Tensor images = some_images();
  const std::vector<int64_t> far = {4};
  EXPECT_THROW(Transform()(images, far), ArgumentError);
  EXPECT_THROW(Transform({0.5f}, {0.5f})(images, all_of(images)), ArgumentError);
  EXPECT_THROW(Transform({0.5f}, {0.0f}), ArgumentError);
  EXPECT_THROW(Transform().normalize(images.to(DType::f32)), ArgumentError);
  EXPECT_THROW(augmented(images, {HorizontalFlip{1.5}}), ArgumentError);
  EXPECT_THROW(augmented(images, {RandomAffine{.min_scale = 0}}), ArgumentError);
  EXPECT_THROW(augmented(images, {Cutout{0}}), ArgumentError);
}

}  // namespace
}  // namespace espalier
