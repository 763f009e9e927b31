// Selection among many scores: a warp makes a word of bits by votes; blocks count ranks in shared memory.
#include "cuda/launch.h"
#include "cuda/mask.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kWordBits = 64;

__device__ bool compare(CompareOp op, double a, double b) {
  switch (op) {
    case CompareOp::eq: return a == b;
    case CompareOp::ne: return a != b;
    case CompareOp::lt: return a < b;
    case CompareOp::le: return a <= b;
    case CompareOp::gt: return a > b;
    default: return a >= b;
  }
}

/// Whether a score's rank compares as wanted.
template <class T>
struct RankIs {
  CompareOp op;
  const T* scores;
  Ranks ranks;
  double rank;

  __device__ bool operator()(int64_t unit) const { return compare(op, ranks(static_cast<double>(scores[unit])), rank); }
};

/// Whether fewer than n scores of the unit's group come before its own.
template <class T>
struct IsAmongBest {
  const T* scores;
  int64_t n, m;

  __device__ bool operator()(int64_t unit) const {
    const int64_t begin = unit / m * m;
    int64_t better = 0;
    for (int64_t other = begin; other < begin + m; ++other)
      better += scores[other] > scores[unit] || (scores[other] == scores[unit] && other < unit);
    return better < n;
  }
};

/// words: f(unit) of each unit.
template <class F>
__global__ void fill_words(int64_t units, int64_t count, F f, int64_t* words) {
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, lane = thread % kWarp;
  for (int64_t w = thread / kWarp; w < count; w += int64_t{gridDim.x} * blockDim.x / kWarp) {
    const int64_t low = w * kWordBits + lane, high = low + kWarp;
    const uint64_t low_bits = __ballot_sync(kFullWarp, low < units && f(low));
    const uint64_t high_bits = __ballot_sync(kFullWarp, high < units && f(high));
    if (lane == 0) words[w] = static_cast<int64_t>(low_bits | high_bits << kWarp);
  }
}

template <class F>
void fill(const char* name, const Tensor& scores, const F& f, Tensor& words) {
  if (words.numel() == 0) return;
  Context& context = Context::of(scores.device());
  launch(context, {name, blocks_for(context, words.numel() * kWarp, kThreads), kThreads}, fill_words<F>, scores.numel(),
         words.numel(), f, words.data<int64_t>());
}

template <class T>
__global__ void count_bins(int64_t units, const T* scores, const int64_t* words, Ranks ranks, RankBins bins,
                           unsigned long long* counts) {
  SHARED_ARRAY(unsigned, tally, RankBins::kCount);
  for (int bin = static_cast<int>(threadIdx.x); bin < RankBins::kCount; bin += kThreads) tally[bin] = 0;
  __syncthreads();
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < units; i += int64_t{gridDim.x} * blockDim.x) {
    if (!unit_exists(words, i)) continue;
    const uint64_t bin = bins.bin_of(ranks(static_cast<double>(scores[i])));
    if (bin < RankBins::kCount) atomicAdd(&tally[static_cast<int>(bin)], 1u);
  }
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < RankBins::kCount; bin += kThreads) {
    const unsigned count = tally[bin];
    if (count > 0) atomicAdd(counts + bin, static_cast<unsigned long long>(count));
  }
}

template <class T>
__global__ void sum_words(int64_t units, int64_t count, const T* scores, const int64_t* words, double* sums) {
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, lane = thread % kWarp;
  const auto size = [&](int64_t i) {
    return i < units && unit_exists(words, i) ? fabs(static_cast<double>(scores[i])) : 0.0;
  };
  for (int64_t w = thread / kWarp; w < count; w += int64_t{gridDim.x} * blockDim.x / kWarp) {
    const int64_t low = w * kWordBits + lane;
    double sum = size(low) + size(low + kWarp);
    for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) sum += __shfl_down_sync(kFullWarp, sum, distance);
    if (lane == 0) sums[w] = sum;
  }
}

}  // namespace

void compare_ranks(CompareOp op, const Tensor& scores, const Ranks& ranks, double rank, Tensor& words) {
  dispatch_floating(scores.dtype(), "compare_ranks", [&](auto zero) {
    using T = decltype(zero);
    fill("compare_ranks", scores, RankIs<T>{op, scores.data<T>(), ranks, rank}, words);
  });
}

void count_ranks(const Tensor& scores, const Tensor& words, const Ranks& ranks, const RankBins& bins, Tensor& counts) {
  cuda::fill(counts, 0);
  const int64_t units = scores.numel();
  if (units == 0) return;
  Context& context = Context::of(scores.device());
  // Blocks have enough units to be worth their table of counts.
  const unsigned blocks = blocks_for(context, units, RankBins::kCount);
  dispatch_floating(scores.dtype(), "count_ranks", [&](auto zero) {
    using T = decltype(zero);
    launch(context, {"count_ranks", blocks, kThreads}, count_bins<T>, units, scores.data<T>(), words.data<int64_t>(),
           ranks, bins, static_cast<unsigned long long*>(counts.raw()));
  });
}

void best_of_groups(const Tensor& scores, int64_t n, int64_t m, Tensor& words) {
  dispatch_floating(scores.dtype(), "best_of_groups", [&](auto zero) {
    using T = decltype(zero);
    fill("best_of_groups", scores, IsAmongBest<T>{scores.data<T>(), n, m}, words);
  });
}

void sum_sizes(const Tensor& scores, const Tensor& words, Tensor& sums) {
  if (words.numel() == 0) return;
  Context& context = Context::of(scores.device());
  dispatch_floating(scores.dtype(), "sum_sizes", [&](auto zero) {
    using T = decltype(zero);
    launch(context, {"sum_sizes", blocks_for(context, words.numel() * kWarp, kThreads), kThreads}, sum_words<T>,
           scores.numel(), words.numel(), scores.data<T>(), words.data<int64_t>(), sums.data<double>());
  });
}

}  // namespace espalier::cuda
