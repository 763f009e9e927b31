// Kernels that move elements: fill, copy (with conversion, and through shared memory for transposed tensors), where.
#include "cuda/elementwise.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

template <class To>
struct Convert {
  template <class From>
  __device__ To operator()(From value) const {
    return convert<To>(value);
  }
};

struct Choose {
  template <class T>
  __device__ T operator()(bool condition, T yes, T no) const {
    return condition ? yes : no;
  }
};

// --- transposing ---------------------------------------------------------------------------------------------------

constexpr int kTile = 32, kTileRows = 8;

/// Copies of matrices (rows, columns) of which `out` is dense along the columns and `x` along the rows. Tiles go
/// through shared memory, so that both sides are read and written in whole lines.
struct Transpose {
  int64_t rows, columns;
  int64_t out_stride, x_stride;  ///< of a step along the rows in `out`, along the columns in `x`
  int64_t row_tiles, column_tiles;
};

template <class T>
__global__ void transpose(Transpose shape, IndexSpace<2> matrices, const T* x, T* out) {
  SHARED_ARRAY(T, tile, kTile * (kTile + 1));  // one column more: a column then lies in 32 different banks
  const int64_t tiles = shape.row_tiles * shape.column_tiles * matrices.numel;
  const int lane = static_cast<int>(threadIdx.x), line = static_cast<int>(threadIdx.y);
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t matrix = t / (shape.row_tiles * shape.column_tiles),
                  place = t % (shape.row_tiles * shape.column_tiles);
    const int64_t row = place / shape.column_tiles * kTile, column = place % shape.column_tiles * kTile;
    int64_t at[2];
    matrices.offsets(matrix, at);
    for (int j = line; j < kTile; j += kTileRows) {
      if (row + lane < shape.rows && column + j < shape.columns)
        tile[j * (kTile + 1) + lane] = x[at[1] + (column + j) * shape.x_stride + row + lane];
    }
    __syncthreads();
    for (int i = line; i < kTile; i += kTileRows) {
      if (row + i < shape.rows && column + lane < shape.columns)
        out[at[0] + (row + i) * shape.out_stride + column + lane] = tile[lane * (kTile + 1) + i];
    }
    __syncthreads();
  }
}

/// The axis along which a tensor has unit stride and is worth a tile, or -1.
int dense_axis(const Tensor& x) {
  for (int axis = 0; axis < x.rank(); ++axis)
    if (x.stride(axis) == 1 && x.size(axis) >= kTile / 2) return axis;
  return -1;
}

template <class T>
void copy_same(const Tensor& x, Tensor& out) {
  const int columns = dense_axis(out), rows = dense_axis(x);
  if (columns < 0 || rows < 0 || columns == rows || out.stride(rows) == 1 || x.stride(columns) == 1)
    return map<T>("copy", out, Convert<T>{}, Operand<T>(x));
  Context& context = Context::of(out.device());
  Shape others = out.shape();
  others[rows] = others[columns] = 1;
  const auto tiles = [](int64_t size) { return (size + kTile - 1) / kTile; };
  const Transpose shape{.rows = out.size(rows),
                        .columns = out.size(columns),
                        .out_stride = out.stride(rows),
                        .x_stride = x.stride(columns),
                        .row_tiles = tiles(out.size(rows)),
                        .column_tiles = tiles(out.size(columns))};
  const auto matrices = in_memory_order<2>(others, {out.strides(), x.strides()});
  const int64_t threads = kTile * kTileRows, work = shape.row_tiles * shape.column_tiles * matrices.numel * threads;
  launch(context, {"copy.transpose", blocks_for(context, work, threads), dim3(kTile, kTileRows)}, transpose<T>, shape,
         matrices, static_cast<const T*>(x.raw()), static_cast<T*>(out.raw()));
}

}  // namespace

void fill(Tensor& out, double value) {
  dispatch(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    map<T>("fill", out, Convert<T>{}, Operand<T>(from_double<T>(value), out));
  });
}

void copy(const Tensor& x, Tensor& out) {
  if (out.numel() == 0) return;
  if (x.dtype() == out.dtype()) {
    dispatch_size(x.dtype(), [&](auto zero) { copy_same<decltype(zero)>(x, out); });
    return;
  }
  dispatch(x.dtype(), [&](auto from) {
    dispatch(out.dtype(), [&](auto to) {
      using To = decltype(to);
      map<To>("copy", out, Convert<To>{}, Operand<decltype(from)>(x));
    });
  });
}

void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out) {
  dispatch_size(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    map<T>("where", out, Choose{}, Operand<bool>(condition), Operand<T>(a), Operand<T>(b));
  });
}

}  // namespace espalier::cuda
