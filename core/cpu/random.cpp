// Random numbers from Philox blocks. The counter of a block is (block, stream) and the key is the seed, each as two
// 32-bit words, low word first. Values are numbered in row-major order:
//   f32 uniform    value i: word i%4 of block offset + i/4, its upper 24 bits
//   f64 uniform    value i: words 2(i%2) and 2(i%2)+1 of block offset + i/2, the upper 53 of their 64 bits
//   f32 normal     a block gives four values: Box-Muller pairs of words 0, 1 and of words 2, 3; the first word of a
//                  pair gives the radius (f32(word) + 1) / 2^32, the second the angle, its upper 24 bits of a turn
//   f64 normal     a block gives two values: one Box-Muller pair of words 0, 1 and words 2, 3
//   bernoulli      any dtype, value i: word i%4 of block offset + i/4 is below p * 2^32
#include <cmath>

#include "core/cpu/iterate.h"
#include "core/cpu/table.h"
#include "core/cpu/vector_math.h"

namespace espalier::cpu {
namespace {

constexpr int kBatch = 64;  // blocks computed side by side: enough that the compiler makes vector loops of them

/// Words of the blocks first .. first + kBatch - 1: words[w][b] is word w of the b-th block.
struct Batch {
  uint32_t words[4][kBatch];

