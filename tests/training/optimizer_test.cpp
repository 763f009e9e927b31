// Optimisers against plain double loops written from the papers' equations and PyTorch's documentation.
#include "training/optimizer.h"

#include <cmath>
#include <functional>

#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

constexpr int64_t kSize = 37;  // not a multiple of a vector register
constexpr int kSteps = 10;

double value(int64_t i, int step) { return std::sin(0.7 * static_cast<double>(i) + 1.3 * step); }

Tensor gradient(int step, DType dtype) {
  std::vector<double> g;
  for (int64_t i = 0; i < kSize; ++i) g.push_back(value(i, step));
  return Tensor::from(g, {kSize}).to(dtype);
}

void set_grad(const Parameter& p, const Tensor& grad) {
  Variable variable = p.variable();
  variable.set_grad(grad);
}

/// A reference update of one element: (weight, gradient, state a, state b, step from 1).
using Reference = std::function<void(double& w, double g, double& a, double& b, int step)>;

void compare(const std::function<std::unique_ptr<Optimizer>(const Parameter&)>& make, const Reference& reference) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    SCOPED_TRACE(name_of(dtype));
    const Parameter p("w", gradient(100, dtype));
    const auto optimizer = make(p);
    std::vector<double> w = gradient(100, dtype).to_vector<double>(), a(kSize, 0), b(kSize, 0);
    for (int step = 1; step <= kSteps; ++step) {
      const Tensor grad = gradient(step, dtype), before = grad.clone();
      set_grad(p, grad);
      optimizer->step();
      EXPECT_TRUE(identical(grad, before)) << "an optimiser never rewrites a gradient";
      const std::vector<double> g = grad.to_vector<double>();
      for (size_t i = 0; i < w.size(); ++i) reference(w[i], g[i], a[i], b[i], step);
    }
    EXPECT_EQ(optimizer->steps(p), kSteps);
    // Each step rounds a handful of times at the size of the values.
    const double epsilon = dtype == DType::f64 ? 0x1p-53 : 0x1p-24;
    const std::vector<double> got = p.data().to_vector<double>();
    for (size_t i = 0; i < w.size(); ++i)
      EXPECT_NEAR(got[i], w[i], 16 * kSteps * epsilon * std::max(1.0, std::abs(w[i]))) << "element " << i;
  }
}

using List = std::vector<Parameter>;

TEST(Sgd, Plain) {
  compare([](const Parameter& p) { return std::make_unique<Sgd>(List{p}, SgdOptions{.lr = 0.1}); },
          [](double& w, double g, double&, double&, int) { w -= 0.1 * g; });
}

TEST(Sgd, MomentumDampeningAndWeightDecay) {
  compare(
      [](const Parameter& p) {
        return std::make_unique<Sgd>(List{p},
                                     SgdOptions{.lr = 0.05, .momentum = 0.9, .dampening = 0.3, .weight_decay = 0.02});
      },
      [](double& w, double g, double& v, double&, int step) {
        g += 0.02 * w;
        v = step == 1 ? g : 0.9 * v + 0.7 * g;
        w -= 0.05 * v;
      });
}

TEST(Sgd, Nesterov) {
  compare(
      [](const Parameter& p) {
        return std::make_unique<Sgd>(List{p},
                                     SgdOptions{.lr = 0.05, .momentum = 0.8, .weight_decay = 0.01, .nesterov = true});
      },
      [](double& w, double g, double& v, double&, int step) {
        g += 0.01 * w;
        v = step == 1 ? g : 0.8 * v + g;
        w -= 0.05 * (g + 0.8 * v);
      });
}

/// One step of Adam with betas 0.8 and 0.95; the decay is applied by the caller.
void adam_reference(double& w, double g, double& m, double& v, int step) {
  m = 0.8 * m + 0.2 * g;
  v = 0.95 * v + 0.05 * g * g;
  const double m_hat = m / (1 - std::pow(0.8, step)), v_hat = v / (1 - std::pow(0.95, step));
  w -= 0.02 * m_hat / (std::sqrt(v_hat) + 1e-6);
}

