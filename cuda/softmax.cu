// Softmax and log-softmax over the last axis, and their gradients from the output.
//
// The gradients are cuDNN's. The forward is not: cuDNN makes a row of -inf only (everything masked) NaN, while here, as
// on the CPU, softmax gives 0 there and log-softmax -inf. A NaN or +inf in a row makes the row NaN.

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/dnn.h"
#include "cuda/launch.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

/// Combines one value of each of a row's threads, in an order that is always the same; all of them get the result.
/// A row has one warp, or the whole block, whose `shared` memory then carries the warps' results.
template <int kRowThreads, class T, class Shared, class Combine>
__device__ T combine_row(T value, Shared& shared, Combine combine) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kFullWarp, value, offset);
    value = combine(value, other);
  }
  if constexpr (kRowThreads > kWarp) {
    __syncthreads();  // the last call's values have been read
    if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = shared[0];
    for (int warp = 1; warp < kWarps; ++warp) {
      const T other = shared[warp];
      value = combine(value, other);
    }
  }
  return value;
}

/// Rows of n values, kRowThreads for each: one warp where rows are short, one block where they are long.
template <class T, int kRowThreads>
__global__ void softmax_kernel(const T* x, int64_t rows, int64_t n, bool log, T* y) {
  SHARED_ARRAY(double, shared, kWarps);
  constexpr int kRows = kThreads / kRowThreads;
  const int lane = static_cast<int>(threadIdx.x) % kRowThreads;
  for (int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x / kRowThreads; row < rows;
       row += int64_t{gridDim.x} * kRows) {
    const T* from = x + row * n;
    T* to = y + row * n;
    // NaN never counts as the largest: it comes back through the sum.
    T largest = -std::numeric_limits<T>::infinity();
    for (int64_t i = lane; i < n; i += kRowThreads) largest = from[i] > largest ? from[i] : largest;
    largest = static_cast<T>(combine_row<kRowThreads>(static_cast<double>(largest), shared,
                                                      [](double a, double b) { return b > a ? b : a; }));
    const T shift = largest == -std::numeric_limits<T>::infinity() ? T{0} : largest;
    double sum = 0;
    for (int64_t i = lane; i < n; i += kRowThreads) sum += static_cast<double>(std::exp(from[i] - shift));
    sum = combine_row<kRowThreads>(sum, shared, [](double a, double b) { return a + b; });
    if (log) {
      const T log_sum = sum == 0 ? T{0} : static_cast<T>(std::log(sum));
      for (int64_t i = lane; i < n; i += kRowThreads) to[i] = (from[i] - shift) - log_sum;
    } else {
      const T scale = sum == 0 ? T{0} : static_cast<T>(1 / sum);
      for (int64_t i = lane; i < n; i += kRowThreads) to[i] = std::exp(from[i] - shift) * scale;
    }
  }
}

}  // namespace

void softmax(const Tensor& x, bool log, Tensor& y) {
  if (x.numel() == 0) return;
  Context& context = Context::of(x.device());
  dispatch_floating(x.dtype(), "softmax", [&]<class T>(T) {
    const int64_t n = x.size(-1), rows = x.numel() / n;
    constexpr int64_t kLong = 1024;  // 32 values for each lane of a warp
    if (n < kLong) {
      launch(context, {"softmax.rows_by_warps", blocks_for(context, rows * kWarp, kThreads), kThreads},
             softmax_kernel<T, kWarp>, x.data<T>(), rows, n, log, y.data<T>());
    } else {
      launch(context, {"softmax.rows_by_blocks", blocks_for(context, rows * kThreads, kThreads), kThreads},
             softmax_kernel<T, kThreads>, x.data<T>(), rows, n, log, y.data<T>());
    }
  });
}

void softmax_grad(const Tensor& dy, const Tensor& y, bool log, Tensor& dx) {
  if (dy.numel() == 0) return;
  Context& context = Context::of(dy.device());
  const int64_t n = dy.size(-1), rows = dy.numel() / n;
  // To cuDNN a row is an image of n channels. It takes less than 2^31 elements at a time.
  const int64_t most_rows = std::max<int64_t>(std::numeric_limits<int>::max() / n, 1);
  const cudnnSoftmaxAlgorithm_t algorithm = log ? CUDNN_SOFTMAX_LOG : CUDNN_SOFTMAX_ACCURATE;
  dispatch_floating(dy.dtype(), "softmax_grad", [&]<class T>(T) {
    for (int64_t row = 0; row < rows; row += most_rows) {
      const TensorDescriptor images;
      set(images, dy.dtype(), {std::min(most_rows, rows - row), n, 1, 1}, "softmax_grad");
      const T alpha = 1, beta = 0;
      const int64_t at = row * n;
      check(cudnnSoftmaxBackward(context.dnn(), algorithm, CUDNN_SOFTMAX_MODE_INSTANCE, &alpha, images,
                                 y.data<T>() + at, images, dy.data<T>() + at, &beta, images, dx.data<T>() + at),
            "cudnnSoftmaxBackward");
    }
  });
}

}  // namespace espalier::cuda
