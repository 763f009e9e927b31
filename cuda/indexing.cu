// Gathering and scattering along one axis. Writes to one place keep the order of the index, on any GPU: either one
// thread walks along a line, or, where lines are long and few, a stable sort brings equal indices together and one
// thread takes each run of them. An embedding's gradient is the second case: index_add of (tokens, features) rows into
// a vocabulary sorts the tokens once and has a thread for each feature of each distinct token.
#include <bit>

#include "core/backend/operators.h"
#include "cuda/elementwise.h"
#include "cuda/radix_sort.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;

/// Places in kIndexOperations.
enum Operation : int { kGather, kScatter, kScatterAdd, kIndexSelect, kIndexAdd };

/// The axis that indices refer to.
struct Axis {
  Operation operation;
  int axis;
  int64_t size, stride;
  IndexError* error;

  Axis(Context& context, Operation op, const Tensor& x, int of)
      : operation(op), axis(of), size(x.size(of)), stride(x.stride(of)), error(context.index_error()) {}

  __device__ bool contains(int64_t index) const {
    if (index >= 0 && index < size) return true;
    if (atomicCAS(&error->found, 0, operation + 1) == 0) {
      error->axis = axis;
      error->index = index;
      error->size = size;
    }
    return false;
  }
};

// --- gathering -----------------------------------------------------------------------------------------------------

template <class T>
__global__ void gather_elements(IndexSpace<3> space, Axis axis, const int64_t* index, const T* x, T* out) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < space.numel;
       i += int64_t{gridDim.x} * blockDim.x) {
    int64_t at[3];
    space.offsets(i, at);
    const int64_t picked = index[at[1]];
    if (axis.contains(picked)) out[at[0]] = x[at[2] + picked * axis.stride];
  }
}

void gather_along(Operation operation, const Tensor& x, int axis, const Tensor& index, const Strides& index_strides,
                  Tensor& out) {
  if (out.numel() == 0) return;
  Context& context = Context::of(out.device());
  const auto space = in_memory_order<3>(out.shape(), {out.strides(), index_strides, strides_without(x, axis)});
  dispatch_size(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(context, {kIndexOperations[operation], blocks_for(context, space.numel, kThreads), kThreads},
           gather_elements<T>, space, Axis(context, operation, x, axis), index.data<int64_t>(),
           static_cast<const T*>(x.raw()), static_cast<T*>(out.raw()));
  });
}

// --- scattering ----------------------------------------------------------------------------------------------------

/// For every line along the axis: put(out[index[i]], values[i]) for i < n in order.
struct Scatter {
  IndexSpace<3> lines;  ///< operands: out, index, values
  Axis axis;
  int64_t n;
  int64_t index_stride, value_stride;
  int64_t sets;  ///< of n indices: one for each line, or one for all
};

/// One thread for each line.
template <class Put, class T>
__global__ void walk_lines(Scatter s, const int64_t* index, const T* values, T* out) {
  const Put put;
  for (int64_t line = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; line < s.lines.numel;
       line += int64_t{gridDim.x} * blockDim.x) {
    int64_t at[3];
    s.lines.offsets(line, at);
    for (int64_t i = 0; i < s.n; ++i) {
      const int64_t picked = index[at[1] + i * s.index_stride];
      if (s.axis.contains(picked)) put(out[at[0] + picked * s.axis.stride], values[at[2] + i * s.value_stride]);
    }
  }
}

/// Entry e is index e % n of set e / n; its key is the place it refers to. Indices out of range come after all places.
__global__ void make_keys(Scatter s, const int64_t* index, uint64_t* keys, uint32_t* positions) {
  for (int64_t e = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; e < s.sets * s.n;
       e += int64_t{gridDim.x} * blockDim.x) {
    const int64_t set = e / s.n;
    int64_t at[3];
    s.lines.offsets(set, at);
    const int64_t picked = index[at[1] + (e - set * s.n) * s.index_stride];
    keys[e] = static_cast<uint64_t>(s.axis.contains(picked) ? set * s.axis.size + picked : s.sets * s.axis.size);
    positions[e] = static_cast<uint32_t>(e);
  }
}

