// Sorting and selection along an axis. A value becomes an unsigned key with the same order (NaN largest, -0 equal
// to 0), joined with its position: no two entries are equal, so any sort is stable and ties are deterministic.
#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

#include "core/cpu/iterate.h"
#include "core/cpu/table.h"
#include "core/ordered_key.h"

namespace espalier::cpu {
namespace {

/// Key and position in one number where they fit, which sorts fastest.
struct Packed {
  uint64_t bits;
  Packed() = default;
  Packed(uint32_t key, int64_t index) : bits(uint64_t{key} << 32 | static_cast<uint32_t>(index)) {}
  int64_t index() const { return static_cast<int64_t>(static_cast<uint32_t>(bits)); }
  bool operator<(const Packed& other) const { return bits < other.bits; }
};

template <class Key>
struct Entry {
  Key key;
  int64_t position;
  Entry() = default;
  Entry(Key k, int64_t index) : key(k), position(index) {}
  int64_t index() const { return position; }
  bool operator<(const Entry& other) const { return key != other.key ? key < other.key : position < other.position; }
};

/// The first k of every line along the axis in the wanted order, with their positions.
template <class T, class E>
void order_lines(const Tensor& x, int axis, int64_t k, bool descending, Tensor& values, Tensor& index) {
  const Loop<3> lines(shape_without(x, axis), {x.strides(), values.strides(), index.strides()});
  const T* from = x.data<T>();
  T* to = values.data<T>();
  int64_t* positions = index.data<int64_t>();
  const int64_t n = x.size(axis), stride = x.stride(axis);
  const int64_t value_stride = values.stride(axis), index_stride = index.stride(axis);
  lines.parallel(
      [&](const std::array<int64_t, 3>& at, int64_t count) {
        std::vector<E> entries(static_cast<size_t>(n));
        for (int64_t line = 0; line < count; ++line) {
          const T* source = from + at[0] + line * lines.step(0);
          for (int64_t i = 0; i < n; ++i) {
            const OrderedKey<T> key = ordered_key(source[i * stride]);
            entries[static_cast<size_t>(i)] = E(descending ? static_cast<OrderedKey<T>>(~key) : key, i);
          }
          const auto end = entries.begin() + k;
          if (k < n) std::nth_element(entries.begin(), end, entries.end());
          std::sort(entries.begin(), end);
          for (int64_t i = 0; i < k; ++i) {
            const int64_t position = entries[static_cast<size_t>(i)].index();
            to[at[1] + line * lines.step(1) + i * value_stride] = source[position * stride];
            positions[at[2] + line * lines.step(2) + i * index_stride] = position;
          }
        }
      },
      std::max<int64_t>(1, kGrain / 8 / std::max<int64_t>(n, 1)));
}

template <class T>
void order_typed(const Tensor& x, int axis, int64_t k, bool descending, Tensor& values, Tensor& index) {
  if constexpr (sizeof(T) == 4) {
    if (x.size(axis) <= int64_t{std::numeric_limits<uint32_t>::max()}) {
      return order_lines<T, Packed>(x, axis, k, descending, values, index);
    }
  }
  order_lines<T, Entry<OrderedKey<T>>>(x, axis, k, descending, values, index);
}

void order(const char* operation, const Tensor& x, int axis, int64_t k, bool descending, Tensor& values,
           Tensor& index) {
  if (x.rank() == 0) {
    cpu::copy(x, values);
    return cpu::fill(index, 0);
  }
  if (values.numel() == 0) return;
  dispatch_arithmetic(x.dtype(), operation, [&]<class T>(T) { order_typed<T>(x, axis, k, descending, values, index); });
}

}  // namespace

void sort(const Tensor& x, int axis, bool descending, Tensor& values, Tensor& index) {
  order("sort", x, axis, x.rank() == 0 ? 1 : x.size(axis), descending, values, index);
}

void topk(const Tensor& x, int axis, int64_t k, bool largest, Tensor& values, Tensor& index) {
  check(k >= 0 && (x.rank() == 0 || k <= x.size(axis)), "topk",
        "expected k from 0 to the size of axis {}, got {} for {}", axis, k, describe(x));
  order("topk", x, axis, k, largest, values, index);
}

}  // namespace espalier::cpu
