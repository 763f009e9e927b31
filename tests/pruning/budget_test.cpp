// Budgets: the cost model against what compaction leaves, pruning to a budget at once, and while a network trains.
#include "pruning/budget_pruner.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/random.h"
#include "layers/conv.h"
#include "layers/models/zoo.h"
#include "layers/pooling.h"
#include "layers/residual.h"
#include "pruning/schedules/gradual.h"
#include "pruning/structure/compact.h"
#include "pruning/structure/costs.h"
#include "tests/training/support.h"
#include "training/checkpoint.h"

namespace espalier {
namespace {

using namespace testing_support;
using Units = CostModel::Units;
using Scores = std::vector<std::vector<double>>;

const Tensor& example() {
  static const Tensor image = Tensor::zeros({1, 1, 8, 8});
  return image;
}

/// Small relatives of LeNet-5, VGG and ResNet-20, for images of 8 x 8; others are of the zoo.
ModulePtr model(const std::string& name, uint64_t seed = 1) {
  set_seed(seed);
  const auto conv = [](int64_t in, int64_t out) { return Conv2d(in, out, {.kernel = 3, .padding = 1, .bias = false}); };
  if (name == "lenet")
    return share(Sequential(Conv2d(1, 8, {.kernel = 3}), MaxPool2d(), ReLU(), Conv2d(8, 16, {.kernel = 2}), MaxPool2d(),
                            ReLU(), Flatten(), Linear(16, 40), ReLU(), Linear(40, 10)));
  if (name == "vgg")
    return share(Sequential(conv(1, 8), BatchNorm2d(8), ReLU(), conv(8, 12), BatchNorm2d(12), ReLU(), MaxPool2d(),
                            conv(12, 16), BatchNorm2d(16), ReLU(), AdaptiveAvgPool2d(), Flatten(), Linear(16, 10)));
  if (name == "resnet")
    return share(Sequential(conv(1, 8), BatchNorm2d(8), ReLU(), BasicBlock(8, 8), BasicBlock(8, 16, {.stride = 2}),
                            AdaptiveAvgPool2d(), Flatten(), Linear(16, 10)));
  return make_model(name, {.classes = 10, .in_channels = 1, .height = 8, .width = 8});
}

std::vector<Site> channels(Module& net) { return channel_sites(DependencyGraph::trace(net, example())); }

double exact(BudgetKind kind, Module& net) { return cost_function(kind, example())(net); }

/// Elements of all parameters that no mask removed.
double existing_parameters(const Module& net) {
  int64_t existing = 0;
  for (const Parameter& p : net.parameters()) existing += count_existing(p);
  return static_cast<double>(existing);
}

/// What the dearest unit of these sites costs now.
double dearest(Module& net, const std::vector<Site>& sites, BudgetKind kind) {
  WeightPrices prices = mac_prices(net, example());
  if (kind != BudgetKind::macs)
    for (const Parameter& p : net.parameters()) prices[p.id()] = kind == BudgetKind::bytes ? 4 : 1;
  Units exists;
  for (const Site& site : sites) exists.push_back(existing_units(site));
  double most = 0;
  for (const std::vector<double>& site : CostModel(net, sites, prices, kind != BudgetKind::bytes).unit_costs(exists))
    for (const double cost : site) most = std::max(most, cost);
  return most;
}

TEST(CostModel, CountsWhatCompactionLeaves) {
  for (const char* name : {"lenet", "vgg", "resnet", "lstm-rows:12", "mlp:24,16"}) {
    const ModulePtr net = model(name);
    const std::vector<Site> sites = channels(*net);
    WeightPrices ones;
    for (const Parameter& p : net->parameters()) ones[p.id()] = 1;
    const CostModel macs(*net, sites, mac_prices(*net, example())), parameters(*net, sites, ones);
    Generator generator(3);
    Units exists;
    for (const Site& site : sites) {
      exists.emplace_back(static_cast<size_t>(site.units), true);
      for (size_t unit = 1; unit < exists.back().size(); ++unit) exists.back()[unit] = generator.next_uniform() < 0.6;
    }
    const double before = macs.cost(exists);
    const auto freed = macs.unit_costs(exists);
    for (size_t s = 0; s < sites.size(); ++s) {
      Units fewer = exists;
      fewer[s][0] = false;
      EXPECT_NEAR(before - macs.cost(fewer), freed[s][0], 1e-6 * before) << name << " " << sites[s].name;
      const auto gone = std::find(exists[s].begin(), exists[s].end(), false) - exists[s].begin();
      Units more = exists;
      more[s][static_cast<size_t>(gone)] = true;
      EXPECT_NEAR(macs.cost(more) - before, freed[s][static_cast<size_t>(gone)], 1e-6 * before) << name;
      set_existing_units(sites[s], exists[s]);
    }
    EXPECT_NEAR(macs.cost(exists), exact(BudgetKind::macs, *net), 8) << name;  // rounded layer by layer
    // Compaction adds biases to layers that have none.
    EXPECT_NEAR(parameters.cost(exists), exact(BudgetKind::parameters, *net), 0.01 * parameters.cost(exists)) << name;
    // Of the masked network the model says the same.
    EXPECT_NEAR(CostModel(*net, sites, mac_prices(*net, example())).cost(exists), before, 1e-6 * before) << name;
  }
}

TEST(CostModel, SeesSingleWeightsThatAreMaskedInside) {
  const ModulePtr net = share(Sequential(Flatten(), Linear(64, 6), ReLU(), Linear(6, 10)));
  Parameter weight = net->parameters()[2];  // (10,6)
  weight.set_mask(Mask::from_scores({10, 6}, Pattern::element(), Tensor::arange(0, 60, 1, DType::f32), 30));
  const std::vector<Site> sites = channels(*net);
  ASSERT_EQ(sites.size(), 1U);
  WeightPrices ones;
  for (const Parameter& p : net->parameters()) ones[p.id()] = 1;
  // The last five rows of six weights exist: each of the six units is read by five.
  const CostModel costs(*net, sites, ones);
  EXPECT_EQ(costs.cost({{true, true, true, true, true, true}}), 64 * 6 + 6 + 30 + 10);
  EXPECT_EQ(costs.cost({{true, false, true, true, true, true}}), 64 * 5 + 5 + 25 + 10);
  EXPECT_EQ(costs.unit_costs({{true, true, true, true, true, true}})[0][3], 64 + 1 + 5);
}

TEST(Budget, IsMetToTheUnit) {
  const ModulePtr net = small_network(1);
  const double all = existing_parameters(*net);
  EXPECT_EQ(all, static_cast<double>(net->num_parameters()));
  Pruner pruner(net, weight_sites(*net));
  const auto cost = [](Module& m) { return existing_parameters(m); };
  EXPECT_EQ(prune_to_budget(pruner, {.amount = all}, example(), cost).tries, 1);
  EXPECT_FALSE(net->parameters()[0].mask().defined());
  const BudgetResult result = prune_to_budget(pruner, {.amount = 600}, example(), cost);
  EXPECT_EQ(existing_parameters(*net), 600);
  EXPECT_EQ(result.cost, 600);
}

TEST(Budget, WhatGoesIsRecorded) {
  const ModulePtr net = model("mlp:24,16");
  Pruner pruner(net, channels(*net));
  pruner.record_to(std::make_shared<RemovalRecord>("magnitude", Scope::global, pruner.sites()));
  prune_to_budget(pruner, {.kind = BudgetKind::macs, .amount = 0.5 * exact(BudgetKind::macs, *net)}, example());
  size_t gone = 0, recorded = 0;
  for (size_t s = 0; s < pruner.sites().size(); ++s) {
    const std::vector<bool> exists = existing_units(pruner.sites()[s]);
    gone += static_cast<size_t>(std::count(exists.begin(), exists.end(), false));
    recorded += pruner.record()->removed(s).size();
  }
  EXPECT_GT(gone, 5U);
  EXPECT_EQ(recorded, gone);
}

TEST(Budget, TheRecordHoldsWhatWasCompared) {
  // So little goes that no layer is left with the unit that it keeps whatever its score.
  for (const Ranking ranking : {Ranking::score_per_cost, Ranking::score}) {
    const ModulePtr net = model("mlp:24,16");
    const auto pruner = std::make_shared<Pruner>(net, channels(*net));
    const auto record = std::make_shared<RemovalRecord>("magnitude", Scope::global, pruner->sites());
    pruner->record_to(record);
    BudgetPruner budget(pruner,
                        {.kind = BudgetKind::macs, .amount = 0.8 * exact(BudgetKind::macs, *net), .ranking = ranking},
                        example());
    budget.begin();
    for (const double share : {0.1, 0.15, 0.2}) budget.prune(share);
    EXPECT_EQ(record->budget(), "macs");
    EXPECT_EQ(record->is_per_cost(), ranking == Ranking::score_per_cost);
    size_t gone = 0;
    for (size_t s = 0; s < pruner->sites().size(); ++s)
      for (const Removal& removal : record->removed(s)) {
        EXPECT_LE(removal.score, static_cast<float>(removal.spared)) << name_of(ranking) << ", unit " << removal.unit;
        ++gone;
      }
    EXPECT_GT(gone, 3U);
  }
}

TEST(Budget, BytesAreThoseOfTheFile) {
  for (const Pattern& pattern : {Pattern::element(), Pattern::channel(0)}) {
    set_seed(1);
    const ModulePtr net = share(Sequential(Flatten(), Linear(64, 24), ReLU(), Linear(24, 10)));
    EXPECT_EQ(count_bytes(*net), 4.0 * static_cast<double>(net->num_parameters()));
    Pruner pruner(net, weight_sites(*net, pattern));
    const double half = count_bytes(*net) / 2;
    prune_to_budget(pruner, {.kind = BudgetKind::bytes, .amount = half}, example());
    EXPECT_LE(count_bytes(*net), half);
    EXPECT_GE(count_bytes(*net), half - 4 * 64);
    const TemporaryFolder folder;
    const std::string path = folder.file("net.safetensors");
    save_checkpoint(path, *net);
    std::ifstream file(path, std::ios::binary);
    uint64_t header = 0;  // a safetensors file: the header's size, the header, the tensors
    file.read(reinterpret_cast<char*>(&header), sizeof header);
    EXPECT_EQ(count_bytes(*net), static_cast<double>(std::filesystem::file_size(path) - sizeof header - header));
  }
}

TEST(Budget, OutOfReachNamesTheNearestAndChangesNothing) {
  const ModulePtr net = small_network(1);
  const NamedTensors before = copy_of(state_of(*net));
  Pruner pruner(net, weight_sites(*net), {.allocation = {.protect = {"1.weight"}}});
  // 240 weights of the second layer may go, all but one: 1858 parameters become 1619 at least.
  const auto cost = [](Module& m) { return existing_parameters(m); };
  const double all = existing_parameters(*net);
  const std::string message =
      message_of<ArgumentError>([&] { prune_to_budget(pruner, {.amount = 100}, example(), cost); });
  expect_contains(message, "100 parameters");
  expect_contains(message, fmt::format("{}", all - 239));
  expect_identical(state_of(*net), before);
  EXPECT_FALSE(net->parameters()[4].mask().defined());
  EXPECT_THROW(prune_to_budget(pruner, {.amount = 0}, example()), ArgumentError);
  expect_contains(message_of<ArgumentError>([] { parse_budget_kind("milisecond"); }), "milliseconds");
  expect_contains(message_of<ArgumentError>([] { parse_ranking("scores"); }), "score-per-cost");
}

TEST(Budget, ADearUnitGoesBeforeACheapOneOfTheSameScore) {
  // Two hidden layers of four units; those of the first cost 64 + 4 weights and a bias, those of the second 4 + 10.
  const ModulePtr net = share(Sequential(Flatten(), Linear(64, 4), ReLU(), Linear(4, 4), ReLU(), Linear(4, 10)));
  for (const Ranking ranking : {Ranking::score_per_cost, Ranking::score}) {
    const ModulePtr copy = net->clone();
    const std::vector<Site> sites = channels(*copy);
    ASSERT_EQ(sites.size(), 2U);
    for (Parameter& p : copy->parameters()) {
      Tensor values = p.data();
      values.fill_(0);
    }
    // The L1 norms of the units: 1, 2, 3, 4 in the first layer, 1/2 of that in the second; nothing else counts.
    for (size_t layer : {0, 1})
      for (int64_t unit = 0; unit < 4; ++unit) {
        Tensor bias = copy->parameters()[2 * layer + 1].data().select(0, unit);
        bias.fill_(static_cast<double>(unit + 1) / (static_cast<double>(layer) + 1));
      }
    Pruner pruner(copy, sites);
    const auto record = std::make_shared<RemovalRecord>("magnitude", Scope::global, sites);
    pruner.record_to(record);
    prune_to_budget(pruner, {.kind = BudgetKind::parameters, .amount = 290, .ranking = ranking}, example());
    // 4*65 + 4*5 + 10*5 = 330 are there. By the score alone the cheapest unit goes first, one half, then 1 of the first
    // layer: 330 - 15 - 68 = 247. By score per cost 1/69 comes before 0.5/15: 330 - 69 = 261 is enough.
    EXPECT_EQ(existing_units(sites[0]), std::vector<bool>({false, true, true, true})) << name_of(ranking);
    EXPECT_EQ(existing_units(sites[1]),
              ranking == Ranking::score ? std::vector<bool>({false, true, true, true}) : std::vector<bool>(4, true));
    // The record holds what was compared, and the lowest of that which stayed.
    const Removal first = record->removed(0).front();
    EXPECT_FLOAT_EQ(static_cast<float>(first.score), ranking == Ranking::score ? 1.0F : 1.0F / 69);
    EXPECT_FLOAT_EQ(static_cast<float>(first.spared), ranking == Ranking::score ? 1.0F : 2.0F / 69);
  }
}

struct Case {
  std::string network, criterion;
  BudgetKind kind;
};

/// Every weight is worth its own value, which may be negative.
class OwnValue : public Criterion {
 public:
  std::string name() const override { return "own-value"; }
  Saliencies score(const std::vector<Parameter>& parameters, const CriterionInput&) override {
    Saliencies scores;
    for (const Parameter& p : parameters) scores[p.id()] = p.data();
    return scores;
  }
};

TEST(Budget, ADearUnitGoesBeforeACheapOneOfTheSameNegativeScore) {
  // As above: units of the first layer cost 69, those of the second 15. All score -1.
  const ModulePtr net = share(Sequential(Flatten(), Linear(64, 4), ReLU(), Linear(4, 4), ReLU(), Linear(4, 10)));
  std::vector<Parameter> parameters = net->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    Tensor values = parameters[i].data();
    values.fill_(i == 1 || i == 3 ? -1 : 0);  // the biases of both layers
  }
  const std::vector<Site> sites = channels(*net);
  Pruner pruner(net, sites, {.criterion = std::make_shared<OwnValue>()});
  prune_to_budget(pruner, {.kind = BudgetKind::parameters, .amount = 290}, example());
  const std::vector<bool> first = existing_units(sites[0]);
  EXPECT_EQ(std::count(first.begin(), first.end(), true), 3);  // 330 - 69 = 261 is enough
  EXPECT_EQ(existing_units(sites[1]), std::vector<bool>(4, true));
}

/// What is left of pieces of weights when the lowest ranks go until `freed` of the cost has gone with them. Protected
/// sites lose none, the others keep their `min_units` highest.
Units without_lowest(const Scores& scores, const std::vector<double>& costs, Units exists, double freed,
                     const std::vector<Site>& sites, const AllocationOptions& options, Ranking ranking) {
  struct Piece {
    double rank;
    size_t site, unit;
    bool operator<(const Piece& other) const {
      if (rank != other.rank) return rank < other.rank;
      return site != other.site ? site < other.site : unit > other.unit;
    }
  };
  std::vector<Piece> all;
  for (size_t s = 0; s < exists.size(); ++s) {
    std::vector<Piece> own;
    const auto number = static_cast<double>(std::count(exists[s].begin(), exists[s].end(), true));
    double sizes = 0;
    for (size_t unit = 0; unit < exists[s].size(); ++unit)
      if (exists[s][unit]) sizes += std::abs(scores[s][unit]);
    const double mean = options.normalize && sizes > 0 ? sizes / number : 1;
    for (size_t unit = 0; unit < exists[s].size(); ++unit) {
      const double score = scores[s][unit] / mean, cost = ranking == Ranking::score ? 1 : costs[s];
      if (exists[s][unit]) own.push_back({score < 0 ? score * cost : score / cost, s, unit});
    }
    std::sort(own.begin(), own.end());
    const bool is_protected = options.protect == std::vector<std::string>{sites[s].name};
    own.resize(is_protected ? 0 : own.size() - std::min(own.size(), static_cast<size_t>(options.min_units)));
    all.insert(all.end(), own.begin(), own.end());
  }
  std::sort(all.begin(), all.end());
  for (auto piece = all.begin(); piece != all.end() && freed > 0; ++piece) {
    exists[piece->site][piece->unit] = false;
    freed -= costs[piece->site];
  }
  return exists;
}

TEST(Budget, PiecesOfWeightsGoAsTheRuleSays) {
  Generator generator(7);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(generator.next_uniform() * static_cast<double>(n)); };
  for (const Pattern& pattern : {Pattern::element(), Pattern::block(2, 1), Pattern::kernel()})
    for (int round = 0; round < 60; ++round) {
      // A weight takes part in 36 multiplications in the first layer, in 4 in the second, in one in the last.
      const ModulePtr net =
          share(Sequential(Conv2d(1, 4, {.kernel = 3}), MaxPool2d(), ReLU(), Conv2d(4, 6, {.kernel = 2}), MaxPool2d(),
                           ReLU(), Flatten(), Linear(6, 10)));
      for (const Parameter& p : net->parameters()) {
        std::vector<float> values;
        for (int64_t i = 0; i < p.numel(); ++i)
          values.push_back(below(2) == 0 ? static_cast<float>(below(5) - 1)
                                         : static_cast<float>(generator.next_uniform()));
        Tensor data = p.data();
        data.copy_(Tensor::from(values, p.shape()));
      }
      const std::vector<Site> sites = weight_sites(*net, pattern);
      AllocationOptions allocation{.normalize = below(3) == 0, .min_units = below(4)};
      if (below(4) == 0)
        allocation.protect = {sites[static_cast<size_t>(below(static_cast<int64_t>(sites.size())))].name};
      const BudgetKind kind = below(2) == 0 ? BudgetKind::macs : BudgetKind::parameters;
      const Ranking ranking = below(3) == 0 ? Ranking::score : Ranking::score_per_cost;
      const auto pruner = std::make_shared<Pruner>(
          net, sites, PrunerOptions{.criterion = std::make_shared<OwnValue>(), .allocation = allocation});
      WeightPrices prices = mac_prices(*net, example());
      if (kind == BudgetKind::parameters)
        for (const Parameter& p : net->parameters()) prices[p.id()] = 1;
      const CostModel model(*net, sites, prices);
      std::vector<double> costs;
      for (const Site& site : sites)
        costs.push_back(prices[site.members[0].parameter.id()] *
                        static_cast<double>(site.members[0].parameter.numel() / site.units));
      const auto existing = [&] {
        Units exists;
        for (const Site& site : sites) exists.push_back(existing_units(site));
        return exists;
      };
      const double all = model.cost(existing());
      BudgetPruner budget(pruner, {.kind = kind, .amount = 0.999 * all, .ranking = ranking}, example(),
                          [&](Module&) { return model.cost(existing()); });
      budget.begin();
      for (double share = 0.2; share < 0.9; share += 0.2) {
        SCOPED_TRACE(fmt::format("{} round {}, {} less {}", pattern.to_string(), round, share, name_of(kind)));
        const Units before = existing();
        const double freed = model.cost(before) - all * (1 - share);
        const Units expected = without_lowest(pruner->scores(), costs, before, freed, sites, allocation, ranking);
        budget.prune(share);
        ASSERT_EQ(existing(), expected);
      }
      // Less was to go: the highest come back, of what was there at the start; rounds end within the dearest unit.
      const Units deepest = existing();
      budget.prune(0.1);
      const Units filled = existing();
      const double left = model.cost(filled), dear = *std::max_element(costs.begin(), costs.end());
      const Scores scores = pruner->scores();
      double lowest_back = 1e9, highest_gone = -1e9;
      for (size_t s = 0; s < sites.size(); ++s)
        for (size_t unit = 0; unit < filled[s].size(); ++unit) {
          EXPECT_TRUE(filled[s][unit] || !deepest[s][unit]);
          const double score = scores[s][unit], cost = ranking == Ranking::score ? 1 : costs[s];
          const double rank = score < 0 ? score * cost : score / cost;
          if (filled[s][unit] && !deepest[s][unit]) lowest_back = std::min(lowest_back, rank);
          if (!filled[s][unit]) highest_gone = std::max(highest_gone, rank);
        }
      EXPECT_LE(left, 0.9 * all);
      EXPECT_GT(left, 0.9 * all - dear);
      if (!allocation.normalize) {
        EXPECT_LE(highest_gone, lowest_back);
      }
    }
}

