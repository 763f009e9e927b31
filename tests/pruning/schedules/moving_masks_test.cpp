// Dynamic sparse training and network surgery: budgets, what is dropped and grown, and bit-exact resumes.
#include <cmath>

#include "pruning/schedules/sparse_training.h"
#include "pruning/schedules/surgery.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

/// One row of eight weights; `exists` and the values are set by the test.
struct Tiny {
  std::shared_ptr<Sequential> net = share(Sequential(Linear(8, 1, {.bias = false})));
  Parameter weight = net->parameters()[0];
  std::vector<Site> sites = weight_sites(*net);
  Tiny() {
    weight.set_data(Tensor::from<float>({5, 1, -4, 2, 7, 7, 7, 7}, {1, 8}));
    weight.set_mask(Mask::from_units({1, 8}, Pattern::element(), {true, true, true, true, false, false, false, false}),
                    GradientFlow::dense);
  }
  void set_gradient(const std::vector<float>& values) {
    Variable leaf = weight.variable();
    leaf.set_grad(Variable(Tensor::from(values, {1, 8})));
  }
};

TEST(SparseTraining, DropsTheSmallestAndGrowsTheLargestGradients) {
  Tiny tiny;
  SparseTraining rigl(tiny.sites, {.sparsity = 0.5, .fraction = 0.5, .every = 1, .end = 1});
  tiny.set_gradient({0, 3, 0, 0.5F, -1, 2, -9, 0});
  // Half of four weights: 1 and 2 are dropped (1 has a gradient of 3, and comes back as it was), 6 grows.
  Sgd optimizer(*tiny.net, {.lr = 0.1, .momentum = 0.9});
  rigl.update(0, 100);
  EXPECT_EQ(tiny.weight.mask().units(), (std::vector<bool>{true, true, true, false, false, false, true, false}));
  EXPECT_EQ(tiny.weight.data().to_vector<float>(), (std::vector<float>{5, 1, -4, 0, 0, 0, 0, 0}));
  EXPECT_EQ(tiny.weight.grad().to_vector<float>(), (std::vector<float>{0, 3, 0, 0, 0, 0, -9, 0}));
  optimizer.step();
  EXPECT_FLOAT_EQ(tiny.weight.data().to_vector<float>()[6], 0.9F);
}

TEST(SparseTraining, RandomGrowthDependsOnSeedAndStepOnly) {
  std::vector<std::vector<bool>> masks;
  for (const auto& [seed, step] : {std::pair{1, 10}, {1, 10}, {1, 20}, {2, 10}}) {
    Linear layer(40, 40);
    Parameter weight = layer.weight();
    SparseTraining set({site_of("w", weight, Pattern::element())},
                       {.growth = Growth::random, .sparsity = 0.75, .every = 10, .seed = static_cast<uint64_t>(seed)});
    weight.set_mask(Mask::from_scores({40, 40}, Pattern::element(), Tensor::arange(0, 1600, 1, DType::f32), 400));
    const std::vector<bool> before = weight.mask().units();
    weight.set_data(Tensor::arange(0, 1600, 1, DType::f32).reshape({40, 40}));
    set.update(step, 1000);
    const std::vector<bool> after = weight.mask().units();
    const auto dropped = static_cast<int64_t>(set.fraction_at(step, 1000) * 400);
    // The smallest of the survivors (1200...) may have come back by chance; none of the others went.
    for (int64_t i = 1200 + dropped; i < 1600; ++i) ASSERT_TRUE(after[static_cast<size_t>(i)]);
    EXPECT_EQ(weight.mask().count(), 400);
    masks.push_back(after);
  }
  EXPECT_EQ(masks[0], masks[1]);
  EXPECT_NE(masks[0], masks[2]);
  EXPECT_NE(masks[0], masks[3]);
}

TEST(SparseTraining, FractionIsACosine) {
  Tiny tiny;
  const SparseTraining rigl(tiny.sites, {.fraction = 0.4, .every = 10, .end = 0.5});
  EXPECT_DOUBLE_EQ(rigl.fraction_at(0, 200), 0.4);
  EXPECT_NEAR(rigl.fraction_at(50, 200), 0.2, 1e-12);
  EXPECT_EQ(rigl.fraction_at(100, 200), 0);
  EXPECT_TRUE(rigl.updates_in(90, 200));
  EXPECT_FALSE(rigl.updates_in(95, 200));
  EXPECT_FALSE(rigl.updates_in(100, 200));
}

TEST(SparseTraining, BadInput) {
  Tiny tiny;
  EXPECT_THROW(SparseTraining({}, {}), ArgumentError);
  EXPECT_THROW(SparseTraining(tiny.sites, {.sparsity = 1}), ArgumentError);
  EXPECT_THROW(SparseTraining(tiny.sites, {.every = 0}), ArgumentError);
  EXPECT_THROW(SparseTraining(tiny.sites, {.allocation = {.scope = Scope::global}}), ArgumentError);
  EXPECT_THROW(SparseTraining(weight_sites(*tiny.net, Pattern::n_of_m(2, 4))), ArgumentError);
  expect_contains(message_of<ArgumentError>([&] { SparseTraining(weight_sites(*tiny.net, Pattern::block(1, 2))); }),
                  "a mask of the pattern element");
  expect_contains(message_of<ArgumentError>([] { parse_growth("gradeint"); }), "gradient");
  tiny.weight.zero_grad();
  SparseTraining rigl(tiny.sites, {.fraction = 0.5});
  expect_contains(message_of<ArgumentError>([&] { rigl.update(0, 100); }), "gradient");
}

