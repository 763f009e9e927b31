#include "core/bits.h"

#include <bit>
#include <vector>

namespace espalier {
namespace {

/// One word of a number.
Tensor word(uint64_t bits) { return Tensor::from<int64_t>({static_cast<int64_t>(bits)}, {1}); }

}  // namespace

Tensor full_words(int64_t bits, Device device) {
  Tensor words = Tensor::full({words_for(bits)}, -1, DType::i64, device);
  if (bits % kWordBits != 0)
    words.slice(0, bits / kWordBits, words.numel()).copy_(word((uint64_t{1} << (bits % kWordBits)) - 1));
  return words;
}

Tensor combine_bits(BitOp op, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.device() == b.device(), "combine_bits",
        "expected words of one number and device, got {} and {}", describe(a), describe(b));
  Tensor out = Tensor::empty_like(a);
  kernels(a.device()).combine_bits(op, a, b, out);
  return out;
}

int64_t count_bits(const Tensor& words) {
  Tensor count = Tensor::empty({1}, DType::i64, words.device());
  kernels(words.device()).count_bits(words, count);
  return count.to_vector<int64_t>().front();
}

Tensor highest_bits(const Tensor& words, int64_t count) {
  const int64_t all = words.numel();
  if (count_bits(words) <= count) return words;
  // The last word from which on there are more than `count`; only counts and one word come to the host.
  int64_t last = 0, behind = all;
  while (behind - last > 1) {
    const int64_t middle = (last + behind) / 2;
    (count_bits(words.slice(0, middle, all)) > count ? last : behind) = middle;
  }
  Tensor highest = words.clone();
  highest.slice(0, 0, last).fill_(0);
  auto partly = static_cast<uint64_t>(words.slice(0, last, last + 1).to_vector<int64_t>().front());
  for (int64_t excess = count_bits(words.slice(0, last, all)) - count; excess > 0; --excess) partly &= partly - 1;
  highest.slice(0, last, last + 1).copy_(word(partly));
  return highest;
}

}  // namespace espalier
