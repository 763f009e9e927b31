// The arithmetic of one hidden unit of an LSTM step (Hochreiter & Schmidhuber 1997, with forget gates: Gers et al.
// 2000), given what the gates' activations are.
#pragma once

namespace espalier::backend {

/// Gates i, f, g, o after their activation.
template <class T>
struct LstmGates {
  T input, forget, candidate, output;

  constexpr T cell(T c_prev) const { return forget * c_prev + input * candidate; }
};

/// Gradients of the gates before their activation, and of the cell before the step.
template <class T>
struct LstmGradient {
  T input, forget, candidate, output, c_prev;

  /// tanh_c: of the cell after the step. dh, dc: gradients of h and c.
  constexpr LstmGradient(const LstmGates<T>& gate, T before, T tanh_c, T dh, T dc) {
    const T dcell = dc + dh * gate.output * (1 - tanh_c * tanh_c);
    // Through each gate's activation: sigmoid' = s (1 - s), tanh' = 1 - t^2.
    input = dcell * gate.candidate * gate.input * (1 - gate.input);
    forget = dcell * before * gate.forget * (1 - gate.forget);
    candidate = dcell * gate.input * (1 - gate.candidate * gate.candidate);
    output = dh * tanh_c * gate.output * (1 - gate.output);
    c_prev = dcell * gate.forget;
  }
};

}  // namespace espalier::backend