TEST(NetworkSurgery, CutsAndSplicesByTheDenseWeights) {
  auto net = share(Sequential(Linear(4, 1, {.bias = false})));
  Parameter weight = net->parameters()[0];
  weight.set_data(Tensor::from<float>({1, -2, 3, -6}, {1, 4}));
  const Variable one(Tensor::ones({1, 4}));
  {
    NetworkSurgery surgery(weight_sites(*net), {.c = -0.5});
    surgery.update();
    // |w|: mean 3, variance (4+1+0+9)/4 = 3.5.
    const double t = 3 - 0.5 * std::sqrt(3.5);
    EXPECT_NEAR(surgery.thresholds()[0], t, 1e-12);  // 2.0646: 1 is cut; 2 lies between a = 1.858 and b = 2.27
    EXPECT_EQ(surgery.exists()[0], (std::vector<bool>{false, true, true, true}));
    EXPECT_EQ((*net)(one).item(), -5);
    EXPECT_FALSE(weight.mask().defined());
    // The cut weight still learns: the gradient of what the network computes.
    Sgd optimizer(*net, {.lr = 1});
    net->zero_grad();
    ((*net)(one) * -1.0).backward();
    optimizer.step();
    EXPECT_EQ(weight.data().to_vector<float>(), (std::vector<float>{2, -1, 4, -5}));
    surgery.update();  // 2 is between the thresholds: stays cut; 1 is cut
    EXPECT_EQ(surgery.exists()[0], (std::vector<bool>{false, false, true, true}));
    optimizer.step();
    EXPECT_EQ(weight.data().to_vector<float>()[0], 3);
    surgery.update();
    EXPECT_EQ(surgery.exists()[0], (std::vector<bool>{true, false, true, true})) << "3 is above b: spliced back";
    EXPECT_DOUBLE_EQ(surgery.sparsity(), 0.25);
    EXPECT_EQ((*net)(one).item(), 3 + 5 - 4);
    surgery.harden();
    EXPECT_THROW(surgery.update(), ArgumentError);
  }
  EXPECT_EQ(weight.data().to_vector<float>(), (std::vector<float>{3, 0, 5, -4}));
  EXPECT_EQ(weight.mask().count(), 3);
}

TEST(NetworkSurgery, ThresholdsAreThoseOfTheWeightsThatExist) {
  auto net = share(Sequential(Linear(8, 1, {.bias = false})));
  Parameter weight = net->parameters()[0];
  weight.set_data(Tensor::from<float>({1, -2, 3, -6, 7, 7, 7, 7}, {1, 8}));
  weight.set_mask(Mask::from_units({1, 8}, Pattern::element(), {true, true, true, true, false, false, false, false}));
  NetworkSurgery surgery(weight_sites(*net), {.c = -0.5});
  surgery.update();
  // |w|: mean 3, variance 3.5, as without the masked ones; with them the threshold would be 0.37, below every weight.
  EXPECT_NEAR(surgery.thresholds()[0], 3 - 0.5 * std::sqrt(3.5), 1e-12);
  EXPECT_EQ(surgery.exists()[0], (std::vector<bool>{false, true, true, true, false, false, false, false}));
  EXPECT_DOUBLE_EQ(surgery.sparsity(), 5.0 / 8);

  // Rows whose weights are masked in part: the mean is over those that exist.
  auto rows = share(Sequential(Linear(4, 3, {.bias = false})));
  Parameter w = rows->parameters()[0];
  w.set_data(Tensor::from<float>({4, 4, 9, 9, 1, 1, 1, 1, 9, 9, 9, 9}, {3, 4}));
  w.set_mask(Mask::from_units({3, 4}, Pattern::element(),
                              {true, true, false, false, true, true, true, true, false, false, false, false}));
  NetworkSurgery by_rows(weight_sites(*rows, Pattern::channel(0)), {.c = 0});
  by_rows.update();
  EXPECT_NEAR(by_rows.thresholds()[0], 2.5, 1e-12);  // of 4 and 1; the third row does not exist
  EXPECT_EQ(by_rows.exists()[0], (std::vector<bool>{true, false, false}));
  EXPECT_DOUBLE_EQ(by_rows.sparsity(), 10.0 / 12) << "as the forward pass sees them";
}

TEST(NetworkSurgery, KeepsTheLeastNumberOfUnits) {
  const ModulePtr net = small_network(1);
  const std::vector<Site> sites = weight_sites(*net, Pattern::channel(0));
  NetworkSurgery surgery(sites, {.c = 1000, .min_units = 3});
  surgery.update();
  surgery.harden();
  for (const Site& site : sites) {
    const std::vector<bool> exists = existing_units(site);
    EXPECT_EQ(std::count(exists.begin(), exists.end(), true), 3) << site.name;
  }
}