TEST(Adam, DecayJoinsTheGradient) {
  compare(
      [](const Parameter& p) {
        return std::make_unique<Adam>(
            List{p}, AdamOptions{.lr = 0.02, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.03});
      },
      [](double& w, double g, double& m, double& v, int step) { adam_reference(w, g + 0.03 * w, m, v, step); });
}

TEST(AdamW, DecayMultipliesTheWeight) {
  compare(
      [](const Parameter& p) {
        return std::make_unique<AdamW>(
            List{p}, AdamWOptions{.lr = 0.02, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1});
      },
      [](double& w, double g, double& m, double& v, int step) {
        w *= 1 - 0.02 * 0.1;
        adam_reference(w, g, m, v, step);
      });
}

TEST(RmsProp, Plain) {
  compare(
      [](const Parameter& p) {
        return std::make_unique<RmsProp>(
            List{p}, RmsPropOptions{.lr = 0.01, .alpha = 0.9, .epsilon = 1e-5, .weight_decay = 0.02});
      },
      [](double& w, double g, double& v, double&, int) {
        g += 0.02 * w;
        v = 0.9 * v + 0.1 * g * g;
        w -= 0.01 * g / (std::sqrt(v) + 1e-5);
      });
}

TEST(RmsProp, Momentum) {
  compare(
      [](const Parameter& p) {
        return std::make_unique<RmsProp>(List{p},
                                         RmsPropOptions{.lr = 0.01, .alpha = 0.9, .epsilon = 1e-5, .momentum = 0.7});
      },
      [](double& w, double g, double& v, double& u, int) {
        v = 0.9 * v + 0.1 * g * g;
        u = 0.7 * u + g / (std::sqrt(v) + 1e-5);
        w -= 0.01 * u;
      });
}

TEST(Optimizer, SkipsParametersWithoutGradientAndFrozenOnes) {
  const Parameter with("a", Tensor::ones({3})), without("b", Tensor::ones({3}));
  Parameter frozen("c", Tensor::ones({3}));
  Sgd optimizer(List{with, without, frozen}, {.lr = 1, .momentum = 0.9});
  set_grad(with, Tensor::ones({3}));
  set_grad(frozen, Tensor::ones({3}));
  frozen.set_requires_grad(false);
  optimizer.step();
  EXPECT_EQ(with.data().to_vector<float>(), std::vector<float>(3, 0));
  EXPECT_EQ(without.data().to_vector<float>(), std::vector<float>(3, 1));
  EXPECT_EQ(frozen.data().to_vector<float>(), std::vector<float>(3, 1));
  EXPECT_EQ(optimizer.state(without, "velocity"), nullptr);
  ASSERT_NE(optimizer.state(with, "velocity"), nullptr);
  EXPECT_EQ(optimizer.state(with, "velocity")->to_vector<float>(), std::vector<float>(3, 1));
  expect_contains(message_of<ArgumentError>([&] { optimizer.state(with, "velocty"); }), "did you mean 'velocity'");
}

TEST(Optimizer, StateIsResizedTogetherWithTheWeightOrNotAtAll) {
  Parameter p("conv.weight", Tensor::ones({4, 2}));
  Adam optimizer(List{p}, {.lr = 0.1});
  set_grad(p, Tensor::ones({4, 2}));
  optimizer.step();
  p.set_data(p.data().slice(0, 0, 3).clone());
  set_grad(p, Tensor::ones({3, 2}));
  const std::string message = message_of<ArgumentError>([&] { optimizer.step(); });
  expect_contains(message, "conv.weight");
  expect_contains(message, "(4,2)");
  for (const std::string& slot : optimizer.slots())
    *optimizer.state(p, slot) = optimizer.state(p, slot)->slice(0, 0, 3).clone();
  optimizer.step();
  EXPECT_EQ(optimizer.steps(p), 2);
}

