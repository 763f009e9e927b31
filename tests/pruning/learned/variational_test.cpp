// Sparse variational dropout, against its formulas in double precision and a small training.
#include <cmath>

#include <nlohmann/json.hpp>

#include "layers/conv.h"
#include "layers/linear.h"
#include "pruning/learned/variational.h"
#include "pruning/learned/variational_ops.h"
#include "tests/training/support.h"
#include "training/checkpoint.h"

namespace espalier {
namespace {

using namespace testing_support;

double clipped_log_alpha(double w, double s) { return std::clamp(s - std::log(w * w + 1e-8), -8.0, 8.0); }
double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }
/// Molchanov et al. 2017, equation 14.
double kl_of(double w, double s) {
  const double la = clipped_log_alpha(w, s);
  return 0.63576 - 0.63576 * sigmoid_of(1.87320 + 1.48695 * la) + 0.5 * std::log1p(std::exp(-la));
}

const std::vector<double> kWeights = {0.5, -0.03, 1e-3, 2.0, -0.7, 0.2}, kLogs = {-6, -4, -3, -12, 1.5, -20};

TEST(VariationalOps, FollowTheFormulas) {
  const Variable w(Tensor::from(kWeights, {2, 3}), true), s(Tensor::from(kLogs, {2, 3}), true);
  const std::vector<double> variance = variational_variance(w, s).data().to_vector<double>();
  double kl = 0;
  for (size_t i = 0; i < kWeights.size(); ++i) {
    EXPECT_NEAR(variance[i], std::exp(clipped_log_alpha(kWeights[i], kLogs[i])) * kWeights[i] * kWeights[i], 1e-12);
    kl += kl_of(kWeights[i], kLogs[i]);
  }
  EXPECT_NEAR(variational_kl(w, s).item(), kl, 1e-12 * 6);
}

TEST(VariationalOps, HaveTheGradientsOfTheirFunctions) {
  const Variables inputs = {Variable(Tensor::from(kWeights, {2, 3}), true),
                            Variable(Tensor::from(kLogs, {2, 3}), true)};
  const Variable scale(Tensor::from<double>({1, -2, 3, 0.5, -1.5, 2}, {2, 3}));
  const GradcheckOptions options{.step = 1e-7, .relative = 1e-4, .absolute = 1e-6};
  EXPECT_TRUE(
      gradcheck([&](const Variables& in) -> Variables { return {sum(variational_variance(in[0], in[1]) * scale)}; },
                inputs, options));
  EXPECT_TRUE(
      gradcheck([](const Variables& in) -> Variables { return {variational_kl(in[0], in[1])}; }, inputs, options));
  const Variables moments = {Variable(Tensor::from<double>({1, 2, 3}, {3}), true),
                             Variable(Tensor::from<double>({0.1, 0.5, 2}, {3}), true)};
  EXPECT_TRUE(gradcheck(
      [](const Variables& in) -> Variables {
        set_seed(3);
        return {sum(square(gaussian_sample(in[0], in[1])))};
      },
      moments));
}

TEST(VariationalOps, ThePenaltyAddsTheGradientOfKl) {
  const Variable w(Tensor::from(kWeights, {6}), true), s(Tensor::from(kLogs, {6}), true);
  (variational_kl(w, s) * 0.25).backward();
  const Variable w2(Tensor::from(kWeights, {6}), true), s2(Tensor::from(kLogs, {6}), true);
  Variable first = w2;
  first.set_grad(Variable(Tensor::ones({6}, DType::f64)));
  add_variational_kl_gradient(w2, s2, 0.25);
  EXPECT_TRUE(all_close(w2.grad().data(), w.grad().data() + 1.0, 1e-12, 1e-12));
  EXPECT_TRUE(identical(s2.grad().data(), s.grad().data()));
}

TEST(VariationalOps, SamplesHaveTheMomentsAskedFor) {
  set_seed(5);
  constexpr int64_t kCount = 40000;
  const Tensor x =
      gaussian_sample(Variable(Tensor::full({kCount}, 2.0)), Variable(Tensor::full({kCount}, 0.25))).data();
  const double standard_error = 0.5 / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(mean(x).item(), 2.0, 5 * standard_error);
  EXPECT_NEAR(variance(x).item(), 0.25, 5 * 0.25 * std::sqrt(2.0 / kCount));
}

TEST(VariationalLayers, WithoutNoiseAreThePlainLayers) {
  set_seed(1);
  Sequential net(Conv2d(2, 3, {.kernel = 3, .stride = 2, .padding = 1}), Flatten(), Linear(3 * 3 * 3, 4));
  const Variable x(randn({5, 2, 6, 6}));
  net.eval();
  const Tensor before = net(x).data();
  const Parameter weight = net.named_parameters()[0].second;
  ASSERT_EQ(make_variational(net, {.initial_log_sigma2 = -30}), 2);
  EXPECT_TRUE(all_close(net(x).data(), before, 1e-5, 1e-6));
  net.train();
  // log alpha is clipped at -8: noise of up to e^-4 of each weight remains.
  const double difference = max(abs(net(x).data() - before)).item();
  EXPECT_GT(difference, 0);
  EXPECT_LT(difference, 0.2);
  EXPECT_EQ(net.named_parameters()[0].second.id(), weight.id());
  EXPECT_EQ(net.named_parameters()[2].first, "0.log_sigma2");
}

TEST(VariationalLayers, ConvolutionIsTheLinearLayerOnOneWindow) {
  set_seed(2);
  const auto conv = share(Conv2d(2, 3, {.kernel = 4}));
  const auto flat = share(Linear(32, 3));
  Tensor weight = flat->weight().data(), bias = flat->bias().data();
  weight.copy_(conv->weight().data().reshape({3, 32}));
  bias.copy_(conv->bias().data());
  VariationalLayer a(conv, {.initial_log_sigma2 = -4});
  VariationalLayer b(flat, {.initial_log_sigma2 = -4});
  EXPECT_EQ(a.type(), "VariationalConv2d");
  const Tensor x = randn({6, 2, 4, 4});
  set_seed(9);
  const Tensor ya = a(x).data().reshape({6, 3});
  set_seed(9);
  const Tensor yb = b(x.reshape({6, 32})).data();
  EXPECT_TRUE(all_close(ya, yb, 1e-5, 1e-5));
}

TEST(VariationalLayers, EvaluationAndRemovalDropTheNoisyWeights) {
  auto net = share(Sequential(Linear(2, 2, {.bias = false})));
  Parameter weight = net->parameters()[0];
  weight.set_data(Tensor::from<float>({1, 0.1F, -2, 0.05F}, {2, 2}));
  make_variational(*net);
  Parameter log_sigma2 = net->parameters()[1];
  // log alpha: 0, -1 + 4.6, -1 - 1.4, and -3 + 6.0 just below the threshold of 3.
  log_sigma2.set_data(Tensor::from<float>({0, -1, -1, -3}, {2, 2}));
  net->eval();
  const Variable one(Tensor::eye(2));
  const std::vector<float> kept = {1, -2, 0, 0.05F};  // eye * W^T
  EXPECT_EQ((*net)(one).data().to_vector<float>(), kept);
  EXPECT_DOUBLE_EQ(variational_sparsity(*net).sparsity(), 0.25);

  const SparsityCount count = remove_variational(*net);
  EXPECT_EQ(count.masked, 1);
  EXPECT_EQ((*net)[0]->type(), "Linear");
  EXPECT_EQ(net->parameters()[0].id(), weight.id());
  EXPECT_EQ(weight.mask().units(), (std::vector<bool>{true, false, true, true}));
  EXPECT_EQ((*net)(one).data().to_vector<float>(), kept);
  EXPECT_THROW(remove_variational(*net), ArgumentError);
  EXPECT_THROW(variational_layers(*net), ArgumentError);
}

TEST(VariationalLayers, MaskedWeightsMakeNoNoise) {
  auto net = share(Sequential(Linear(2, 1, {.bias = false})));
  Parameter weight = net->parameters()[0];
  weight.set_data(Tensor::from<float>({1, 1}, {1, 2}));
  weight.set_mask(Mask::from_units({1, 2}, Pattern::element(), {true, false}));
  make_variational(*net, {.initial_log_sigma2 = 0});
  net->train();
  // With noise of standard deviation 1 on the weight that reads 5 it would be that of 5; sqrt's epsilon is left.
  EXPECT_NEAR((*net)(Variable(Tensor::from<float>({0, 5}, {1, 2}))).item(), 0, 1e-3);
  EXPECT_NE((*net)(Variable(Tensor::from<float>({3, 5}, {1, 2}))).item(), 3);
}

TEST(VariationalLayers, KeepTheirSurestWeightWhenAllAreNoise) {
  auto net = share(Sequential(Linear(4, 2)));
  make_variational(*net);
  const auto layer = variational_layers(*net).front();
  Parameter weight = layer->weight(), log_sigma2 = layer->log_sigma2();
  weight.set_data(Tensor::ones({2, 4}));
  log_sigma2.set_data(Tensor::from<float>({5, 5, 5, 5, 5, 4, 5, 5}, {2, 4}));
  const SparsityCount count = remove_variational(*net);
  EXPECT_EQ(count.masked, 7);
  EXPECT_TRUE(weight.mask().units()[5]);
}

TEST(VariationalLayers, NestedSharedClonedAndSaved) {
  auto shared = share(Linear(4, 4));
  auto inner = std::make_shared<Sequential>();
  inner->add("a", shared);
  inner->add("b", shared);
  auto net = std::make_shared<Sequential>();
  net->add("inner", inner);
  net->add("head", Linear(4, 2));
  EXPECT_EQ(make_variational(*net, {.threshold = 2}), 2);
  EXPECT_EQ((*inner)[0], (*inner)[1]);
  net->eval();
  const Variable x(randn({3, 4}));
  const Tensor y = (*net)(x).data();
  EXPECT_TRUE(identical((*net->clone())(x).data(), y));
  const TemporaryFolder folder;
  save_checkpoint(folder.file("net.safetensors"), *net);
  const ModulePtr loaded = load_model(folder.file("net.safetensors"));
  EXPECT_TRUE(identical((*loaded)(x).data(), y));
  EXPECT_DOUBLE_EQ(variational_layers(*loaded)[0]->threshold(), 2);
  expect_contains(message_of<ArgumentError>([] {
                    module_from_config({{"type", "VariationalLinear"}, {"layer", {{"type", "ReLU"}}}, {"treshold", 2}});
                  }),
                  "threshold");
}

TEST(VariationalPenalty, WarmsUp) {
  auto net = std::make_shared<Sequential>(Linear(2, 2));
  EXPECT_THROW(VariationalPenalty{net}, ArgumentError);
  make_variational(*net);
  const VariationalPenalty penalty(net, {.weight = 2, .warmup_begin = 0.1, .warmup_end = 0.3});
  EXPECT_DOUBLE_EQ(penalty.weight_at(10, 100), 0);
  EXPECT_DOUBLE_EQ(penalty.weight_at(20, 100), 1);
  EXPECT_DOUBLE_EQ(penalty.weight_at(30, 100), 2);
  EXPECT_DOUBLE_EQ(penalty.weight_at(100, 100), 2);
}

/// Trains on the digits; `stop` ends it after that step, to be resumed.
ModulePtr train(uint64_t seed, int64_t epochs, const std::string& folder, int64_t stop, bool resume) {
  set_seed(seed);
  auto net = std::make_shared<Sequential>(Flatten(), Linear(64, 32), ReLU(), Linear(32, 10));
  make_variational(*net, {.initial_log_sigma2 = -8});
  auto optimizer = std::make_shared<Adam>(*net, AdamOptions{.lr = 5e-3});
  Trainer trainer(net, optimizer,
                  {.epochs = epochs,
                   .batch_size = 64,
                   .schedule = parse_schedule("cosine"),
                   .run_folder = folder,
                   .resume = resume,
                   .progress = ProgressMode::silent,
                   .callbacks = {std::make_shared<VariationalPenalty>(net), std::make_shared<StopAt>(stop)}});
  trainer.fit(digits(1437));
  return net;
}

TEST(VariationalTraining, FindsASparseNetwork) {
  auto net = std::dynamic_pointer_cast<Sequential>(train(1, 40, "", 0, false));
  const SparsityCount count = remove_variational(*net);
  EXPECT_GT(count.sparsity(), 0.5);
  EXPECT_GT(evaluate(*net, digits_test()).accuracy(), 0.9);
}

TEST(VariationalTraining, ResumesWithTheSameBits) {
  const TemporaryFolder folder;
  const ModulePtr straight = train(1, 2, folder.file("straight"), 0, false);
  train(1, 2, folder.file("stopped"), 30, false);
  expect_identical(state_of(*train(99, 2, folder.file("stopped"), 0, true)), state_of(*straight));
}

}  // namespace
}  // namespace espalier
