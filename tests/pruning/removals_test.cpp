#include "pruning/removals.h"

#include <cmath>
#include <filesystem>

#include "layers/containers.h"
#include "layers/linear.h"
#include "pruning/pruner.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

std::vector<Site> sites_a_and_b() {
  return {{.name = "a", .units = 4, .members = {}}, {.name = "b", .units = 2, .members = {}}};
}
const std::vector<std::vector<bool>> kAll = {{true, true, true, true}, {true, true}};

/// Two prunings: units 1 and 3 of a and 0 of b, then unit 0 of a.
RemovalRecord example(Scope scope) {
  RemovalRecord record("magnitude", scope, sites_a_and_b());
  const std::vector<std::vector<bool>> then = {{true, false, true, false}, {false, true}};
  record.add(0.5, {{5, 1, 6, 3}, {2, 9}}, kAll, then);
  record.add(0.7, {{4, 0, 7, 0}, {0, 8}}, then, {{false, false, true, false}, {false, true}});
  return record;
}

TEST(Removals, ScoreRankAndTheLowestThatStayed) {
  const RemovalRecord record = example(Scope::global);
  EXPECT_EQ(record.prunings(), 2);
  const std::vector<Removal> a = record.removed(0);
  ASSERT_EQ(a.size(), 3U);
  EXPECT_EQ(a[0].unit, 1);
  EXPECT_EQ(a[0].event, 1);
  EXPECT_EQ(a[0].score, 1);
  EXPECT_EQ(a[0].rank, 1);
  EXPECT_EQ(a[0].candidates, 6);
  EXPECT_EQ(a[0].spared, 5);
  EXPECT_EQ(a[0].sparsity, 0.5);
  EXPECT_EQ(a[1].unit, 3);
  EXPECT_EQ(a[1].rank, 3);  // unit 0 of b, with 2, went before it
  EXPECT_EQ(a[2].unit, 0);
  EXPECT_EQ(a[2].event, 2);
  EXPECT_EQ(a[2].rank, 1);
  EXPECT_EQ(a[2].candidates, 3);
  EXPECT_EQ(a[2].spared, 7);
  EXPECT_EQ(record.removed(1)[0].rank, 2);
}

TEST(Removals, OtherScopesCompareWithinTheSite) {
  const RemovalRecord record = example(Scope::layer);
  EXPECT_EQ(record.removed(0)[1].rank, 2);
  EXPECT_EQ(record.removed(0)[1].candidates, 4);
  EXPECT_EQ(record.removed(1)[0].rank, 1);
  EXPECT_EQ(record.removed(1)[0].spared, 9);
}

TEST(Removals, WhatComesBackIsForgottenAndNothingLeavesNoTrace) {
  RemovalRecord record = example(Scope::global);
  const std::vector<std::vector<bool>> now = {{false, false, true, false}, {false, true}};
  record.add(0.7, {{0, 0, 0, 0}, {0, 0}}, now, now);
  EXPECT_EQ(record.prunings(), 2);
  record.add(0.5, {{9, 9, 9, 9}, {9, 9}}, now, {{true, false, true, false}, {false, true}});
  EXPECT_EQ(record.prunings(), 3);
  EXPECT_EQ(record.removed(0).size(), 2U);
}

// A search for a budget tries, and sets masks back by itself.
TEST(Removals, WhatOthersBroughtBackIsForgotten) {
  RemovalRecord record = example(Scope::global);
  record.add(0.5, {{5, 1, 6, 3}, {2, 9}}, kAll, {{true, false, true, true}, {true, true}});
  EXPECT_EQ(record.removed(0).size(), 1U);
  EXPECT_TRUE(record.removed(1).empty());
  record.forget(kAll);
  EXPECT_TRUE(record.removed(0).empty());
}