TEST(Optimizer, GroupsScaleTheRateAndChooseTheDecay) {
  const Parameter a("a", Tensor::ones({2})), b("b", Tensor::ones({2}));
  Sgd optimizer(std::vector<ParameterGroup>{{.parameters = {{"a", a}}, .lr_scale = 0.5},
                                            {.parameters = {{"b", b}}, .weight_decay = 0.0}},
                {.lr = 0.1, .weight_decay = 1});
  set_grad(a, Tensor::zeros({2}));
  set_grad(b, Tensor::zeros({2}));
  optimizer.step();
  EXPECT_FLOAT_EQ(a.data().to_vector<float>()[0], 1 - 0.05F);
  EXPECT_FLOAT_EQ(b.data().to_vector<float>()[0], 1);
}

TEST(Optimizer, NoDecayGroupsSpareNormsAndBiases) {
  const ModulePtr net = small_network(1);
  const std::vector<ParameterGroup> groups = no_decay_groups(*net, 0.01);
  ASSERT_EQ(groups.size(), 2U);
  const auto names = [](const ParameterGroup& group) {
    std::vector<std::string> list;
    for (const auto& [name, p] : group.parameters) list.push_back(name);
    return list;
  };
  EXPECT_EQ(names(groups[0]), (std::vector<std::string>{"1.weight", "5.weight"}));
  EXPECT_EQ(names(groups[1]), (std::vector<std::string>{"1.bias", "2.weight", "2.bias", "5.bias"}));
  EXPECT_EQ(groups[0].weight_decay, 0.01);
  EXPECT_EQ(groups[1].weight_decay, 0.0);
  // A norm of higher rank is still a norm.
  const LayerNorm norm(Shape{3, 4});
  EXPECT_TRUE(no_decay_groups(norm, 0.01)[0].parameters.empty());
}

TEST(Optimizer, StateDictContinuesToTheSameBits) {
  const auto run = [](Optimizer& optimizer, const Parameter& p, int from, int to) {
    for (int step = from; step < to; ++step) {
      set_grad(p, gradient(step, DType::f32));
      optimizer.step();
    }
  };
  const Parameter straight("w", gradient(100, DType::f32)), first("w", gradient(100, DType::f32));
  Adam a(List{straight}, {.lr = 0.01}), b(List{first}, {.lr = 0.01});
  run(a, straight, 0, 8);
  run(b, first, 0, 5);
  const Parameter second("w", first.data().clone());
  Adam c(List{second}, {.lr = 0.01});
  c.load_state_dict(b.state_dict());
  run(c, second, 5, 8);
  EXPECT_TRUE(identical(straight.data(), second.data()));
  expect_identical(a.state_dict().tensors, c.state_dict().tensors);
  EXPECT_EQ(a.state_dict().scalars, c.state_dict().scalars);
}

TEST(Optimizer, LoadingListsEverythingThatDoesNotFit) {
  const Parameter a("a", Tensor::ones({2})), b("b", Tensor::ones({3}));
  Adam optimizer(List{a, b});
  set_grad(a, Tensor::ones({2}));
  optimizer.step();
  const OptimizerState before = optimizer.state_dict();
  OptimizerState state{.type = "adam",
                       .tensors = {{"m/a", Tensor::ones({5})}, {"m/zz", Tensor::ones({1})}},
                       .scalars = {{"steps/a", 3}}};
  const std::string message = message_of<FileError>([&] { optimizer.load_state_dict(state); });
  for (const char* part : {"misshapen: m/a: expected (2), got (5)", "missing:   v/a (2)", "unknown:   m/zz (1)"})
    expect_contains(message, part);
  expect_identical(optimizer.state_dict().tensors, before.tensors);
  state.type = "sgd";
  expect_contains(message_of<FileError>([&] { optimizer.load_state_dict(state); }), "state of 'adam'");
}

struct SignOptions {
  double lr = 0.5, scale = 1;
};
void fields(FieldVisitor& f, SignOptions& o) {
  lr_field(f, o.lr);
  f("scale", o.scale, above(0), "Of the step");
}

