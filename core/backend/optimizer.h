// The optimisers' update rules for one weight, with PyTorch's semantics. The gradient is a copy: weight decay joins it
// here. A masked weight comes as 0 with a gradient of 0.
#pragma once

#include <cmath>

#include "core/kernels.h"

namespace espalier::backend {

template <class T>
struct SgdRule {
  T lr, decay, momentum, fresh, nesterov, carried;

  explicit SgdRule(const SgdUpdate& update)
      : lr(static_cast<T>(update.lr)),
        decay(static_cast<T>(update.weight_decay)),
        momentum(static_cast<T>(update.momentum)),
        fresh(update.first_step ? T{1} : static_cast<T>(1 - update.dampening)),
        nesterov(update.nesterov ? T{1} : T{0}),
        carried(update.nesterov ? momentum : T{1}) {}

  constexpr void operator()(T g, T& w) const { w = w - lr * (g + decay * w); }
  /// The velocity comes as 0 in the first step: it then becomes the gradient.
  constexpr void operator()(T g, T& w, T& velocity) const {
    const T d = g + decay * w;
    velocity = momentum * velocity + fresh * d;
    w = w - lr * (nesterov * d + carried * velocity);
  }
};

template <class T>
struct AdamRule {
  T step_size, root_scale, epsilon, beta1, fresh1, beta2, fresh2, shrink, decay;

  explicit AdamRule(const AdamUpdate& update)
      : epsilon(static_cast<T>(update.epsilon)),
        beta1(static_cast<T>(update.beta1)),
        fresh1(static_cast<T>(1 - update.beta1)),
        beta2(static_cast<T>(update.beta2)),
        fresh2(static_cast<T>(1 - update.beta2)),
        // AdamW shrinks the weight itself; Adam adds the decay to the gradient.
        shrink(static_cast<T>(update.decoupled ? 1 - update.lr * update.weight_decay : 1)),
        decay(static_cast<T>(update.decoupled ? 0 : update.weight_decay)) {
    const double steps = static_cast<double>(update.step);
    step_size = static_cast<T>(update.lr / (1 - std::pow(update.beta1, steps)));
    root_scale = static_cast<T>(1 / std::sqrt(1 - std::pow(update.beta2, steps)));
  }

  constexpr void operator()(T g, T& w, T& mean, T& square) const {
    const T d = g + decay * w;
    mean = beta1 * mean + fresh1 * d;
    square = beta2 * square + fresh2 * d * d;
    w = shrink * w - step_size * mean / (std::sqrt(square) * root_scale + epsilon);
  }
};

template <class T>
struct RmspropRule {
  T lr, decay, alpha, fresh, epsilon, momentum;

  explicit RmspropRule(const RmspropUpdate& update)
      : lr(static_cast<T>(update.lr)),
        decay(static_cast<T>(update.weight_decay)),
        alpha(static_cast<T>(update.alpha)),
        fresh(static_cast<T>(1 - update.alpha)),
        epsilon(static_cast<T>(update.epsilon)),
        momentum(static_cast<T>(update.momentum)) {}

  constexpr void operator()(T g, T& w, T& square) const {
    const T d = g + decay * w;
    square = alpha * square + fresh * d * d;
    w = w - lr * d / (std::sqrt(square) + epsilon);
  }
  constexpr void operator()(T g, T& w, T& square, T& velocity) const {
    const T d = g + decay * w;
    square = alpha * square + fresh * d * d;
    velocity = momentum * velocity + d / (std::sqrt(square) + epsilon);
    w = w - lr * velocity;
  }
};

}  // namespace espalier::backend
