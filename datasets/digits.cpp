#include "datasets/digits.h"

#include <algorithm>
#include <array>
#include <numeric>

#include <zlib.h>

#include "datasets/digits_data.h"

namespace espalier {
namespace {

constexpr int64_t kCount = 1797;
constexpr int64_t kTest = 360;
constexpr int64_t kPixels = 64;

std::vector<uint8_t> decode_base64(std::string_view text) {
  std::array<uint8_t, 256> values = {};
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kAlphabet.size(); ++i) values[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint8_t>(i);
  std::vector<uint8_t> bytes;
  bytes.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    if (c == '=') break;
    bits = bits << 6 | values[static_cast<uint8_t>(c)];
    count += 6;
    if (count >= 8) bytes.push_back(static_cast<uint8_t>(bits >> (count -= 8)));
  }
  return bytes;
}

}  // namespace

Dataset all_digits() {
  const std::vector<uint8_t> packed = decode_base64(kDigitsBase64);
  std::vector<uint8_t> columns((kPixels + 1) * kCount);
  uLongf size = columns.size();
  const int code = uncompress(columns.data(), &size, packed.data(), packed.size());
  check(code == Z_OK && size == columns.size(), "load_digits",
        "expected {} embedded bytes, got {}; rebuild the library", columns.size(), size);

  Dataset digits{.name = "digits",
                 .source = "embedded",
                 .images = Tensor::empty({kCount, 1, 8, 8}, DType::u8),
                 .labels = Tensor::empty({kCount}, DType::i64),
                 .class_names = dataset_info("digits").class_names};
  uint8_t* images = digits.images.data<uint8_t>();
  int64_t* labels = digits.labels.data<int64_t>();
  for (int64_t n = 0; n < kCount; ++n) {
    for (int64_t p = 0; p < kPixels; ++p) {
      images[n * kPixels + p] = static_cast<uint8_t>((columns[static_cast<size_t>(p * kCount + n)] * 255 + 8) / 16);
    }
    labels[n] = columns[static_cast<size_t>(kPixels * kCount + n)];
  }
  return digits;
}

Splits load_digits() {
  const Dataset all = all_digits();
  const int64_t* labels = all.labels.data<int64_t>();
  std::vector<int64_t> order(kCount);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return labels[a] < labels[b]; });
  std::vector<int64_t> train, test;
  for (int64_t i = 0; i < kCount; ++i) {
    const bool for_test = (i + 1) * kTest / kCount > i * kTest / kCount;
    (for_test ? test : train).push_back(order[static_cast<size_t>(i)]);
  }
  std::sort(train.begin(), train.end());
  std::sort(test.begin(), test.end());
  Splits splits{all.subset(train), all.subset(test)};
  compute_statistics(splits.train);
  splits.test.mean = splits.train.mean;
  splits.test.stddev = splits.train.stddev;
  return splits;
}

}  // namespace espalier
