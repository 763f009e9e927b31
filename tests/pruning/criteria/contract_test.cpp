// What every criterion promises, whatever it computes.
#include "core/threads.h"
#include "layers/dropout.h"
#include "layers/pooling.h"
#include "tests/pruning/criteria/support.h"

namespace espalier {
namespace {

using namespace criteria_testing;
using testing_support::digits;
using testing_support::expect_contains;
using testing_support::message_of;

class EveryCriterion : public ::testing::TestWithParam<std::string> {
 protected:
  EveryCriterion() {
    set_seed(11);
    net_ = share(Sequential(Conv2d(1, 4, {.padding = 1}), BatchNorm2d(4), ReLU(), MaxPool2d({.kernel = 2}),
                            Dropout({.p = 0.5}), Flatten(), Linear(64, 10)));
    net_->train();
    net_->find("1")->eval();  // modes that differ
    Parameter bn = net_->find<BatchNorm2d>("1")->weight();
    bn.set_data(Tensor::from<float>({0.5, 1, 2, -1}, {4}));
    Parameter conv = net_->find<Conv2d>("0")->weight(), linear = net_->find<Linear>("6")->weight();
    conv.set_mask(Mask::from_units(conv.shape(), Pattern::channel(0), {true, true, false, true}));
    std::vector<bool> bits(640, true);
    for (size_t i = 0; i < bits.size(); i += 3) bits[i] = false;
    linear.set_mask(Mask::from_units(linear.shape(), Pattern::element(), bits));
    conv.set_requires_grad(false);
    Variable(linear.variable()).set_grad(Tensor::ones(linear.shape()));

    for (const char* name : {"0", "1"}) {
      for (const auto& [parameter_name, parameter] : net_->find(name)->named_parameters())
        channels_.members.push_back({.parameter = parameter, .pattern = Pattern::channel(0)});
    }
    sites_ = {channels_};
  }

  CriterionInput input() const {
    return {.module = *net_, .data = &data_, .batch_size = 16, .batches = 3, .seed = 2, .sites = &sites_};
  }

  ModulePtr net_;
  Dataset data_ = digits(40);
  Site channels_{.name = "channels", .units = 4, .members = {}};
  std::vector<Site> sites_;
};

TEST_P(EveryCriterion, LeavesEverythingAsItWas) {
  const CriterionPtr criterion = make_criterion(GetParam());
  EXPECT_EQ(criterion->name(), GetParam());
  const std::vector<Parameter> parameters = net_->parameters();
  const NamedTensors state = testing_support::copy_of(state_of(*net_));
  struct Before {
    const void* storage;
    uint64_t version;
    Tensor grad;
    Mask mask;
    GradientFlow flow;
    bool requires_grad;
  };
  std::vector<Before> before;
  for (const Parameter& p : parameters)
    before.push_back({p.data().storage().get(), p.data().version(), p.grad().defined() ? p.grad().clone() : Tensor(),
                      p.mask(), p.gradient_flow(), p.requires_grad()});
  std::vector<bool> modes;
  for (const auto& [name, module] : net_->named_modules()) modes.push_back(module->is_training());
  set_seed(99);
  const PhiloxState random = default_generator().state();

  const Saliencies scores = criterion->score(parameters, input());

  testing_support::expect_identical(state_of(*net_), state);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    EXPECT_EQ(p.data().storage().get(), before[i].storage);
    EXPECT_EQ(p.data().version(), before[i].version);
    ASSERT_EQ(p.grad().defined(), before[i].grad.defined()) << p.name();
    if (p.grad().defined()) {
      EXPECT_TRUE(identical(p.grad(), before[i].grad));
    }
    ASSERT_EQ(p.mask().defined(), before[i].mask.defined());
    if (p.mask().defined()) {
      EXPECT_TRUE(p.mask() == before[i].mask);
    }
    EXPECT_EQ(p.gradient_flow(), before[i].flow);
    EXPECT_EQ(p.requires_grad(), before[i].requires_grad) << p.name();
  }
  size_t i = 0;
  for (const auto& [name, module] : net_->named_modules()) EXPECT_EQ(module->is_training(), modes[i++]) << name;
  EXPECT_TRUE(grad_enabled());
  EXPECT_EQ(default_generator().state(), random);
}

TEST_P(EveryCriterion, ScoresEveryWeightAndMaskedOnesZero) {
  const CriterionPtr criterion = make_criterion(GetParam());
  const std::vector<Parameter> parameters = net_->parameters();
  const Saliencies scores = criterion->score(parameters, input());
  double total = 0;
  for (const Parameter& p : parameters) {
    const auto found = scores.find(p.id());
    ASSERT_NE(found, scores.end()) << p.name();
    EXPECT_EQ(found->second.shape(), p.shape());
    const Values values = found->second.to_vector<double>();
    const std::vector<bool> exists =
        p.mask().defined() ? p.mask().as_elements().units() : std::vector<bool>(values.size(), true);
    for (size_t k = 0; k < values.size(); ++k) {
      EXPECT_TRUE(std::isfinite(values[k]));
      if (!exists[k] && GetParam() != "random") {
        EXPECT_EQ(values[k], 0) << p.name() << " at " << k;
      }
      total += std::abs(values[k]);
    }
  }
  EXPECT_GT(total, 0);
}

TEST_P(EveryCriterion, ThatNeedsDataThrowsWithoutIt) {
  const CriterionPtr criterion = make_criterion(GetParam());
  CriterionInput without = input();
  without.data = nullptr;
  if (!criterion->needs_data()) {
    EXPECT_NO_THROW(criterion->score(net_->parameters(), without));
    return;
  }
  const auto score = [&] { criterion->score(net_->parameters(), without); };
  expect_contains(message_of<ArgumentError>(score), "[" + GetParam() + "]");
  const Dataset empty;
  without.data = &empty;
  expect_contains(message_of<ArgumentError>(score), "[" + GetParam() + "]");
  EXPECT_TRUE(net_->is_training());
}

TEST_P(EveryCriterion, GivesTheSameForTheSameSeedAndWhateverTheThreads) {
  const CriterionPtr criterion = make_criterion(GetParam());
  const int threads = num_threads();
  set_num_threads(1);
  const Saliencies one = criterion->score(net_->parameters(), input());
  const Saliencies again = criterion->score(net_->parameters(), input());
  set_num_threads(2);
  const Saliencies two = criterion->score(net_->parameters(), input());
  set_num_threads(threads);
  for (const Parameter& p : net_->parameters()) {
    EXPECT_TRUE(identical(one.at(p.id()), again.at(p.id()))) << p.name();
    // Kernels may add up in another order: sums over 40 examples of 64 pixels in f32, squared and divided by each
    // other.
    const double largest = max(abs(one.at(p.id()))).item();
    EXPECT_TRUE(all_close(one.at(p.id()), two.at(p.id()), 1e-4, 1e-5 * largest)) << p.name();
  }
}

/// Those that score a network as it is; movement watches a training first (learned_masks_test.cpp).
std::vector<std::string> scoring_names() {
  std::vector<std::string> names = criterion_names();
  std::erase_if(names, [](const std::string& name) { return make_criterion(name)->watcher() != nullptr; });
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, EveryCriterion, ::testing::ValuesIn(scoring_names()), [](const auto& criterion) {
  std::string name = criterion.param;
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
});

}  // namespace
}  // namespace espalier