TEST(Budget, PiecesOfWeightsOfEveryLayerGoByTheSameShare) {
  for (const Pattern& pattern : {Pattern::element(), Pattern::kernel()})
    for (const BudgetKind kind : {BudgetKind::parameters, BudgetKind::macs})
      for (const double share : {0.1, 0.37, 0.5, 0.81}) {
        SCOPED_TRACE(fmt::format("{} less {} {}", pattern.to_string(), share, name_of(kind)));
        const ModulePtr net = model("vgg");
        const std::vector<Site> sites = weight_sites(*net, pattern);
        const auto pruner =
            std::make_shared<Pruner>(net, sites, PrunerOptions{.allocation = {.scope = Scope::layer, .min_units = 0}});
        const Scores scores = pruner->scores();
        const auto cost = [&](Module& m) {
          double sum = 0;
          WeightPrices prices = mac_prices(m, example());
          for (const Parameter& p : m.parameters())
            sum += (kind == BudgetKind::macs ? prices[p.id()] : 1) * static_cast<double>(count_existing(p));
          return sum;
        };
        const double all = cost(*net), dear = dearest(*net, sites, kind);
        BudgetPruner budget(pruner, {.kind = kind, .amount = 0.1 * all}, example(), cost);
        budget.begin();
        budget.prune(share);
        EXPECT_LE(cost(*net), all * (1 - share) + 1e-6);
        EXPECT_GT(cost(*net), all * (1 - share) - dear);
        double least = 0, most = 1;  // a share of which all are the nearest number of units
        for (size_t s = 0; s < sites.size(); ++s) {
          const std::vector<bool> exists = existing_units(sites[s]);
          const auto units = static_cast<double>(exists.size());
          const auto gone = static_cast<double>(std::count(exists.begin(), exists.end(), false));
          least = std::max(least, (gone - 0.5) / units);
          most = std::min(most, (gone + 0.5) / units);
          double highest = -1, lowest = 1e9;
          for (size_t unit = 0; unit < exists.size(); ++unit)
            exists[unit] ? lowest = std::min(lowest, scores[s][unit]) : highest = std::max(highest, scores[s][unit]);
          EXPECT_LE(highest, lowest) << sites[s].name;
        }
        EXPECT_LE(least, most + 1e-12);
      }
}

