// Pooling over (N,C,H,W): every plane (n, c) on its own, planes in parallel.

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "core/backend/pool2d.h"
#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kGrainElements = 1 << 13;  // elements that are worth a thread

/// Calls f(plane) for all planes, in parallel.
template <class F>
void for_each_plane(const PlaneSizes& s, F&& f) {
  const int64_t work = std::max<int64_t>(1, s.h * s.w + s.oh * s.ow);
  parallel_for(s.planes, std::max<int64_t>(1, kGrainElements / work), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) f(plane);
  });
}

/// 2x2 windows side by side, all inside the image: worth loops that vectorise.
bool is_two_by_two(const Pool2dShape& p) {
  return p.kernel_h == 2 && p.kernel_w == 2 && p.stride_h == 2 && p.stride_w == 2 && p.padding_h == 0 &&
         p.padding_w == 0;
}

template <class T>
void max_any(const PlaneSizes& s, const Pool2dShape& p, const T* x, T* y, int64_t* index) {
  for (int64_t i = 0; i < s.oh; ++i) {
    const Window rows = clipped_window(i, p.kernel_h, p.stride_h, p.padding_h, s.h);
    for (int64_t j = 0; j < s.ow; ++j) {
      const Window columns = clipped_window(j, p.kernel_w, p.stride_w, p.padding_w, s.w);
      const Winner<T> winner(x, s.w, rows, columns);
      y[i * s.ow + j] = winner.value;
      index[i * s.ow + j] = winner.index;
    }
  }
}

/// The same for 2x2 windows side by side, vectorised: NaN needs a second comparison, so planes with one are left
/// to max_any.
template <class T>
void max_two_by_two(const PlaneSizes& s, const Pool2dShape& p, const T* x, T* y, int64_t* index) {
  // Offsets as wide as the values, so that one vector holds as many of either.
  using Offset = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  const Offset down = static_cast<Offset>(s.w);
  bool has_nan = false;
  for (int64_t i = 0; i < s.oh; ++i) {
    const T *upper = x + 2 * i * s.w, *lower = upper + s.w;
    const int64_t row = 2 * i * s.w;
    T* out = y + i * s.ow;
    int64_t* winner = index + i * s.ow;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < s.ow; ++j) {
      const T a = upper[2 * j], b = upper[2 * j + 1], c = lower[2 * j], d = lower[2 * j + 1];
      const T top = b > a ? b : a, bottom = d > c ? d : c;
      const Offset at_top = b > a ? 1 : 0, at_bottom = d > c ? down + 1 : down;
      out[j] = bottom > top ? bottom : top;
      winner[j] = row + 2 * j + (bottom > top ? at_bottom : at_top);
      sum += (a + b) + (c + d);
    }
    has_nan |= std::isnan(sum);
  }
  if (has_nan) max_any(s, p, x, y, index);
}

}  // namespace

void max_pool2d(const Tensor& x, const Pool2dShape& shape, Tensor& y, Tensor& index) {
  const PlaneSizes s(x, y);
  dispatch_floating(x.dtype(), "max_pool2d", [&]<class T>(T) {
    const T* from = x.data<T>();
    T* to = y.data<T>();
    int64_t* winners = index.data<int64_t>();
    for_each_plane(s, [&](int64_t plane) {
      const T* image = from + plane * s.h * s.w;
      const int64_t out = plane * s.oh * s.ow;
      if (is_two_by_two(shape)) {
        max_two_by_two(s, shape, image, to + out, winners + out);
      } else {
        max_any(s, shape, image, to + out, winners + out);
      }
    });
  });
}

void max_pool2d_grad(const Tensor& dy, const Tensor& index, Tensor& dx) {
  const PlaneSizes s(dx, dy);
  dispatch_floating(dy.dtype(), "max_pool2d_grad", [&]<class T>(T) {
    const T* from = dy.data<T>();
    const int64_t* winners = index.data<int64_t>();
    T* to = dx.data<T>();
    for_each_plane(s, [&](int64_t plane) {
      T* image = to + plane * s.h * s.w;
      std::fill(image, image + s.h * s.w, T{0});
      for (int64_t i = plane * s.oh * s.ow; i < (plane + 1) * s.oh * s.ow; ++i) {
        if (winners[i] >= 0) image[winners[i]] += from[i];
      }
    });
  });
}

