// Kernels that move elements: fill, copy (with conversion, and fast for permuted tensors), where.
#include <cstring>
#include <utility>

#include "core/cpu/iterate.h"
#include "core/cpu/table.h"

namespace espalier::cpu {
namespace {

// --- transposing ---------------------------------------------------------------------------------------------------

template <class T>
struct Square {
  static constexpr int kSize = 64 / sizeof(T);
  typedef T Row __attribute__((vector_size(64)));
};

/// One half of an exchange: of the blocks of `Distance` values in two rows, the first (Low) or the second of each pair.
template <class T, int Distance, bool Low, size_t... I>
inline typename Square<T>::Row half(typename Square<T>::Row a, typename Square<T>::Row b, std::index_sequence<I...>) {
  constexpr int kSize = Square<T>::kSize;
  constexpr auto kFrom = [](int i) {
    const bool second = i & Distance;
    return Low ? (second ? kSize + i - Distance : i) : (second ? kSize + i : i + Distance);
  };
  return __builtin_shufflevector(a, b, kFrom(static_cast<int>(I))...);
}

/// One stage of the in-register transpose: rows `Distance` apart exchange blocks of that size (Eklundh 1972).
template <class T, int Distance>
inline void exchange(typename Square<T>::Row* rows) {
  constexpr int kSize = Square<T>::kSize;
  constexpr auto kEach = std::make_index_sequence<static_cast<size_t>(kSize)>();
#pragma GCC unroll 16
  for (int i = 0; i < kSize; ++i) {
    if (i & Distance) continue;
    const auto a = rows[i], b = rows[i + Distance];
    rows[i] = half<T, Distance, true>(a, b, kEach);
    rows[i + Distance] = half<T, Distance, false>(a, b, kEach);
  }
  if constexpr (Distance > 1) exchange<T, Distance / 2>(rows);
}

/// to[j * to_step + i] = from[i * from_step + j] for a square of one cache line by as many rows.
template <class T>
void transpose_square(const T* from, int64_t from_step, T* to, int64_t to_step) {
  constexpr int kSize = Square<T>::kSize;
  typename Square<T>::Row rows[kSize];
#pragma GCC unroll 16
  for (int i = 0; i < kSize; ++i) std::memcpy(&rows[i], from + i * from_step, sizeof(rows[i]));
  exchange<T, kSize / 2>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < kSize; ++i) std::memcpy(to + i * to_step, &rows[i], sizeof(rows[i]));
}

/// to[j * to_step + i] = from[i * from_step + j] for i < n, j < m.
template <class T>
void transpose_block(const T* from, int64_t from_step, T* to, int64_t to_step, int64_t n, int64_t m) {
  int64_t whole_n = 0, whole_m = 0;
  if constexpr (sizeof(T) >= 4) {
    constexpr int64_t kSize = Square<T>::kSize;
    whole_n = n - n % kSize;
    whole_m = m - m % kSize;
    for (int64_t j = 0; j < whole_m; j += kSize) {
      for (int64_t i = 0; i < whole_n; i += kSize) {
        transpose_square(from + i * from_step + j, from_step, to + j * to_step + i, to_step);
      }
    }
  }
  for (int64_t j = 0; j < m; ++j) {
    for (int64_t i = j < whole_m ? whole_n : 0; i < n; ++i) to[j * to_step + i] = from[i * from_step + j];
  }
}

/// The axis along which x has unit stride, when the loop's rows run along another one and both are worth a block.
int transposed_axis(const Loop<2>& loop) {
  const int inner = loop.rank() - 1;
  if (loop.step(0) != 1 || loop.step(1) == 1 || loop.step(1) == 0 || loop.size(inner) < 4) return -1;
  for (int axis = 0; axis < inner; ++axis) {
    if (loop.stride(axis, 1) == 1 && loop.size(axis) >= 4) return axis;
  }
  return -1;
}

template <class T>
void copy_transposed(const Loop<2>& loop, int axis, const T* x, T* out) {
  constexpr int64_t kTile = 64;
  const int inner = loop.rank() - 1;
  const int64_t n = loop.size(inner), m = loop.size(axis);
  // Tiles of `axis` by whole rows, for each index of the other axes.
  Shape shape;
  Strides out_strides, x_strides;
  for (int i = 0; i < inner; ++i) {
    const int64_t step = i == axis ? kTile : 1;
    shape.push_back((loop.size(i) + step - 1) / step);
    out_strides.push_back(loop.stride(i, 0) * step);
    x_strides.push_back(loop.stride(i, 1) * step);
  }
  shape.push_back((n + kTile - 1) / kTile);
  out_strides.push_back(kTile);
  x_strides.push_back(loop.step(1) * kTile);
  // A third operand counts along `axis`, a fourth along the row, to know where the last tile ends.
  Strides axis_strides = shape, row_strides = shape;
  for (int i = 0; i <= inner; ++i) {
    axis_strides[i] = i == axis ? kTile : 0;
    row_strides[i] = i == inner ? kTile : 0;
  }
  const Loop<4> tiles(shape, {out_strides, x_strides, axis_strides, row_strides});
  const int64_t grain = std::max<int64_t>(1, kGrain / (std::min(kTile, n) * std::min(kTile, m)));
  tiles.parallel(
      [&](const std::array<int64_t, 4>& offsets, int64_t count) {
        for (int64_t t = 0; t < count; ++t) {
          const int64_t j = offsets[2] + t * tiles.step(2), i = offsets[3] + t * tiles.step(3);
          transpose_block(x + offsets[1] + t * tiles.step(1), loop.step(1), out + offsets[0] + t * tiles.step(0),
                          loop.stride(axis, 0), std::min(kTile, n - i), std::min(kTile, m - j));
        }
      },
      grain);
}

// --- copy ----------------------------------------------------------------------------------------------------------

template <class T>
void copy_same(const Loop<2>& loop, const T* x, T* out) {
  if (const int axis = transposed_axis(loop); axis >= 0) {
    copy_transposed(loop, axis, x, out);
    return;
  }
  const int64_t to = loop.step(0), from = loop.step(1);
  loop.parallel([=](const std::array<int64_t, 2>& offsets, int64_t n) {
    T* o = out + offsets[0];
    const T* a = x + offsets[1];
    if (to == 1 && from == 1) {
      if (n >= 64) {
        std::memcpy(o, a, static_cast<size_t>(n) * sizeof(T));
      } else {
        for (int64_t i = 0; i < n; ++i) o[i] = a[i];
      }
    } else if (to == 1 && from == 0) {
      std::fill_n(o, n, *a);
    } else {
      for (int64_t i = 0; i < n; ++i) o[i * to] = a[i * from];
    }
  });
}

template <class From, class To>
void convert_row(const void* x, int64_t from, void* out, int64_t to, int64_t n) {
  const From* a = static_cast<const From*>(x);
  To* o = static_cast<To*>(out);
  if (to == 1 && from == 1) {
    for (int64_t i = 0; i < n; ++i) o[i] = convert<To>(a[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) o[i * to] = convert<To>(a[i * from]);
  }
}

using ConvertRow = void (*)(const void* x, int64_t from, void* out, int64_t to, int64_t n);

ConvertRow convert_row_for(DType from_type, DType to_type) {
  return dispatch(from_type, [&](auto from) {
    return dispatch(to_type, [](auto to) -> ConvertRow { return convert_row<decltype(from), decltype(to)>; });
  });
}

/// test ? yes : no by bits: masks are as good as random, and a branch would be guessed wrong half of the time.
template <class T>
T chosen(bool test, T yes, T no) {
  const T mask = static_cast<T>(T{0} - T{test});
  return static_cast<T>((yes & mask) | (no & ~mask));
}

}  // namespace

void fill(Tensor& out, double value) {
  const Loop<1> loop(out.shape(), {out.strides()});
  dispatch(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* o = out.data<T>();
    const T filling = from_double<T>(value);
    const int64_t step = loop.step(0);
    loop.parallel([=](const std::array<int64_t, 1>& offsets, int64_t n) {
      if (step == 1) {
        std::fill_n(o + offsets[0], n, filling);
      } else {
        for (int64_t i = 0; i < n; ++i) o[offsets[0] + i * step] = filling;
      }
    });
  });
}

