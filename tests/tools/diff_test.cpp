#include <gtest/gtest.h>

#include "run_command.h"

namespace espalier::testing {
namespace {

/// A small network on digits and what is left of it at 90 %, trained and pruned once for all tests.
const Folder& networks() {
  static const Folder folder;
  static const bool made = [] {
    EXPECT_EQ(run(folder, "train --model mlp:24 --data digits --epochs 4 --out net -q").status, 0);
    EXPECT_EQ(run(folder, "prune net --sparsity 0.95 --epochs 1 -q").status, 0);
    return true;
  }();
  EXPECT_TRUE(made);
  return folder;
}

TEST(Diff, OfANetworkWithItselfIsNothing) {
  const Said said = run(networks(), "diff net net --json");
  ASSERT_EQ(said.status, 0) << said.err;
  const nlohmann::json json = said.json();
  EXPECT_EQ(json.at("examples"), 360);
  const nlohmann::json& answers = json.at("answers");
  for (const char* kind : {"broken", "repaired", "moved"}) EXPECT_TRUE(answers.at(kind).empty()) << kind;
  EXPECT_EQ(answers.at("p"), 1);
  EXPECT_TRUE(answers.at("worst_class").is_null());
  EXPECT_EQ(json.at("accuracy").at("before"), json.at("accuracy").at("after"));
  EXPECT_EQ(json.at("corrupted").at("corruptions").size(), 13U);  // with none
  // Weights, 64 * 24 + 24 * 10, without the 34 biases: as a sparsity counts.
  const Said text = run(networks(), "diff net net --corrupted 0 --show 0");
  EXPECT_TRUE(contains(text.out, "1,776  1,776")) << text.out;
  EXPECT_TRUE(json.at("removed").empty());
}

TEST(Diff, AgreesWithEvalAndSaysWhatChanged) {
  const Said said = run(networks(), "diff net net/prune --json --corrupted 100");
  ASSERT_EQ(said.status, 0) << said.err;
  const nlohmann::json json = said.json();
  const double before = run(networks(), "eval net --json").json().at("test_accuracy");
  const double after = run(networks(), "eval net/prune --json").json().at("test_accuracy");
  EXPECT_EQ(json.at("accuracy").at("before"), before);
  EXPECT_EQ(json.at("accuracy").at("after"), after);
  const nlohmann::json& answers = json.at("answers");
  const auto count = [&](const char* kind) { return static_cast<double>(answers.at(kind).size()); };
  EXPECT_GT(count("broken"), 0);  // 95 % of so few weights can't go unnoticed
  EXPECT_NEAR((count("repaired") - count("broken")) / 360, after - before, 1e-12);
  for (const nlohmann::json& answer : answers.at("broken")) {
    EXPECT_EQ(answer.at("before"), answer.at("label"));
    EXPECT_NE(answer.at("after"), answer.at("label"));
  }
  EXPECT_EQ(json.at("corrupted").at("images"), 100);
}

TEST(Diff, TheRecordSaysWhyWeightsWent) {
  const nlohmann::json json = run(networks(), "diff net net/prune --json --corrupted 0 --why fc1.weight").json();
  ASSERT_EQ(json.at("removed").size(), 1U);
  const nlohmann::json& record = json.at("removed").at(0);
  EXPECT_EQ(record.at("criterion"), "magnitude");
  EXPECT_EQ(record.at("scope"), "global");
  int64_t removed = 0;
  for (const nlohmann::json& site : record.at("sites")) removed += site.at("removed").get<int64_t>();
  int64_t masked = 0, weights = 0;
  const nlohmann::json masks = run(networks(), "masks net/prune --json").json().at("masks");
  for (const nlohmann::json& mask : masks) {
    weights += mask.at("weights").get<int64_t>();
    masked += mask.at("weights").get<int64_t>() - mask.at("remaining").get<int64_t>();
  }
  EXPECT_EQ(removed, masked);
  EXPECT_GT(masked, weights * 9 / 10);
  ASSERT_FALSE(json.at("why").empty());
  const nlohmann::json& first = json.at("why").at(0);
  EXPECT_EQ(first.at("pruning"), 1);
  EXPECT_GE(first.at("rank"), 1);
  EXPECT_EQ(first.at("candidates"), weights);
  const std::string index = first.at("index");
  const std::string one = index.substr(1, index.size() - 2);
  const Said why = run(networks(), "diff net net/prune --corrupted 0 --why fc1.weight:" + one);
  EXPECT_TRUE(contains(why.out, index)) << why.out;
  EXPECT_TRUE(contains(why.out, "their magnitude was among the lowest")) << why.out;
}

TEST(Diff, DrawsAndSavesWhatBroke) {
  const Said said = run(networks(), "diff net net/prune --corrupted 0 --show 2 --png broken.png --per-class");
  ASSERT_EQ(said.status, 0) << said.err;
  for (const char* part : {"calibration error", "McNemar's p = ", "worst class: ", "Broken, the most confident",
                           "test image ", "was ", "now ", "Saved broken.png", "class  images"})
    EXPECT_TRUE(contains(said.out, part)) << part << " is missing in\n" << said.out;
  EXPECT_EQ(read_file(networks() / "broken.png").substr(1, 3), "PNG");
  for (size_t begin = 0, end = 0; (end = said.out.find('\n', begin)) != std::string::npos; begin = end + 1)
    EXPECT_LE(end - begin, 80U) << said.out.substr(begin, end - begin);
}

TEST(Diff, OneLineOfItEndsEveryPruning) {
  const Folder folder;
  ASSERT_EQ(run(folder, "train --model mlp:24 --data digits --epochs 2 --out net -q").status, 0);
  const Said said = run(folder, "prune net --sparsity 0.9 --epochs 0 -q --json");
  ASSERT_EQ(said.status, 0) << said.err;
  const nlohmann::json full = run(folder, "diff net net/prune --json --corrupted 0").json().at("answers");
  const nlohmann::json changes = said.json().at("runs").at(0).at("changes");
  for (const char* kind : {"broken", "repaired", "moved"}) EXPECT_EQ(changes.at(kind), full.at(kind).size()) << kind;
  EXPECT_EQ(changes.at("p"), full.at("p"));
  EXPECT_TRUE(contains(said.err, changes.at("broken").dump() + " answers broken")) << said.err;
  EXPECT_TRUE(contains(said.err, "espalier diff net/model.safetensors net/prune")) << said.err;
}

TEST(Diff, RecordsOfOlderRunsAreNotThisNetworks) {
  const Folder folder;
  const std::string first = "model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = 1\n";
  write_file(folder / "a.toml", first +
                                    "[[stage]]\ntype = \"prune\"\nname = \"small\"\nsparsity = 0.5\nepochs = 0\n"
                                    "[[stage]]\ntype = \"prune\"\nname = \"smaller\"\nsparsity = 0.7\nepochs = 0\n");
  write_file(folder / "b.toml", first + "[[stage]]\ntype = \"train\"\nname = \"small\"\nepochs = 1\n");
  const auto records = [&](const std::string& network) {
    return run(folder, "diff r/1-train " + network + " --json --corrupted 0").json().at("removed").size();
  };
  ASSERT_EQ(run(folder, "run a.toml --out r").status, 0);
  EXPECT_EQ(records("r"), 2U);
  ASSERT_EQ(run(folder, "run b.toml --out r --overwrite").status, 0);
  EXPECT_EQ(records("r"), 0U) << "another recipe's stage";
  EXPECT_EQ(records("r/small"), 0U) << "another recipe's stage of the same name";
}

TEST(Diff, ErrorsSayWhatToDo) {
  EXPECT_TRUE(contains(run(networks(), "diff net").err, "after"));
  const Said site = run(networks(), "diff net net/prune --corrupted 0 --why fc1.wieght");
  EXPECT_EQ(site.status, 2);
  EXPECT_TRUE(contains(site.err, "did you mean 'fc1.weight'")) << site.err;
  const Said none = run(networks(), "diff net net --corrupted 0 --why fc1.weight");
  EXPECT_TRUE(contains(none.err, "removals.safetensors")) << none.err;
  EXPECT_EQ(run(networks(), "diff net net/prune --corrupted -1").status, 2);
}

}  // namespace
}  // namespace espalier::testing
