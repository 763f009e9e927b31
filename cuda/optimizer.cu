// The optimisers' update rules, with PyTorch's semantics. One launch steps many parameters: their pointers and masks
// travel in the kernel's argument, and each block takes a piece of one of them. A mask is read inside the kernel, in
// the same pass. grad is read only: weight decay joins a copy of it in a register.

#include <cmath>

#include "cuda/launch.h"
#include "cuda/mask.h"
#include "cuda/table.h"

namespace espalier::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPiece = 4096;  // weights of one block
constexpr int kParameters = 32;   // of one launch: a kernel's arguments are at most 4 KB on every GPU

/// One parameter's tensors and mask on the device.
template <class T>
struct Target {
  const T* grad;
  T *weight, *first, *second;  // state that the rule does not keep is null
  int64_t numel;
  const int64_t* words;  // null: everything exists
  bool one_bit_each;     // element i is unit i
  MaskLayout layout;

  __device__ bool exists(int64_t i) const {
    if (!words) return true;
    return one_bit_each ? unit_exists(words, i) : weight_exists(layout, words, i);
  }
};

/// What one launch steps: block b works on the parameter p with first_block[p] <= b < first_block[p + 1].
template <class T>
struct Targets {
  Target<T> target[kParameters];
  unsigned first_block[kParameters + 1];
};
static_assert(sizeof(Targets<double>) <= 4000);

template <class T, class Rule>
__global__ void step_kernel(Targets<T> targets, Rule rule) {
  int p = 0;
  while (blockIdx.x >= targets.first_block[p + 1]) ++p;
  const Target<T>& target = targets.target[p];
  const int64_t begin = int64_t{blockIdx.x - targets.first_block[p]} * kPiece;
  const int64_t end = begin + kPiece < target.numel ? begin + kPiece : target.numel;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const bool exists = target.exists(i);
    T weight = exists ? target.weight[i] : T{0};
    T first = target.first ? target.first[i] : T{0}, second = target.second ? target.second[i] : T{0};
    rule(exists ? target.grad[i] : T{0}, weight, first, second);
    target.weight[i] = exists ? weight : T{0};
    if (target.first) target.first[i] = first;
    if (target.second) target.second[i] = second;
  }
}

template <class T>
struct SgdRule {
  T lr, decay, momentum, fresh;
  bool has_velocity, first_step, nesterov;

  __device__ void operator()(T g, T& w, T& v, T&) const {
    const T d = g + decay * w;
    if (!has_velocity) {
      w -= lr * d;
      return;
    }
    // The first velocity is the gradient; what the tensor held then, NaN perhaps, must not be multiplied by 0.
    v = first_step ? d : momentum * v + fresh * d;
    w -= lr * (nesterov ? d + momentum * v : v);
  }
};

template <class T>
struct AdamRule {
  T step_size, root_scale, epsilon, beta1, fresh1, beta2, fresh2, shrink, decay;

  __device__ void operator()(T g, T& w, T& mean, T& square) const {
    const T d = g + decay * w;
    mean = beta1 * mean + fresh1 * d;
    square = beta2 * square + fresh2 * d * d;
    w = shrink * w - step_size * mean / (std::sqrt(square) * root_scale + epsilon);
  }
};

template <class T>
struct RmspropRule {
  T lr, decay, alpha, fresh, epsilon, momentum;
  bool has_velocity;

  __device__ void operator()(T g, T& w, T& square, T& velocity) const {
    const T d = g + decay * w;
    square = alpha * square + fresh * d * d;
    const T scaled = d / (std::sqrt(square) + epsilon);
    velocity = has_velocity ? momentum * velocity + scaled : scaled;
    w -= lr * velocity;
  }
};

template <class T>
Target<T> target_of(const ParameterStep& p, bool has_first, bool has_second) {
  Target<T> target{p.grad.data<T>(), p.weight.data<T>(), nullptr, nullptr, p.weight.numel(), nullptr, false, {}};
  if (has_first) target.first = p.first.data<T>();
  if (has_second) target.second = p.second.data<T>();
  if (!p.mask.defined()) return target;
  const MaskLayout& layout = p.mask.layout();
  target.words = p.mask.words().data<int64_t>();
  target.one_bit_each = has_one_bit_each(layout);
  target.layout = layout;
  return target;
}

