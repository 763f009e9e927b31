// Gathering and scattering along one axis. Writes to one place keep the order of the index, for any thread count.
#include <cstring>

#include "core/backend/operators.h"
#include "core/cpu/iterate.h"
#include "core/cpu/table.h"

namespace espalier::cpu {
namespace {

inline int64_t checked(int64_t index, int64_t size, const char* operation, int axis) {
  check(index >= 0 && index < size, operation, "expected indices from 0 to below {}, the size of axis {}, got {}", size,
        axis, index);
  return index;
}

template <class T>
void gather_elements(const Tensor& x, int axis, const Tensor& index, const Strides& index_strides, Tensor& out,
                     const char* operation) {
  const Loop<3> loop(out.shape(), {out.strides(), index_strides, strides_without(x, axis)});
  T* to = static_cast<T*>(out.raw());
  const T* from = static_cast<const T*>(x.raw());
  const int64_t* where = index.data<int64_t>();
  const int64_t stride = x.stride(axis), size = x.size(axis);
  loop.parallel([&](const std::array<int64_t, 3>& at, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t picked = checked(where[at[1] + i * loop.step(1)], size, operation, axis);
      to[at[0] + i * loop.step(0)] = from[at[2] + i * loop.step(2) + picked * stride];
    }
  });
}

/// For every line along the axis, in parallel: put(out[index[i]], values[i]) in the order of i.
template <class T, class Put>
void scatter_elements(Tensor& out, int axis, const Tensor& index, const Strides& index_strides, const Tensor& values,
                      const char* operation, Put put) {
  Shape lines_shape = values.shape();
  const int64_t n = lines_shape[axis], size = out.size(axis);
  lines_shape[axis] = 1;
  const Loop<3> lines(lines_shape, {out.strides(), index_strides, values.strides()});
  T* to = static_cast<T*>(out.raw());
  const T* from = static_cast<const T*>(values.raw());
  const int64_t* where = index.data<int64_t>();
  const int64_t out_stride = out.stride(axis), index_stride = index_strides[axis], value_stride = values.stride(axis);
  lines.parallel(
      [&](const std::array<int64_t, 3>& at, int64_t count) {
        // Neighbouring lines advance together, so that each cache line is visited once.
        constexpr int64_t kTogether = 64;
        for (int64_t first = 0; first < count; first += kTogether) {
          const int64_t last = std::min(first + kTogether, count);
          for (int64_t i = 0; i < n; ++i) {
            for (int64_t j = first; j < last; ++j) {
              const int64_t picked =
                  checked(where[at[1] + j * lines.step(1) + i * index_stride], size, operation, axis);
              put(to[at[0] + j * lines.step(0) + picked * out_stride],
                  from[at[2] + j * lines.step(2) + i * value_stride]);
            }
          }
        }
      },
      std::max<int64_t>(1, kGrain / std::max<int64_t>(n, 1)));
}

/// Contiguous tensors around an axis: (outer, size, inner).
struct Slabs {
  int64_t outer = 1, inner = 1;
  Slabs(const Shape& shape, int axis) {
    for (int i = 0; i < axis; ++i) outer *= shape[i];
    for (int i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  }
};

}  // namespace

void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  dispatch_size(x.dtype(),
                [&](auto zero) { gather_elements<decltype(zero)>(x, axis, index, index.strides(), out, "gather"); });
}

void scatter(Tensor& out, int axis, const Tensor& index, const Tensor& values) {
  dispatch_size(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    scatter_elements<T>(out, axis, index, index.strides(), values, "scatter", Assign{});
  });
}

void scatter_add(Tensor& out, int axis, const Tensor& index, const Tensor& values) {
  dispatch(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    scatter_elements<T>(out, axis, index, index.strides(), values, "scatter_add", AddTo{});
  });
}

void index_select(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  if (out.numel() == 0) return;
  const Slabs slabs(out.shape(), axis);
  const int64_t n = index.numel(), size = x.size(axis);
  if (slabs.inner == 1 || !x.is_contiguous() || !out.is_contiguous()) {
    dispatch_size(x.dtype(), [&](auto zero) {
      gather_elements<decltype(zero)>(x, axis, index, strides_along(index, axis, x.rank()), out, "index_select");
    });
    return;
  }
  const int64_t* where = index.data<int64_t>();
  const size_t bytes = static_cast<size_t>(slabs.inner) * size_of(x.dtype());
  const char* from = static_cast<const char*>(x.raw());
  char* to = static_cast<char*>(out.raw());
  parallel_for(slabs.outer * n, std::max<int64_t>(1, kGrain / slabs.inner), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t picked = checked(where[i % n * index.strides()[0]], size, "index_select", axis);
      std::memcpy(to + static_cast<size_t>(i) * bytes, from + static_cast<size_t>(i / n * size + picked) * bytes,
                  bytes);
    }
  });
}

void index_add(Tensor& out, int axis, const Tensor& index, const Tensor& values) {
  if (values.numel() == 0) return;
  const Slabs slabs(out.shape(), axis);
  const int64_t n = index.numel(), size = out.size(axis);
  dispatch(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if (slabs.inner == 1 || !out.is_contiguous() || !values.is_contiguous()) {
      scatter_elements<T>(out, axis, index, strides_along(index, axis, out.rank()), values, "index_add", AddTo{});
      return;
    }
    const int64_t* where = index.data<int64_t>();
    for (int64_t i = 0; i < n; ++i) checked(where[i * index.strides()[0]], size, "index_add", axis);
    const T* from = values.data<T>();
    T* to = out.data<T>();
    // Each thread owns a range of out's slabs and looks through the whole index for them.
    const int64_t work = slabs.outer * n * slabs.inner;
    const int64_t owned = std::max<int64_t>(1, kGrain * slabs.outer * size / std::max<int64_t>(work, 1));
    parallel_for(slabs.outer * size, owned, [&](int64_t begin, int64_t end) {
      for (int64_t outer = begin / size; outer * size < end; ++outer) {
        for (int64_t i = 0; i < n; ++i) {
          const int64_t slab = outer * size + where[i * index.strides()[0]];
          if (slab < begin || slab >= end) continue;
          T* sums = to + slab * slabs.inner;
          const T* added = from + (outer * n + i) * slabs.inner;
          const AddTo add;
#pragma omp simd
          for (int64_t j = 0; j < slabs.inner; ++j) add(sums[j], added[j]);
        }
      }
    });
  });
}

}  // namespace espalier::cpu
