// Random numbers: core/backend/random.h says which word of which block each value comes from.
#include <cmath>

#include "core/backend/random.h"
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
    const UniformRange range(low, high);
    generate<4>(state, to.data<float>(), n, [=](const Batch& batch, float(&values)[4][kBatch]) {
      for (int w = 0; w < 4; ++w) {
#pragma omp simd
        for (int b = 0; b < kBatch; ++b) values[w][b] = range.of(batch.words[w][b]);
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
          const auto pair = box_muller(radius_of(batch.words[0][b], batch.words[1][b]),
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
          const auto pair = box_muller(radius_of(batch.words[2 * half][b]), uniform_of(batch.words[2 * half + 1][b]));
          values[2 * half][b] = center + scale * pair.first;
          values[2 * half + 1][b] = center + scale * pair.second;
        }
      }
    });
  });
}

void bernoulli(const PhiloxState& state, double p, Tensor& out) {
  const Trial trial(p);
  contiguously(out, [&](Tensor& to) {
    dispatch(to.dtype(), [&](auto zero) {
      using T = decltype(zero);
      generate<4>(state, to.data<T>(), to.numel(), [=](const Batch& batch, T(&values)[4][kBatch]) {
        for (int w = 0; w < 4; ++w) {
#pragma omp simd
          for (int b = 0; b < kBatch; ++b) values[w][b] = trial.succeeds(batch.words[w][b]) ? T{1} : T{0};
        }
      });
    });
  });
}

}  // namespace espalier::cpu