TEST(NetworkSurgery, BadInput) {
  Tiny tiny;
  EXPECT_THROW(NetworkSurgery({}), ArgumentError);
  EXPECT_THROW(NetworkSurgery(tiny.sites, {.low = 1.2}), ArgumentError);
  EXPECT_THROW(NetworkSurgery(tiny.sites, {.begin = 0.8}), ArgumentError);
  expect_contains(message_of<ArgumentError>([&] {
                    NetworkSurgery(tiny.sites, {.c_of = {{"0.wieght", 1}}});
                  }),
                  "0.weight");
}

// --- training and resuming -------------------------------------------------------------------------------------------

/// After every step: masked weights are 0, and each layer has the number of weights it started with.
struct BudgetWatch : Callback {
  explicit BudgetWatch(std::vector<Site> sites) : watched(std::move(sites)) {}
  void on_step_end(Trainer&, const StepRecord& record) override {
    for (size_t i = 0; i < watched.size(); ++i) {
      const Parameter& p = watched[i].members[0].parameter;
      ASSERT_TRUE(identical(p.mask().apply(p.data()), p.data()));
      if (record.step == 1) counts.push_back(p.mask().count());
      if (counts.size() <= i) continue;
      ASSERT_EQ(p.mask().count(), counts[i]) << "step " << record.step;
    }
    changes += seen != watched[0].members[0].parameter.mask().version();
    seen = watched[0].members[0].parameter.mask().version();
  }
  std::vector<Site> watched;
  std::vector<int64_t> counts;
  uint64_t seen = 0;
  int64_t changes = 0;
};

enum class Kind { set, rigl, rigl_blocks, surgery };

NamedTensors train(Kind kind, uint64_t seed, const std::string& folder, int64_t stop, bool resume) {
  set_seed(seed);
  auto net = share(Sequential(Flatten(), Linear(64, 32), ReLU(), Linear(32, 10)));
  const auto sites = weight_sites(*net, kind == Kind::rigl_blocks ? Pattern::block(2, 4) : Pattern::element());
  std::vector<std::shared_ptr<Callback>> callbacks;
  std::shared_ptr<BudgetWatch> watch;
  if (kind == Kind::surgery) {
    callbacks = {std::make_shared<NetworkSurgery>(sites, SurgeryOptions{.c = 0.5, .gamma = 0.05, .begin = 0.1})};
  } else {
    watch = std::make_shared<BudgetWatch>(sites);
    callbacks = {std::make_shared<SparseTraining>(
                     sites,
                     SparseTrainingOptions{
                         .growth = kind == Kind::set ? Growth::random : Growth::gradient, .sparsity = 0.8, .every = 6}),
                 watch};
  }
  callbacks.push_back(std::make_shared<StopAt>(stop));
  auto optimizer = std::make_shared<Adam>(*net, AdamOptions{.lr = 0.01});
  Trainer trainer(net, optimizer,
                  {.epochs = 4,
                   .batch_size = 64,
                   .seed = 3,
                   .run_folder = folder,
                   .resume = resume,
                   .progress = ProgressMode::silent,
                   .callbacks = callbacks});
  trainer.fit(digits(1437));  // 23 steps an epoch
  if (stop == 0) {
    EXPECT_GT(trainer.evaluate(digits_test()).accuracy(), 0.8);
    const double sparsity = count_sparsity(sites).sparsity();
    if (kind == Kind::surgery)
      EXPECT_GT(sparsity, 0.4);
    else
      EXPECT_NEAR(sparsity, 0.8, 5e-3);
    // The first masks, and updates in steps 6, 12, ... below 69; in the last of them not one weight in 400 goes.
    if (watch && !resume && kind != Kind::rigl_blocks) {
      EXPECT_EQ(watch->changes, 11);
    }
  }
  NamedTensors result = copy_of(state_of(*net));
  for (const Site& site : sites)
    if (const Mask& mask = site.members[0].parameter.mask(); mask.defined())
      result.emplace_back(site.name + ".mask", mask.packed());
  for (const auto& [name, tensor] : optimizer->state_dict().tensors) result.emplace_back(name, tensor.clone());
  return result;
}

class MovingMasks : public testing::TestWithParam<Kind> {};

TEST_P(MovingMasks, ResumeWithTheSameBits) {
  const TemporaryFolder folder;
  const NamedTensors straight = train(GetParam(), 1, folder.file("straight"), 0, false);
  for (int64_t stop : {5, 29, 80}) {  // before surgery begins and an update, just before another, after the last
    const std::string run = folder.file(std::to_string(stop));
    train(GetParam(), 1, run, stop, false);
    expect_identical(train(GetParam(), 99, run, 0, true), straight);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, MovingMasks, testing::Values(Kind::set, Kind::rigl, Kind::rigl_blocks, Kind::surgery));

}  // namespace
}  // namespace espalier
