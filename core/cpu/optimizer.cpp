// The optimisers' steps: the rules of core/backend/optimizer.h, each in one pass over a parameter's tensors, in which
// the mask is applied too.

#include <algorithm>

#include "core/backend/optimizer.h"
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

// In the loops below a masked weight and its gradient are 0 before the rule, and the weight is 0 after it.

void sgd(const SgdUpdate& update, std::span<const ParameterStep> parameters) {
  for_each_parameter(parameters, "sgd", [&]<class T>(const ParameterStep& p, T) {
    const SgdRule<T> rule(update);
    const T* g = p.grad.data<T>();
    T* w = p.weight.data<T>();
    if (update.momentum == 0) {  // the velocity may be undefined
      return for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
        T weight = kept(keep, w[i]);
        rule(kept(keep, g[i]), weight);
        w[i] = kept(keep, weight);
      });
    }
    T* v = p.first.data<T>();
    // What the tensor held before the first step, NaN perhaps, must not be multiplied by 0.
    if (update.first_step) std::fill_n(v, p.weight.numel(), T{0});
    for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
      T weight = kept(keep, w[i]);
      rule(kept(keep, g[i]), weight, v[i]);
      w[i] = kept(keep, weight);
    });
  });
}

void adam(const AdamUpdate& update, std::span<const ParameterStep> parameters) {
  for_each_parameter(parameters, "adam", [&]<class T>(const ParameterStep& p, T) {
    const AdamRule<T> rule(update);
    const T* g = p.grad.data<T>();
    T *w = p.weight.data<T>(), *mean = p.first.data<T>(), *square = p.second.data<T>();
    for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
      T weight = kept(keep, w[i]);
      rule(kept(keep, g[i]), weight, mean[i], square[i]);
      w[i] = kept(keep, weight);
    });
  });
}

void rmsprop(const RmspropUpdate& update, std::span<const ParameterStep> parameters) {
  for_each_parameter(parameters, "rmsprop", [&]<class T>(const ParameterStep& p, T) {
    const RmspropRule<T> rule(update);
    const T* g = p.grad.data<T>();
    T *w = p.weight.data<T>(), *square = p.first.data<T>();
    if (update.momentum == 0) {  // the velocity may be undefined
      return for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
        T weight = kept(keep, w[i]);
        rule(kept(keep, g[i]), weight, square[i]);
        w[i] = kept(keep, weight);
      });
    }
    T* velocity = p.second.data<T>();
    for_each_weight<T>(p, [=](int64_t i, BitsOf<T> keep) {
      T weight = kept(keep, w[i]);
      rule(kept(keep, g[i]), weight, square[i], velocity[i]);
      w[i] = kept(keep, weight);
    });
  });
}

}  // namespace espalier::cpu