void avg_pool2d(const Tensor& x, const Pool2dShape& shape, Tensor& y) {
  const PlaneSizes s(x, y);
  dispatch_floating(x.dtype(), "avg_pool2d", [&]<class T>(T) {
    const T* from = x.data<T>();
    T* to = y.data<T>();
    const T scale = T{1} / static_cast<T>(shape.kernel_h * shape.kernel_w);
    for_each_plane(s, [&](int64_t plane) {
      const T* image = from + plane * s.h * s.w;
      T* out = to + plane * s.oh * s.ow;
      for (int64_t i = 0; i < s.oh; ++i, out += s.ow) {
        if (is_two_by_two(shape)) {
          const T *upper = image + 2 * i * s.w, *lower = upper + s.w;
#pragma omp simd
          for (int64_t j = 0; j < s.ow; ++j) {
            out[j] = ((upper[2 * j] + upper[2 * j + 1]) + (lower[2 * j] + lower[2 * j + 1])) * scale;
          }
          continue;
        }
        const Window rows = clipped_window(i, shape.kernel_h, shape.stride_h, shape.padding_h, s.h);
        for (int64_t j = 0; j < s.ow; ++j) {
          const Window columns = clipped_window(j, shape.kernel_w, shape.stride_w, shape.padding_w, s.w);
          T sum = 0;
          for (int64_t h = rows.begin; h < rows.end; ++h) {
            for (int64_t w = columns.begin; w < columns.end; ++w) sum += image[h * s.w + w];
          }
          out[j] = sum * scale;
        }
      }
    });
  });
}

void avg_pool2d_grad(const Tensor& dy, const Pool2dShape& shape, Tensor& dx) {
  const PlaneSizes s(dx, dy);
  dispatch_floating(dy.dtype(), "avg_pool2d_grad", [&]<class T>(T) {
    const T* from = dy.data<T>();
    T* to = dx.data<T>();
    const T scale = T{1} / static_cast<T>(shape.kernel_h * shape.kernel_w);
    for_each_plane(s, [&](int64_t plane) {
      T* image = to + plane * s.h * s.w;
      std::fill(image, image + s.h * s.w, T{0});
      const T* out = from + plane * s.oh * s.ow;
      for (int64_t i = 0; i < s.oh; ++i, out += s.ow) {
        if (is_two_by_two(shape)) {
          T *upper = image + 2 * i * s.w, *lower = upper + s.w;
#pragma omp simd
          for (int64_t j = 0; j < s.ow; ++j) {
            const T g = out[j] * scale;
            upper[2 * j] = g, upper[2 * j + 1] = g;
            lower[2 * j] = g, lower[2 * j + 1] = g;
          }
          continue;
        }
        const Window rows = clipped_window(i, shape.kernel_h, shape.stride_h, shape.padding_h, s.h);
        for (int64_t j = 0; j < s.ow; ++j) {
          const Window columns = clipped_window(j, shape.kernel_w, shape.stride_w, shape.padding_w, s.w);
          const T g = out[j] * scale;
          for (int64_t h = rows.begin; h < rows.end; ++h) {
            for (int64_t w = columns.begin; w < columns.end; ++w) image[h * s.w + w] += g;
          }
        }
      }
    });
  });
}

void adaptive_avg_pool2d(const Tensor& x, Tensor& y) {
  const PlaneSizes s(x, y);
  dispatch_floating(x.dtype(), "adaptive_avg_pool2d", [&]<class T>(T) {
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for_each_plane(s, [&](int64_t plane) {
      const T* image = from + plane * s.h * s.w;
      for (int64_t i = 0; i < s.oh; ++i) {
        const Window rows = adaptive_window(i, s.oh, s.h);
        for (int64_t j = 0; j < s.ow; ++j) {
          const Window columns = adaptive_window(j, s.ow, s.w);
          double sum = 0;  // the window may be the whole image
          for (int64_t h = rows.begin; h < rows.end; ++h) {
            const T* row = image + h * s.w;
#pragma omp simd reduction(+ : sum)
            for (int64_t w = columns.begin; w < columns.end; ++w) sum += static_cast<double>(row[w]);
          }
          to[(plane * s.oh + i) * s.ow + j] = static_cast<T>(sum / static_cast<double>(rows.size() * columns.size()));
        }
      }
    });
  });
}

void adaptive_avg_pool2d_grad(const Tensor& dy, Tensor& dx) {
  const PlaneSizes s(dx, dy);
  dispatch_floating(dy.dtype(), "adaptive_avg_pool2d_grad", [&]<class T>(T) {
    const T* from = dy.data<T>();
    T* to = dx.data<T>();
    for_each_plane(s, [&](int64_t plane) {
      T* image = to + plane * s.h * s.w;
      std::fill(image, image + s.h * s.w, T{0});
      for (int64_t i = 0; i < s.oh; ++i) {
        const Window rows = adaptive_window(i, s.oh, s.h);
        for (int64_t j = 0; j < s.ow; ++j) {
          const Window columns = adaptive_window(j, s.ow, s.w);
          const T g = from[(plane * s.oh + i) * s.ow + j] / static_cast<T>(rows.size() * columns.size());
          for (int64_t h = rows.begin; h < rows.end; ++h) {
            for (int64_t w = columns.begin; w < columns.end; ++w) image[h * s.w + w] += g;
          }
        }
      }
    });
  });
}

}  // namespace espalier::cpu
