// The update kernels against PyTorch's published algorithms, written out for one scalar in double, over several steps.

#include <array>
#include <functional>

#include <fmt/format.h>

#include "core/ops.h"
#include "tests/core/kernel_testing.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::expect_close;
using testing::poisoned;
using testing::RandomTensors;

constexpr int kSteps = 5;
// Odd, and long enough that several threads share it.
const Shape kShape{50021};

/// Bound after kSteps updates of at most a few roundings each, on weights of order 4.
double bound(DType dtype) { return 64 * testing::epsilon(dtype) * kSteps; }

/// State and weight of one scalar parameter.
struct Scalar {
  double w, a = 0, b = 0;
};

/// Steps the kernel and the scalar rule side by side; state tensors start at `start` (NaN: must be assigned).
void compare(DType dtype, double start,
             const std::function<void(int step, const Tensor& grad, Tensor& w, Tensor& a, Tensor& b)>& kernel,
             const std::function<void(int step, double grad, Scalar& s)>& rule) {
  RandomTensors random(dtype);
  Tensor w = random(kShape), a = Tensor::full(kShape, start, dtype), b = Tensor::full(kShape, start, dtype);
  std::vector<Scalar> scalars;
  for (double v : w.to_vector<double>()) scalars.push_back({v});
  for (int step = 1; step <= kSteps; ++step) {
    const Tensor grad = random(kShape);
    const std::vector<double> before = grad.to_vector<double>();
    kernel(step, grad, w, a, b);
    EXPECT_EQ(grad.to_vector<double>(), before) << "the gradient was written";
    for (size_t i = 0; i < scalars.size(); ++i) rule(step, before[i], scalars[i]);
  }
  std::vector<double> expected;
  for (const Scalar& s : scalars) expected.push_back(s.w);
  expect_close(w, expected, bound(dtype), 0, "weight");
}

TEST(Sgd, FollowsPyTorch) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const SgdUpdate& base : {SgdUpdate{0.1, 0, 0, 0, false, false}, SgdUpdate{0.1, 0, 0, 0.01, false, false},
                                  SgdUpdate{0.1, 0.9, 0, 5e-4, false, false}, SgdUpdate{0.1, 0.9, 0.3, 0, false, false},
                                  SgdUpdate{0.1, 0.9, 0, 5e-4, true, false}}) {
      SCOPED_TRACE(fmt::format("{} momentum {} dampening {} decay {} nesterov {}", name_of(dtype), base.momentum,
                               base.dampening, base.weight_decay, base.nesterov));
      compare(
          dtype, std::numeric_limits<double>::quiet_NaN(),
          [&](int step, const Tensor& grad, Tensor& w, Tensor& a, Tensor&) {
            SgdUpdate update = base;
            update.first_step = step == 1;
            Tensor none;
            cpu().sgd(update, std::array{ParameterStep{grad, w, base.momentum == 0 ? none : a, {}, {}}});
          },
          [&](int step, double g, Scalar& s) {
            g += base.weight_decay * s.w;
            if (base.momentum != 0) {
              s.a = step == 1 ? g : base.momentum * s.a + (1 - base.dampening) * g;
              g = base.nesterov ? g + base.momentum * s.a : s.a;
            }
            s.w -= base.lr * g;
          });
    }
  }
}

TEST(Adam, FollowsPyTorch) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const AdamUpdate& base :
         {AdamUpdate{1e-2, 0.9, 0.999, 1e-8, 0, false, 0}, AdamUpdate{1e-2, 0.8, 0.99, 1e-3, 0.1, false, 0},
          AdamUpdate{1e-2, 0.9, 0.999, 1e-8, 0.1, true, 0}}) {
      SCOPED_TRACE(fmt::format("{} decay {} decoupled {}", name_of(dtype), base.weight_decay, base.decoupled));
      compare(
          dtype, 0,
          [&](int step, const Tensor& grad, Tensor& w, Tensor& m, Tensor& v) {
            AdamUpdate update = base;
            update.step = step;
            cpu().adam(update, std::array{ParameterStep{grad, w, m, v, {}}});
          },
          [&](int step, double g, Scalar& s) {
            if (base.decoupled)
              s.w *= 1 - base.lr * base.weight_decay;
            else
              g += base.weight_decay * s.w;
            s.a = base.beta1 * s.a + (1 - base.beta1) * g;
            s.b = base.beta2 * s.b + (1 - base.beta2) * g * g;
            const double m = s.a / (1 - std::pow(base.beta1, step)), v = s.b / (1 - std::pow(base.beta2, step));
            s.w -= base.lr * m / (std::sqrt(v) + base.epsilon);
          });
    }
  }
}

TEST(Adam, ZeroGradientMovesNothing) {
  Tensor w = Tensor::ones({3}), m = Tensor::zeros({3}), v = Tensor::zeros({3});
  cpu().adam({1e-3, 0.9, 0.999, 1e-8, 0, false, 1}, std::array{ParameterStep{Tensor::zeros({3}), w, m, v, {}}});
  EXPECT_EQ(w.to_vector<float>(), std::vector<float>(3, 1.0F));
}

