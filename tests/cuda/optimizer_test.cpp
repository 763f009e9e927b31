// The fused optimisers against the CPU's: many parameters of all sizes in one call, with and without masks.
#include <fmt/format.h>

#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::RandomTensors;

constexpr int kSteps = 3;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Update = std::function<void(const Kernels& kernels, int step, std::span<const ParameterStep> parameters)>;

/// A mask of each pattern with every third unit gone, and the shape it fits.
std::vector<Mask> masks() {
  std::vector<Mask> list;
  const auto add = [&](const Shape& shape, const Pattern& pattern) {
    std::vector<bool> exists(static_cast<size_t>(mask_layout(shape, pattern).units()));
    for (size_t i = 0; i < exists.size(); ++i) exists[i] = i % 3 != 1;
    list.push_back(Mask::from_units(shape, pattern, exists));
  };
  add({70, 91}, Pattern::element());
  add({12, 32}, Pattern::block(4, 8));
  add({6, 4, 3, 3}, Pattern::kernel());
  add({6, 4, 3, 3}, Pattern::channel(0));
  add({6, 4, 3, 3}, Pattern::channel(1));
  add({40, 7}, Pattern::channel(0, 4));
  add({40}, Pattern::channel(0, 4));
  add({40, 10}, Pattern::recurrent());
  return list;
}

/// 75 parameters, more than two launches take: empty ones, small ones, one of several blocks, masked ones, f32 and f64
/// in turns. State starts as NaN where `fresh` is false and the rule must assign it, else as 0.
std::vector<ParameterStep> parameters(double state) {
  std::vector<ParameterStep> list;
  const std::vector<Mask> all_masks = masks();
  for (size_t i = 0; i < 75; ++i) {
    const DType dtype = i % 20 < 15 ? DType::f32 : DType::f64;
    RandomTensors random(dtype, static_cast<unsigned>(i));
    const Mask mask = i % 3 == 0 ? all_masks[i / 3 % all_masks.size()] : Mask();
    const Shape shape = mask.defined() ? mask.shape()
                        : i % 10 == 1  ? Shape{0}
                        : i == 7       ? Shape{30001}
                                       : Shape{1 + static_cast<int64_t>(i), 3};
    list.push_back(
        {random(shape), random(shape), Tensor::full(shape, state, dtype), Tensor::full(shape, state, dtype), mask});
  }
  return list;
}

void compare(double state, const Update& update, const std::string& what) {
  std::vector<ParameterStep> here = parameters(state), there;
  const Device device = testing::device();
  for (const ParameterStep& p : here) {
    there.push_back({p.grad.to(device), p.weight.to(device), p.first.to(device), p.second.to(device),
                     p.mask.defined() ? p.mask.to(device) : Mask()});
  }
  for (int step = 1; step <= kSteps; ++step) {
    update(testing::cpu(), step, here);
    update(testing::cuda(), step, there);
  }
  for (size_t i = 0; i < here.size(); ++i) {
    const std::string name = fmt::format("{}, parameter {} {}", what, i, describe(here[i].weight));
    const double bound = 64 * testing::epsilon(here[i].weight.dtype()) * kSteps;
    testing::expect_equal(there[i].weight, here[i].weight, bound, bound, name);
    testing::expect_equal(there[i].first, here[i].first, bound, bound, name + " state");
    testing::expect_equal(there[i].second, here[i].second, bound, bound, name + " second state");
    EXPECT_EQ(there[i].grad.to_vector<double>(), here[i].grad.to_vector<double>()) << "the gradient was written";
    if (!here[i].mask.defined()) continue;
    const std::vector<double> exists = here[i].mask.expand(DType::f64).to_vector<double>();
    const std::vector<double> weight = there[i].weight.to_vector<double>();
    for (size_t k = 0; k < exists.size(); ++k)
      ASSERT_EQ(weight[k] != 0, exists[k] != 0) << name << ": masked weight " << k << " is " << weight[k];
  }
}

TEST(CudaOptimizer, Sgd) {
  for (const SgdUpdate& base : {SgdUpdate{0.1, 0, 0, 0.01, false, false}, SgdUpdate{0.1, 0.9, 0, 5e-4, false, false},
                                SgdUpdate{0.1, 0.9, 0.3, 0, false, false}, SgdUpdate{0.1, 0.9, 0, 5e-4, true, false}}) {
    compare(
        kNaN,
        [&](const Kernels& kernels, int step, std::span<const ParameterStep> parameters) {
          SgdUpdate update = base;
          update.first_step = step == 1;
          kernels.sgd(update, parameters);
        },
        fmt::format("momentum {} dampening {} nesterov {}", base.momentum, base.dampening, base.nesterov));
  }
}

TEST(CudaOptimizer, Adam) {
  for (const AdamUpdate& base :
       {AdamUpdate{1e-2, 0.9, 0.999, 1e-8, 0, false, 0}, AdamUpdate{1e-2, 0.8, 0.99, 1e-3, 0.1, false, 0},
        AdamUpdate{1e-2, 0.9, 0.999, 1e-8, 0.1, true, 0}}) {
    compare(
        0,
        [&](const Kernels& kernels, int step, std::span<const ParameterStep> parameters) {
          AdamUpdate update = base;
          update.step = step;
          kernels.adam(update, parameters);
        },
        fmt::format("decay {} decoupled {}", base.weight_decay, base.decoupled));
  }
}

TEST(CudaOptimizer, Rmsprop) {
  for (const RmspropUpdate& update :
       {RmspropUpdate{1e-2, 0.99, 1e-3, 0, 0}, RmspropUpdate{1e-2, 0.9, 1e-3, 0.1, 0.8}}) {
    compare(
        0,
        [&](const Kernels& kernels, int, std::span<const ParameterStep> parameters) {
          kernels.rmsprop(update, parameters);
        },
        fmt::format("decay {} momentum {}", update.weight_decay, update.momentum));
  }
}

TEST(CudaOptimizer, RulesWithoutStateTakeUndefinedTensors) {
  const Device device = testing::device();
  const Tensor weight = Tensor::ones({5}, DType::f32, device), square = Tensor::zeros({5}, DType::f32, device);
  const std::array plain{ParameterStep{Tensor::ones({5}, DType::f32, device), weight, {}, {}, {}}};
  testing::cuda().sgd({0.5, 0, 0, 0, false, true}, plain);
  EXPECT_EQ(weight.to_vector<float>(), std::vector<float>(5, 0.5F));
  const std::array one_state{ParameterStep{Tensor::zeros({5}, DType::f32, device), weight, square, {}, {}}};
  testing::cuda().rmsprop({0.1, 0.9, 1e-3, 0, 0}, one_state);
  EXPECT_EQ(weight.to_vector<float>(), std::vector<float>(5, 0.5F));
  testing::cuda().adam({}, {});
}

}  // namespace
}  // namespace espalier
