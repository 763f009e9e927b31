// Pooling over (N,C,H,W): every plane (n, c) on its own.
//
// Average pooling is cuDNN's, but not its gradient: cuDNN's wants x and y, which nobody keeps. Max pooling needs the
// winners' indices and adaptive windows differ in size: cuDNN has neither. No gradient uses atomics: each element of dx
// is summed by one thread, in the order of the outputs.

#include <algorithm>

#include "core/backend/pool2d.h"
#include "cuda/dnn.h"
#include "cuda/launch.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;

/// Element (plane, row, column) of (planes, rows, columns).
struct Position {
  int64_t plane, row, column;

  __device__ Position(int64_t i, int64_t rows, int64_t columns) {
    column = i % columns;
    i /= columns;
    row = i % rows;
    plane = i / rows;
  }
};

/// The outputs whose windows hold input i: o * stride - padding <= i < o * stride - padding + kernel.
__device__ Window covering_outputs(int64_t i, int64_t kernel, int64_t stride, int64_t padding, int64_t outputs) {
  const int64_t past = i + padding - kernel;  // the last output with its window before i starts at most here
  const int64_t begin = past < 0 ? 0 : past / stride + 1, end = (i + padding) / stride + 1;
  return {begin, end < outputs ? end : outputs};
}

template <class T>
__global__ void max_kernel(const T* x, PlaneSizes s, Pool2dShape p, T* y, int64_t* index) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x, numel = s.planes * s.oh * s.ow;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < numel; i += step) {
    const Position out(i, s.oh, s.ow);
    const Window rows = clipped_window(out.row, p.kernel_h, p.stride_h, p.padding_h, s.h);
    const Window columns = clipped_window(out.column, p.kernel_w, p.stride_w, p.padding_w, s.w);
    const T* const plane = x + out.plane * s.h * s.w;
    const Winner<T> winner(plane, s.w, rows, columns);
    y[i] = winner.value;
    index[i] = winner.index;
  }
}

/// One warp for a band of a plane of dx. Windows may overlap, so that several outputs have one winner, and nothing is
/// known of the windows' shape; but the outputs of a plane are read in order, 32 at a time, and each lane adds up the
/// gradients of all lanes that share its winner, so that they write the same sum. Bands let several warps share large
/// planes: each reads all of the plane's winners and keeps those in its band.
template <class T>
__global__ void max_grad_kernel(const T* dy, const int64_t* index, int64_t planes, int64_t bands, int64_t inputs,
                                int64_t outputs, T* dx) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warps = int64_t{gridDim.x} * (blockDim.x / kWarp);
  for (int64_t task = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp; task < planes * bands; task += warps) {
    const int64_t plane = task / bands, band = task % bands;
    const int64_t begin = inputs * band / bands, end = inputs * (band + 1) / bands;
    T* const image = dx + plane * inputs;
    for (int64_t i = begin + lane; i < end; i += kWarp) image[i] = 0;
    __syncwarp();
    for (int64_t first = 0; first < outputs; first += kWarp) {
      const int64_t out = first + lane;
      long long winner = out < outputs ? index[plane * outputs + out] : -1;
      if (winner < begin || winner >= end) winner = -1;
      if (!__any_sync(kFullWarp, winner >= 0)) continue;
      const T gradient = winner >= 0 ? dy[plane * outputs + out] : T{0};
      T sum = winner >= 0 ? image[winner] : T{0};
      for (int other = 0; other < kWarp; ++other) {
        const long long others_winner = __shfl_sync(kFullWarp, winner, other);
        const T others_gradient = __shfl_sync(kFullWarp, gradient, other);
        if (others_winner == winner) sum += others_gradient;
      }
      __syncwarp();  // all have read before one writes
      if (winner >= 0) image[winner] = sum;
      __syncwarp();
    }
  }
}

template <class T>
__global__ void avg_grad_kernel(const T* dy, PlaneSizes s, Pool2dShape p, T* dx) {
  const T scale = T{1} / static_cast<T>(p.kernel_h * p.kernel_w);
  const int64_t step = int64_t{gridDim.x} * blockDim.x, numel = s.planes * s.h * s.w;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < numel; i += step) {
    const Position in(i, s.h, s.w);
    const Window rows = covering_outputs(in.row, p.kernel_h, p.stride_h, p.padding_h, s.oh);
    const Window columns = covering_outputs(in.column, p.kernel_w, p.stride_w, p.padding_w, s.ow);
    const T* const plane = dy + in.plane * s.oh * s.ow;
    T sum = 0;
    for (int64_t h = rows.begin; h < rows.end; ++h)
      for (int64_t w = columns.begin; w < columns.end; ++w) sum += plane[h * s.ow + w] * scale;
    dx[i] = sum;
  }
}

/// kLanes threads for each output: 1, or a warp where the windows are large.
template <class T, int kLanes>
__global__ void adaptive_avg_kernel(const T* x, PlaneSizes s, T* y) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t step = int64_t{gridDim.x} * (blockDim.x / kLanes), numel = s.planes * s.oh * s.ow;
  for (int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kLanes; i < numel; i += step) {
    const Position out(i, s.oh, s.ow);
    const Window rows = adaptive_window(out.row, s.oh, s.h), columns = adaptive_window(out.column, s.ow, s.w);
    const T* const corner = x + (out.plane * s.h + rows.begin) * s.w + columns.begin;
    double sum = 0;  // the window may be the whole image
    for (int64_t at = lane; at < rows.size() * columns.size(); at += kLanes)
      sum += static_cast<double>(corner[at / columns.size() * s.w + at % columns.size()]);
    for (int offset = kLanes / 2; offset > 0; offset /= 2) sum += __shfl_down_sync(kFullWarp, sum, offset);
    if (lane == 0) y[i] = static_cast<T>(sum / static_cast<double>(rows.size() * columns.size()));
  }
}