TEST(Rmsprop, FollowsPyTorch) {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (const RmspropUpdate& base : {RmspropUpdate{1e-2, 0.99, 1e-3, 0, 0}, RmspropUpdate{1e-2, 0.9, 1e-3, 0.1, 0},
                                      RmspropUpdate{1e-2, 0.9, 1e-3, 0.1, 0.8}}) {
      SCOPED_TRACE(fmt::format("{} decay {} momentum {}", name_of(dtype), base.weight_decay, base.momentum));
      compare(
          dtype, 0,
          [&](int, const Tensor& grad, Tensor& w, Tensor& v, Tensor& velocity) {
            Tensor none;
            cpu().rmsprop(base, std::array{ParameterStep{grad, w, v, base.momentum == 0 ? none : velocity, {}}});
          },
          [&](int, double g, Scalar& s) {
            g += base.weight_decay * s.w;
            s.a = base.alpha * s.a + (1 - base.alpha) * g * g;
            g /= std::sqrt(s.a) + base.epsilon;
            if (base.momentum != 0) g = s.b = base.momentum * s.b + g;
            s.w -= base.lr * g;
          });
    }
  }
}

/// One update rule, as steps of a kernel on a parameter.
using Rule = std::function<void(int step, const ParameterStep& p)>;

/// Every rule with and without its optional state.
std::vector<Rule> rules() {
  std::vector<Rule> list;
  for (const double momentum : {0.0, 0.9})
    for (const bool nesterov : {false, true})
      list.emplace_back([=](int step, const ParameterStep& p) {
        cpu().sgd({0.1, momentum, 0, 0.01, nesterov && momentum > 0, step == 1}, std::array{p});
      });
  for (const bool decoupled : {false, true})
    list.emplace_back([=](int step, const ParameterStep& p) {
      cpu().adam({1e-2, 0.9, 0.999, 1e-8, 0.1, decoupled, step}, std::array{p});
    });
  for (const double momentum : {0.0, 0.9})
    list.emplace_back([=](int, const ParameterStep& p) {
      cpu().rmsprop({1e-2, 0.9, 1e-3, 0.1, momentum}, std::array{p});
    });
  return list;
}

TEST(ParameterSteps, AMaskChangesNoBitOfWhatExistsAndLeavesExactZerosElsewhere) {
  const std::vector<std::pair<Shape, Pattern>> cases = {{{37, 83}, Pattern::element()},
                                                        {{36, 83}, Pattern::block(3, 1)},
                                                        {{7, 5, 3, 3}, Pattern::kernel()},
                                                        {{280, 70}, Pattern::recurrent()}};
  for (DType dtype : {DType::f32, DType::f64})
    for (const auto& [shape, pattern] : cases) {
      RandomTensors random(dtype);
      std::vector<bool> exists(static_cast<size_t>(mask_layout(shape, pattern).units()));
      for (size_t i = 0; i < exists.size(); ++i) exists[i] = i * i % 7 < 3;
      const Mask mask = Mask::from_units(shape, pattern, exists);
      const Tensor start = mask.apply(random(shape));
      for (size_t rule = 0; rule < rules().size(); ++rule) {
        SCOPED_TRACE(fmt::format("{} {} rule {}", name_of(dtype), pattern.to_string(), rule));
        const auto fresh = [&] { return std::array{start.clone(), mask.apply(start), mask.apply(start)}; };
        std::array<Tensor, 3> masked = fresh(), dense = fresh();
        for (Tensor* state : {&masked[1], &masked[2], &dense[1], &dense[2]}) state->fill_(0);
        for (int step = 1; step <= kSteps; ++step) {
          // The gradient of a weight that does not exist counts as 0, whatever it is.
          const Tensor grad = mask.apply(random(shape));
          const Tensor anything = where(mask.expand(), grad, poisoned(shape, dtype));
          rules()[rule](step, {anything, masked[0], masked[1], masked[2], mask});
          rules()[rule](step, {grad, dense[0], dense[1], dense[2], {}});
        }
        for (size_t i = 0; i < masked.size(); ++i) EXPECT_TRUE(identical(masked[i], mask.apply(dense[i]))) << i;
      }
    }
}

TEST(ParameterSteps, EachParameterIsUpdatedAndItsMaskApplied) {
  const Shape shape{3, 4};
  Tensor first = Tensor::ones(shape), second = Tensor::full({5}, 2), whole = Tensor::ones({2});
  const std::vector<bool> exists{true, false, true};
  const std::array steps{
      ParameterStep{Tensor::ones(shape), first, {}, {}, Mask::from_units(shape, Pattern::channel(0), exists)},
      ParameterStep{Tensor::ones({5}), second, {}, {}, {}},
      ParameterStep{Tensor::zeros({2}), whole, {}, {}, Mask::all({2})}};
  cpu().sgd({.lr = 0.5, .momentum = 0, .dampening = 0, .weight_decay = 0, .nesterov = false, .first_step = true},
            steps);
  EXPECT_EQ(first.to_vector<float>(), (std::vector<float>{.5, .5, .5, .5, 0, 0, 0, 0, .5, .5, .5, .5}));
  EXPECT_EQ(second.to_vector<float>(), std::vector<float>(5, 1.5));
  EXPECT_EQ(whole.to_vector<float>(), std::vector<float>(2, 1));
}

}  // namespace
}  // namespace espalier
