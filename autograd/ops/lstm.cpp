// One direction of one LSTM layer (Hochreiter & Schmidhuber 1997, with forget gates):
//   i,f,g,o = x w_ih^T + h w_hh^T + b_ih + b_hh;   c' = s(f) c + s(i) tanh(g);   h' = s(o) tanh(c').
// Forward and backward are fused over time: the input's share of all gates is one product of matrices, and so is each
// weight gradient; only h w_hh^T is done step by step.
#include "autograd/axes.h"
#include "autograd/ops.h"

namespace espalier {
namespace {

/// Steps in the order in which they run, and where each step's states stand in an array of T+1 states.
class StepOrder {
 public:
  StepOrder(int64_t steps, bool reverse) : steps_(steps), reverse_(reverse) {}
  int64_t step(int64_t i) const { return reverse_ ? steps_ - 1 - i : i; }
  int64_t state_before(int64_t t) const { return reverse_ ? t + 1 : t; }
  int64_t state_after(int64_t t) const { return reverse_ ? t : t + 1; }
  int64_t first_state() const { return reverse_ ? steps_ : 0; }
  int64_t last_state() const { return reverse_ ? 0 : steps_; }
  /// The T states before, or after, each step, of an array (T+1,B,H).
  Tensor states_before(const Tensor& states) const { return states.slice(0, reverse_, steps_ + reverse_); }
  Tensor states_after(const Tensor& states) const { return states.slice(0, !reverse_, steps_ + !reverse_); }