TEST(Budget, AboveWhatNOfMLeavesIsRefused) {
  // 1,536 + 24 + 240 + 10 parameters; 2 of 4 leaves half of the weights: 768 + 24 + 120 + 10 = 922. With the first
  // layer protected 1,536 + 24 + 120 + 10 = 1,690.
  const auto cost = [](Module& m) { return existing_parameters(m); };
  for (const bool protects : {false, true})
    for (const bool gradual : {false, true})
      for (const double more : {1.0, 0.0, -50.0}) {
        set_seed(1);
        const ModulePtr net = share(Sequential(Flatten(), Linear(64, 24), ReLU(), Linear(24, 10)));
        const NamedTensors before = copy_of(state_of(*net));
        AllocationOptions allocation;
        if (protects) allocation.protect = {"1.weight"};
        const auto pruner = std::make_shared<Pruner>(net, weight_sites(*net, Pattern::n_of_m(2, 4)),
                                                     PrunerOptions{.allocation = allocation});
        const double left = protects ? 1690 : 922;
        BudgetPruner budget(pruner, {.amount = left + more}, example(), cost);
        const auto prune = [&] {
          if (!gradual) return budget.at_once();
          budget.begin();
          budget.prune(budget.final_share());
          return budget.finish();
        };
        if (more > 0) {
          const std::string message = message_of<ArgumentError>([&] { prune(); });
          expect_contains(message,
                          fmt::format("at most the {} parameters that 2 of 4 leaves, got {}", left, left + more));
          expect_contains(message, "2 of every 4");
          expect_identical(state_of(*net), before);
          EXPECT_FALSE(net->parameters()[0].mask().defined());
        } else {
          EXPECT_EQ(prune().cost, left + more);
          EXPECT_EQ(existing_parameters(*net), left + more);
        }
      }
}

