// The penalty on BatchNorm's scales in training.
#include "pruning/criteria/slimming.h"

#include "tests/pruning/criteria/support.h"

namespace espalier {
namespace {

using namespace criteria_testing;
using testing_support::digits;
using testing_support::expect_contains;
using testing_support::message_of;

ModulePtr network_with_scales() {
  set_seed(4);
  const ModulePtr net =
      share(Sequential(Flatten(), Linear(64, 3), BatchNorm1d(3), ReLU(), Linear(3, 4), BatchNorm1d(4), Linear(4, 10)));
  Parameter scale = net->find<BatchNorm1d>("2")->weight();
  scale.set_data(Tensor::from<float>({0.5, -2, 0}, {3}));
  return net;
}

void train_one_step(const ModulePtr& net, const std::shared_ptr<Callback>& callback) {
  auto optimizer = std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.5});
  TrainerOptions options{.epochs = 1, .batch_size = 32, .progress = ProgressMode::silent};
  if (callback) options.callbacks = {callback};
  Trainer(net, optimizer, options).fit(digits(32));
}

TEST(SlimmingPenalty, AddsTheSignOfEveryScaleToItsGradient) {
  const ModulePtr plain = network_with_scales(), slim = network_with_scales();
  const auto penalty = std::make_shared<SlimmingPenalty>(SlimmingOptions{.strength = 0.25, .exclude = {"5"}});
  EXPECT_DOUBLE_EQ(penalty->penalty(*slim), 0.25 * 2.5);
  train_one_step(plain, nullptr);
  train_one_step(slim, penalty);
  const std::vector<Parameter> a = plain->parameters(), b = slim->parameters();
  for (size_t i = 0; i < a.size(); ++i) {
    const Values difference = (b[i].data() - a[i].data()).to_vector<double>();
    if (b[i].id() == slim->find<BatchNorm1d>("2")->weight().id())
      expect_near(difference, {-0.125, 0.125, 0}, 1e-6);  // -lr * strength * sign
    else
      for (double d : difference) EXPECT_EQ(d, 0) << a[i].name();
  }
}

TEST(SlimmingPenalty, BadInput) {
  EXPECT_THROW(SlimmingPenalty({.strength = -1}), ArgumentError);
  const auto typo = std::make_shared<SlimmingPenalty>(SlimmingOptions{.exclude = {"55*"}});
  expect_contains(message_of<ArgumentError>([&] { train_one_step(network_with_scales(), typo); }), "55*");
  const ModulePtr without = share(Sequential(Flatten(), Linear(64, 10)));
  expect_contains(message_of<ArgumentError>([&] { train_one_step(without, std::make_shared<SlimmingPenalty>()); }),
                  "BatchNorm");
}

}  // namespace
}  // namespace espalier