/// w -= lr * scale * sign(g): an optimiser that only this program knows.
class SignSgd : public Optimizer {
 public:
  explicit SignSgd(ParameterGroups groups, const SignOptions& options = {})
      : Optimizer(std::move(groups), checked("sign", options).lr, 0, {}), scale_(options.scale) {}
  std::string type() const override { return "sign"; }
  double momentum() const override { return 0; }
  void set_momentum(double) override {}

 protected:
  void update(const Settings& settings, Device, std::span<const ParameterStep> parameters) override {
    for (const ParameterStep& p : parameters) {
      Tensor weight = p.weight;
      weight.copy_(weight - p.grad / abs(p.grad) * (settings.lr * scale_));
    }
  }

 private:
  double scale_;
};

TEST(Optimizer, OnesOfAProgramHaveNamesAndOptions) {
  optimizer_registry().replace("sign", maker_of<SignSgd, SignOptions>);
  const Parameter p("w", Tensor::from<float>({1, 2}, {2}));
  const auto optimizer =
      make_optimizer(PartChoice{.name = "sign", .options = R"({"scale": 2})"}, List{p}, {.lr = 0.25});
  set_grad(p, Tensor::from<float>({-3, 5}, {2}));
  optimizer->step();
  EXPECT_EQ(p.data().to_vector<float>(), (std::vector<float>{1.5F, 1.5F}));
  expect_contains(message_of<ArgumentError>([&] { make_optimizer("sign", List{p}, {.momentum = 0.9}); }),
                  "[sign] no option is named 'momentum'");
  expect_contains(message_of<ArgumentError>(
                      [&] { make_optimizer(PartChoice{.name = "sign", .options = R"({"scale": 0})"}, List{p}); }),
                  "[sign] expected scale above 0, got 0");
}

TEST(Optimizer, OptionsOfAChoiceReachIt) {
  const Parameter p("w", Tensor::ones({2}));
  const auto adam =
      make_optimizer(PartChoice{.name = "adam", .options = R"({"beta2": 0.99})"}, List{p}, {.momentum = 0.8});
  EXPECT_EQ(adam->config()["beta2"], 0.99);
  EXPECT_EQ(adam->config()["beta1"], 0.8);
  PartChoice chosen{.name = "adam", .options = R"({"beta1": 0.7, "beta2": 0.99, "lr": 0.5})"};
  const OptimizerOptions shared = take_shared_options(chosen);
  EXPECT_EQ(shared.momentum, 0.7);
  EXPECT_EQ(shared.lr, 0.5);
  EXPECT_EQ(chosen.options, R"({"beta2":0.99})");
}

TEST(Optimizer, RejectsBadSettings) {
  const Parameter p("w", Tensor::ones({2}));
  EXPECT_THROW(Sgd(List{}, {}), ArgumentError);
  EXPECT_THROW(Sgd(List{p}, {.lr = -1}), ArgumentError);
  EXPECT_THROW(Sgd(List{p}, {.momentum = 1}), ArgumentError);
  EXPECT_THROW(Sgd(List{p}, {.nesterov = true}), ArgumentError);
  EXPECT_THROW(Sgd(NamedParameters{{"a", p}, {"b", p}}), ArgumentError);
  EXPECT_THROW(Sgd(List{p}, {.lr = 0.1}).set_momentum(0.5), ArgumentError);
  EXPECT_THROW(Adam(List{p}, {.beta2 = 1}), ArgumentError);
  expect_contains(message_of<ArgumentError>([&] { make_optimizer("adma", List{p}); }), "did you mean 'adam'");
  EXPECT_EQ(make_optimizer("rmsprop", List{p}, {.lr = 0.5})->lr(), 0.5);
  EXPECT_EQ(make_optimizer("sgd", List{p}, {.momentum = 0.9, .nesterov = true})->momentum(), 0.9);
}

}  // namespace
}  // namespace espalier
