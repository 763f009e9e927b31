// Least significant digit first, eight bits a pass (Satish, Harris & Garland, "Designing efficient sorting algorithms
// for manycore GPUs", IPDPS 2009). A pass counts the digits of every tile, sums the counts up to where each tile's keys
// of each digit begin, and moves the keys there. Within a tile warps take consecutive keys, and the lanes of a warp
// find those with the same digit by votes: no key overtakes an equal one.
#include "cuda/radix_sort.h"

#include <limits>

namespace espalier::cuda {
namespace {

constexpr int kBits = 8, kDigits = 1 << kBits;
constexpr int kThreads = 256, kWarps = kThreads / kWarp;
static_assert(kThreads == kDigits, "a thread for each digit");
constexpr int kItems = 16;  // keys of a thread
constexpr int kTile = kThreads * kItems;

/// Tile t of line l has the keys t * kTile .. of that line. Counts are laid out (lines, digits, tiles), so that in a
/// line their running sum is where the keys go.
struct Pass {
  int64_t lines, n, tiles;
  int shift;

  template <class Key>
  __device__ unsigned digit(Key key) const {
    return static_cast<unsigned>(key >> shift) % kDigits;
  }
};

template <class Key>
__global__ void count_digits(Pass pass, const Key* keys, uint32_t* counts) {
  SHARED_ARRAY(unsigned, tally, kDigits);
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t t = blockIdx.x; t < pass.lines * pass.tiles; t += gridDim.x) {
    const int64_t line = t / pass.tiles, tile = t - line * pass.tiles;
    tally[thread] = 0;
    __syncthreads();
    for (int k = 0; k < kItems; ++k) {
      const int64_t i = tile * kTile + k * kThreads + thread;
      if (i < pass.n) atomicAdd(&tally[pass.digit(keys[line * pass.n + i])], 1u);
    }
    __syncthreads();
    counts[(line * kDigits + thread) * pass.tiles + tile] = tally[thread];
    __syncthreads();
  }
}

/// Each count becomes the sum of those before it in its line. One block for a line.
__global__ void sum_counts(int64_t lines, int64_t length, uint32_t* counts) {
  SHARED_ARRAY(uint32_t, warp_sums, kWarps);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  for (int64_t line = blockIdx.x; line < lines; line += gridDim.x) {
    uint32_t* const c = counts + line * length;
    uint32_t before = 0;  // the sum of all earlier chunks
    for (int64_t begin = 0; begin < length; begin += kTile) {
      const int64_t first = begin + int64_t{thread} * kItems;
      uint32_t count[kItems], sum = 0;
      for (int k = 0; k < kItems; ++k) {
        count[k] = first + k < length ? c[first + k] : 0;
        sum += count[k];
      }
      uint32_t through = sum;  // the sum of this warp's lanes up to this one
      for (int distance = 1; distance < kWarp; distance *= 2) {
        const uint32_t lower = __shfl_sync(kFullWarp, through, lane >= distance ? lane - distance : 0);
        if (lane >= distance) through += lower;
      }
      if (lane == kWarp - 1) warp_sums[warp] = through;
      __syncthreads();
      uint32_t place = before + through - sum;
      for (int w = 0; w < kWarps; ++w) {
        const uint32_t warp_sum = warp_sums[w];
        if (w < warp) place += warp_sum;
        before += warp_sum;
      }
      for (int k = 0; k < kItems; ++k) {
        if (first + k < length) c[first + k] = place;
        place += count[k];
      }
      __syncthreads();
    }
  }
}

/// The lanes of the warp with the same digit as this one, among those that `take part`.
__device__ unsigned peers_of(unsigned digit, bool takes_part) {
  unsigned peers = __ballot_sync(kFullWarp, takes_part);
  for (int bit = 0; bit < kBits; ++bit) {
    const bool set = digit >> bit & 1;
    const unsigned votes = __ballot_sync(kFullWarp, set);
    peers &= set ? votes : ~votes;
  }
  return peers;
}

template <class Key>
__global__ void move_keys(Pass pass, const uint32_t* places, const Key* keys, const uint32_t* positions, Key* keys_out,
                          uint32_t* positions_out) {
  SHARED_ARRAY(uint32_t, next, kWarps * kDigits);  // for each warp and digit: keys seen, later where they begin
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const int mine = thread / kWarp * kDigits;
  const unsigned lower_lanes = (1u << lane) - 1;
  for (int64_t t = blockIdx.x; t < pass.lines * pass.tiles; t += gridDim.x) {
    const int64_t line = t / pass.tiles, tile = t - line * pass.tiles;
    const int64_t first = tile * kTile + thread / kWarp * (kWarp * kItems) + lane;
    const Key* const from = keys + line * pass.n;
    for (int i = thread; i < kWarps * kDigits; i += kThreads) next[i] = 0;
    __syncthreads();
    uint32_t rank[kItems];  // among the keys of the warp with the same digit
    for (int k = 0; k < kItems; ++k) {
      const int64_t i = first + k * kWarp;
      const bool exists = i < pass.n;
      const unsigned digit = exists ? pass.digit(from[i]) : 0;
      const unsigned peers = peers_of(digit, exists);
      uint32_t seen = 0;
      if (exists) seen = next[mine + digit];
      rank[k] = seen + static_cast<uint32_t>(__popc(peers & lower_lanes));
      __syncwarp();
      if (exists && peers >> lane == 1) next[mine + digit] = seen + static_cast<uint32_t>(__popc(peers));
      __syncwarp();
    }
    __syncthreads();
    uint32_t place = places[(line * kDigits + thread) * pass.tiles + tile];
    for (int w = 0; w < kWarps; ++w) {
      const uint32_t seen = next[w * kDigits + thread];
      next[w * kDigits + thread] = place;
      place += seen;
    }
    __syncthreads();
    for (int k = 0; k < kItems; ++k) {
      const int64_t i = first + k * kWarp;
      if (i >= pass.n) continue;
      const Key key = from[i];
      const uint32_t begin = next[mine + pass.digit(key)];
      const int64_t to = line * pass.n + begin + rank[k];
      keys_out[to] = key;
      positions_out[to] = positions[line * pass.n + i];
    }
    __syncthreads();
  }
}

}  // namespace