 private:
  int64_t steps_;
  bool reverse_;
};

/// (T,B,1): whether step t belongs to sequence b; undefined when all sequences have all steps.
Tensor step_mask(const Tensor& lengths, int64_t steps, int64_t batch, Device device) {
  if (!lengths.defined()) return {};
  check(lengths.dtype() == DType::i64 && lengths.shape() == Shape{batch}, "lstm",
        "expected i64 lengths of shape ({}), one for each sequence, got {}", batch, describe(lengths));
  for (int64_t length : lengths.to_vector<int64_t>())
    check(length >= 1 && length <= steps, "lstm", "expected lengths from 1 to {} steps, got {}", steps, length);
  return (Tensor::arange(0, static_cast<double>(steps)).reshape({steps, 1, 1}) <
          lengths.to(Device::cpu()).reshape({1, batch, 1}))
      .to(device);
}

Variable zero_like(const Variable& x) { return Tensor::scalar(0, x.dtype(), x.device()); }

/// The same function step by step from differentiable operations: {output, h, c}.
Variables composed_lstm(const Variables& in, const Tensor& mask, bool reverse) {
  const Variable &x = in[0], &w_ih = in[3], &w_hh = in[4], &b_ih = in[5], &b_hh = in[6];
  Variable h = in[1], c = in[2];
  const int64_t steps = x.size(0), hidden = h.size(1);
  const StepOrder order(steps, reverse);
  Variables outputs(static_cast<size_t>(steps));
  for (int64_t i = 0; i < steps; ++i) {
    const int64_t t = order.step(i);
    const Variable gates = linear(select(x, 0, t), w_ih, b_ih) + linear(h, w_hh, b_hh);
    const auto gate = [&](int64_t k) { return slice(gates, 1, k * hidden, (k + 1) * hidden); };
    const Variable new_c = sigmoid(gate(1)) * c + sigmoid(gate(0)) * tanh(gate(2));
    const Variable new_h = sigmoid(gate(3)) * tanh(new_c);
    if (mask.defined()) {
      const Tensor alive = mask.select(0, t);
      c = where(alive, new_c, c);
      h = where(alive, new_h, h);
      outputs[static_cast<size_t>(t)] = where(alive, new_h, zero_like(new_h));
    } else {
      c = new_c;
      h = outputs[static_cast<size_t>(t)] = new_h;
    }
  }
  return {stack(outputs, 0), h, c};
}

void check_arguments(const Variable& x, const Variable& h0, const Variable& c0, const Variable& w_ih,
                     const Variable& w_hh, const Variable& b_ih, const Variable& b_hh) {
  check(x.rank() == 3 && x.size(0) >= 1, "lstm", "expected x of shape (T,B,I) with at least one step, got {}",
        x.shape());
  check(w_ih.rank() == 2 && w_ih.size(0) % 4 == 0, "lstm", "expected w_ih of shape (4H,I), got {}", w_ih.shape());
  const int64_t hidden = w_ih.size(0) / 4, batch = x.size(1);
  check(w_ih.size(1) == x.size(2), "lstm", "expected {} input features as in w_ih, got {}: shapes {} and {}",
        w_ih.size(1), x.size(2), x.shape(), w_ih.shape());
  check(w_hh.shape() == Shape({4 * hidden, hidden}), "lstm", "expected w_hh of shape ({},{}), got {}", 4 * hidden,
        hidden, w_hh.shape());
  for (const Variable& state : {h0, c0})
    check(state.shape() == Shape({batch, hidden}), "lstm", "expected initial states of shape ({},{}), got {}", batch,
          hidden, state.shape());
  check(b_ih.defined() == b_hh.defined(), "lstm", "expected both biases or none");
  for (const Variable& bias : {b_ih, b_hh})
    check(!bias.defined() || bias.shape() == Shape{4 * hidden}, "lstm", "expected biases of shape ({}), got {}",
          4 * hidden, bias.defined() ? bias.shape() : Shape{});
}

/// Assigns b to the rows where alive (B,1) is false.
void keep_where_dead(const Tensor& alive, const Tensor& b, Tensor& out) { out.copy_(where(alive, out, b)); }

/// One direction: x (T,B,I), h0, c0 (B,H), w_ih (4H,I), w_hh (4H,H), biases (4H) -> output (T,B,H), h, c (B,H).
std::vector<TracedTensor> lstm_axes(const AxisCall& c) {
  constexpr int64_t kGates = 4;
  AxisIndices& indices = c.trace.indices;
  const TracedTensor &x = c.in(0), &w_ih = c.in(3), &w_hh = c.in(4);
  const TracedAxis hidden = c.trace.fresh(w_hh.axes[1].size());
  const auto tie_rows = [&](const TracedTensor& weight, bool recurrent) {
    const std::vector<int>& rows = weight.axes[0].indices;
    for (size_t row = 0; row < rows.size(); ++row)
      indices.unite(rows[row], hidden.indices[row % hidden.indices.size()]);
    c.trace.declare(weight.axes[0], kProduces, kGates, recurrent);
  };
  axes::use_as_data(c.trace, x, 2);
  c.trace.fix(x.axes[0], axes::kSteps);
  c.trace.unite(x.axes[2], w_ih.axes[1]);
  c.trace.declare(w_ih.axes[1], kReads);
  tie_rows(w_ih, false);
  tie_rows(w_hh, true);
  c.trace.unite(w_hh.axes[1], hidden);
  c.trace.declare(w_hh.axes[1], kReads, 1, true);
  for (const size_t bias : {size_t{5}, size_t{6}})
    if (c.has(bias)) tie_rows(c.in(bias), false);
  for (const size_t state : {size_t{1}, size_t{2}}) {
    if (!c.has(state)) continue;
    c.trace.unite(c.in(state).axes[1], hidden);
    axes::use_as_data(c.trace, c.in(state), 1);
  }
  const TracedAxis steps = axes::as_data(x.axes[0]), batch = axes::as_data(x.axes[1]);
  return {{.axes = {steps, batch, hidden}}, {.axes = {batch, hidden}}, {.axes = {batch, hidden}}};
}

constexpr Operation kLstm{"lstm", lstm_axes};

}  // namespace

LstmStates lstm(const Variable& x, const Variable& h0, const Variable& c0, const Variable& w_ih, const Variable& w_hh,
                const Variable& b_ih, const Variable& b_hh, const Tensor& lengths, bool reverse) {
  check_arguments(x, h0, c0, w_ih, w_hh, b_ih, b_hh);
  const int64_t steps = x.size(0), batch = x.size(1), hidden = h0.size(1);
  const StepOrder order(steps, reverse);
  const Tensor mask = step_mask(lengths, steps, batch, x.device());
  const Kernels& k = kernels(x.device());

  announce_product("lstm", WeightProduct::forward, w_ih.weight_view());
  announce_product("lstm", WeightProduct::forward, w_hh.weight_view());
  // Gates before activation, the input's share: (T*B,I)(4H,I)^T + b -> (T,B,4H). Activated in place by the cell.
  const Tensor inputs = x.data().reshape({steps * batch, x.size(2)});
  Tensor gates = matmul(inputs, w_ih.data().transpose(0, 1)).reshape({steps, batch, 4 * hidden});
  if (b_ih.defined()) axpy_(1, b_ih.data() + b_hh.data(), gates);
  Tensor h = Tensor::empty({steps + 1, batch, hidden}, x.dtype(), x.device()), c = Tensor::empty_like(h);
  h.select(0, order.first_state()).copy_(h0.data());
  c.select(0, order.first_state()).copy_(c0.data());
  const Tensor w_hh_t = w_hh.data().transpose(0, 1).unsqueeze(0);
  for (int64_t i = 0; i < steps; ++i) {
    const int64_t t = order.step(i);
    const Tensor h_before = h.select(0, order.state_before(t)), c_before = c.select(0, order.state_before(t));
    Tensor h_after = h.select(0, order.state_after(t)), c_after = c.select(0, order.state_after(t));
    Tensor gates_t = gates.slice(0, t, t + 1);
    k.matmul(h_before.unsqueeze(0), w_hh_t, true, gates_t);  // (B,H)(4H,H)^T, added -> (B,4H)
    gates_t = gates_t.squeeze(0);
    k.lstm_cell(gates_t, c_before, c_after, h_after);
    if (mask.defined()) {
      keep_where_dead(mask.select(0, t), h_before, h_after);
      keep_where_dead(mask.select(0, t), c_before, c_after);
    }
  }
  const Tensor after = order.states_after(h);
  const Tensor output = mask.defined() ? where(mask, after, Tensor::scalar(0, x.dtype(), x.device())) : after;

  const auto backward = [xs = Saved(x), h0s = Saved(h0), c0s = Saved(c0), ws = Saved(w_ih), us = Saved(w_hh),
                         bis = Saved(b_ih), bhs = Saved(b_hh), hs = Saved(h), cs = Saved(c), gates, mask, reverse,
                         order](const BackwardContext& context) -> Variables {
    if (grad_enabled())
      return gradients_by_recomputing([mask, reverse](const Variables& in) { return composed_lstm(in, mask, reverse); },
                                      {xs, h0s, c0s, ws, us, bis, bhs}, context);
    const Tensor &input = xs.unpack(context).data(), &w = ws.unpack(context).data(), &u = us.unpack(context).data();
    const WeightViewPtr &w_view = ws.unpack(context).weight_view(), &u_view = us.unpack(context).weight_view();
    announce_product("lstm", WeightProduct::input_gradient, u_view);
    // The results are views of all states.
    const Tensor &all_h = hs.unpack(context).data(), &all_c = cs.unpack(context).data();
    const int64_t T = input.size(0), B = input.size(1), H = u.size(1);
    const Kernels& kernel = kernels(input.device());
    const Tensor zeros = Tensor::zeros({B, H}, input.dtype(), input.device());
    const auto start = [&](int i) { return context.grad(i).defined() ? context.grad(i).data().contiguous() : zeros; };
    Tensor dh = start(1), dc = start(2), dgates = Tensor::empty_like(gates);
    for (int64_t i = T - 1; i >= 0; --i) {
      const int64_t t = order.step(i);
      Tensor dh_out = context.grad(0).defined() ? context.grad(0).data().select(0, t) : zeros;
      const Tensor alive = mask.defined() ? mask.select(0, t) : Tensor();
      if (alive.defined()) dh_out = where(alive, dh_out, zeros);
      const Tensor dh_after = dh + dh_out;
      Tensor dgates_t = dgates.select(0, t), dc_before = Tensor::empty_like(dc);
      kernel.lstm_cell_grad(gates.select(0, t), all_c.select(0, order.state_before(t)),
                            all_c.select(0, order.state_after(t)), dh_after, dc, dgates_t, dc_before);
      if (alive.defined()) {  // a step past the end left the state as it was
        keep_where_dead(alive, Tensor::zeros_like(dgates_t), dgates_t);
        keep_where_dead(alive, dc, dc_before);
      }
      Tensor dh_before = matmul(dgates_t, u);  // (B,4H)(4H,H) -> (B,H)
      if (alive.defined()) keep_where_dead(alive, dh_after, dh_before);
      dh = dh_before;
      dc = dc_before;
    }
    const Tensor rows = dgates.reshape({T * B, 4 * H}), rows_t = rows.transpose(0, 1);
    Variables grads(7);
    if (context.needs(0)) {
      announce_product("lstm", WeightProduct::input_gradient, w_view);
      grads[0] = matmul(rows, w).reshape(input.shape());  // (TB,4H)(4H,I)
    }
    if (context.needs(1)) grads[1] = dh;
    if (context.needs(2)) grads[2] = dc;
    // (4H,TB)(TB,I) and (4H,TB)(TB,H)
    if (context.needs(3)) {
      announce_product("lstm", WeightProduct::weight_gradient, w_view);
      grads[3] = weight_gradient(matmul(rows_t, input.reshape({T * B, input.size(2)})), w_view);
    }
    if (context.needs(4)) {
      announce_product("lstm", WeightProduct::weight_gradient, u_view);
      grads[4] = weight_gradient(matmul(rows_t, order.states_before(all_h).reshape({T * B, H})), u_view);
    }
    if (context.needs(5)) grads[5] = sum(rows, {0});
    if (context.needs(6)) grads[6] = context.needs(5) ? grads[5] : Variable(sum(rows, {0}));
    return grads;
  };
  const Variables results = record(kLstm, {output, h.select(0, order.last_state()), c.select(0, order.last_state())},
                                   {x, h0, c0, w_ih, w_hh, b_ih, b_hh}, backward);
  return {results[0], results[1], results[2]};
}

}  // namespace espalier