/// Trained while it is pruned. Time: MACs and a fixed part, so that the test knows what is right.
double time_of(Module& net) { return 0.02 + 1e-5 * exact(BudgetKind::macs, net); }

TrainerOptions training(int64_t epochs, std::vector<std::shared_ptr<Callback>> callbacks) {
  return {.epochs = epochs,
          .batch_size = 32,
          .schedule = cosine_schedule(),
          .progress = ProgressMode::silent,
          .callbacks = std::move(callbacks)};
}

std::shared_ptr<BudgetPruner> budget_pruner(const ModulePtr& net, const std::string& criterion, const Budget& budget,
                                            const Dataset& data, const std::string& pattern = "channels",
                                            AllocationOptions allocation = {}) {
  const auto pruner = std::make_shared<Pruner>(
      net, pattern == "channels" ? channels(*net) : weight_sites(*net, Pattern::parse(pattern)),
      PrunerOptions{
          .criterion = make_criterion(criterion), .allocation = std::move(allocation), .data = data, .batches = 1});
  return std::make_shared<BudgetPruner>(
      pruner, budget, example(),
      budget.kind == BudgetKind::milliseconds ? CostFunction([](Module& m) { return time_of(m); }) : CostFunction());
}

/// Trains the network to its budget: what is left, and what the dearest unit costs.
std::pair<double, double> left_after_training(const ModulePtr& net, const std::shared_ptr<BudgetPruner>& budget,
                                              const Dataset& data, const GradualOptions& when = {.end = 0.7},
                                              int64_t steps = 0) {
  TrainerOptions options = training(2, {std::make_shared<GradualPruning>(budget, when)});
  options.steps = steps;
  Trainer(net, std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.05, .momentum = 0.9}), options).fit(data);
  const bool time = budget->budget().kind == BudgetKind::milliseconds;
  const double unit = dearest(*net, budget->pruner()->sites(), time ? BudgetKind::macs : budget->budget().kind);
  return {time ? time_of(*net) : exact(budget->budget().kind, *net), time ? 1e-5 * unit : unit};
}