/// Steps the parameters of type T on the first one's device, kParameters at a time, and returns how many of
/// `parameters` that was: all up to the next of another type or device.
template <class T, class Rule>
size_t step_alike(const char* name, std::span<const ParameterStep> parameters, bool has_first, bool has_second,
                  const Rule& rule) {
  const Device device = parameters[0].weight.device();
  Context& context = Context::of(device);
  Targets<T> targets;
  int count = 0;
  targets.first_block[0] = 0;
  const auto flush = [&] {
    const unsigned blocks = targets.first_block[count];
    for (int p = count; p < kParameters; ++p) targets.target[p] = {}, targets.first_block[p + 1] = blocks;
    if (blocks > 0) launch(context, {name, blocks, kThreads}, step_kernel<T, Rule>, targets, rule);
    count = 0;
  };
  size_t done = 0;
  for (; done < parameters.size(); ++done) {
    const ParameterStep& p = parameters[done];
    if (p.weight.dtype() != dtype_of<T>() || p.weight.device() != device) break;
    if (p.weight.numel() == 0) continue;
    targets.target[count] = target_of<T>(p, has_first, has_second);
    const auto blocks = static_cast<unsigned>((p.weight.numel() + kPiece - 1) / kPiece);
    targets.first_block[count + 1] = targets.first_block[count] + blocks;
    if (++count == kParameters) flush();
  }
  flush();
  return done;
}

/// Calls rule(T{}) for the rule in the parameters' type.
template <class MakeRule>
void step(const char* operation, const char* name, std::span<const ParameterStep> parameters, bool has_first,
          bool has_second, MakeRule&& make_rule) {
  while (!parameters.empty()) {
    dispatch_floating(parameters[0].weight.dtype(), operation, [&]<class T>(T zero) {
      parameters = parameters.subspan(step_alike<T>(name, parameters, has_first, has_second, make_rule(zero)));
    });
  }
}

}  // namespace

void sgd(const SgdUpdate& update, std::span<const ParameterStep> parameters) {
  const bool has_velocity = update.momentum != 0;
  step("sgd", "optimizer.sgd", parameters, has_velocity, false, [&]<class T>(T) {
    return SgdRule<T>{static_cast<T>(update.lr),
                      static_cast<T>(update.weight_decay),
                      static_cast<T>(update.momentum),
                      static_cast<T>(1 - update.dampening),
                      has_velocity,
                      update.first_step,
                      update.nesterov};
  });
}

void adam(const AdamUpdate& update, std::span<const ParameterStep> parameters) {
  const double steps = static_cast<double>(update.step);
  const double correction1 = 1 - std::pow(update.beta1, steps), correction2 = 1 - std::pow(update.beta2, steps);
  // AdamW shrinks the weight itself; Adam adds the decay to the gradient.
  const double shrink = update.decoupled ? 1 - update.lr * update.weight_decay : 1;
  const double decay = update.decoupled ? 0 : update.weight_decay;
  step("adam", "optimizer.adam", parameters, true, true, [&]<class T>(T) {
    return AdamRule<T>{static_cast<T>(update.lr / correction1),
                       static_cast<T>(1 / std::sqrt(correction2)),
                       static_cast<T>(update.epsilon),
                       static_cast<T>(update.beta1),
                       static_cast<T>(1 - update.beta1),
                       static_cast<T>(update.beta2),
                       static_cast<T>(1 - update.beta2),
                       static_cast<T>(shrink),
                       static_cast<T>(decay)};
  });
}

void rmsprop(const RmspropUpdate& update, std::span<const ParameterStep> parameters) {
  const bool has_velocity = update.momentum != 0;
  step("rmsprop", "optimizer.rmsprop", parameters, true, has_velocity, [&]<class T>(T) {
    return RmspropRule<T>{static_cast<T>(update.lr),
                          static_cast<T>(update.weight_decay),
                          static_cast<T>(update.alpha),
                          static_cast<T>(1 - update.alpha),
                          static_cast<T>(update.epsilon),
                          static_cast<T>(update.momentum),
                          has_velocity};
  });
}

}  // namespace espalier::cuda
