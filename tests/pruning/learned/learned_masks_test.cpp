// Straight-through masks, movement and hard concrete gates, on weights small enough to compute by hand.
#include <cmath>
#include <numbers>

#include "layers/lstm.h"
#include "pruning/learned/hard_concrete.h"
#include "pruning/learned/learned_masks.h"
#include "pruning/learned/movement.h"
#include "pruning/learned/units.h"
#include "pruning/schedules/surgery.h"
#include "pruning/structure/graph.h"
#include "tests/training/support.h"
#include "training/checkpoint.h"

namespace espalier {
namespace {

using namespace testing_support;

Tensor matrix(const std::vector<double>& values, const Shape& shape) { return Tensor::from(values, shape); }

std::vector<double> grad_of(const Variable& x) { return x.grad().data().to_vector<double>(); }

TEST(StraightThrough, SumsGradientTimesWeightOverEachUnit) {
  const Parameter w("w", matrix({1, 2, 3, 4, 5, 6, 7, 8}, {2, 4}));
  const MemberUnits member{.pattern = Pattern::block(1, 2), .count = 4};
  const Variable scores(Tensor::zeros({4}, DType::f64), true);
  const Variable g(matrix({1, 1, 2, 2, -1, 0, 3, 1}, {2, 4}));
  const Mask mask = Mask::from_units({2, 4}, Pattern::block(1, 2), {true, false, false, true});
  for (GradientFlow flow : {GradientFlow::dense, GradientFlow::masked}) {
    Variable leaf = w.variable();
    leaf.zero_grad();
    Variable(scores).zero_grad();
    const Variable y = straight_through(leaf, scores, member, mask, flow);
    EXPECT_EQ(y.data().to_vector<double>(), (std::vector<double>{1, 2, 0, 0, 0, 0, 7, 8}));
    sum(y * g).backward();
    // Removed units get a score gradient too: 2*3 + 2*4 and -1*5.
    EXPECT_EQ(grad_of(scores), (std::vector<double>{3, 14, -5, 29}));
    EXPECT_EQ(grad_of(leaf), flow == GradientFlow::dense ? g.data().to_vector<double>()
                                                         : (std::vector<double>{1, 1, 0, 0, 0, 0, 3, 1}));
  }
}

TEST(StraightThrough, UnitsOutsideTheSiteHaveNoScore) {
  const Parameter w("w", matrix({1, 2, 3, 4, 5, 6}, {3, 2}));
  const SiteMember member{.parameter = w, .pattern = Pattern::channel(0), .site_units = {1, -1, 0}};
  const Variable scores(Tensor::zeros({2}, DType::f64), true);
  const Mask mask = member_mask(member, {true, false});
  EXPECT_EQ(mask.units(), (std::vector<bool>{false, true, true}));
  const MemberUnits units{member.pattern, member.site_units, 2};
  sum(straight_through(w.variable(), scores, units, mask, GradientFlow::dense)).backward();
  EXPECT_EQ(grad_of(scores), (std::vector<double>{11, 3}));
}

TEST(SpreadOverUnits, IsLinearInEveryPatternAndAProductForRecurrentOnes) {
  const Variable z(Tensor::from<double>({2, 3}, {2}), true);
  EXPECT_EQ(spread_over_units(z, {2, 3}, Pattern::channel(0)).data().to_vector<double>(),
            (std::vector<double>{2, 2, 2, 3, 3, 3}));
  EXPECT_EQ(spread_over_units(z, {8, 2}, Pattern::recurrent()).data().slice(0, 0, 2).to_vector<double>(),
            (std::vector<double>{4, 6, 6, 9}));
  struct Case {
    Pattern pattern;
    Shape weight;
  };
  for (const Case& c : {Case{Pattern::element(), {1, 2}}, Case{Pattern::channel(1), {3, 2, 2, 1}},
                        Case{Pattern::channel(0, 4), {8, 3}}, Case{Pattern::block(2, 2), {2, 4}},
                        Case{Pattern::kernel(), {2, 1, 2, 2}}, Case{Pattern::recurrent(), {8, 2}}}) {
    SCOPED_TRACE(c.pattern.to_string());
    Generator generator(4);
    const Variable up(randn(c.weight, generator, DType::f64));
    EXPECT_TRUE(gradcheck(
        [&](const Variables& in) -> Variables { return {sum(spread_over_units(in[0], c.weight, c.pattern) * up)}; },
        {z}));
  }
}

TEST(Bits, SurvivePacking) {
  const std::vector<bool> bits = {true, false, true, true, false, false, false, true, true, false, true};
  EXPECT_EQ(unpack_bits(pack_bits(bits), bits.size()), bits);
  EXPECT_THROW(unpack_bits(pack_bits(bits), 30), FileError);
}

std::shared_ptr<Sequential> tiny_network() {
  auto net = share(Sequential(Linear(4, 1, {.bias = false})));
  net->parameters()[0].set_data(Tensor::from<float>({4, -3, 2, -1}, {1, 4}));
  return net;
}

TEST(LearnedMasks, TopKKeepsTheBestScoresAndHardens) {
  const auto net = tiny_network();
  Parameter w = net->parameters()[0];
  LearnedMasks masks(net, weight_sites(*net), {.initial = InitialScores::magnitude});
  const Variable one(Tensor::ones({1, 4}));
  EXPECT_EQ((*net)(one).item(), 2);
  masks.select(0.5);
  EXPECT_EQ((*net)(one).item(), 1);
  EXPECT_DOUBLE_EQ(masks.sparsity(), 0.5);
  EXPECT_FALSE(w.mask().defined());
  EXPECT_EQ(w.data().to_vector<float>()[3], -1) << "the parameter keeps what is masked";
  // Movement, equation 4: the score falls by lr*g*w, for removed weights as well.
  Sgd optimizer(masks.scores(), {.lr = 0.5});
  (*net)(one).backward();
  optimizer.step();
  EXPECT_EQ(masks.scores()[0].second.data().to_vector<float>(), (std::vector<float>{2, 4.5F, 1, 1.5F}));
  masks.select(0.5);
  masks.harden();
  EXPECT_EQ(w.mask().units(), (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(w.data().to_vector<float>(), (std::vector<float>{4, -3, 0, 0}));
  EXPECT_EQ((*net)(one).item(), 1);
  EXPECT_THROW(masks.select(0.5), ArgumentError);
}

TEST(LearnedMasks, ThresholdKeepsScoresThatReachIt) {
  const auto net = tiny_network();
  LearnedMasks masks(net, weight_sites(*net),
                     {.selection = Selection::threshold, .initial = InitialScores::magnitude, .threshold = 2});
  EXPECT_EQ(masks.exists()[0], (std::vector<bool>{true, true, true, false}));
  const auto other = tiny_network();
  EXPECT_THROW(LearnedMasks(other, weight_sites(*other), {.end = 0.9, .harden = 0.5}), ArgumentError);
}

TEST(LearnedMasks, LeaveTheNetworkAsItWasWhenTheyGo) {
  const auto net = tiny_network();
  {
    LearnedMasks masks(net, weight_sites(*net), {.initial = InitialScores::magnitude});
    masks.select(0.75);
    EXPECT_EQ((*net)(Variable(Tensor::ones({1, 4}))).item(), 4);
  }
  EXPECT_EQ((*net)(Variable(Tensor::ones({1, 4}))).item(), 2);
}

TEST(HardConcrete, PenaltyGatesAndFoldingFollowTheFormulas) {
  auto net = share(Sequential(Linear(3, 4)));
  const Parameter weight = net->parameters()[0], bias = net->parameters()[1];
  Site site = site_of("rows", weight, Pattern::channel(0));
  site.members.push_back({.parameter = bias, .pattern = Pattern::channel(0)});
  HardConcreteGates gates(net, {site}, {.lambda = 2, .examples = 10});
  Parameter log_alpha = gates.log_alphas()[0].second;
  const std::vector<double> a = {-4, -1, 0.5, 5};
  log_alpha.set_data(Tensor::from(std::vector<float>(a.begin(), a.end()), {4}));
  double expected = 0;
  std::vector<double> z;
  for (double v : a) {
    expected += 4 / (1 + std::exp(-(v - 2.0 / 3 * std::log(0.1 / 1.1))));  // three weights and a bias behind each
    z.push_back(std::clamp(1.2 / (1 + std::exp(-v)) - 0.1, 0.0, 1.0));
  }
  EXPECT_EQ(z[0], 0);
  EXPECT_EQ(z[3], 1);
  EXPECT_NEAR(gates.expected_weights(), expected, 1e-5);
  EXPECT_DOUBLE_EQ(gates.sparsity(), 0.25);

  const Variable x(Tensor::ones({1, 3}));
  net->eval();
  const std::vector<float> before = (*net)(x).data().to_vector<float>();
  const std::vector<float> row = sum(weight.data(), {1}).to_vector<float>(), shift = bias.data().to_vector<float>();
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(before[i], z[i] * (row[i] + shift[i]), 1e-5);
  gates.harden();
  EXPECT_TRUE(all_close((*net)(x).data(), Tensor::from(before, {1, 4}), 1e-5, 1e-6));
  EXPECT_EQ(weight.mask().units(), (std::vector<bool>{false, true, true, true}));
  EXPECT_EQ(bias.mask().units(), (std::vector<bool>{false, true, true, true}));
  EXPECT_DOUBLE_EQ(gates.sparsity(), 0.25);
}

TEST(LearnedMasks, AThresholdLeavesProtectedSitesAndTheLeastNumberOfUnits) {
  const auto net = tiny_network();
  const std::vector<Site> sites = weight_sites(*net);
  LearnedMaskOptions options{.selection = Selection::threshold, .initial = InitialScores::magnitude, .threshold = 1000};
  const auto kept = [&](const LearnedMasks& masks, size_t site) {
    return std::count(masks.exists()[site].begin(), masks.exists()[site].end(), true);
  };
  EXPECT_EQ(kept(LearnedMasks(net, sites, options), 0), 1);
  options.allocation.min_units = 2;
  {
    const LearnedMasks masks(net, sites, options);
    EXPECT_EQ(masks.exists()[0], (std::vector<bool>{true, true, false, false}));  // |4|, |-3|, 2, 1
  }
  options.allocation.protect = {sites[0].name};
  EXPECT_EQ(kept(LearnedMasks(net, sites, options), 0), sites[0].units);
  options.allocation.protect = {"nonsense"};
  EXPECT_THROW(LearnedMasks(net, sites, options), ArgumentError);
  EXPECT_THROW(LearnedMasks(net, weight_sites(*net, Pattern::n_of_m(2, 4)), {.selection = Selection::threshold}),
               ArgumentError);
}

TEST(HardConcrete, SamplesHaveTheirProbabilitiesAndGradients) {
  auto net = share(Sequential(Linear(100, 100)));
  HardConcreteGates gates(net, {site_of("w", net->parameters()[0], Pattern::element())}, {.open = 0.5});
  Parameter log_alpha = gates.log_alphas()[0].second;
  log_alpha.set_data(Tensor::full({10000}, -1.0));
  const Variable z = gates.sample(0);
  // P(z > 0) by equation 12, to five standard errors of 10,000 draws.
  const double open = 1 / (1 + std::exp(1 + 2.0 / 3 * std::log(0.1 / 1.1)));
  EXPECT_NEAR(sum(z.data() > 0).item() / 10000, open, 5 * std::sqrt(open * (1 - open) / 10000));
  EXPECT_GT(sum(z.data() == 1).item(), 0);
  EXPECT_TRUE(identical(gates.sample(0).data(), z.data())) << "one step, one draw";
  // Inside (0,1): dz/d(log a) = (zeta - gamma) s (1-s)/beta; at the ends 0.
  sum(z).backward();
  const std::vector<float> value = z.data().to_vector<float>(), slope = log_alpha.grad().to_vector<float>();
  for (size_t i = 0; i < value.size(); ++i) {
    const double s = (value[i] + 0.1) / 1.2;
    const bool inside = value[i] > 0 && value[i] < 1;
    ASSERT_NEAR(slope[i], inside ? 1.2 * s * (1 - s) * 1.5 : 0, 1e-4) << value[i];
  }
}

TEST(HardConcrete, AllGatesClosedKeepsOneUnit) {
  auto net = share(Sequential(Linear(2, 3)));
  HardConcreteGates gates(net, {site_of("w", net->parameters()[0], Pattern::channel(0))});
  Parameter log_alpha = gates.log_alphas()[0].second;
  log_alpha.set_data(Tensor::from<float>({-9, -7, -8}, {3}));
  gates.harden();
  EXPECT_EQ(net->parameters()[0].mask().units(), (std::vector<bool>{false, true, false}));
  // The unit that is kept though its gate is closed has its weights: training can revive it.
  EXPECT_GT(sum(abs(net->parameters()[0].data())).item(), 0);
  const auto other = tiny_network();
  EXPECT_THROW(HardConcreteGates(other, weight_sites(*other, Pattern::n_of_m(2, 4))), ArgumentError);
}

TEST(HardConcrete, CountsTheWeightsThatExist) {
  auto net = share(Sequential(Linear(4, 3, {.bias = false})));
  Parameter w = net->parameters()[0];
  w.set_mask(Mask::from_units({3, 4}, Pattern::element(),
                              {true, true, false, false, true, true, true, true, false, false, false, false}));
  HardConcreteGates gates(net, weight_sites(*net, Pattern::channel(0)));
  Parameter(gates.log_alphas()[0].second).set_data(Tensor::from<float>({0, -20, 20}, {3}));
  // Half a chance of 1/(1 + exp(beta*log(0.1/1.1))) = 0.8318 for two weights; the third unit does not exist.
  EXPECT_NEAR(gates.expected_weights(), 2 / (1 + std::exp(2.0 / 3 * std::log(0.1 / 1.1))), 1e-4);
  EXPECT_DOUBLE_EQ(gates.sparsity(), 10.0 / 12);
  gates.harden();
  EXPECT_EQ(w.mask().count_elements(), 2);
}

TEST(HardConcrete, GatesTheHiddenUnitsOfAnLstm) {
  set_seed(1);
  auto net = share(LSTM(3, 2));
  std::vector<Site> sites;
  for (const auto& [name, parameter] : net->named_parameters())
    if (name.find("weight_hh") != std::string::npos) sites.push_back(site_of(name, parameter, Pattern::recurrent()));
  ASSERT_EQ(sites.size(), 1U);
  HardConcreteGates gates(net, sites);
  Parameter(gates.log_alphas()[0].second).set_data(Tensor::from<float>({-9, 0}, {2}));
  gates.harden();
  // What remains are the four rows of unit 1, in its own column.
  EXPECT_EQ(sites[0].members[0].parameter.mask().count_elements(), 4);
}

// --- copies of networks under way ------------------------------------------------------------------------------------

/// Two layers whose units are gated together; a site for each.
std::pair<std::shared_ptr<Sequential>, std::vector<Site>> coupled_network() {
  set_seed(7);
  auto net = share(Sequential(Linear(4, 3), BatchNorm1d(3), ReLU(), Linear(3, 2)));
  const std::vector<Parameter> p = net->parameters();
  Site hidden = site_of("hidden", p[0], Pattern::channel(0));
  for (const size_t i : {1, 2, 3}) hidden.members.push_back({.parameter = p[i], .pattern = Pattern::channel(0)});
  return {net, {hidden, site_of("out", p[4], Pattern::element())}};
}

Tensor answers(Module& net, const Tensor& x) { return net(Variable(x)).data(); }

/// What a clone, and a network loaded from a checkpoint, answer in both modes.
void expect_copies_answer_alike(const ModulePtr& net) {
  const TemporaryFolder folder;
  const Tensor x = randn({5, 4});
  save_checkpoint(folder.file("gated.safetensors"), *net);
  const ModulePtr clone = net->clone(), loaded = load_model(folder.file("gated.safetensors"));
  for (const bool training : {false, true}) {
    const ModulePtr again = net->clone();  // training changes running statistics
    for (const ModulePtr& each : {net, clone, loaded, again}) each->train(training);
    const Tensor expected = answers(*again, x);
    EXPECT_TRUE(identical(answers(*clone, x), expected)) << training;
    EXPECT_TRUE(identical(answers(*loaded, x), expected)) << training;
  }
  net->eval();
}

TEST(HardConcrete, CopiesOfAGatedNetworkAnswerAsItDoes) {
  const auto [net, sites] = coupled_network();
  HardConcreteGates gates(net, sites, {.open = 0.6, .seed = 3});
  const Tensor x = randn({5, 4});
  net->eval();
  const ModulePtr before = net->clone();
  const Tensor expected = answers(*net, x);
  expect_copies_answer_alike(net);
  // A clone has gates of its own, one for all members of a site.
  Parameter(gates.log_alphas()[0].second).set_data(Tensor::from<float>({-9, 9, -9}, {3}));
  EXPECT_TRUE(identical(answers(*before, x), expected));
  EXPECT_FALSE(identical(answers(*net, x), expected));
  const auto of = [&](size_t i) { return before->parameters()[i].transforms().at(0)->parameter("log_alpha").id(); };
  EXPECT_EQ(of(0), of(3));
  EXPECT_NE(of(0), gates.log_alphas()[0].second.id());

  const ModulePtr gated = net->clone();
  gated->eval();
  gates.harden();
  EXPECT_TRUE(net->parameters()[0].transforms().empty());
  EXPECT_TRUE(identical(answers(*net, x), answers(*gated, x)));
  expect_copies_answer_alike(net);
}

TEST(LearnedMasks, CopiesOfANetworkUnderWayAnswerAsItDoes) {
  const auto [net, sites] = coupled_network();
  {
    LearnedMasks masks(net, sites, {.initial = InitialScores::magnitude});
    masks.select(0.5);
    net->eval();
    const Tensor x = randn({5, 4}), expected = answers(*net, x);
    expect_copies_answer_alike(net);
    const ModulePtr clone = net->clone();
    masks.select(0);
    EXPECT_TRUE(identical(answers(*clone, x), expected));
    EXPECT_FALSE(identical(answers(*net, x), expected));
  }
  for (const Parameter& parameter : net->parameters()) EXPECT_TRUE(parameter.transforms().empty());
}

TEST(LearnedMasks, CopiesKnowNOfM) {
  const auto [net, sites] = coupled_network();
  LearnedMasks masks(net, {site_of("first", net->parameters()[0], Pattern::n_of_m(2, 4))},
                     {.initial = InitialScores::magnitude});
  masks.select(0.5);
  EXPECT_DOUBLE_EQ(masks.sparsity(), 0.5);
  net->eval();
  expect_copies_answer_alike(net);
}

TEST(NetworkSurgery, CopiesOfANetworkUnderWayAnswerAsItDoes) {
  const auto [net, sites] = coupled_network();
  NetworkSurgery surgery({sites[1]}, {.c = 0.5});
  surgery.update();
  ASSERT_GT(surgery.sparsity(), 0);
  net->eval();
  expect_copies_answer_alike(net);
}

TEST(LearnedMasks, NetworksUnderWayAreTraced) {
  const auto [net, sites] = coupled_network();
  const auto expect_hidden = [&] {
    const ChannelGroup hidden = DependencyGraph::trace(*net, randn({2, 4})).find("0");
    EXPECT_EQ(hidden.fixed, "");
    EXPECT_EQ(hidden.members.size(), 5U);  // weight, bias, BatchNorm's two, the next weight
  };
  {
    const HardConcreteGates gates(net, sites);
    expect_hidden();
  }
  const LearnedMasks masks(net, sites);
  expect_hidden();
}

// --- training and resuming -------------------------------------------------------------------------------------------

enum class Kind { top_k, soft, gates, movement };

/// Trains on the digits; returns the weights, and checks the sparsity at the end.
NamedTensors train(Kind kind, uint64_t seed, const std::string& folder, int64_t stop, bool resume) {
  set_seed(seed);
  auto net = share(Sequential(Flatten(), Linear(64, 32), ReLU(), Linear(32, 10)));
  NamedParameters all = net->named_parameters();
  std::vector<std::shared_ptr<Callback>> callbacks;
  const auto sites = weight_sites(*net);
  if (kind == Kind::gates) {
    auto gates = std::make_shared<HardConcreteGates>(net, sites, HardConcreteOptions{.lambda = 1, .open = 0.5});
    all.insert(all.end(), gates->log_alphas().begin(), gates->log_alphas().end());
    callbacks.push_back(gates);
  } else if (kind == Kind::movement) {
    auto movement = std::make_shared<MovementCriterion>(net->parameters());
    auto pruner = std::make_shared<Pruner>(net, sites, PrunerOptions{.criterion = movement});
    callbacks = {movement, std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = 0.8})};
  } else {
    auto masks = std::make_shared<LearnedMasks>(
        net, sites,
        kind == Kind::top_k ? LearnedMaskOptions{.sparsity = 0.8, .every = 7}
                            : LearnedMaskOptions{.selection = Selection::threshold, .penalty = 8, .every = 7});
    all.insert(all.end(), masks->scores().begin(), masks->scores().end());
    callbacks.push_back(masks);
  }
  std::shared_ptr<Optimizer> optimizer = std::make_shared<Sgd>(all, SgdOptions{.lr = 0.1, .momentum = 0.5});
  if (kind == Kind::gates) optimizer = std::make_shared<Adam>(all, AdamOptions{.lr = 0.02});
  callbacks.push_back(std::make_shared<StopAt>(stop));
  Trainer trainer(net, optimizer,
                  {.epochs = 8,
                   .batch_size = 64,
                   .seed = 3,
                   .run_folder = folder,
                   .resume = resume,
                   .progress = ProgressMode::silent,
                   .callbacks = callbacks});
  trainer.fit(digits(1437));
  if (stop == 0) {
    const double sparsity = count_sparsity(sites).sparsity();
    if (kind == Kind::top_k || kind == Kind::movement)
      EXPECT_NEAR(sparsity, 0.8, 1e-3);
    else
      EXPECT_GT(sparsity, 0.05);
    EXPECT_GT(trainer.evaluate(digits_test()).accuracy(), 0.85) << sparsity;
  }
  NamedTensors result = copy_of(state_of(*net));
  for (const Site& site : sites)
    if (const Mask& mask = site.members[0].parameter.mask(); mask.defined())
      result.emplace_back(site.name + ".mask", mask.packed());
  return result;
}

class LearnedTraining : public testing::TestWithParam<Kind> {};

TEST_P(LearnedTraining, ResumesWithTheSameBits) {
  const TemporaryFolder folder;
  const NamedTensors straight = train(GetParam(), 1, folder.file("straight"), 0, false);
  for (int64_t stop : {45, 160}) {  // while masks are learned, and after they are final (step 147 of 184)
    const std::string run = folder.file(std::to_string(stop));
    train(GetParam(), 1, run, stop, false);
    expect_identical(train(GetParam(), 99, run, 0, true), straight);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, LearnedTraining, testing::Values(Kind::top_k, Kind::soft, Kind::gates, Kind::movement));

TEST(Movement, AccumulatesAndNeedsATraining) {
  const auto net = tiny_network();
  auto movement = std::make_shared<MovementCriterion>(net->parameters());
  Pruner pruner(net, weight_sites(*net), {.criterion = movement});
  expect_contains(message_of<ArgumentError>([&] { pruner.prune(0.5); }), "callbacks");
  auto optimizer = std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.5});
  Trainer trainer(net, optimizer, {});
  Variable leaf = net->parameters()[0].variable();
  for (int step = 0; step < 2; ++step) {
    leaf.set_grad(Variable(Tensor::from<float>({1, 1, -1, 2}, {1, 4})));
    movement->on_gradients(trainer, {.lr = 0.5});
  }
  // -2 * 0.5 * g*w: -4, 3, 2, 2.
  EXPECT_EQ(pruner.scores()[0], (std::vector<double>{-4, 3, 2, 2}));
  pruner.prune(0.5);
  EXPECT_EQ(net->parameters()[0].mask().units(), (std::vector<bool>{false, true, true, false}));
}

}  // namespace
}  // namespace espalier
