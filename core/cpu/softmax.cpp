// Softmax and log-softmax over the last axis, and their gradients from the output.
//
// The largest value of a row is subtracted first, so that nothing overflows. A row of -inf only (everything
// masked) has no distribution: softmax gives 0 there, log-softmax -inf, rather than the NaN of 0/0. A NaN or
// +inf in a row makes the row NaN.

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/cpu/table.h"
#include "core/cpu/vector_math.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kGrainElements = 1 << 12;  // elements that are worth a thread

/// Calls f(offset of the row) for every row of n elements, in parallel.
template <class F>
void for_each_row(int64_t numel, int64_t n, F&& f) {
  if (numel == 0) return;
  parallel_for(numel / n, std::max<int64_t>(1, kGrainElements / n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row * n);
  });
}

template <class T>
void softmax_row(const T* x, int64_t n, bool log, T* y) {
  T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  const T shift = largest == -std::numeric_limits<T>::infinity() ? T{0} : largest;
  T sum = 0;
  if (log) {
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += vector_math::exp(x[i] - shift);
    const T log_sum = sum == 0 ? T{0} : std::log(sum);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - shift) - log_sum;
  } else {
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
      const T e = vector_math::exp(x[i] - shift);
      y[i] = e;
      sum += e;
    }
    const T scale = sum == 0 ? T{0} : T{1} / sum;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] *= scale;
  }
}

template <class T>
void softmax_grad_row(const T* dy, const T* y, int64_t n, bool log, T* dx) {
  T sum = 0;
  if (log) {
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += dy[i];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) dx[i] = dy[i] - vector_math::exp(y[i]) * sum;
  } else {
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += dy[i] * y[i];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) dx[i] = y[i] * (dy[i] - sum);
  }
}

}  // namespace

void softmax(const Tensor& x, bool log, Tensor& y) {
  dispatch_floating(x.dtype(), "softmax", [&]<class T>(T) {
    const T* from = x.data<T>();
    T* to = y.data<T>();
    const int64_t n = x.size(-1);
    for_each_row(x.numel(), n, [&](int64_t row) { softmax_row(from + row, n, log, to + row); });
  });
}

void softmax_grad(const Tensor& dy, const Tensor& y, bool log, Tensor& dx) {
  dispatch_floating(dy.dtype(), "softmax_grad", [&]<class T>(T) {
    const T *grad = dy.data<T>(), *out = y.data<T>();
    T* to = dx.data<T>();
    const int64_t n = dy.size(-1);
    for_each_row(dy.numel(), n, [&](int64_t row) { softmax_grad_row(grad + row, out + row, n, log, to + row); });
  });
}

}  // namespace espalier::cpu
