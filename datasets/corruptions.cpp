#include "datasets/corruptions.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <numbers>
#include <numeric>
#include <utility>

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/random.h"
#include "datasets/planes.h"

namespace espalier {

namespace {

// Keeps corruption apart from everything else that draws from the same seed.
constexpr uint64_t kCorruptionDomain = 0x636f727275707401;
constexpr float kWhite = 255;

/// Changes every pixel by itself: value = f(value).
template <class F>
void each_pixel(Planes& image, F&& f) {
  for (float& pixel : image.pixels) pixel = f(pixel);
}

/// Calls f(y, x) for every place of an image.
template <class F>
void each_place(const Planes& image, F&& f) {
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x) f(y, x);
}

float& at(Planes& image, int64_t c, int64_t y, int64_t x) {
  return image.pixels[static_cast<size_t>(c * image.plane() + y * image.width + x)];
}

/// 1 or -1, each half of the time.
double sign(Generator& random) { return random.next_below(2) == 0 ? 1 : -1; }

void noise(Planes& image, Generator& random) {
  each_pixel(image, [&](float pixel) { return pixel + 0.15f * kWhite * random.next_normal(); });
}

void speckle(Planes& image, Generator& random) {
  each_pixel(image, [&](float pixel) { return pixel * (1 + 0.4f * random.next_normal()); });
}

void salt_and_pepper(Planes& image, Generator& random) {
  each_place(image, [&](int64_t y, int64_t x) {
    if (random.next_uniform() >= 0.05f) return;
    const float value = random.next_below(2) == 0 ? 0 : kWhite;
    for (int64_t c = 0; c < image.channels; ++c) at(image, c, y, x) = value;
  });
}

/// Means along one axis with these weights, of odd number and sum 1; border pixels are repeated outwards.
template <size_t N>
void smooth(Planes& image, const std::array<float, N>& weights, bool along_x) {
  constexpr auto kReach = static_cast<int64_t>(N / 2);
  for (int64_t c = 0; c < image.channels; ++c) {
    each_place(image, [&](int64_t y, int64_t x) {
      float sum = 0;
      for (int64_t k = -kReach; k <= kReach; ++k) {
        const int64_t row = along_x ? y : std::clamp<int64_t>(y + k, 0, image.height - 1);
        const int64_t column = along_x ? std::clamp<int64_t>(x + k, 0, image.width - 1) : x;
        sum += weights[static_cast<size_t>(k + kReach)] * at(image, c, row, column);
      }
      image.scratch[static_cast<size_t>(c * image.plane() + y * image.width + x)] = sum;
    });
  }
  std::swap(image.pixels, image.scratch);
}

void blur(Planes& image, Generator&) {
  std::array<float, 7> weights{};  // a Gaussian of standard deviation 1, cut off at 3
  for (size_t i = 0; i < weights.size(); ++i) {
    const float distance = static_cast<float>(i) - 3;
    weights[i] = std::exp(-distance * distance / 2);
  }
  const float sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
  for (float& weight : weights) weight /= sum;
  smooth(image, weights, true);
  smooth(image, weights, false);
}

void motion(Planes& image, Generator& random) {
  std::array<float, 5> weights{};
  weights.fill(1.0f / 5);
  smooth(image, weights, random.next_below(2) == 0);
}

void pixelate(Planes& image, Generator&) {
  constexpr int64_t kSide = 2;
  for (int64_t c = 0; c < image.channels; ++c) {
    for (int64_t top = 0; top < image.height; top += kSide) {
      for (int64_t left = 0; left < image.width; left += kSide) {
        const int64_t bottom = std::min(top + kSide, image.height), right = std::min(left + kSide, image.width);
        float sum = 0;
        for (int64_t y = top; y < bottom; ++y)
          for (int64_t x = left; x < right; ++x) sum += at(image, c, y, x);
        const float mean = sum / static_cast<float>((bottom - top) * (right - left));
        for (int64_t y = top; y < bottom; ++y)
          for (int64_t x = left; x < right; ++x) at(image, c, y, x) = mean;
      }
    }
  }
}

void contrast(Planes& image, Generator&) {
  const double sum = std::accumulate(image.pixels.begin(), image.pixels.end(), 0.0);
  const auto mean = static_cast<float>(sum / static_cast<double>(image.pixels.size()));
  each_pixel(image, [&](float pixel) { return mean + 0.4f * (pixel - mean); });
}

void brightness(Planes& image, Generator&) {
  each_pixel(image, [](float pixel) { return pixel + 0.2f * kWhite; });
}

void shift(Planes& image, Generator& random) {
  const double down = 2 * sign(random), right = 2 * sign(random);
  apply(Warp{.shift_y = down, .shift_x = right}, image);
}

void rotation(Planes& image, Generator& random) {
  apply(Warp{.radians = sign(random) * 20 * std::numbers::pi / 180}, image);
}

void zoom(Planes& image, Generator& random) { apply(Warp{.scale = random.next_below(2) == 0 ? 0.75 : 1.25}, image); }

void occlusion(Planes& image, Generator& random) {
  const int64_t height = image.height / 3, width = image.width / 3;
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random.next_below(static_cast<uint64_t>(n))); };
  const int64_t top = below(image.height - height + 1), left = below(image.width - width + 1);
  for (int64_t c = 0; c < image.channels; ++c)
    for (int64_t y = top; y < top + height; ++y)
      for (int64_t x = left; x < left + width; ++x) at(image, c, y, x) = 128;
}

