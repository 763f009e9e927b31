// The pointwise part of one LSTM step and its gradient, by the formulas of core/backend/lstm.h. The matrix products
// around it are matmul's. A row of gates is (i, f, g, o), H values each.

#include <algorithm>

#include "core/backend/lstm.h"
#include "core/cpu/table.h"
#include "core/cpu/vector_math.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kGrainElements = 1 << 11;  // hidden units that are worth a thread

/// Calls f(row) for every row of the batch, in parallel.
template <class F>
void for_each_row(int64_t batch, int64_t hidden, F&& f) {
  parallel_for(batch, std::max<int64_t>(1, kGrainElements / std::max<int64_t>(hidden, 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) f(row);
               });
}

}  // namespace

void lstm_cell(Tensor& gates, const Tensor& c_prev, Tensor& c, Tensor& h) {
  const int64_t batch = c.size(0), hidden = c.size(1);
  dispatch_floating(c.dtype(), "lstm_cell", [&]<class T>(T) {
    T *all_gates = gates.data<T>(), *all_c = c.data<T>(), *all_h = h.data<T>();
    const T* all_prev = c_prev.data<T>();
    for_each_row(batch, hidden, [&](int64_t row) {
      T *i = all_gates + row * 4 * hidden, *f = i + hidden, *g = f + hidden, *o = g + hidden;
      const T* prev = all_prev + row * hidden;
      T *c_row = all_c + row * hidden, *h_row = all_h + row * hidden;
#pragma omp simd
      for (int64_t j = 0; j < hidden; ++j) {
        const LstmGates<T> gate{vector_math::sigmoid(i[j]), vector_math::sigmoid(f[j]), vector_math::tanh(g[j]),
                                vector_math::sigmoid(o[j])};
        const T cell = gate.cell(prev[j]);
        i[j] = gate.input, f[j] = gate.forget, g[j] = gate.candidate, o[j] = gate.output;
        c_row[j] = cell;
        h_row[j] = gate.output * vector_math::tanh(cell);
      }
    });
  });
}

void lstm_cell_grad(const Tensor& gates, const Tensor& c_prev, const Tensor& c, const Tensor& dh, const Tensor& dc,
                    Tensor& dgates, Tensor& dc_prev) {
  const int64_t batch = c.size(0), hidden = c.size(1);
  dispatch_floating(c.dtype(), "lstm_cell_grad", [&]<class T>(T) {
    const T *all_gates = gates.data<T>(), *all_prev = c_prev.data<T>(), *all_c = c.data<T>();
    const T *all_dh = dh.data<T>(), *all_dc = dc.data<T>();
    T *all_dgates = dgates.data<T>(), *all_dprev = dc_prev.data<T>();
    for_each_row(batch, hidden, [&](int64_t row) {
      const T *i = all_gates + row * 4 * hidden, *f = i + hidden, *g = f + hidden, *o = g + hidden;
      T *di = all_dgates + row * 4 * hidden, *df = di + hidden, *dg = df + hidden, *d_o = dg + hidden;
      const T *prev = all_prev + row * hidden, *c_row = all_c + row * hidden;
      const T *dh_row = all_dh + row * hidden, *dc_row = all_dc + row * hidden;
      T* dprev = all_dprev + row * hidden;
#pragma omp simd
      for (int64_t j = 0; j < hidden; ++j) {
        const LstmGradient<T> d({i[j], f[j], g[j], o[j]}, prev[j], vector_math::tanh(c_row[j]), dh_row[j], dc_row[j]);
        di[j] = d.input, df[j] = d.forget, dg[j] = d.candidate, d_o[j] = d.output;
        dprev[j] = d.c_prev;
      }
    });
  });
}

}  // namespace espalier::cpu
