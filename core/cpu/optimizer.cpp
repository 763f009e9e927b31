// The optimisers' update rules, with PyTorch's semantics, each one pass over a parameter's tensors. grad is read only:
// weight decay joins a copy of it in a register.

#include <algorithm>
#include <cmath>

#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kGrainElements = 1 << 14;  // weights that are worth a thread

/// Calls rule(parameter, T{}) for each parameter, then clears what its mask has no weight for.
template <class Rule>
void step(std::span<const ParameterStep> parameters, const char* operation, Rule&& rule) {
  for (const ParameterStep& p : parameters) {
    dispatch_floating(p.weight.dtype(), operation, [&](auto zero) { rule(p, zero); });
    Tensor weight = p.weight;
    if (p.mask.defined()) apply_mask(p.mask.layout(), p.mask.words(), weight);
  }
}

}  // namespace

void sgd(const SgdUpdate& update, std::span<const ParameterStep> parameters) {
  step(parameters, "sgd", [&]<class T>(const ParameterStep& p, T) {
    const T lr = static_cast<T>(update.lr), decay = static_cast<T>(update.weight_decay);
    const T* g = p.grad.data<T>();
    T* w = p.weight.data<T>();
    if (update.momentum == 0) {  // the velocity may be undefined
      parallel_for(p.weight.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) w[i] -= lr * (g[i] + decay * w[i]);
      });
      return;
    }
    T* v = p.first.data<T>();
    const T momentum = static_cast<T>(update.momentum);
    const T fresh = update.first_step ? T{1} : static_cast<T>(1 - update.dampening);
    const T nesterov = update.nesterov ? T{1} : T{0};
    const T keep = update.nesterov ? momentum : T{1};
    parallel_for(p.weight.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      // The first velocity is the gradient; what the tensor held then, NaN perhaps, must not be multiplied by 0.
      if (update.first_step) std::fill(v + begin, v + end, T{0});
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const T d = g[i] + decay * w[i];
        v[i] = momentum * v[i] + fresh * d;
        w[i] -= lr * (nesterov * d + keep * v[i]);
      }
    });
  });
}

void adam(const AdamUpdate& update, std::span<const ParameterStep> parameters) {
  step(parameters, "adam", [&]<class T>(const ParameterStep& p, T) {
    const double steps = static_cast<double>(update.step);
    const double correction1 = 1 - std::pow(update.beta1, steps), correction2 = 1 - std::pow(update.beta2, steps);
    const T step_size = static_cast<T>(update.lr / correction1);
    const T root_scale = static_cast<T>(1 / std::sqrt(correction2)), epsilon = static_cast<T>(update.epsilon);
    const T beta1 = static_cast<T>(update.beta1), fresh1 = static_cast<T>(1 - update.beta1);
    const T beta2 = static_cast<T>(update.beta2), fresh2 = static_cast<T>(1 - update.beta2);
    // AdamW shrinks the weight itself; Adam adds the decay to the gradient.
    const T shrink = static_cast<T>(update.decoupled ? 1 - update.lr * update.weight_decay : 1);
    const T decay = static_cast<T>(update.decoupled ? 0 : update.weight_decay);
    const T* g = p.grad.data<T>();
    T *w = p.weight.data<T>(), *first = p.first.data<T>(), *second = p.second.data<T>();
    parallel_for(p.weight.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const T d = g[i] + decay * w[i];
        const T mean = beta1 * first[i] + fresh1 * d, square = beta2 * second[i] + fresh2 * d * d;
        first[i] = mean;
        second[i] = square;
        w[i] = shrink * w[i] - step_size * mean / (std::sqrt(square) * root_scale + epsilon);
      }
    });
  });
}

void rmsprop(const RmspropUpdate& update, std::span<const ParameterStep> parameters) {
  step(parameters, "rmsprop", [&]<class T>(const ParameterStep& p, T) {
    const T lr = static_cast<T>(update.lr), decay = static_cast<T>(update.weight_decay);
    const T alpha = static_cast<T>(update.alpha), fresh = static_cast<T>(1 - update.alpha);
    const T epsilon = static_cast<T>(update.epsilon), momentum = static_cast<T>(update.momentum);
    const T* g = p.grad.data<T>();
    T *w = p.weight.data<T>(), *square = p.first.data<T>();
    const bool plain = update.momentum == 0;  // the velocity may be undefined
    T* speed = plain ? nullptr : p.second.data<T>();
    parallel_for(p.weight.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      if (plain) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          const T d = g[i] + decay * w[i];
          square[i] = alpha * square[i] + fresh * d * d;
          w[i] -= lr * d / (std::sqrt(square[i]) + epsilon);
        }
      } else {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          const T d = g[i] + decay * w[i];
          square[i] = alpha * square[i] + fresh * d * d;
          speed[i] = momentum * speed[i] + d / (std::sqrt(square[i]) + epsilon);
          w[i] -= lr * speed[i];
        }
      }
    });
  });
}

}  // namespace espalier::cpu
