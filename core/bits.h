// Words of bits: what Mask holds and selection works on. i64 tensors on any device, 64 bits a word, the lowest first;
// bits behind the last are 0.
#pragma once

#include "core/kernels.h"
#include "core/tensor.h"

namespace espalier {

constexpr int64_t kWordBits = 64;

constexpr int64_t words_for(int64_t bits) { return (bits + kWordBits - 1) / kWordBits; }

/// Words with the lowest `bits` bits set.
Tensor full_words(int64_t bits, Device device = Device::cpu());
/// Words combined bit by bit; both of one number and device.
Tensor combine_bits(BitOp op, const Tensor& a, const Tensor& b);
/// How many bits are set.
int64_t count_bits(const Tensor& words);
/// The `count` highest of the bits that are set, or all when there are fewer.
Tensor highest_bits(const Tensor& words, int64_t count);

}  // namespace espalier
