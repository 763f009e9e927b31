// The optimisers' steps, by the rules of core/backend/optimizer.h. One launch steps many parameters: their pointers and
// masks travel in the kernel's argument, and each block takes a piece of one of them. A mask is read inside the kernel,
// in the same pass.

#include "core/backend/optimizer.h"
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

// Which state a rule works on: that of its kernel's parameters.

template <class T>
struct SgdStep {
  SgdRule<T> rule;
  bool has_velocity, first_step;

  __device__ void operator()(T g, T& w, T& velocity, T&) const {
    if (!has_velocity) return rule(g, w);
    // What the tensor held before the first step, NaN perhaps, must not be multiplied by 0.
    if (first_step) velocity = 0;
    rule(g, w, velocity);
  }
};

template <class T>
struct RmspropStep {
  RmspropRule<T> rule;
  bool has_velocity;

  __device__ void operator()(T g, T& w, T& square, T& velocity) const {
    has_velocity ? rule(g, w, square, velocity) : rule(g, w, square);
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
    return SgdStep<T>{SgdRule<T>(update), has_velocity, update.first_step};
  });
}

void adam(const AdamUpdate& update, std::span<const ParameterStep> parameters) {
  step("adam", "optimizer.adam", parameters, true, true, [&]<class T>(T) { return AdamRule<T>(update); });
}

void rmsprop(const RmspropUpdate& update, std::span<const ParameterStep> parameters) {
  const bool has_velocity = update.momentum != 0;
  step("rmsprop", "optimizer.rmsprop", parameters, true, has_velocity, [&]<class T>(T) {
    return RmspropStep<T>{RmspropRule<T>(update), has_velocity};
  });
}

}  // namespace espalier::cuda
