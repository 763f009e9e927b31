// The optimisers' update rules, with PyTorch's semantics, each one pass over a parameter's tensors, in which the mask
// is applied too. grad is read only: weight decay joins a copy of it in a register.

#include <algorithm>
#include <cmath>

#include "core/cpu/mask_words.h"
#include "core/cpu/table.h"
#include "core/threads.h"

namespace espalier::cpu {

namespace {

constexpr int64_t kGrainElements = 1 << 14;  // weights that are worth a thread

/// Calls rule(i, keep) for every weight of a parameter, as vectors: `keep` is for kept(), a constant without a mask.
template <class T, class Rule>
void for_each_weight(const ParameterStep& p, Rule rule) {
  if (!p.mask.defined()) {
    parallel_for(p.weight.numel(), kGrainElements, [rule](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) rule(i, ~BitsOf<T>{0});
    });
    return;
  }
  const MaskWords exists(p.mask.layout(), p.mask.words().data<int64_t>());
  parallel_for(exists.size(), kGrainElements / MaskWords::kBits, [&](int64_t begin, int64_t end) {
    exists.for_each_half(begin, end, [rule](int64_t first, int64_t count, uint32_t bits) {
#pragma omp simd
      for (int64_t j = 0; j < count; ++j) rule(first + j, lane<T>(bits, j));
    });
  });
}

/// Calls step(parameter, T{}) for each parameter, T its type.
template <class Step>
void for_each_parameter(std::span<const ParameterStep> parameters, const char* operation, const Step& step) {
  for (const ParameterStep& p : parameters)
    dispatch_floating(p.weight.dtype(), operation, [&](auto zero) { step(p, zero); });
}

}  // namespace

void sgd(const SgdUpdate& update, std::span<const ParameterStep> parameters) {
  for_each_parameter(parameters, "sgd", [&]<class T>(const ParameterStep& p, T) {
    const T lr = static_cast<T>(update.lr), decay = static_cast<T>(update.weight_decay);
    const T* g = p.grad.data<T>();
    T* w = p.weight.data<T>();
    if (update.momentum == 0) {  // the velocity may be undefined
      return for_each_weight<T>(
          p, [=](int64_t i, BitsOf<T> keep) { w[i] = kept(keep, w[i] - lr * (g[i] + decay * w[i])); });
    }
    T* v = p.first.data<T>();
    const T momentum = static_cast<T>(update.momentum);
    const T fresh = update.first_step ? T{1} : static_cast<T>(1 - update.dampening);
    const T nesterov = update.nesterov ? T{1} : T{0};
    const T carried = update.nesterov ? momentum : T{1};
    // The first velocity is the gradient; what the tensor held then, NaN perhaps, must not be multiplied by 0.
    if (update.first_step) std::fill_n(v, p.weight.numel(), T{0});
    for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
      const T d = kept(keep, g[i] + decay * w[i]);
      v[i] = momentum * v[i] + fresh * d;
      w[i] = kept(keep, w[i] - lr * (nesterov * d + carried * v[i]));
    });
  });
}

void adam(const AdamUpdate& update, std::span<const ParameterStep> parameters) {
  for_each_parameter(parameters, "adam", [&]<class T>(const ParameterStep& p, T) {
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
    for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
      const T d = kept(keep, g[i] + decay * w[i]);
      const T mean = beta1 * first[i] + fresh1 * d, square = beta2 * second[i] + fresh2 * d * d;
      first[i] = mean;
      second[i] = square;
      w[i] = kept(keep, shrink * w[i] - step_size * mean / (std::sqrt(square) * root_scale + epsilon));
    });
  });
}

void rmsprop(const RmspropUpdate& update, std::span<const ParameterStep> parameters) {
  for_each_parameter(parameters, "rmsprop", [&]<class T>(const ParameterStep& p, T) {
    const T lr = static_cast<T>(update.lr), decay = static_cast<T>(update.weight_decay);
    const T alpha = static_cast<T>(update.alpha), fresh = static_cast<T>(1 - update.alpha);
    const T epsilon = static_cast<T>(update.epsilon), momentum = static_cast<T>(update.momentum);
    const T* g = p.grad.data<T>();
    T *w = p.weight.data<T>(), *square = p.first.data<T>();
    if (update.momentum == 0) {  // the velocity may be undefined
      return for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
        const T d = kept(keep, g[i] + decay * w[i]);
        square[i] = alpha * square[i] + fresh * d * d;
        w[i] = kept(keep, w[i] - lr * d / (std::sqrt(square[i]) + epsilon));
      });
    }
    T* speed = p.second.data<T>();
    for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
      const T d = kept(keep, g[i] + decay * w[i]);
      square[i] = alpha * square[i] + fresh * d * d;
      speed[i] = momentum * speed[i] + d / (std::sqrt(square[i]) + epsilon);
      w[i] = kept(keep, w[i] - lr * speed[i]);
    });
  });
}

}  // namespace espalier::cpu
