#include "datasets/augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "datasets/planes.h"

namespace espalier {
namespace {

// Keeps augmentation apart from everything else that draws from the same seed.
constexpr uint64_t kAugmentationDomain = 0x61756776656e7401;

// One image as it goes through the augmentations.
struct Image : Planes {
  std::vector<float> fill;  // the mean of each channel, 0..255
};

// Index i of an axis of n, mirrored at its ends without repeating them; at most one mirror is needed.
int64_t mirrored(int64_t i, int64_t n) { return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i; }

void apply(const RandomCrop& crop, Generator& random, Image& image) {
  const uint64_t places = static_cast<uint64_t>(2 * crop.padding + 1);
  const int64_t dy = static_cast<int64_t>(random.next_below(places)) - crop.padding;
  const int64_t dx = static_cast<int64_t>(random.next_below(places)) - crop.padding;
  if (dy == 0 && dx == 0) return;
  const int64_t height = image.height, width = image.width;
  for (int64_t c = 0; c < image.channels; ++c) {
    const float* in = image.pixels.data() + c * image.plane();
    float* out = image.scratch.data() + c * image.plane();
    for (int64_t y = 0; y < height; ++y, out += width) {
      const int64_t source = crop.reflect ? mirrored(y + dy, height) : y + dy;
      if (source < 0 || source >= height) {
        std::fill(out, out + width, 0.0f);
        continue;
      }
      const float* row = in + source * width;
      const int64_t begin = std::clamp<int64_t>(-dx, 0, width), end = std::clamp<int64_t>(width - dx, 0, width);
      for (int64_t x = 0; x < begin; ++x) out[x] = crop.reflect ? row[mirrored(x + dx, width)] : 0.0f;
      if (begin < end) std::copy(row + begin + dx, row + end + dx, out + begin);
      for (int64_t x = end; x < width; ++x) out[x] = crop.reflect ? row[mirrored(x + dx, width)] : 0.0f;
    }
  }
  std::swap(image.pixels, image.scratch);
}

void apply(const HorizontalFlip& flip, Generator& random, Image& image) {
  if (random.next_uniform() >= flip.probability) return;
  for (int64_t row = 0; row < image.channels * image.height; ++row) {
    float* begin = image.pixels.data() + row * image.width;
    std::reverse(begin, begin + image.width);
  }
}

void apply(const RandomAffine& affine, Generator& random, Image& image) {
  const auto between = [&](double low, double high) { return low + (high - low) * random.next_uniform(); };
  const double angle = between(-affine.degrees, affine.degrees) * std::numbers::pi / 180;
  const double scale = between(affine.min_scale, affine.max_scale);
  const double shift_y = between(-affine.translate, affine.translate) * static_cast<double>(image.height);
  const double shift_x = between(-affine.translate, affine.translate) * static_cast<double>(image.width);
  apply(Warp{.radians = angle, .scale = scale, .shift_y = shift_y, .shift_x = shift_x}, image);
}

void apply(const Cutout& cutout, Generator& random, Image& image) {
  const int64_t y = static_cast<int64_t>(random.next_below(static_cast<uint64_t>(image.height))) - cutout.size / 2;
  const int64_t x = static_cast<int64_t>(random.next_below(static_cast<uint64_t>(image.width))) - cutout.size / 2;
  const int64_t bottom = std::min(y + cutout.size, image.height), right = std::min(x + cutout.size, image.width);
  for (int64_t c = 0; c < image.channels; ++c) {
    for (int64_t row = std::max<int64_t>(y, 0); row < bottom; ++row) {
      float* line = image.pixels.data() + c * image.plane() + row * image.width;
      std::fill(line + std::max<int64_t>(x, 0), line + right, image.fill[static_cast<size_t>(c)]);
    }
  }
}

// (pixel/255 - mean) / stddev as one multiplication and one addition.
struct Normalizer {
  float scale, shift;
  template <class T>
  void operator()(const T* in, float* out, int64_t n) const {
    const float a = scale, b = shift;
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i]) * a + b;
  }
};

