#include "core/random.h"

#include <atomic>
#include <cmath>

#include "core/kernels.h"

namespace espalier {
namespace {

void require(const Tensor& out, const char* operation) {
  check(out.defined(), operation, "expected a tensor, got an undefined one");
}

void require_floating(const Tensor& out, const char* operation) {
  require(out, operation);
  check(is_floating(out.dtype()), operation, "expected f32 or f64, got {}", describe(out));
}

/// Blocks that n values take: four f32 values come from a block, or two f64 values.
uint64_t blocks_for(int64_t n, DType dtype) {
  const int64_t per_block = dtype == DType::f64 ? 2 : 4;
  return static_cast<uint64_t>((n + per_block - 1) / per_block);
}

}  // namespace

PhiloxState Generator::reserve(uint64_t blocks) {
  const PhiloxState start = state_;
  state_.offset += blocks;
  return start;
}

std::array<uint32_t, 4> Generator::next_block() {
  const PhiloxState at = reserve(1);
  return philox({static_cast<uint32_t>(at.offset), static_cast<uint32_t>(at.offset >> 32),
                 static_cast<uint32_t>(at.stream), static_cast<uint32_t>(at.stream >> 32)},
                {static_cast<uint32_t>(at.seed), static_cast<uint32_t>(at.seed >> 32)});
}

uint32_t Generator::next_u32() { return next_block()[0]; }

float Generator::next_uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }

float Generator::next_normal() {
  const std::array<uint32_t, 4> words = next_block();
  const double radius = (static_cast<double>(words[0]) + 1.0) * 0x1p-32;  // in (0, 1]
  const double turn = static_cast<double>(words[1]) * 0x1p-32;
  return static_cast<float>(std::sqrt(-2.0 * std::log(radius)) * std::cos(6.283185307179586 * turn));
}

uint64_t Generator::next_below(uint64_t n) {
  check(n > 0, "next_below", "expected a bound of at least 1, got 0");
  // 2^64 mod n values at the low end would make some remainders more likely than others.
  const uint64_t rejected = (0 - n) % n;
  for (;;) {
    const std::array<uint32_t, 4> words = next_block();
    for (int pair = 0; pair < 2; ++pair) {
      const uint64_t value = uint64_t{words[2 * pair]} << 32 | words[2 * pair + 1];
      if (value >= rejected) return value % n;
    }
  }
}

std::vector<int64_t> Generator::permutation(int64_t n) {
  check(n >= 0, "permutation", "expected a length of at least 0, got {}", n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = i;
  for (int64_t i = n - 1; i > 0; --i) {
    std::swap(order[static_cast<size_t>(i)], order[next_below(static_cast<uint64_t>(i) + 1)]);
  }
  return order;
}

Generator& default_generator() {
  // Threads get streams of their own in the order of their first use; set_seed puts its thread on stream 0.
  static std::atomic<uint64_t> threads = 0;
  thread_local Generator generator(0, threads.fetch_add(1, std::memory_order_relaxed));
  return generator;
}

void set_seed(uint64_t seed) { default_generator().set_state({.seed = seed, .stream = 0, .offset = 0}); }

void uniform_(Tensor& out, double low, double high, Generator& generator) {
  require_floating(out, "uniform_");
  check(low <= high && std::isfinite(high - low), "uniform_", "expected finite bounds low <= high, got {} and {}", low,
        high);
  kernels(out.device()).uniform(generator.reserve(blocks_for(out.numel(), out.dtype())), low, high, out);
  out.bump_version();
}

void normal_(Tensor& out, double mean, double stddev, Generator& generator) {
  require_floating(out, "normal_");
  check(stddev >= 0, "normal_", "expected a standard deviation of at least 0, got {}", stddev);
  kernels(out.device()).normal(generator.reserve(blocks_for(out.numel(), out.dtype())), mean, stddev, out);
  out.bump_version();
}

void bernoulli_(Tensor& out, double p, Generator& generator) {
  require(out, "bernoulli_");
  check(p >= 0 && p <= 1, "bernoulli_", "expected a probability from 0 to 1, got {}", p);
  // One word for each value whatever the dtype: the same mask in f32 and f64.
  kernels(out.device()).bernoulli(generator.reserve(blocks_for(out.numel(), DType::f32)), p, out);
  out.bump_version();
}

Tensor rand(const Shape& shape, Generator& generator, DType dtype) {
  Tensor out = Tensor::empty(shape, dtype);
  uniform_(out, 0, 1, generator);
  return out;
}

Tensor randn(const Shape& shape, Generator& generator, DType dtype) {
  Tensor out = Tensor::empty(shape, dtype);
  normal_(out, 0, 1, generator);
  return out;
}

}  // namespace espalier