struct Corruption {
  const char *name, *description;
  void (*apply)(Planes&, Generator&);
};
constexpr Corruption kCorruptions[] = {
    {"noise", "normal noise of standard deviation 0.15, pixels being 0 to 1", noise},
    {"speckle", "pixels times 1 + normal noise of standard deviation 0.4", speckle},
    {"salt-and-pepper", "5 % of the pixels become black or white", salt_and_pepper},
    {"blur", "a Gaussian blur of standard deviation 1 pixel", blur},
    {"motion", "means over 5 pixels, along rows or columns", motion},
    {"pixelate", "squares of 2x2 pixels become their mean", pixelate},
    {"contrast", "distances from the image's mean times 0.4", contrast},
    {"brightness", "0.2 is added to every pixel", brightness},
    {"shift", "2 pixels up or down and 2 to the left or right; black comes in", shift},
    {"rotation", "20 degrees to the left or right", rotation},
    {"zoom", "the image at 0.75 or 1.25 times its size", zoom},
    {"occlusion", "a grey rectangle of a third of height and width", occlusion},
};

}  // namespace

const std::vector<CorruptionInfo>& corruptions() {
  static const std::vector<CorruptionInfo> all = [] {
    std::vector<CorruptionInfo> list;
    for (const Corruption& c : kCorruptions) list.push_back({c.name, c.description});
    return list;
  }();
  return all;
}

Tensor corrupt(const Tensor& images, const std::string& name, uint64_t seed) {
  check(images.defined() && images.rank() == 4 && images.dtype() == DType::u8, "corrupt",
        "expected u8 images (N,C,H,W), got {}", images.defined() ? describe(images) : "an undefined tensor");
  const Corruption* found = std::find_if(std::begin(kCorruptions), std::end(kCorruptions),
                                         [&](const Corruption& c) { return c.name == name; });
  if (found == std::end(kCorruptions)) {
    std::vector<std::string> known;
    for (const Corruption& c : kCorruptions) known.emplace_back(c.name);
    fail("corrupt", "unknown corruption '{}'{}; known: {}", name, did_you_mean(name, known), fmt::join(known, ", "));
  }
  const Tensor source = images.contiguous();
  const auto size = static_cast<size_t>(images.size(1) * images.size(2) * images.size(3));
  Planes image{images.size(1), images.size(2), images.size(3), std::vector<float>(size), std::vector<float>(size)};
  Tensor result = Tensor::empty(images.shape(), DType::u8);
  const uint8_t* in = source.data<uint8_t>();
  uint8_t* out = result.data<uint8_t>();
  const auto which = static_cast<uint64_t>(found - std::begin(kCorruptions));
  for (int64_t i = 0; i < images.size(0); ++i, in += size, out += size) {
    std::copy(in, in + size, image.pixels.begin());
    Generator random(seed ^ kCorruptionDomain, which << 40 ^ static_cast<uint64_t>(i));
    found->apply(image, random);
    std::transform(image.pixels.begin(), image.pixels.end(), out,
                   [](float pixel) { return static_cast<uint8_t>(std::lround(std::clamp(pixel, 0.0f, kWhite))); });
  }
  return result;
}

}  // namespace espalier
