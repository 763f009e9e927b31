// The pointwise part of one LSTM step and its gradient, by the formulas of core/backend/lstm.h, each one fused kernel
// with a thread for a hidden unit. The matrix products around it are matmul's. A row of gates is (i, f, g, o), H values
// each.

#include <cmath>

#include "core/backend/lstm.h"
#include "cuda/sigmoid.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void cell_kernel(int64_t units, int64_t hidden, T* gates, const T* c_prev, T* c, T* h) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t unit = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; unit < units; unit += step) {
    const int64_t row = unit / hidden;
    T* const i = gates + unit + row * 3 * hidden;  // row * 4H + j
    T *const f = i + hidden, *const g = f + hidden, *const o = g + hidden;
    const LstmGates<T> gate{sigmoid(*i), sigmoid(*f), std::tanh(*g), sigmoid(*o)};
    const T cell = gate.cell(c_prev[unit]);
    *i = gate.input, *f = gate.forget, *g = gate.candidate, *o = gate.output;
    c[unit] = cell;
    h[unit] = gate.output * std::tanh(cell);
  }
}

template <class T>
__global__ void cell_grad_kernel(int64_t units, int64_t hidden, const T* gates, const T* c_prev, const T* c,
                                 const T* dh, const T* dc, T* dgates, T* dc_prev) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t unit = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; unit < units; unit += step) {
    const int64_t first = unit + unit / hidden * 3 * hidden;  // row * 4H + j
    const LstmGates<T> gate{gates[first], gates[first + hidden], gates[first + 2 * hidden], gates[first + 3 * hidden]};
    const LstmGradient<T> d(gate, c_prev[unit], std::tanh(c[unit]), dh[unit], dc[unit]);
    dgates[first] = d.input;
    dgates[first + hidden] = d.forget;
    dgates[first + 2 * hidden] = d.candidate;
    dgates[first + 3 * hidden] = d.output;
    dc_prev[unit] = d.c_prev;
  }
}

}  // namespace

void lstm_cell(Tensor& gates, const Tensor& c_prev, Tensor& c, Tensor& h) {
  if (c.numel() == 0) return;
  Context& context = Context::of(c.device());
  dispatch_floating(c.dtype(), "lstm_cell", [&]<class T>(T) {
    launch(context, {"lstm.cell", blocks_for(context, c.numel(), kThreads), kThreads}, cell_kernel<T>, c.numel(),
           c.size(1), gates.data<T>(), c_prev.data<T>(), c.data<T>(), h.data<T>());
  });
}

void lstm_cell_grad(const Tensor& gates, const Tensor& c_prev, const Tensor& c, const Tensor& dh, const Tensor& dc,
                    Tensor& dgates, Tensor& dc_prev) {
  if (c.numel() == 0) return;
  Context& context = Context::of(c.device());
  dispatch_floating(c.dtype(), "lstm_cell_grad", [&]<class T>(T) {
    launch(context, {"lstm.cell_grad", blocks_for(context, c.numel(), kThreads), kThreads}, cell_grad_kernel<T>,
           c.numel(), c.size(1), gates.data<T>(), c_prev.data<T>(), c.data<T>(), dh.data<T>(), dc.data<T>(),
           dgates.data<T>(), dc_prev.data<T>());
  });
}

}  // namespace espalier::cuda
