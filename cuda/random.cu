// Random numbers, the CPU's values: core/backend/random.h says which word of which block each comes from. Uniform
// numbers and Bernoulli trials are the CPU's bits, normal ones to a few units in the last place.
#include <cmath>

#include "core/backend/random.h"
#include "core/random.h"
#include "cuda/elementwise.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

struct Words {
  uint32_t of[4];
};

__device__ Words block_of(const PhiloxState& state, uint64_t block) {
  const auto words = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                             static_cast<uint32_t>(state.stream), static_cast<uint32_t>(state.stream >> 32)},
                            {static_cast<uint32_t>(state.seed), static_cast<uint32_t>(state.seed >> 32)});
  return {{words[0], words[1], words[2], words[3]}};
}

/// One block of words for each thread, and the values that `make` draws from it.
template <int PerBlock, class T, class Make>
__global__ void generate(PhiloxState state, IndexSpace<1> space, bool dense, Make make, T* out) {
  const int64_t blocks = (space.numel + PerBlock - 1) / PerBlock;
  for (int64_t b = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; b < blocks; b += int64_t{gridDim.x} * blockDim.x) {
    const Pack<T, PerBlock> values = make(block_of(state, state.offset + static_cast<uint64_t>(b)));
    const int64_t first = b * PerBlock;
    if (dense && first + PerBlock <= space.numel) {
      reinterpret_cast<Pack<T, PerBlock>*>(out)[b] = values;
    } else {
      for (int v = 0; v < PerBlock; ++v) {
        if (first + v >= space.numel) continue;
        int64_t at[1];
        space.offsets(first + v, at);
        out[at[0]] = values.of[v];
      }
    }
  }
}

template <int PerBlock, class T, class Make>
void generate_into(const char* name, const PhiloxState& state, Make make, Tensor& out) {
  if (out.numel() == 0) return;
  Context& context = Context::of(out.device());
  const IndexSpace<1> space(out.shape(), {out.strides()});
  T* const to = out.data<T>();
  const bool dense = space.contiguous() && reinterpret_cast<uintptr_t>(to) % sizeof(Pack<T, PerBlock>) == 0;
  launch(context,
         {name, blocks_for(context, (space.numel + PerBlock - 1) / PerBlock, kElementwiseThreads), kElementwiseThreads},
         generate<PerBlock, T, Make>, state, space, dense, make, to);
}

struct Uniform32 {
  UniformRange range;
  __device__ Pack<float, 4> operator()(const Words& words) const {
    Pack<float, 4> values;
    for (int w = 0; w < 4; ++w) values.of[w] = range.of(words.of[w]);
    return values;
  }
};

struct Uniform64 {
  double start, width;
  __device__ Pack<double, 2> operator()(const Words& words) const {
    return {
        {start + width * uniform_of(words.of[0], words.of[1]), start + width * uniform_of(words.of[2], words.of[3])}};
  }
};

/// Two independent standard normals (Box & Muller 1958) from a radius in (0, 1] and an angle in turns.
template <class T>
__device__ Pack<T, 2> box_muller(T radius, T turn) {
  // Quarter turns are taken off exactly: sine and cosine then see at most an eighth of a turn.
  const T quarters = std::rint(turn * T{4});
  const T angle = (turn - quarters * T{0.25}) * static_cast<T>(6.283185307179586476925286766559);
  const T s = std::sin(angle), c = std::cos(angle);
  const int quarter = static_cast<int>(quarters);
  const T sine = quarter & 1 ? c : s, cosine = quarter & 1 ? s : c;
  const T length = std::sqrt(T{-2} * std::log(radius));
  return {{length * ((quarter + 1) & 2 ? -cosine : cosine), length * (quarter & 2 ? -sine : sine)}};
}

struct Normal32 {
  float mean, stddev;
  __device__ Pack<float, 4> operator()(const Words& words) const {
    Pack<float, 4> values;
    for (int half = 0; half < 2; ++half) {
      const Pack<float, 2> pair = box_muller(radius_of(words.of[2 * half]), uniform_of(words.of[2 * half + 1]));
      values.of[2 * half] = mean + stddev * pair.of[0];
      values.of[2 * half + 1] = mean + stddev * pair.of[1];
    }
    return values;
  }
};

struct Normal64 {
  double mean, stddev;
  __device__ Pack<double, 2> operator()(const Words& words) const {
    const Pack<double, 2> pair = box_muller(radius_of(words.of[0], words.of[1]), uniform_of(words.of[2], words.of[3]));
    return {{mean + stddev * pair.of[0], mean + stddev * pair.of[1]}};
  }
};

template <class T>
struct Bernoulli {
  Trial trial;
  __device__ Pack<T, 4> operator()(const Words& words) const {
    Pack<T, 4> values;
    for (int w = 0; w < 4; ++w) values.of[w] = trial.succeeds(words.of[w]) ? T{1} : T{0};
    return values;
  }
};

}  // namespace

void uniform(const PhiloxState& state, double low, double high, Tensor& out) {
  if (out.dtype() == DType::f64) return generate_into<2, double>("uniform", state, Uniform64{low, high - low}, out);
  generate_into<4, float>("uniform", state, Uniform32{UniformRange(low, high)}, out);
}

void normal(const PhiloxState& state, double mean, double stddev, Tensor& out) {
  if (out.dtype() == DType::f64) return generate_into<2, double>("normal", state, Normal64{mean, stddev}, out);
  const Normal32 make{static_cast<float>(mean), static_cast<float>(stddev)};
  generate_into<4, float>("normal", state, make, out);
}

void bernoulli(const PhiloxState& state, double p, Tensor& out) {
  dispatch(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    generate_into<4, T>("bernoulli", state, Bernoulli<T>{Trial(p)}, out);
  });
}

}  // namespace espalier::cuda