template <class Key>
RadixSort<Key>::RadixSort(Context& context, int64_t lines, int64_t n)
    : context_(context),
      lines_(lines),
      n_(n),
      tiles_((n + kTile - 1) / kTile),
      keys_(context, 2 * sizeof(Key) * static_cast<size_t>(lines * n)),
      positions_(context, 2 * sizeof(uint32_t) * static_cast<size_t>(lines * n)),
      counts_(context, sizeof(uint32_t) * static_cast<size_t>(lines * kDigits * tiles_)) {
  espalier::check(n <= int64_t{std::numeric_limits<uint32_t>::max()}, "sort",
                  "expected at most {} elements to put in order on a GPU, got {}; move the tensor to the CPU",
                  std::numeric_limits<uint32_t>::max(), n);
}

template <class Key>
void RadixSort<Key>::run(int bits) {
  const unsigned tiles = blocks_for(context_, lines_ * tiles_ * kThreads, kThreads);
  for (int shift = 0; shift < bits; shift += kBits) {
    const Pass pass{lines_, n_, tiles_, shift};
    const Key* const from = keys();
    const uint32_t* const from_positions = positions();
    uint32_t* const counts = counts_.as<uint32_t>();
    side_ = 1 - side_;
    launch(context_, {"sort.count", tiles, kThreads}, count_digits<Key>, pass, from, counts);
    launch(context_, {"sort.sum", blocks_for(context_, lines_ * kThreads, kThreads), kThreads}, sum_counts, lines_,
           kDigits * tiles_, counts);
    launch(context_, {"sort.move", tiles, kThreads}, move_keys<Key>, pass, counts, from, from_positions, keys(),
           positions());
  }
}

template class RadixSort<uint32_t>;
template class RadixSort<uint64_t>;

}  // namespace espalier::cuda