TEST(Budget, IsMetWhileTheNetworkTrains) {
  const Dataset data = digits(320);
  for (const char* name : {"lenet", "vgg", "resnet", "lstm-rows:24"})
    for (const char* criterion : {"magnitude", "taylor", "random", "bn-scale"})
      for (const BudgetKind kind :
           {BudgetKind::parameters, BudgetKind::macs, BudgetKind::bytes, BudgetKind::milliseconds}) {
        if (std::string(criterion) == "bn-scale" && std::string(name) != "vgg" && std::string(name) != "resnet")
          continue;
        const ModulePtr net = model(name);
        const double now = kind == BudgetKind::milliseconds ? time_of(*net) : exact(kind, *net);
        const Budget budget{.kind = kind, .amount = 0.5 * now};
        const auto [left, unit] = left_after_training(net, budget_pruner(net, criterion, budget, data), data);
        const std::string what =
            fmt::format("{}, {}, {}: {} of {}, a unit {}", name, criterion, name_of(kind), left, budget.amount, unit);
        EXPECT_LE(left, budget.amount) << what;
        EXPECT_GE(left, budget.amount - unit) << what;
      }
}

TEST(Budget, IsMetHoweverShortTheTraining) {
  // The end of the schedule rounds to step 0, to the first step, or to the last one.
  const Dataset data = digits(320);
  for (const SparsityCurve curve : {SparsityCurve::one_shot, SparsityCurve::cubic})
    for (const double share : {0.0, 0.01, 1.0})
      for (const int64_t steps : {1, 3}) {
        const ModulePtr net = model("lenet");
        const Budget budget{.kind = BudgetKind::macs, .amount = 0.3 * exact(BudgetKind::macs, *net)};
        const auto [left, unit] = left_after_training(net, budget_pruner(net, "magnitude", budget, data), data,
                                                      {.curve = curve, .begin = share, .end = share}, steps);
        EXPECT_LE(left, budget.amount) << name_of(curve) << " at " << share << " of " << steps;
        EXPECT_GE(left, budget.amount - unit) << name_of(curve) << " at " << share << " of " << steps;
      }
}

