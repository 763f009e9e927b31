// Batch normalisation (Ioffe & Szegedy 2015) of x seen as (N,C,S): statistics over N and S for each channel.
//
// Own kernels, not cuDNN's: the sums are taken in double, as on the CPU, and any N, C and S will do (cuDNN refuses
// large batches of (N,C)). The N*S values of a channel are cut into parts, one block gives a part's sums, and these are
// added in order: the same bits every time.

#include <algorithm>
#include <cmath>

#include "core/backend/normalization.h"
#include "cuda/launch.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kPartElements = 1 << 12;  // values of a channel that are worth a block

/// In lane 0: the sums of all lanes, added in an order that is always the same.
__device__ Sums sum_of_warp(Sums sum) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    sum.first += __shfl_down_sync(kFullWarp, sum.first, offset);
    sum.second += __shfl_down_sync(kFullWarp, sum.second, offset);
  }
  return sum;
}

/// partial (parts,C): block b sums part b % parts of channel b / parts, in (n,s) order over its threads.
template <class Values>
__global__ void sum_planes_kernel(Values values, ChannelSizes x, int64_t parts, Sums* partial) {
  SHARED_ARRAY(double, first_of_warp, kWarps);
  SHARED_ARRAY(double, second_of_warp, kWarps);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  // A step of the block goes this far in (n,s): no division inside the loop.
  const int64_t step_n = kThreads / x.s, step_s = kThreads % x.s;
  for (int64_t task = blockIdx.x; task < parts * x.c; task += gridDim.x) {
    const int64_t part = task % parts, c = task / parts;
    const int64_t begin = x.count() * part / parts + threadIdx.x, end = x.count() * (part + 1) / parts;
    Sums sum{0, 0};
    int64_t n = begin / x.s, s = begin % x.s;
    for (int64_t i = begin; i < end; i += kThreads) {
      const Sums v = values((n * x.c + c) * x.s + s, c);
      sum.first += v.first;
      sum.second += v.second;
      n += step_n, s += step_s;
      if (s >= x.s) s -= x.s, ++n;
    }
    sum = sum_of_warp(sum);
    if (lane == 0) first_of_warp[warp] = sum.first, second_of_warp[warp] = sum.second;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int other = 1; other < kWarps; ++other) {
        sum.first += first_of_warp[other];
        sum.second += second_of_warp[other];
      }
      partial[part * x.c + c] = sum;
    }
    __syncthreads();  // before the next task writes there
  }
}

/// The same where S is 1: a warp's lanes take neighbouring channels of a row, its block's warps take turns in the rows.
template <class Values>
__global__ void sum_rows_kernel(Values values, ChannelSizes x, int64_t parts, Sums* partial) {
  SHARED_ARRAY(double, first_of, kThreads);
  SHARED_ARRAY(double, second_of, kThreads);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t task = blockIdx.x; task < parts * ((x.c + kWarp - 1) / kWarp); task += gridDim.x) {
    const int64_t part = task % parts, c = task / parts * kWarp + lane;
    Sums sum{0, 0};
    if (c < x.c) {
      for (int64_t n = x.n * part / parts + warp; n < x.n * (part + 1) / parts; n += kWarps) {
        const Sums v = values(n * x.c + c, c);
        sum.first += v.first;
        sum.second += v.second;
      }
    }
    first_of[threadIdx.x] = sum.first, second_of[threadIdx.x] = sum.second;
    __syncthreads();
    if (warp == 0 && c < x.c) {
      for (int other = 1; other < kWarps; ++other) {
        sum.first += first_of[other * kWarp + lane];
        sum.second += second_of[other * kWarp + lane];
      }
      partial[part * x.c + c] = sum;
    }
    __syncthreads();  // before the next task writes there
  }
}

/// Calls finish(channel, sums over all its parts) once for each channel, which a warp sums: always in the same order.
template <class Finish>
__device__ void finish_channels(const Sums* partial, int64_t parts, int64_t channels, Finish finish) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t c = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; c < channels; c += int64_t{gridDim.x} * kWarps) {
    Sums sum{0, 0};
    for (int64_t part = lane; part < parts; part += kWarp) {
      sum.first += partial[part * channels + c].first;
      sum.second += partial[part * channels + c].second;
    }
    sum = sum_of_warp(sum);
    if (lane == 0) finish(c, sum);
  }
}

