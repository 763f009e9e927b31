// Ten steps of every optimiser and the rates of every schedule against PyTorch.
#include <map>
#include <memory>

#include <gtest/gtest.h>

#include "tests/torch/reference.h"
#include "training/optimizer.h"
#include "training/schedule.h"

namespace espalier::torch_reference {
namespace {

/// An optimiser with a case's options, which have PyTorch's names.
std::unique_ptr<Optimizer> make_optimizer(const nlohmann::json& o, const std::vector<Parameter>& parameters) {
  const std::string kind = o["kind"];
  if (kind == "sgd") {
    return std::make_unique<Sgd>(parameters, SgdOptions{.lr = o["lr"],
                                                        .momentum = o["momentum"],
                                                        .dampening = o["dampening"],
                                                        .weight_decay = o["weight_decay"],
                                                        .nesterov = o["nesterov"]});
  }
  if (kind == "adam") {
    return std::make_unique<Adam>(parameters, AdamOptions{.lr = o["lr"],
                                                          .beta1 = o["betas"][0],
                                                          .beta2 = o["betas"][1],
                                                          .epsilon = o["eps"],
                                                          .weight_decay = o["weight_decay"]});
  }
  if (kind == "adamw") {
    return std::make_unique<AdamW>(parameters, AdamWOptions{.lr = o["lr"],
                                                            .beta1 = o["betas"][0],
                                                            .beta2 = o["betas"][1],
                                                            .epsilon = o["eps"],
                                                            .weight_decay = o["weight_decay"]});
  }
  check(kind == "rmsprop", "torch reference", "expected a known optimiser, got '{}'", kind);
  return std::make_unique<RmsProp>(parameters, RmsPropOptions{.lr = o["lr"],
                                                              .alpha = o["alpha"],
                                                              .epsilon = o["eps"],
                                                              .weight_decay = o["weight_decay"],
                                                              .momentum = o["momentum"]});
}

class TorchOptimizers : public testing::TestWithParam<DType> {};

INSTANTIATE_TEST_SUITE_P(DTypes, TorchOptimizers, testing::Values(DType::f64, DType::f32),
                         [](const auto& dtype) { return std::string(name_of(dtype.param)); });

TEST_P(TorchOptimizers, TenSteps) {
  const Case common("optimizer", GetParam());
  for (const std::string& name : cases("optimizer")) {
    const Case c(name, GetParam());
    const Parameter weight("weight", common.tensor("start"));
    const std::unique_ptr<Optimizer> optimizer = make_optimizer(c.options(), {weight});
    const Tensor gradients = common.tensor("gradients");
    std::vector<Tensor> trace;
    for (int64_t step = 0; step < gradients.size(0); ++step) {
      const Tensor gradient = gradients.select(0, step).clone(), before = gradient.clone();
      Variable(weight).set_grad(gradient);
      optimizer->step();
      EXPECT_TRUE(identical(weight.grad(), before)) << name << " wrote the gradient";
      trace.push_back(weight.data().clone());
    }
    c.expect("trace", stack(trace, 0), 10 * gradients.size(0));
  }
}

SchedulePtr make_schedule(const nlohmann::json& o) {
  const std::string kind = o["kind"];
  if (kind == "constant") return constant_schedule();
  if (kind == "step") return step_schedule({.every = o["every"], .gamma = o["gamma"]});
  if (kind == "multi_step") return multi_step_schedule({.milestones = o["milestones"], .gamma = o["gamma"]});
  if (kind == "cosine") return cosine_schedule({.final_factor = o["final_factor"]});
  if (kind == "warmup") return warmup_schedule({.steps = o["steps"]}, constant_schedule());
  if (kind == "plateau") {
    return plateau_schedule(
        {.gamma = o["factor"], .patience = o["patience"], .threshold = o["threshold"], .min_lr = o["min_lr"]});
  }
  check(kind == "one_cycle", "torch reference", "expected a known schedule, got '{}'", kind);
  if (!o.contains("max")) return one_cycle_schedule();
  return one_cycle_schedule({.max = o["max"],
                             .start = o["start"],
                             .div = o["div"],
                             .final_div = o["final_div"],
                             .momentum_low = o["momentum_low"],
                             .momentum_high = o["momentum_high"]});
}

TEST(TorchSchedules, RateOfEveryStep) {
  for (const std::string& name : cases("schedule")) {
    const Case c(name, DType::f64);
    const SchedulePtr schedule = make_schedule(c.options());
    const double base = c.options()["lr"];
    const bool plateau = c.options()["kind"] == "plateau";
    const Tensor rates = c.tensor("rates");
    std::vector<double> got, momenta;
    for (int64_t step = 0; step < rates.numel(); ++step) {
      if (plateau) schedule->observe(c.tensor("values").to_vector<double>()[static_cast<size_t>(step)]);
      // Steps as epochs of one step each: PyTorch's schedules count whatever calls them.
      const TrainingPosition at{.step = step, .total_steps = rates.numel(), .epoch = step, .steps_per_epoch = 1};
      got.push_back(schedule->lr(base, at));
      if (c.has("momenta")) momenta.push_back(schedule->momentum(at).value());
    }
    c.expect("rates", Tensor::from(got, rates.shape()), 4);
    if (c.has("momenta")) c.expect("momenta", Tensor::from(momenta, rates.shape()), 4);
  }
}

}  // namespace
}  // namespace espalier::torch_reference