TEST(Budget, HoldsForEveryScopeAndPattern) {
  const Dataset data = digits(320);
  for (const Scope scope : {Scope::global, Scope::layer, Scope::erk})
    for (const char* pattern : {"channels", "element", "kernel", "channel 0"}) {
      const ModulePtr net = model("lenet");
      const Budget budget{.kind = BudgetKind::macs, .amount = 0.4 * exact(BudgetKind::macs, *net)};
      const auto [left, unit] =
          left_after_training(net, budget_pruner(net, "magnitude", budget, data, pattern, {.scope = scope}), data);
      EXPECT_LE(left, budget.amount) << name_of(scope) << " " << pattern;
      EXPECT_GE(left, budget.amount - unit) << name_of(scope) << " " << pattern;
    }
  // Normalised scores, and widths that are multiples of four.
  const ModulePtr net = model("lenet");
  const Budget budget{.kind = BudgetKind::macs, .amount = 0.4 * exact(BudgetKind::macs, *net)};
  const auto to_budget = budget_pruner(net, "magnitude", budget, data, "channels", {.normalize = true, .round_to = 4});
  const auto [left, unit] = left_after_training(net, to_budget, data);
  EXPECT_LE(left, budget.amount);
  EXPECT_GE(left, budget.amount - 4 * unit);
  for (const Site& site : to_budget->pruner()->sites()) {
    const std::vector<bool> exists = existing_units(site);
    EXPECT_EQ(std::count(exists.begin(), exists.end(), true) % 4, 0) << site.name;
  }
}