template <class T>
__global__ void finish_stats_kernel(Deviations<T> values, ChannelSizes x, int64_t parts, const Sums* partial,
                                    double epsilon, T* mean, T* variance, T* inv_std) {
  finish_channels(partial, parts, x.c, [&](int64_t c, const Sums& sum) {
    const Statistics<T> channel(values, sum, x.count(), c, epsilon);
    mean[c] = channel.mean;
    variance[c] = channel.variance;
    inv_std[c] = channel.inv_std;
  });
}

template <class T>
__global__ void track_kernel(const T* mean, const T* variance, int64_t channels, T momentum, T unbias, T* running_mean,
                             T* running_var, int64_t* batches) {
  for (int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; c < channels; c += int64_t{gridDim.x} * blockDim.x) {
    running_mean[c] += momentum * (mean[c] - running_mean[c]);
    running_var[c] += momentum * (variance[c] * unbias - running_var[c]);
    if (c == 0) *batches += 1;
  }
}

template <class T>
__global__ void finish_grad_kernel(ChannelSizes x, int64_t parts, const Sums* partial, const T* inv_std,
                                   const T* weight, Slopes<T>* slopes, T* dweight, T* dbias) {
  finish_channels(partial, parts, x.c, [&](int64_t c, const Sums& sum) {
    slopes[c] = Slopes<T>(sum, x.count(), inv_std[c], weight ? weight[c] : T{1});
    dbias[c] = slopes[c].dbias;
    dweight[c] = slopes[c].dweight;
  });
}

/// The channel of elements i, i + step, i + 2 step, ...: one division, then additions.
struct ChannelWalk {
  int64_t channels, spatial, step_c, step_s, c, s;

  __device__ ChannelWalk(const ChannelSizes& x, int64_t i, int64_t step)
      : channels(x.c), spatial(x.s), step_c(step / x.s % x.c), step_s(step % x.s), c(i / x.s % x.c), s(i % x.s) {}
  __device__ void advance() {
    c += step_c, s += step_s;
    if (s >= spatial) s -= spatial, ++c;
    if (c >= channels) c -= channels;
  }
};

template <class T>
__global__ void normalize_kernel(const T* x, ChannelSizes sizes, const T* mean, const T* inv_std, const T* weight,
                                 const T* bias, T* y) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x, numel = sizes.count() * sizes.c;
  int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (ChannelWalk at(sizes, i, step); i < numel; i += step, at.advance()) {
    const T scale = weight ? inv_std[at.c] * weight[at.c] : inv_std[at.c];
    y[i] = normalized(x[i], mean[at.c], scale, bias ? bias[at.c] : T{0});
  }
}

template <class T>
__global__ void input_grad_kernel(Gradients<T> in, ChannelSizes sizes, const Slopes<T>* slopes, T* dx) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x, numel = sizes.count() * sizes.c;
  int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (ChannelWalk at(sizes, i, step); i < numel; i += step, at.advance()) {
    const Slopes<T>& k = slopes[at.c];
    dx[i] = input_gradient(in.dy[i], in.x[i] - in.mean[at.c], k.scale, k.mean_dy, k.slope);
  }
}

/// How many parts fill a large GPU, when each has enough to do. Not this one: the same bits on all of them.
int64_t parts_of(const ChannelSizes& x) {
  constexpr int64_t kBlocks = 1024;
  const int64_t blocks_of_a_part = x.s == 1 ? (x.c + kWarp - 1) / kWarp : x.c;
  const int64_t enough = x.s == 1 ? x.n / (kPartElements / kWarp) : x.count() / kPartElements;
  return std::clamp<int64_t>(kBlocks / std::max<int64_t>(blocks_of_a_part, 1), 1, std::max<int64_t>(enough, 1));
}

