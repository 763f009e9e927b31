// Random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// Counter-based: value i of a stream depends on (seed, stream, i) only, never on threads or device.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace espalier {

/// The ten-round Philox4x32 block function: four 32-bit words from a 128-bit counter and a 64-bit key.
constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

/// Where a generator stands. Saved in checkpoints.
struct PhiloxState {
  uint64_t seed = 0;
  uint64_t stream = 0;  ///< independent sequences of one seed
  uint64_t offset = 0;  ///< blocks of four words already used
  bool operator==(const PhiloxState&) const = default;
};

/// A stream of random numbers. Not thread-safe: one generator for each consumer.
class Generator {
 public:
  explicit Generator(uint64_t seed = 0, uint64_t stream = 0) : state_{seed, stream, 0} {}

  const PhiloxState& state() const { return state_; }
  void set_state(const PhiloxState& state) { state_ = state; }

  /// Claims `blocks` counter blocks and returns where they start; kernels compute the values from it.
  /// Four f32 values (or Bernoulli values of any dtype) take a block, or two f64 values.
  PhiloxState reserve(uint64_t blocks);

  uint32_t next_u32();
  /// Uniform in [0, 1), 24 random bits.
  float next_uniform();
  /// Standard normal (Box-Muller).
  float next_normal();
  /// Uniform in [0, n), without bias (rejection).
  uint64_t next_below(uint64_t n);
  /// A random order of 0..n-1 (Fisher-Yates).
  std::vector<int64_t> permutation(int64_t n);

 private:
  /// One block for each call of next_...: state() is all there is to save, no words are held back.
  std::array<uint32_t, 4> next_block();

  PhiloxState state_;
};

/// The generator that dropout and initialisers use when none is named. One for each thread.
Generator& default_generator();
void set_seed(uint64_t seed);

/// Uniform in [low, high).
void uniform_(Tensor& out, double low = 0, double high = 1, Generator& generator = default_generator());
void normal_(Tensor& out, double mean = 0, double stddev = 1, Generator& generator = default_generator());
/// 1 with probability p, else 0; any dtype.
void bernoulli_(Tensor& out, double p, Generator& generator = default_generator());
Tensor rand(const Shape& shape, Generator& generator = default_generator(), DType dtype = DType::f32);
Tensor randn(const Shape& shape, Generator& generator = default_generator(), DType dtype = DType::f32);

}  // namespace espalier