void check_options(const RandomCrop& crop, int64_t height, int64_t width) {
  check(crop.padding >= 0 && (!crop.reflect || crop.padding < std::min(height, width)), "random_crop",
        "expected a padding of at least 0{}, got {} for images of {}x{}",
        crop.reflect ? " and, to reflect, below the image's size" : "", crop.padding, height, width);
}
void check_options(const HorizontalFlip& flip, int64_t, int64_t) {
  check(flip.probability >= 0 && flip.probability <= 1, "horizontal_flip", "expected a probability in [0,1], got {}",
        flip.probability);
}
void check_options(const RandomAffine& affine, int64_t, int64_t) {
  check(affine.degrees >= 0 && affine.translate >= 0 && affine.min_scale > 0 && affine.max_scale >= affine.min_scale,
        "random_affine", "expected degrees >= 0, translate >= 0 and 0 < min_scale <= max_scale, got {}, {}, {} and {}",
        affine.degrees, affine.translate, affine.min_scale, affine.max_scale);
}
void check_options(const Cutout& cutout, int64_t, int64_t) {
  check(cutout.size >= 1, "cutout", "expected a size of at least 1, got {}", cutout.size);
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
}  // namespace

std::string to_text(const Augmentation& augmentation) {
  return std::visit(
      Overloaded{
          [](const RandomCrop& a) { return fmt::format("crop padding={} reflect={}", a.padding, a.reflect); },
          [](const HorizontalFlip& a) { return fmt::format("flip probability={}", a.probability); },
          [](const RandomAffine& a) {
            return fmt::format("affine degrees={} translate={} scale={}..{}", a.degrees, a.translate, a.min_scale,
                               a.max_scale);
          },
          [](const Cutout& a) { return fmt::format("cutout size={}", a.size); },
      },
      augmentation);
}

Transform::Transform(std::vector<float> mean, std::vector<float> stddev, std::vector<Augmentation> augmentations)
    : mean_(std::move(mean)), stddev_(std::move(stddev)), augmentations_(std::move(augmentations)) {
  check(mean_.size() == stddev_.size(), "transform", "expected as many means as standard deviations, got {} and {}",
        mean_.size(), stddev_.size());
  for (float s : stddev_) check(s > 0, "transform", "expected standard deviations above 0, got {}", s);
}

Tensor Transform::operator()(const Tensor& images, std::span<const int64_t> indices, uint64_t seed,
                             int64_t epoch) const {
  check(images.defined() && images.rank() == 4 && images.dtype() == DType::u8 && images.is_contiguous(), "transform",
        "expected contiguous u8 images (N,C,H,W), got {}", images.defined() ? describe(images) : "an undefined tensor");
  const int64_t channels = images.size(1), height = images.size(2), width = images.size(3), plane = height * width;
  check(mean_.empty() || static_cast<int64_t>(mean_.size()) == channels, "transform",
        "expected images of {} channels, as many as there are means, got {}", mean_.size(), images.shape());
  for (const Augmentation& step : augmentations_) {
    std::visit([&](const auto& options) { check_options(options, height, width); }, step);
  }

  std::vector<Normalizer> normalizers;
  Image image{{channels, height, width, {}, {}}, {}};
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    const float mean = mean_.empty() ? 0.0f : mean_[c], stddev = stddev_.empty() ? 1.0f : stddev_[c];
    normalizers.push_back({1 / (255 * stddev), -mean / stddev});
    image.fill.push_back(255 * mean);
  }
  if (!augmentations_.empty()) {
    image.pixels.resize(static_cast<size_t>(channels * plane));
    image.scratch.resize(static_cast<size_t>(channels * plane));
  }

  Tensor batch = Tensor::empty({static_cast<int64_t>(indices.size()), channels, height, width});
  float* out = batch.data<float>();
  for (const int64_t index : indices) {
    check(index >= 0 && index < images.size(0), "transform", "expected indices in 0..{}, got {}", images.size(0) - 1,
          index);
    const uint8_t* in = images.data<uint8_t>() + index * channels * plane;
    if (!augmentations_.empty()) {
      std::copy(in, in + channels * plane, image.pixels.begin());
      // 2^40 examples and 2^24 epochs, then the streams repeat.
      Generator random(seed ^ kAugmentationDomain, static_cast<uint64_t>(epoch) << 40 ^ static_cast<uint64_t>(index));
      for (const Augmentation& step : augmentations_) {
        std::visit([&](const auto& options) { apply(options, random, image); }, step);
      }
    }
    for (int64_t c = 0; c < channels; ++c, out += plane) {
      const Normalizer& normalize = normalizers[static_cast<size_t>(c)];
      if (augmentations_.empty())
        normalize(in + c * plane, out, plane);
      else
        normalize(image.pixels.data() + c * plane, out, plane);
    }
  }
  return batch;
}

Tensor Transform::normalize(const Tensor& images) const {
  std::vector<int64_t> all(static_cast<size_t>(images.size(0)));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  return Transform(mean_, stddev_)(images.contiguous(), all);
}

}  // namespace espalier