/// One thread for each run of equal keys, and for each line that shares them.
template <class Put, class T>
__global__ void put_runs(Scatter s, const uint64_t* keys, const uint32_t* positions, const T* values, T* out) {
  const Put put;
  const int64_t entries = s.sets * s.n, sharing = s.lines.numel / s.sets;
  for (int64_t t = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; t < entries * sharing;
       t += int64_t{gridDim.x} * blockDim.x) {
    int64_t e = t / sharing;
    const uint64_t key = keys[e];
    if (key == static_cast<uint64_t>(s.sets * s.axis.size) || (e > 0 && keys[e - 1] == key)) continue;
    const int64_t set = static_cast<int64_t>(key) / s.axis.size, picked = static_cast<int64_t>(key) % s.axis.size;
    int64_t at[3];
    s.lines.offsets(sharing == 1 ? set : t % sharing, at);
    T* const to = out + at[0] + picked * s.axis.stride;
    T result = *to;
    for (; e < entries && keys[e] == key; ++e) put(result, values[at[2] + (positions[e] - set * s.n) * s.value_stride]);
    *to = result;
  }
}

template <class Put, class T>
void scatter_along(Operation operation, Tensor& out, int axis, const Tensor& index, const Strides& index_strides,
                   const Tensor& values) {
  if (values.numel() == 0) return;
  Context& context = Context::of(out.device());
  Scatter s{.lines = in_memory_order<3>(shape_without(values, axis), {out.strides(), index_strides, values.strides()}),
            .axis = Axis(context, operation, out, axis),
            .n = values.size(axis),
            .index_stride = index_strides[axis],
            .value_stride = values.stride(axis),
            .sets = 1};
  const int64_t lines = s.lines.numel;
  if (operation != kIndexAdd) s.sets = lines;
  const int64_t* const where = index.data<int64_t>();
  const T* const from = static_cast<const T*>(values.raw());
  T* const to = static_cast<T*>(out.raw());
  // Sorting takes some twenty launches. It pays when a walk is long, unless so many lines walk that the GPU is busy and
  // each line would need keys of its own.
  constexpr int64_t kShortWalk = 32, kManySets = 4096;
  if (s.n <= kShortWalk || s.sets >= kManySets) {
    launch(context, {kIndexOperations[operation], blocks_for(context, lines, kThreads), kThreads}, walk_lines<Put, T>,
           s, where, from, to);
    return;
  }
  const int64_t entries = s.sets * s.n;
  RadixSort<uint64_t> sorter(context, 1, entries);
  launch(context, {"index.keys", blocks_for(context, entries, kThreads), kThreads}, make_keys, s, where, sorter.keys(),
         sorter.positions());
  sorter.run(std::bit_width(static_cast<uint64_t>(s.sets * s.axis.size)));
  launch(context, {kIndexOperations[operation], blocks_for(context, entries * (lines / s.sets), kThreads), kThreads},
         put_runs<Put, T>, s, sorter.keys(), sorter.positions(), from, to);
}

}  // namespace

void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  gather_along(kGather, x, axis, index, index.strides(), out);
}

void scatter(Tensor& out, int axis, const Tensor& index, const Tensor& values) {
  dispatch_size(out.dtype(), [&](auto zero) {
    scatter_along<Assign, decltype(zero)>(kScatter, out, axis, index, index.strides(), values);
  });
}

void scatter_add(Tensor& out, int axis, const Tensor& index, const Tensor& values) {
  dispatch(out.dtype(), [&](auto zero) {
    scatter_along<AddTo, decltype(zero)>(kScatterAdd, out, axis, index, index.strides(), values);
  });
}

void index_select(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  gather_along(kIndexSelect, x, axis, index, strides_along(index, axis, x.rank()), out);
}

void index_add(Tensor& out, int axis, const Tensor& index, const Tensor& values) {
  dispatch(out.dtype(), [&](auto zero) {
    scatter_along<AddTo, decltype(zero)>(kIndexAdd, out, axis, index, strides_along(index, axis, out.rank()), values);
  });
}

}  // namespace espalier::cuda