void copy(const Tensor& x, Tensor& out) {
  if (out.numel() == 0) return;
  const Loop<2> loop(out.shape(), {out.strides(), x.strides()});
  if (x.dtype() == out.dtype()) {
    dispatch_size(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      copy_same(loop, static_cast<const T*>(x.raw()), static_cast<T*>(out.raw()));
    });
    return;
  }
  const ConvertRow row = convert_row_for(x.dtype(), out.dtype());
  const auto* from = static_cast<const char*>(x.raw());
  auto* to = static_cast<char*>(out.raw());
  const auto from_size = static_cast<int64_t>(size_of(x.dtype())), to_size = static_cast<int64_t>(size_of(out.dtype()));
  loop.parallel([&](const std::array<int64_t, 2>& offsets, int64_t n) {
    row(from + offsets[1] * from_size, loop.step(1), to + offsets[0] * to_size, loop.step(0), n);
  });
}

void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out) {
  const Loop<4> loop(out.shape(), {out.strides(), condition.strides(), a.strides(), b.strides()});
  const bool* c = condition.data<bool>();
  dispatch_size(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* o = static_cast<T*>(out.raw());
    const T* pa = static_cast<const T*>(a.raw());
    const T* pb = static_cast<const T*>(b.raw());
    const int64_t so = loop.step(0), sc = loop.step(1), sa = loop.step(2), sb = loop.step(3);
    loop.parallel([=](const std::array<int64_t, 4>& offsets, int64_t n) {
      T* to = o + offsets[0];
      const bool* test = c + offsets[1];
      const T* yes = pa + offsets[2];
      const T* no = pb + offsets[3];
      // `omp simd`: iterations are independent, in place as well.
      if (so == 1 && sc == 1 && sa == 1 && sb == 1) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) to[i] = chosen<T>(test[i], yes[i], no[i]);
      } else if (so == 1 && sc == 1 && sa == 1 && sb == 0) {
        const T second = *no;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) to[i] = chosen<T>(test[i], yes[i], second);
      } else {
        for (int64_t i = 0; i < n; ++i) to[i * so] = chosen<T>(test[i * sc], yes[i * sa], no[i * sb]);
      }
    });
  });
}

}  // namespace espalier::cpu