TEST(Budget, WhatWasCutTooMuchComesBackWhereTheWayEnds) {
  // Units that the way has removed return until the time is what was asked for: the clock runs twice as fast by then.
  const ModulePtr net = model("lenet");
  double speed = 1;
  const auto pruner = std::make_shared<Pruner>(net, channels(*net));
  const double all = exact(BudgetKind::macs, *net);
  BudgetPruner budget(pruner, {.kind = BudgetKind::milliseconds, .amount = 0.5 * all}, example(),
                      [&](Module& m) { return exact(BudgetKind::macs, m) / speed; });
  budget.begin();
  EXPECT_NEAR(budget.final_share(), 0.5, 0.02);
  budget.prune(budget.final_share());
  EXPECT_LE(exact(BudgetKind::macs, *net), 0.5 * all);
  speed = 1.5;
  budget.finish();
  const double left = exact(BudgetKind::macs, *net);
  EXPECT_LE(left, 0.75 * all);
  EXPECT_GE(left, 0.75 * all - dearest(*net, pruner->sites(), BudgetKind::macs));
}

TEST(Budget, AResumedTrainingEndsWithTheSameBits) {
  const Dataset data = digits(320);
  const auto train = [&](const std::string& folder, std::vector<int64_t> stops) {
    ModulePtr net;
    for (stops.push_back(-1); !stops.empty(); stops.erase(stops.begin())) {
      net = model("lenet");
      const Budget amount{.kind = BudgetKind::milliseconds, .amount = 0.5 * time_of(*net)};
      const auto budget = budget_pruner(net, "magnitude", amount, data);
      TrainerOptions options = training(3, {std::make_shared<GradualPruning>(budget, GradualOptions{.end = 0.8}),
                                            std::make_shared<StopAt>(stops.front())});
      options.run_folder = folder;
      options.resume = std::filesystem::exists(folder + "/checkpoint.safetensors");
      Trainer(net, std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.05, .momentum = 0.9}), options).fit(data);
    }
    return net;
  };
  const TemporaryFolder whole, stopped;
  expect_identical(state_of(*train(stopped.file("run"), {3, 17, 25})), state_of(*train(whole.file("run"), {})));
}