template <class Values>
void sum_channels(Context& context, const Values& values, const ChannelSizes& x, int64_t parts, Sums* partial) {
  if (x.s == 1) {
    const int64_t tasks = parts * ((x.c + kWarp - 1) / kWarp);
    launch(context, {"normalization.sum_rows", blocks_for(context, tasks * kThreads, kThreads), kThreads},
           sum_rows_kernel<Values>, values, x, parts, partial);
  } else {
    launch(context, {"normalization.sum_planes", blocks_for(context, parts * x.c * kThreads, kThreads), kThreads},
           sum_planes_kernel<Values>, values, x, parts, partial);
  }
}

template <class T>
const T* data_or_null(const Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}

}  // namespace

void batch_norm_stats(const Tensor& x, double epsilon, Tensor& mean, Tensor& variance, Tensor& inv_std) {
  const ChannelSizes sizes(x);
  if (sizes.c == 0) return;
  Context& context = Context::of(x.device());
  dispatch_floating(x.dtype(), "batch_norm_stats", [&]<class T>(T) {
    const int64_t parts = parts_of(sizes);
    const Scratch partial(context, static_cast<size_t>(parts * sizes.c) * sizeof(Sums));
    const Deviations<T> values{x.data<T>(), sizes.s};
    sum_channels(context, values, sizes, parts, partial.as<Sums>());
    launch(context, {"normalization.finish_stats", blocks_for(context, sizes.c * kWarp, kThreads), kThreads},
           finish_stats_kernel<T>, values, sizes, parts, partial.as<Sums>(), epsilon, mean.data<T>(),
           variance.data<T>(), inv_std.data<T>());
  });
}

void batch_norm_track(const Tensor& mean, const Tensor& variance, double momentum, double unbias, Tensor& running_mean,
                      Tensor& running_var, Tensor& batches) {
  if (mean.numel() == 0) return;
  Context& context = Context::of(mean.device());
  dispatch_floating(mean.dtype(), "batch_norm_track", [&]<class T>(T) {
    launch(context, {"normalization.track", blocks_for(context, mean.numel(), kThreads), kThreads}, track_kernel<T>,
           mean.data<T>(), variance.data<T>(), mean.numel(), momentum, unbias, running_mean.data<T>(),
           running_var.data<T>(), batches.data<int64_t>());
  });
}

void batch_norm(const Tensor& x, const Tensor& mean, const Tensor& inv_std, const Tensor& weight, const Tensor& bias,
                Tensor& y) {
  if (x.numel() == 0) return;
  Context& context = Context::of(x.device());
  dispatch_floating(x.dtype(), "batch_norm", [&]<class T>(T) {
    launch(context, {"normalization.normalize", blocks_for(context, x.numel(), kThreads), kThreads},
           normalize_kernel<T>, x.data<T>(), ChannelSizes(x), mean.data<T>(), inv_std.data<T>(),
           data_or_null<T>(weight), data_or_null<T>(bias), y.data<T>());
  });
}

void batch_norm_grad(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& inv_std, const Tensor& weight,
                     Tensor& dx, Tensor& dweight, Tensor& dbias) {
  const ChannelSizes sizes(x);
  if (sizes.c == 0) return;
  Context& context = Context::of(x.device());
  dispatch_floating(x.dtype(), "batch_norm_grad", [&]<class T>(T) {
    const int64_t parts = parts_of(sizes);
    const Scratch partial(context, static_cast<size_t>(parts * sizes.c) * sizeof(Sums));
    const Scratch slopes(context, static_cast<size_t>(sizes.c) * sizeof(Slopes<T>));
    const Gradients<T> values{dy.data<T>(), x.data<T>(), mean.data<T>()};
    sum_channels(context, values, sizes, parts, partial.as<Sums>());
    launch(context, {"normalization.finish_grad", blocks_for(context, sizes.c * kWarp, kThreads), kThreads},
           finish_grad_kernel<T>, sizes, parts, partial.as<Sums>(), inv_std.data<T>(), data_or_null<T>(weight),
           slopes.as<Slopes<T>>(), dweight.data<T>(), dbias.data<T>());
    if (x.numel() == 0) return;
    launch(context, {"normalization.input_grad", blocks_for(context, x.numel(), kThreads), kThreads},
           input_grad_kernel<T>, values, sizes, slopes.as<Slopes<T>>(), dx.data<T>());
  });
}

}  // namespace espalier::cuda
