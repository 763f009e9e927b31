#include "datasets/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/random.h"

namespace espalier {

Dataset Dataset::subset(const std::vector<int64_t>& indices) const {
  Dataset part = *this;
  const int64_t count = static_cast<int64_t>(indices.size());
  const size_t image_bytes = static_cast<size_t>(size() > 0 ? images.numel() / size() : 0);
  Shape shape = images.shape();
  shape[0] = count;
  part.images = Tensor::empty(shape, DType::u8);
  part.labels = Tensor::empty({count}, DType::i64);
  const Tensor from_images = images.contiguous(), from_labels = labels.contiguous();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = indices[static_cast<size_t>(i)];
    check(index >= 0 && index < size(), "subset", "expected indices in 0..{} of '{}', got {}", size() - 1, name, index);
    std::memcpy(part.images.data<uint8_t>() + static_cast<size_t>(i) * image_bytes,
                from_images.data<uint8_t>() + static_cast<size_t>(index) * image_bytes, image_bytes);
    part.labels.data<int64_t>()[i] = from_labels.data<int64_t>()[index];
  }
  return part;
}

Dataset Dataset::first(int64_t count) const {
  Dataset part = *this;
  count = std::clamp<int64_t>(count, 0, size());
  part.images = images.slice(0, 0, count);
  part.labels = labels.slice(0, 0, count);
  return part;
}

TrainValidation split_validation(const Dataset& train, double size, uint64_t seed) {
  const int64_t total = train.size();
  const int64_t count = std::llround(size < 1 ? size * static_cast<double>(total) : size);
  check(size > 0 && count >= 1 && count < total, "split_validation",
        "expected a fraction in (0,1) or a count below the {} examples of '{}', got {}", total, train.name, size);

  const Tensor label_tensor = train.labels.contiguous();
  const int64_t* labels = label_tensor.data<int64_t>();
  std::vector<std::vector<int64_t>> by_class(static_cast<size_t>(train.num_classes()));
  for (int64_t i = 0; i < total; ++i) by_class[static_cast<size_t>(labels[i])].push_back(i);

  // The examples class after class, each class in random order; evenly spaced ones are taken, so that a class gives its
  // share to within one and the parts add up to `count`.
  std::vector<char> chosen(static_cast<size_t>(total), 0);
  Generator random(seed);
  int64_t position = 0;
  for (const std::vector<int64_t>& members : by_class) {
    for (int64_t i : random.permutation(static_cast<int64_t>(members.size()))) {
      const bool take = (position + 1) * count / total > position * count / total;
      chosen[static_cast<size_t>(members[static_cast<size_t>(i)])] = take;
      ++position;
    }
  }
  std::vector<int64_t> kept, taken;
  for (int64_t i = 0; i < total; ++i) (chosen[static_cast<size_t>(i)] ? taken : kept).push_back(i);
  return {train.subset(kept), train.subset(taken)};
}

void compute_statistics(Dataset& dataset) {
  const int64_t channels = dataset.channels(), plane = dataset.height() * dataset.width();
  const Tensor images = dataset.images.contiguous();
  const uint8_t* pixels = images.data<uint8_t>();
  std::vector<uint64_t> sums(static_cast<size_t>(channels)), squares(static_cast<size_t>(channels));
  constexpr int64_t kBlock = 1 << 15;  // a block's sum of squares fits into 32 bits: 2^15 * 255^2 < 2^32
  for (int64_t n = 0; n < dataset.size(); ++n) {
    for (int64_t c = 0; c < channels; ++c, pixels += plane) {
      for (int64_t begin = 0; begin < plane; begin += kBlock) {
        uint32_t sum = 0, square = 0;
        for (int64_t i = begin; i < std::min(plane, begin + kBlock); ++i) {
          const uint32_t v = pixels[i];
          sum += v;
          square += v * v;
        }
        sums[static_cast<size_t>(c)] += sum;
        squares[static_cast<size_t>(c)] += square;
      }
    }
  }
  const double count = static_cast<double>(dataset.size() * plane);
  dataset.mean.clear();
  dataset.stddev.clear();
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = static_cast<double>(sums[static_cast<size_t>(c)]) / count;
    const double variance = static_cast<double>(squares[static_cast<size_t>(c)]) / count - mean * mean;
    dataset.mean.push_back(static_cast<float>(mean / 255));
    // Images all alike have nothing to normalise; 1 keeps them finite.
    dataset.stddev.push_back(variance > 1e-9 ? static_cast<float>(std::sqrt(variance) / 255) : 1.0f);
  }
}

}  // namespace espalier