TEST(Budget, ToBeginChangesNothingAndRecordsNothing) {
  for (const BudgetKind kind : {BudgetKind::macs, BudgetKind::milliseconds})
    for (const bool throws : {false, true}) {
      const ModulePtr net = model("lenet");
      const NamedTensors before = copy_of(state_of(*net));
      const auto pruner = std::make_shared<Pruner>(net, channels(*net));
      pruner->record_to(std::make_shared<RemovalRecord>("magnitude", Scope::global, pruner->sites()));
      int calls = 0;
      BudgetPruner budget(pruner, {.kind = kind, .amount = 0.5 * exact(BudgetKind::macs, *net)}, example(),
                          [&](Module& m) {
                            const double macs = exact(BudgetKind::macs, m);
                            if (throws && macs < exact(BudgetKind::macs, *model("lenet")) && ++calls > 0)
                              throw std::runtime_error("no clock");
                            return macs;
                          });
      if (throws)
        EXPECT_THROW(budget.begin(), std::runtime_error) << name_of(kind);
      else
        budget.begin();
      EXPECT_EQ(calls > 0, throws) << name_of(kind);
      expect_identical(state_of(*net), before);
      EXPECT_FALSE(net->parameters()[0].mask().defined()) << name_of(kind);
      EXPECT_EQ(pruner->record()->prunings(), 0) << name_of(kind);
    }
}

TEST(Budget, AStateThatLacksAnEntryIsRefused) {
  const ModulePtr net = model("lenet");
  const Budget amount{.kind = BudgetKind::macs, .amount = 0.5 * exact(BudgetKind::macs, *net)};
  const auto budget = budget_pruner(net, "magnitude", amount, digits(64));
  budget->begin();
  const NamedTensors state = budget->state();
  budget->load_state(state);
  const auto refusal = [&](const NamedTensors& tensors) {
    return message_of<FileError>([&] { budget->load_state(tensors); });
  };
  expect_contains(refusal({}), "budget.course");
  expect_contains(refusal({state[0]}), "budget.units");
  expect_contains(refusal({state[1]}), "budget.course");
  for (const double ratio : {0.0, -1.0, std::nan("")})
    expect_contains(refusal({{"budget.course", Tensor::from<double>({9, ratio, 1, 0.5}, {4})}, state[1]}), "finite");
}

TEST(Budget, ANetworkWithinItStaysAsItIs) {
  const Dataset data = digits(64);
  const ModulePtr net = model("lenet");
  const Budget budget{.kind = BudgetKind::macs, .amount = exact(BudgetKind::macs, *net)};
  left_after_training(net, budget_pruner(net, "magnitude", budget, data), data);
  EXPECT_EQ(exact(BudgetKind::macs, *net), budget.amount);
}

}  // namespace
}  // namespace espalier
