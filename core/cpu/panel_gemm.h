// The register-blocked inner kernels of convolution, on GCC's vector extensions.
//
// Two products of small tiles that stay in registers:
//   panel_product: (rows,K)(K,kPanelWidth) -> (rows,kPanelWidth); every step of K reads one short column of the
//                  left operand, packed, and one row of the right one, packed or wherever lists of offsets say;
//   dot_tile:      (rows,P)(columns,P)^T -> (rows,columns) with long P; vectors run along P, and the lanes are
//                  summed once at the end.
// The width of a vector and the sizes of the tiles are chosen here and nowhere else.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

namespace espalier::cpu {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;     // floats of a vector
inline constexpr int kPanelRows = 8;  // 8 rows x 2 vectors: 16 accumulators of 32 registers
inline constexpr int kDotRows = 4;    // 4 x 6: 24 accumulators
inline constexpr int kDotColumns = 6;
#elif defined(__AVX2__) && defined(__FMA__)
inline constexpr int kLanes = 8;
inline constexpr int kPanelRows = 6;  // 12 accumulators of 16 registers
inline constexpr int kDotRows = 3;
inline constexpr int kDotColumns = 3;
#else
inline constexpr int kLanes = 4;
inline constexpr int kPanelRows = 6;
inline constexpr int kDotRows = 3;
inline constexpr int kDotColumns = 3;
#endif
inline constexpr int kPanelVectors = 2;
inline constexpr int kPanelWidth = kPanelVectors * kLanes;

/// `Width` floats that the compiler keeps in a register; loads and stores need the alignment of a float only.
template <int Width>
struct VectorOf {
  typedef float Type __attribute__((vector_size(Width * sizeof(float)), aligned(alignof(float)), may_alias));
};
using Vector = VectorOf<kLanes>::Type;

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
inline Vector broadcast(float x) { return x - Vector{}; }

/// Sums halves of groups of lanes: a and b hold groups of `Group` lanes; the result holds the groups of a, then those
/// of b, each half as long. No lane is lost, so that a tree of these calls sums many vectors at once.
template <int Group, size_t... I>
inline Vector add_halves(Vector a, Vector b, std::index_sequence<I...>) {
  constexpr int kHalf = Group / 2;
  return __builtin_shufflevector(a, b, (I / kHalf * Group + I % kHalf)...) +
         __builtin_shufflevector(a, b, (I / kHalf * Group + I % kHalf + kHalf)...);
}

/// The vectors v[0..Count) as one vector of Count groups of lanes, in order; Count is a power of two <= kLanes.
template <int Count>
inline Vector merge_sums(const Vector* v) {
  if constexpr (Count == 1) {
    return v[0];
  } else {
    return add_halves<2 * kLanes / Count>(merge_sums<Count / 2>(v), merge_sums<Count / 2>(v + Count / 2),
                                          std::make_index_sequence<kLanes>{});
  }
}

/// out[i] = sum of the lanes of v[i], for i < Count.
template <int Count>
inline void sum_lanes(const Vector* v, float* out) {
  if constexpr (Count > kLanes) {
    sum_lanes<kLanes>(v, out);
    sum_lanes<Count - kLanes>(v + kLanes, out + kLanes);
  } else {
    Vector padded[kLanes] = {};
    for (int i = 0; i < Count; ++i) padded[i] = v[i];
    alignas(64) float sum[kLanes];
    store(sum, merge_sums<kLanes>(padded));
    for (int i = 0; i < Count; ++i) out[i] = sum[i];
  }
}

/// Copies exactly `Width` floats.
template <int Width>
inline void copy_floats(const float* from, float* to) {
  if constexpr (Width > kLanes) {
    copy_floats<Width / 2>(from, to);
    copy_floats<Width / 2>(from + Width / 2, to + Width / 2);
  } else if constexpr (Width >= 2) {
    using V = typename VectorOf<Width>::Type;
    *reinterpret_cast<V*>(to) = *reinterpret_cast<const V*>(from);
  } else {
    *to = *from;
  }
}

/// Copies n floats; inline, because rows of images are too short for a call of memcpy.
inline void copy_row(const float* from, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) copy_floats<kLanes>(from + i, to + i);
  for (; i + 4 <= n; i += 4) copy_floats<4>(from + i, to + i);
  for (; i < n; ++i) to[i] = from[i];
}

/// tile (Rows,kPanelWidth) = left (depth,kPanelRows)^T right (depth,kPanelWidth). Vector j of row k of `right` is at
/// right + vectors[j] + taps[k]. Only the first Rows of the kPanelRows columns of `left` are read.
template <int Rows>
inline void panel_product(int64_t depth, const float* left, const float* right, const int64_t* vectors,
                          const int64_t* taps, float* tile) {
  Vector sum[Rows][kPanelVectors] = {};
  const float* from[kPanelVectors];
  for (int j = 0; j < kPanelVectors; ++j) from[j] = right + vectors[j];
  for (int64_t k = 0; k < depth; ++k) {
    Vector r[kPanelVectors];
    for (int j = 0; j < kPanelVectors; ++j) r[j] = load(from[j] + taps[k]);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vector l = broadcast(left[k * kPanelRows + i]);
      for (int j = 0; j < kPanelVectors; ++j) sum[i][j] += l * r[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < kPanelVectors; ++j) store(tile + i * kPanelWidth + j * kLanes, sum[i][j]);
  }
}

/// out[i * out_stride + j] (+)= sum over p < length of left[i * left_stride + p] * right[j * right_stride + p];
/// length is a multiple of kLanes.
template <int Rows, int Columns>
inline void dot_tile(int64_t length, const float* left, int64_t left_stride, const float* right, int64_t right_stride,
                     bool accumulate, float* out, int64_t out_stride) {
  Vector sum[Rows * Columns] = {};
  for (int64_t p = 0; p < length; p += kLanes) {
    Vector l[Rows];
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) l[i] = load(left + i * left_stride + p);
#pragma GCC unroll 16
    for (int j = 0; j < Columns; ++j) {
      const Vector r = load(right + j * right_stride + p);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) sum[i * Columns + j] += l[i] * r;
    }
  }
  float total[Rows * Columns];
  sum_lanes<Rows * Columns>(sum, total);
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Columns; ++j) {
      float& o = out[i * out_stride + j];
      o = (accumulate ? o : 0.0F) + total[i * Columns + j];
    }
  }
}

/// Calls f.template operator()<Count>() with the compile-time Count equal to `count`, 1 <= count <= Max.
template <int Max, class F>
inline void with_count(int64_t count, F&& f) {
  if constexpr (Max > 1) {
    if (count < Max) return with_count<Max - 1>(count, std::forward<F>(f));
  }
  f.template operator()<Max>();
}

/// Floats that a thread keeps from call to call, so that steady training allocates nothing. Grows, never shrinks.
class Scratch {
 public:
  /// At least n floats, 64-byte aligned, with unspecified contents; an earlier result is lost.
  float* get(int64_t n) {
    if (n > capacity_) {
      const size_t bytes = (static_cast<size_t>(n) * sizeof(float) + 63) / 64 * 64;
      data_.reset();
      capacity_ = 0;
      data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
      if (!data_) throw std::bad_alloc();
      capacity_ = n;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace espalier::cpu