template <class T>
__global__ void adaptive_avg_grad_kernel(const T* dy, PlaneSizes s, T* dx) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x, numel = s.planes * s.h * s.w;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < numel; i += step) {
    const Position in(i, s.h, s.w);
    const Window rows = adaptive_window(in.row, s.h, s.oh), columns = adaptive_window(in.column, s.w, s.ow);
    const T* const plane = dy + in.plane * s.oh * s.ow;
    T sum = 0;
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      const int64_t height = adaptive_window(h, s.oh, s.h).size();
      for (int64_t w = columns.begin; w < columns.end; ++w)
        sum += plane[h * s.ow + w] / static_cast<T>(height * adaptive_window(w, s.ow, s.w).size());
    }
    dx[i] = sum;
  }
}

}  // namespace

void max_pool2d(const Tensor& x, const Pool2dShape& shape, Tensor& y, Tensor& index) {
  if (y.numel() == 0) return;
  Context& context = Context::of(y.device());
  dispatch_floating(x.dtype(), "max_pool2d", [&]<class T>(T) {
    launch(context, {"pool2d.max", blocks_for(context, y.numel(), kThreads), kThreads}, max_kernel<T>, x.data<T>(),
           PlaneSizes(x, y), shape, y.data<T>(), index.data<int64_t>());
  });
}

void max_pool2d_grad(const Tensor& dy, const Tensor& index, Tensor& dx) {
  if (dx.numel() == 0) return;
  Context& context = Context::of(dx.device());
  const PlaneSizes s(dx, dy);
  // Enough warps for the device, of which none has less than 256 elements of dx.
  const int64_t wanted = int64_t{8} * context.multiprocessors() * (kThreads / kWarp) / s.planes;
  const int64_t bands = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(s.h * s.w / 256, 1));
  dispatch_floating(dy.dtype(), "max_pool2d_grad", [&]<class T>(T) {
    launch(context, {"pool2d.max_grad", blocks_for(context, s.planes * bands * kWarp, kThreads), kThreads},
           max_grad_kernel<T>, dy.data<T>(), index.data<int64_t>(), s.planes, bands, s.h * s.w, s.oh * s.ow,
           dx.data<T>());
  });
}

void avg_pool2d(const Tensor& x, const Pool2dShape& shape, Tensor& y) {
  if (y.numel() == 0) return;
  using Pooling = Descriptor<cudnnPoolingDescriptor_t, cudnnCreatePoolingDescriptor, cudnnDestroyPoolingDescriptor>;
  constexpr const char* kName = "avg_pool2d";
  const Pooling pooling;
  check(cudnnSetPooling2dDescriptor(pooling, CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING, CUDNN_PROPAGATE_NAN,
                                    dnn_int(shape.kernel_h, kName), dnn_int(shape.kernel_w, kName),
                                    dnn_int(shape.padding_h, kName), dnn_int(shape.padding_w, kName),
                                    dnn_int(shape.stride_h, kName), dnn_int(shape.stride_w, kName)),
        "cudnnSetPooling2dDescriptor");
  const TensorDescriptor from, to;
  set(from, x.dtype(), x.shape(), kName);
  set(to, y.dtype(), y.shape(), kName);
  dispatch_floating(x.dtype(), kName, [&]<class T>(T) {
    const T alpha = 1, beta = 0;
    check(
        cudnnPoolingForward(Context::of(y.device()).dnn(), pooling, &alpha, from, x.data<T>(), &beta, to, y.data<T>()),
        "cudnnPoolingForward");
  });
}

void avg_pool2d_grad(const Tensor& dy, const Pool2dShape& shape, Tensor& dx) {
  if (dx.numel() == 0) return;
  Context& context = Context::of(dx.device());
  dispatch_floating(dy.dtype(), "avg_pool2d_grad", [&]<class T>(T) {
    launch(context, {"pool2d.avg_grad", blocks_for(context, dx.numel(), kThreads), kThreads}, avg_grad_kernel<T>,
           dy.data<T>(), PlaneSizes(dx, dy), shape, dx.data<T>());
  });
}

void adaptive_avg_pool2d(const Tensor& x, Tensor& y) {
  if (y.numel() == 0) return;
  Context& context = Context::of(y.device());
  dispatch_floating(x.dtype(), "adaptive_avg_pool2d", [&]<class T>(T) {
    if (x.size(2) * x.size(3) < kWarp * y.size(2) * y.size(3)) {
      launch(context, {"pool2d.adaptive_avg", blocks_for(context, y.numel(), kThreads), kThreads},
             adaptive_avg_kernel<T, 1>, x.data<T>(), PlaneSizes(x, y), y.data<T>());
    } else {
      launch(context, {"pool2d.adaptive_avg_by_warps", blocks_for(context, y.numel() * kWarp, kThreads), kThreads},
             adaptive_avg_kernel<T, kWarp>, x.data<T>(), PlaneSizes(x, y), y.data<T>());
    }
  });
}

void adaptive_avg_pool2d_grad(const Tensor& dy, Tensor& dx) {
  if (dx.numel() == 0) return;
  Context& context = Context::of(dx.device());
  dispatch_floating(dy.dtype(), "adaptive_avg_pool2d_grad", [&]<class T>(T) {
    launch(context, {"pool2d.adaptive_avg_grad", blocks_for(context, dx.numel(), kThreads), kThreads},
           adaptive_avg_grad_kernel<T>, dy.data<T>(), PlaneSizes(dx, dy), dx.data<T>());
  });
}

}  // namespace espalier::cuda