  Batch(const PhiloxState& state, uint64_t first) {
    uint32_t(&c)[4][kBatch] = words;
#pragma omp simd
    for (int b = 0; b < kBatch; ++b) {
      const uint64_t block = first + static_cast<uint64_t>(b);
      c[0][b] = static_cast<uint32_t>(block);
      c[1][b] = static_cast<uint32_t>(block >> 32);
      c[2][b] = static_cast<uint32_t>(state.stream);
      c[3][b] = static_cast<uint32_t>(state.stream >> 32);
    }
    // The same ten rounds as philox() in core/random.h.
    uint32_t key0 = static_cast<uint32_t>(state.seed), key1 = static_cast<uint32_t>(state.seed >> 32);
    for (int round = 0; round < 10; ++round) {
#pragma omp simd
      for (int b = 0; b < kBatch; ++b) {
        const uint64_t product0 = uint64_t{0xD2511F53u} * c[0][b];
        const uint64_t product1 = uint64_t{0xCD9E8D57u} * c[2][b];
        c[0][b] = static_cast<uint32_t>(product1 >> 32) ^ c[1][b] ^ key0;
        c[2][b] = static_cast<uint32_t>(product0 >> 32) ^ c[3][b] ^ key1;
        c[1][b] = static_cast<uint32_t>(product1);
        c[3][b] = static_cast<uint32_t>(product0);
      }
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
  }
};

float uniform_of(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

uint64_t joined(uint32_t high, uint32_t low) { return uint64_t{high} << 32 | low; }
double uniform_of(uint32_t high, uint32_t low) { return static_cast<double>(joined(high, low) >> 11) * 0x1p-53; }

template <class T>
struct Pair {
  T first, second;
};

/// Two independent standard normals (Box & Muller 1958) from a radius in (0, 1] and an angle in turns.
template <class T>
Pair<T> box_muller(T radius, T turn) {
  const T length = std::sqrt(T{-2} * vector_math::log(radius));
  const auto [sine, cosine] = vector_math::sincos_turn(turn);
  return {length * cosine, length * sine};
}

/// Fills a contiguous out: make(batch, values) gives value w of block b as values[w][b], batch after batch.
template <int PerBlock, class T, class Make>
void generate(const PhiloxState& state, T* out, int64_t n, Make make) {
  constexpr int64_t kValues = int64_t{kBatch} * PerBlock;
  const int64_t batches = (n + kValues - 1) / kValues;
  parallel_for(batches, std::max<int64_t>(1, kGrain / 4 / kValues), [&](int64_t begin, int64_t end) {
    T values[PerBlock][kBatch], ordered[kValues];
    for (int64_t i = begin; i < end; ++i) {
      make(Batch(state, state.offset + static_cast<uint64_t>(i) * kBatch), values);
#pragma omp simd
      for (int b = 0; b < kBatch; ++b) {
        for (int w = 0; w < PerBlock; ++w) ordered[PerBlock * b + w] = values[w][b];
      }
      std::copy_n(ordered, std::min(kValues, n - i * kValues), out + i * kValues);
    }
  });
}

/// Calls fill on `out`, or on a contiguous tensor that is then copied there: values are numbered in row-major order.
template <class F>
void contiguously(Tensor& out, F&& fill) {
  if (out.is_contiguous()) return fill(out);
  Tensor values = Tensor::empty(out.shape(), out.dtype());
  fill(values);
  cpu::copy(values, out);
}

}  // namespace

void uniform(const PhiloxState& state, double low, double high, Tensor& out) {
  contiguously(out, [&](Tensor& to) {
    const int64_t n = to.numel();
    if (to.dtype() == DType::f64) {
      generate<2>(state, to.data<double>(), n, [=](const Batch& batch, double(&values)[2][kBatch]) {
#pragma omp simd
        for (int b = 0; b < kBatch; ++b) {
          values[0][b] = low + (high - low) * uniform_of(batch.words[0][b], batch.words[1][b]);
          values[1][b] = low + (high - low) * uniform_of(batch.words[2][b], batch.words[3][b]);
        }
      });
      return;
    }
    const float start = static_cast<float>(low), width = static_cast<float>(high - low);
    // Rounding may carry start + width * u up to the excluded bound.
    const float last = width > 0 ? std::nextafter(static_cast<float>(high), start) : start;
    generate<4>(state, to.data<float>(), n, [=](const Batch& batch, float(&values)[4][kBatch]) {
      for (int w = 0; w < 4; ++w) {
#pragma omp simd
        for (int b = 0; b < kBatch; ++b) {
          const float value = start + width * uniform_of(batch.words[w][b]);
          values[w][b] = value > last ? last : value;
        }
      }
    });
  });
}

void normal(const PhiloxState& state, double mean, double stddev, Tensor& out) {
  contiguously(out, [&](Tensor& to) {
    const int64_t n = to.numel();
    if (to.dtype() == DType::f64) {
      generate<2>(state, to.data<double>(), n, [=](const Batch& batch, double(&values)[2][kBatch]) {
#pragma omp simd
        for (int b = 0; b < kBatch; ++b) {
          // 1 - u lies in (0, 1]: its logarithm is finite.
          const auto pair = box_muller(1.0 - uniform_of(batch.words[0][b], batch.words[1][b]),
                                       uniform_of(batch.words[2][b], batch.words[3][b]));
          values[0][b] = mean + stddev * pair.first;
          values[1][b] = mean + stddev * pair.second;
        }
      });
      return;
    }
    const float center = static_cast<float>(mean), scale = static_cast<float>(stddev);
    generate<4>(state, to.data<float>(), n, [=](const Batch& batch, float(&values)[4][kBatch]) {
      for (int half = 0; half < 2; ++half) {
#pragma omp simd
        for (int b = 0; b < kBatch; ++b) {
          // All 32 bits go into the radius, so that the tails reach 6.6 standard deviations.
          const float radius = (static_cast<float>(batch.words[2 * half][b]) + 1.0f) * 0x1p-32f;
          const auto pair = box_muller(radius, uniform_of(batch.words[2 * half + 1][b]));
          values[2 * half][b] = center + scale * pair.first;
          values[2 * half + 1][b] = center + scale * pair.second;
        }
      }
    });
  });
}

void bernoulli(const PhiloxState& state, double p, Tensor& out) {
  const auto below = static_cast<uint64_t>(std::llround(std::clamp(p, 0.0, 1.0) * 0x1p32));
  const bool always = below >> 32;  // 2^32 doesn't fit a word
  const auto threshold = static_cast<uint32_t>(below);
  contiguously(out, [&](Tensor& to) {
    dispatch(to.dtype(), [&](auto zero) {
      using T = decltype(zero);
      generate<4>(state, to.data<T>(), to.numel(), [=](const Batch& batch, T(&values)[4][kBatch]) {
        for (int w = 0; w < 4; ++w) {
#pragma omp simd
          for (int b = 0; b < kBatch; ++b) values[w][b] = ((batch.words[w][b] < threshold) | always) ? T{1} : T{0};
        }
      });
    });
  });
}

}  // namespace espalier::cpu
