// SynFlow against the product of absolute weights by hand, and against its conservation law.
#include "layers/pooling.h"
#include "tests/pruning/criteria/support.h"

namespace espalier {
namespace {

using namespace criteria_testing;

TEST(SynFlow, IsTheFlowOverThePathsThroughAWeight) {
  const ModulePtr net = share(Sequential(Flatten(), Linear(2, 2), Linear(2, 1)));
  std::vector<Parameter> p = net->parameters();
  p[0].set_data(Tensor::from<float>({1, -2, -3, 4}, {2, 2}));
  p[1].set_data(Tensor::from<float>({50, -60}, {2}));  // biases don't count
  p[2].set_data(Tensor::from<float>({-5, 6}, {1, 2}));
  const Saliencies s = synflow_criterion({1, 1, 2})->score(net->parameters(), {.module = *net});
  EXPECT_EQ(s.at(p[0].id()).to_vector<double>(), (Values{5 * 1, 5 * 2, 6 * 3, 6 * 4}));
  EXPECT_EQ(s.at(p[1].id()).to_vector<double>(), (Values{0, 0}));
  EXPECT_EQ(s.at(p[2].id()).to_vector<double>(), (Values{5 * 3, 6 * 7}));
}

TEST(SynFlow, EveryLayerCarriesTheWholeFlow) {
  set_seed(1);
  const ModulePtr net = share(Sequential(Conv2d(2, 3, {.padding = 1}), BatchNorm2d(3), ReLU(), MaxPool2d({.kernel = 2}),
                                         Conv2d(3, 4, {.padding = 1}), ReLU(), Flatten(), Linear(16, 5)));
  Parameter scale = net->find<BatchNorm2d>("1")->weight();
  scale.set_data(Tensor::from<float>({0.5, -2, 3}, {3}));
  Tensor mean = net->find<BatchNorm2d>("1")->running_mean();
  mean.fill_(7);
  const Saliencies s = synflow_criterion({2, 4, 4})->score(net->parameters(), {.module = *net});
  const auto flow = [&](const Parameter& p) { return sum(s.at(p.id())).item(); };
  const double all = flow(net->find<Linear>("7")->weight());
  EXPECT_GT(all, 0);
  for (const Parameter& p : {net->find<Conv2d>("0")->weight(), scale, net->find<Conv2d>("4")->weight()})
    EXPECT_NEAR(flow(p), all, 1e-12 * all * static_cast<double>(p.numel())) << p.name();
}

TEST(SynFlow, DeepNetworksDoNotOverflow) {
  auto net = std::make_shared<Sequential>();
  net->add(Flatten());
  for (int i = 0; i < 60; ++i) {
    Linear layer(16, 16, {.bias = false});
    Parameter weight = layer.weight();
    weight.set_data(Tensor::ones({16, 16}));
    net->add(std::move(layer));
  }
  const Saliencies s = synflow_criterion({1, 1, 16})->score(net->parameters(), {.module = *net});
  for (const auto& [id, score] : s) EXPECT_NEAR(sum(score).item() / std::pow(16.0, 61), 1, 1e-10);
}

TEST(SynFlow, SaysWhatItNeeds) {
  const ModulePtr net = share(Sequential(Flatten(), Linear(2, 2)));
  testing_support::expect_contains(testing_support::message_of<ArgumentError>(
                                       [&] { synflow_criterion()->score(net->parameters(), {.module = *net}); }),
                                   "shape of an image");
  EXPECT_THROW(synflow_criterion({2, 0}), ArgumentError);
  const Parameter other("other", Tensor::ones({2}));
  EXPECT_THROW(synflow_criterion({1, 1, 2})->score({other}, {.module = *net}), ArgumentError);
}

TEST(GraSP, ATrainedNetworkIsAnErrorThatSaysWhatToUse) {
  set_seed(1);
  const ModulePtr net = share(Sequential(Flatten(), Linear(64, 10)));
  const Dataset data = testing_support::digits(64);
  const std::vector<Parameter> weights{net->parameters()[0]};
  const CriterionInput input{.module = *net, .data = &data, .batch_size = 32};
  const CriterionPtr grasp = grasp_criterion();
  EXPECT_NO_THROW(grasp->score(weights, input));
  Trainer(net, std::make_shared<Adam>(*net, AdamOptions{.lr = 0.02}),
          {.epochs = 20, .batch_size = 32, .progress = ProgressMode::silent})
      .fit(data);
  const std::string message = testing_support::message_of<ArgumentError>([&] { grasp->score(weights, input); });
  testing_support::expect_contains(message, "that of guessing 2.3");
  testing_support::expect_contains(message, "taylor");
  CriterionInput other = input;  // of other losses nobody knows what guessing would have
  other.loss = [](const Variable& outputs, const Batch& batch) { return cross_entropy(outputs, batch.labels); };
  EXPECT_NO_THROW(grasp->score(weights, other));
}

}  // namespace
}  // namespace espalier
