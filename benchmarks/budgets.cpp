// Budgets asked for and costs left, of networks that train on digits while their channels are pruned.
//   budgets table    {lenet5, resnet20, vgg16 of an eighth of its width, lstm-rows} x {magnitude, taylor, random,
//                    bn-scale} x {parameters, macs, bytes, milliseconds}, half of each: docs/results.md
//   budgets scopes   accuracy at half and a quarter of the MACs by what units are ranked, two seeds
//   budgets events   a pruning on the way to a budget, and its end, beside a training step
#include <algorithm>
#include <array>
#include <chrono>
#include <functional>

#include <espalier/espalier.h>

#include "benchmarks/program.h"

using namespace espalier;

namespace {

/// Digits are 8 x 8: each pixel becomes times x times.
Dataset enlarged(const Dataset& digits, int64_t times) {
  Dataset larger = digits;
  const int64_t side = digits.height(), count = digits.size();
  const std::vector<uint8_t> pixels = digits.images.to_vector<uint8_t>();
  std::vector<uint8_t> values;
  values.reserve(pixels.size() * static_cast<size_t>(times * times));
  for (int64_t image = 0; image < count; ++image)
    for (int64_t y = 0; y < side * times; ++y)
      for (int64_t x = 0; x < side * times; ++x)
        values.push_back(pixels[static_cast<size_t>((image * side + y / times) * side + x / times)]);
  larger.images = Tensor::from(values, {count, 1, side * times, side * times});
  return larger;
}

/// The zoo's vgg16 with 8 to 64 channels.
ModulePtr narrow_vgg16() {
  constexpr std::array<int64_t, 13> kChannels = {8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64};
  constexpr std::array<size_t, 5> kPoolAfter = {1, 3, 6, 9, 12};
  const auto net = std::make_shared<Sequential>();
  int64_t in = 1;
  for (size_t i = 0; i < kChannels.size(); ++i) {
    net->add(fmt::format("conv{}", i + 1), Conv2d(in, kChannels[i], {.kernel = 3, .padding = 1, .bias = false}));
    net->add(fmt::format("bn{}", i + 1), BatchNorm2d(kChannels[i]));
    net->add(fmt::format("relu{}", i + 1), ReLU());
    if (std::find(kPoolAfter.begin(), kPoolAfter.end(), i) != kPoolAfter.end())
      net->add(fmt::format("pool{}", i + 1), MaxPool2d());
    in = kChannels[i];
  }
  net->add("pool", AdaptiveAvgPool2d());
  net->add("flatten", Flatten());
  net->add("fc", Linear(in, 10));
  return net;
}

struct Subject {
  const char* name;
  int64_t enlarge;  ///< the digits
  bool adam;
};
constexpr std::array<Subject, 4> kSubjects = {
    {{"lenet5", 2, false}, {"resnet20", 1, false}, {"vgg16/8", 4, false}, {"lstm-rows", 1, true}}};

struct Trained {
  ModulePtr network;
  Splits data;
  Tensor example;
  const Subject& subject;
};

void train(const Trained& t, int64_t epochs, uint64_t seed, std::vector<std::shared_ptr<Callback>> callbacks = {}) {
  std::shared_ptr<Optimizer> optimizer;
  if (t.subject.adam)
    optimizer = std::make_shared<Adam>(*t.network, AdamOptions{.lr = 4e-3});
  else
    optimizer = std::make_shared<Sgd>(*t.network, SgdOptions{.lr = 0.03, .momentum = 0.9, .weight_decay = 5e-4});
  Trainer(t.network, optimizer,
          {.epochs = epochs,
           .batch_size = 32,
           .schedule = parse_schedule("onecycle"),
           .seed = seed,
           .progress = ProgressMode::silent,
           .callbacks = std::move(callbacks)})
      .fit(t.data.train);
}

Trained trained(const Subject& subject, int64_t images, int64_t epochs, uint64_t seed) {
  const Splits digits = load_dataset("digits");
  const Splits data{enlarged(digits.train.first(images), subject.enlarge), enlarged(digits.test, subject.enlarge)};
  set_seed(seed);
  const int64_t side = data.train.height();
  const std::string name = subject.name;
  Trained t{name == "vgg16/8" ? narrow_vgg16()
                              : make_model(name, {.classes = 10, .in_channels = 1, .height = side, .width = side}),
            data, Tensor::zeros({1, 1, side, side}), subject};
  train(t, epochs, seed);
  return t;
}

std::shared_ptr<Pruner> channel_pruner(const Trained& t, const std::string& criterion, Scope scope) {
  return std::make_shared<Pruner>(
      t.network, channel_sites(DependencyGraph::trace(*t.network, t.example)),
      PrunerOptions{
          .criterion = make_criterion(criterion), .allocation = {.scope = scope}, .data = t.data.train, .batches = 1});
}

/// Prunes the channels of a copy to a budget while it trains.
Trained pruned(const Trained& dense, const Budget& budget, const std::string& criterion, Scope scope, int64_t epochs,
               uint64_t seed) {
  Trained t{dense.network->clone(), dense.data, dense.example, dense.subject};
  const auto to_budget = std::make_shared<BudgetPruner>(channel_pruner(t, criterion, scope), budget, t.example);
  train(t, epochs, seed, {std::make_shared<GradualPruning>(to_budget, GradualOptions{.end = 0.7})});
  return t;
}

/// The same to a sparsity.
Trained pruned(const Trained& dense, double sparsity, Scope scope, int64_t epochs, uint64_t seed) {
  Trained t{dense.network->clone(), dense.data, dense.example, dense.subject};
  const auto pruner = channel_pruner(t, "magnitude", scope);
  train(t, epochs, seed, {std::make_shared<GradualPruning>(pruner, GradualOptions{.sparsity = sparsity, .end = 0.7})});
  return t;
}

bool has_batch_norm(const Module& network) {
  const auto modules = network.named_modules();
  return std::any_of(modules.begin(), modules.end(), [](const auto& m) { return m.second->type() == "BatchNorm2d"; });
}

void table() {
  fmt::print("| network | criterion | budget | asked | left | left / asked |\n|---|---|---|---|---|---|\n");
  for (const Subject& subject : kSubjects) {
    const Trained dense = trained(subject, 640, 2, 1);
    for (const char* criterion : {"magnitude", "taylor", "random", "bn-scale"}) {
      if (std::string(criterion) == "bn-scale" && !has_batch_norm(*dense.network)) continue;
      for (const BudgetKind kind :
           {BudgetKind::parameters, BudgetKind::macs, BudgetKind::bytes, BudgetKind::milliseconds}) {
        const CostFunction cost = cost_function(kind, dense.example);
        const double asked = 0.5 * cost(*dense.network);
        const Trained t = pruned(dense, {.kind = kind, .amount = asked}, criterion, Scope::global, 1, 1);
        const double left = cost(*t.network);
        const bool time = kind == BudgetKind::milliseconds;
        fmt::print("| {} | {} | {} | {:.{}f} | {:.{}f} | {:.1f} % |\n", subject.name, criterion, name_of(kind), asked,
                   time ? 4 : 0, left, time ? 4 : 0, 100 * left / asked);
        std::fflush(stdout);
      }
    }
  }
}

/// One network for each seed, and how many epochs its pruning takes.
struct Dense {
  std::vector<Trained> networks;
  int64_t epochs;
};

Dense dense_networks(const Subject& subject) {
  const int64_t epochs = std::string(subject.name) == "lenet5" ? 10 : 6;
  Dense dense{.networks = {}, .epochs = epochs / 3};
  for (const uint64_t seed : {1, 2}) dense.networks.push_back(trained(subject, 1437, epochs, seed));
  return dense;
}

/// Accuracy in percent, of both seeds; a star where a layer lost more than 90 % of its channels.
template <class F>
std::string accuracies(const Dense& dense, const F& prune) {
  std::string cell;
  for (size_t i = 0; i < dense.networks.size(); ++i) {
    const Trained t = prune(dense.networks[i], i + 1);
    const bool gone = !find_collapses(channel_sites(DependencyGraph::trace(*t.network, t.example))).empty();
    cell += fmt::format("{}{:.2f}{}", i == 0 ? "" : ", ", 100 * evaluate(*t.network, t.data.test).accuracy(),
                        gone ? "*" : "");
  }
  return cell;
}

void scopes() {
  struct Way {
    const char* name;
    Scope scope;
    Ranking ranking;
  };
  constexpr std::array<Way, 3> kWays = {{{"global, score per cost", Scope::global, Ranking::score_per_cost},
                                         {"global, score", Scope::global, Ranking::score},
                                         {"layer", Scope::layer, Ranking::score_per_cost}}};
  fmt::print("| network | left | dense | {} | {} | {} |\n|---|---|---|---|---|---|\n", kWays[0].name, kWays[1].name,
             kWays[2].name);
  for (const size_t number : {0, 1, 3}) {
    const Subject& subject = kSubjects[number];
    const Dense dense = dense_networks(subject);
    const std::string before = accuracies(dense, [](const Trained& t, uint64_t) { return t; });
    for (const double share : {0.5, 0.25}) {
      fmt::print("| {} | {:g} % of the MACs | {} |", subject.name, 100 * share, before);
      for (const Way& way : kWays) {
        fmt::print(" {} |", accuracies(dense, [&](const Trained& t, uint64_t seed) {
                     const double macs = cost_function(BudgetKind::macs, t.example)(*t.network);
                     return pruned(t, {.kind = BudgetKind::macs, .amount = share * macs, .ranking = way.ranking},
                                   "magnitude", way.scope, dense.epochs, seed);
                   }));
        std::fflush(stdout);
      }
      fmt::print("\n");
    }
    fmt::print("| {} | sparsity 50 % | {} | |", subject.name, before);
    for (const Scope scope : {Scope::global, Scope::layer})
      fmt::print(" {} |", accuracies(dense, [&](const Trained& t, uint64_t seed) {
                   return pruned(t, 0.5, scope, dense.epochs, seed);
                 }));
    fmt::print("\n");
  }
  fmt::print("\n*: a layer lost more than 90 % of its channels\n");
}

double milliseconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return 1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The fastest of a few prunings on the way to a third of the MACs, and of as many training steps at batch 128.
void events() {
  constexpr int64_t kRounds = 8;
  fmt::print("| network | units | step, ms | event, ms | event / step | end, ms |\n|---|---|---|---|---|---|\n");
  for (const char* name : {"lenet300", "lenet5", "lstm-rows", "resnet20", "vgg16"}) {
    const Shape image = model_image(name);
    const Tensor example = Tensor::zeros({1, image[0], image[1], image[2]});
    const Variable images = randn({128, image[0], image[1], image[2]});
    const Tensor labels = Tensor::zeros({128}, DType::i64);
    for (const bool channels : {true, false}) {
      set_seed(0);
      const ModulePtr network = make_model(name);
      Sgd optimizer(*network, {.lr = 1e-3, .momentum = 0.9});
      const auto pruner = std::make_shared<Pruner>(
          network, channels ? channel_sites(DependencyGraph::trace(*network, example)) : weight_sites(*network));
      const double macs = cost_function(BudgetKind::macs, example)(*network);
      BudgetPruner budget(pruner, {.kind = BudgetKind::macs, .amount = macs / 3}, example);
      budget.begin();
      double step = 1e9, event = 1e9;
      for (int64_t round = 1; round <= kRounds; ++round) {
        step = std::min(step, milliseconds_of([&] {
                          optimizer.zero_grad();
                          cross_entropy((*network)(images), labels).backward();
                          optimizer.step();
                        }));
        const double share = budget.final_share() * static_cast<double>(round) / static_cast<double>(2 * kRounds);
        event = std::min(event, milliseconds_of([&] { budget.prune(share); }));
      }
      const double end = milliseconds_of([&] { budget.finish(); });
      fmt::print("| {} | {} | {:.2f} | {:.2f} | {:.2f} | {:.0f} |\n", name, channels ? "channels" : "weights", step,
                 event, event / step, end);
      std::fflush(stdout);
    }
  }
}

int run(int argc, char** argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  check(what == "table" || what == "scopes" || what == "events", "budgets",
        "usage: budgets table | budgets scopes | budgets events");
  what == "table" ? table() : what == "scopes" ? scopes() : events();
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return espalier::run_program(run, argc, argv); }