TEST(Removals, SavedAndLoadedAsTheyWere) {
  const std::string path = (std::filesystem::temp_directory_path() / "espalier-removals-test.safetensors").string();
  example(Scope::layer).save(path);
  const RemovalRecord loaded = RemovalRecord::load(path);
  EXPECT_EQ(loaded.criterion(), "magnitude");
  EXPECT_EQ(loaded.scope(), Scope::layer);
  EXPECT_EQ(loaded.sites(), (std::vector<std::string>{"a", "b"}));
  ASSERT_EQ(loaded.removed(0).size(), 3U);
  EXPECT_EQ(loaded.removed(0)[1].rank, 2);
  EXPECT_EQ(loaded.removed(0)[1].spared, 5);
  save_safetensors(path, {}, {{"criterion", "magnitude"}});
  testing_support::expect_contains(testing_support::message_of<FileError>([&] { RemovalRecord::load(path); }),
                                   {path, "record of removed units"});
  std::filesystem::remove(path);
}

// -1 unit is no leave to hold ten events and one score.
TEST(Removals, AFileOfFewerThanNoUnitsIsRefused) {
  const std::string path = (std::filesystem::temp_directory_path() / "espalier-removals-negative.safetensors").string();
  save_safetensors(path,
                   {{"sparsity", Tensor::from<double>({0.5}, {1})},
                    {"candidates", Tensor::from<int64_t>({10}, {1, 1})},
                    {"spared", Tensor::from<double>({1}, {1, 1})},
                    {"X.event", Tensor::from<int32_t>(std::vector<int32_t>(10, 1), {10})},
                    {"X.score", Tensor::from<float>({0}, {1})}},
                   {{"criterion", "magnitude"}, {"scope", "global"}, {"sites", "[\"X\"]"}, {"units", "[-1]"}});
  testing_support::expect_contains(testing_support::message_of<FileError>([&] { RemovalRecord::load(path); }),
                                   {path, "at least 0, got -1"});
  std::filesystem::remove(path);
}

// Two layers' weights, 1 to 6, four removed at once: the record says what a look at the weights says.
TEST(Removals, ThePrunerFillsIt) {
  const ModulePtr network = share(Sequential(Linear(2, 2, {.bias = false}), Linear(2, 1, {.bias = false})));
  for (const auto& [name, parameter] : network->named_parameters()) {
    Tensor weight = parameter.data();
    weight.copy_(name == "0.weight" ? Tensor::from<float>({1, -4, 2, 6}, {2, 2}) : Tensor::from<float>({5, 3}, {1, 2}));
  }
  Pruner pruner(network, weight_sites(*network));
  const auto record = std::make_shared<RemovalRecord>("magnitude", Scope::global, pruner.sites());
  pruner.record_to(record);
  pruner.prune(0.34);
  pruner.prune(0.6);
  ASSERT_EQ(record->prunings(), 2);
  const std::vector<Removal> first = record->removed(0);
  ASSERT_EQ(first.size(), 3U);
  EXPECT_EQ(first[0].unit, 0);
  EXPECT_EQ(first[1].unit, 2);
  EXPECT_EQ(first[1].score, 2);
  EXPECT_EQ(first[1].spared, 3);
  EXPECT_EQ(first[2].unit, 1);
  EXPECT_EQ(first[2].event, 2);
  EXPECT_EQ(first[2].candidates, 4);
  EXPECT_EQ(record->removed(1).front().score, 3);
}

// Of more units than a record has entries for it holds nothing: it isn't attached, and nothing is there to be saved.
TEST(Removals, OfTooManyUnitsNoneIsAttached) {
  for (const int64_t rows : {256, 257}) {  // 64 columns: 16,384 weights, and 64 more
    const ModulePtr network = share(Linear(64, rows, {.bias = false}));
    Pruner pruner(network, weight_sites(*network));
    const auto record = std::make_shared<RemovalRecord>("magnitude", Scope::global, pruner.sites());
    pruner.record_to(record);
    pruner.prune(0.5);
    const bool fits = rows * 64 <= RemovalRecord::kMostUnits;
    EXPECT_EQ(record->prunings(), fits ? 1 : 0);
    EXPECT_EQ(pruner.record() != nullptr, fits);
  }
}

}  // namespace
}  // namespace espalier
