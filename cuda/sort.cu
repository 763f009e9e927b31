// Sorting and selection along an axis. A value becomes an unsigned key with the same order (NaN largest, -0 equal to
// 0); equal keys are ordered by their positions, so ties are deterministic and every sort is stable. Short lines are
// sorted in shared memory, several in a block; long ones by radix_sort.h. topk sorts too and keeps the first k.
#include <bit>
#include <limits>

#include "core/ordered_key.h"
#include "cuda/elementwise.h"
#include "cuda/radix_sort.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

template <class T>
struct Lines {
  IndexSpace<3> starts;  ///< operands: x, values, index
  int64_t n, k;
  int64_t x_stride, value_stride, index_stride;
  bool descending;
  const T* x;
  T* values;
  int64_t* index;

  __device__ OrderedKey<T> key(int64_t line, int64_t i) const {
    int64_t at[3];
    starts.offsets(line, at);
    const OrderedKey<T> ascending = ordered_key(x[at[0] + i * x_stride]);
    return descending ? ~ascending : ascending;
  }
  /// The i-th in order is the element at `position`.
  __device__ void put(int64_t line, int64_t i, int64_t position) const {
    int64_t at[3];
    starts.offsets(line, at);
    values[at[1] + i * value_stride] = x[at[0] + position * x_stride];
    index[at[2] + i * index_stride] = position;
  }
};

// --- short lines ---------------------------------------------------------------------------------------------------

constexpr int kShort = 2048, kMostThreads = 512;

template <class Key>
struct Entry {
  Key key;
  uint32_t position;
  __device__ bool operator<(const Entry& other) const {
    return key != other.key ? key < other.key : position < other.position;
  }
};

/// Bitonic sorts (Batcher 1968) of `together` lines in a block, each padded to a power of two by entries after all
/// others.
template <class T>
__global__ void sort_short(Lines<T> lines, int padded, int together) {
  using E = Entry<OrderedKey<T>>;
  SHARED_ARRAY(E, entries, kShort);
  const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x), count = padded * together;
  for (int64_t begin = int64_t{blockIdx.x} * together; begin < lines.starts.numel;
       begin += int64_t{gridDim.x} * together) {
    for (int e = first; e < count; e += step) {
      const int64_t line = begin + e / padded;
      const int i = e % padded;
      const bool exists = line < lines.starts.numel && i < lines.n;
      entries[e] = exists ? E{lines.key(line, i), static_cast<uint32_t>(i)}
                          : E{std::numeric_limits<OrderedKey<T>>::max(), std::numeric_limits<uint32_t>::max()};
    }
    __syncthreads();
    for (int size = 2; size <= padded; size *= 2) {
      for (int distance = size / 2; distance > 0; distance /= 2) {
        for (int pair = first; pair < count / 2; pair += step) {
          const int low = 2 * pair - pair % distance, high = low + distance;
          // Runs of `size` alternate in direction; the last one, all of a line, ascends.
          const bool ascending = (low % padded & size) == 0;
          const E a = entries[low], b = entries[high];
          if ((b < a) == ascending) {
            entries[low] = b;
            entries[high] = a;
          }
        }
        __syncthreads();
      }
    }
    for (int e = first; e < count; e += step) {
      const int64_t line = begin + e / padded;
      const int i = e % padded;
      if (line >= lines.starts.numel || i >= lines.k) continue;
      const E entry = entries[e];
      lines.put(line, i, entry.position);
    }
    __syncthreads();
  }
}

// --- long lines ----------------------------------------------------------------------------------------------------

template <class T>
__global__ void make_keys(Lines<T> lines, OrderedKey<T>* keys, uint32_t* positions) {
  for (int64_t e = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; e < lines.starts.numel * lines.n;
       e += int64_t{gridDim.x} * blockDim.x) {
    const int64_t line = e / lines.n, i = e - line * lines.n;
    keys[e] = lines.key(line, i);
    positions[e] = static_cast<uint32_t>(i);
  }
}

template <class T>
__global__ void put_lines(Lines<T> lines, const uint32_t* positions) {
  for (int64_t e = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; e < lines.starts.numel * lines.k;
       e += int64_t{gridDim.x} * blockDim.x) {
    const int64_t line = e / lines.k, i = e - line * lines.k;
    lines.put(line, i, positions[line * lines.n + i]);
  }
}

// --- host side -----------------------------------------------------------------------------------------------------

template <class T>
void order_lines(Context& context, const Lines<T>& lines) {
  const int64_t count = lines.starts.numel;
  if (lines.n <= kShort) {
    const int padded = static_cast<int>(std::bit_ceil(static_cast<uint64_t>(lines.n)));
    const int together = static_cast<int>(std::min<int64_t>(kShort / padded, count));
    const int threads = std::clamp(padded * together / 2 / kWarp * kWarp, kWarp, kMostThreads);
    const int64_t blocks = (count + together - 1) / together;
    launch(context, {"sort.short", blocks_for(context, blocks * threads, threads), static_cast<unsigned>(threads)},
           sort_short<T>, lines, padded, together);
    return;
  }
  constexpr int kThreads = 256;
  RadixSort<OrderedKey<T>> sorter(context, count, lines.n);
  launch(context, {"sort.keys", blocks_for(context, count * lines.n, kThreads), kThreads}, make_keys<T>, lines,
         sorter.keys(), sorter.positions());
  sorter.run(8 * sizeof(T));
  launch(context, {"sort.put", blocks_for(context, count * lines.k, kThreads), kThreads}, put_lines<T>, lines,
         sorter.positions());
}

void order(const char* operation, const Tensor& x, int axis, int64_t k, bool descending, Tensor& values,
           Tensor& index) {
  if (x.rank() == 0) {
    cuda::copy(x, values);
    return cuda::fill(index, 0);
  }
  if (values.numel() == 0) return;
  dispatch_arithmetic(x.dtype(), operation, [&]<class T>(T) {
    order_lines(Context::of(x.device()),
                Lines<T>{.starts = {shape_without(x, axis), {x.strides(), values.strides(), index.strides()}},
                         .n = x.size(axis),
                         .k = k,
                         .x_stride = x.stride(axis),
                         .value_stride = values.stride(axis),
                         .index_stride = index.stride(axis),
                         .descending = descending,
                         .x = x.data<T>(),
                         .values = values.data<T>(),
                         .index = index.data<int64_t>()});
  });
}

}  // namespace

void sort(const Tensor& x, int axis, bool descending, Tensor& values, Tensor& index) {
  order("sort", x, axis, x.rank() == 0 ? 1 : x.size(axis), descending, values, index);
}

void topk(const Tensor& x, int axis, int64_t k, bool largest, Tensor& values, Tensor& index) {
  espalier::check(k >= 0 && (x.rank() == 0 || k <= x.size(axis)), "topk",
                  "expected k from 0 to the size of axis {}, got {} for {}", axis, k, describe(x));
  order("topk", x, axis, k, largest, values, index);
}

}  // namespace espalier::cuda
