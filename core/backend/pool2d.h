// Planes and windows of pooling.
#pragma once

#include <limits>

#include "core/tensor.h"

namespace espalier::backend {

/// The planes (n, c) of images (N,C,H,W) and of what is pooled from them (N,C,OH,OW).
struct PlaneSizes {
  int64_t planes, h, w, oh, ow;

  PlaneSizes(const Tensor& image, const Tensor& pooled)
      : planes(image.size(0) * image.size(1)),
        h(image.size(2)),
        w(image.size(3)),
        oh(pooled.size(2)),
        ow(pooled.size(3)) {}
};

/// Positions begin <= i < end of an axis.
struct Window {
  int64_t begin, end;
  constexpr int64_t size() const { return end - begin; }
};

/// The part of output o's window inside the axis; empty where the window lies in the padding.
constexpr Window clipped_window(int64_t o, int64_t kernel, int64_t stride, int64_t padding, int64_t size) {
  const int64_t begin = o * stride - padding, end = begin + kernel;
  const int64_t first = begin < 0 ? 0 : begin < size ? begin : size;
  return {first, end < first ? first : end < size ? end : size};
}

/// floor(o * size / outputs) .. ceil((o + 1) * size / outputs). The outputs that cover an input are the same with the
/// two sizes exchanged.
constexpr Window adaptive_window(int64_t o, int64_t outputs, int64_t size) {
  return {o * size / outputs, ((o + 1) * size + outputs - 1) / outputs};
}

/// Whether v takes the place of the best value so far: larger, or the first NaN. Without branches: which one wins is
/// unpredictable.
template <class T>
constexpr bool wins(T v, T best) {
  return (best == best) & !(v <= best);
}

/// The largest value of a window, or its first NaN, and where it is: h*W + w; the first on ties. Of a window that lies
/// in the padding altogether: -inf, -1.
template <class T>
struct Winner {
  T value = -std::numeric_limits<T>::infinity();
  int64_t index = -1;

  constexpr Winner(const T* plane, int64_t width, const Window& rows, const Window& columns) {
    if (rows.size() > 0 && columns.size() > 0) index = rows.begin * width + columns.begin;
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      for (int64_t w = columns.begin; w < columns.end; ++w) {
        const T v = plane[h * width + w];
        if (wins(v, value)) value = v, index = h * width + w;
      }
    }
  }
};

}  // namespace espalier::backend
