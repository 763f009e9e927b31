// espalier run, prune, distill, compact, compare, masks: whole stories on digits, and what bad recipes are told.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "run_command.h"

namespace espalier::testing {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStory = R"(
title = "a story"
model = "mlp:32,16"
data = "digits"
validation = 0.2

[[stage]]
type = "train"
epochs = 3

[[stage]]
type = "prune"
pattern = "channels"
sparsity = 0.5
epochs = 3
lr = 0.02
teacher = "start"

[[stage]]
type = "compact"

[[stage]]
type = "train"
name = "retrain"
epochs = 1
lr = 0.01
teacher = "1-train"
)";

TEST(Run, TellsTheWholeStory) {
  const Folder folder;
  write_file(folder / "story.toml", kStory);
  const Said said = run(folder, "run story.toml --json");
  ASSERT_EQ(said.status, 0) << said.err;
  const nlohmann::json before = said.json()["runs"][0]["before"], after = said.json()["runs"][0]["after"];
  EXPECT_EQ(before["parameters"], 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10);
  EXPECT_LT(after["parameters"], 0.65 * before["parameters"].get<double>());
  EXPECT_LT(after["macs"], 0.65 * before["macs"].get<double>());
  EXPECT_LT(after["bytes"], before["bytes"]);
  EXPECT_GT(after["accuracy"], 0.8);
  for (const char* file : {"runs/story/recipe.toml", "runs/story/result.json", "runs/story/model.safetensors",
                           "runs/story/1-train/model.safetensors", "runs/story/2-prune/metrics.jsonl"})
    EXPECT_TRUE(fs::exists(folder / file)) << file;

  // The resolved recipe is a recipe: it says the same and gives the same bits.
  ASSERT_EQ(run(folder, "run runs/story/recipe.toml --out again --json").status, 0);
  EXPECT_EQ(read_file(folder / "again/recipe.toml"), read_file(folder / "runs/story/recipe.toml"));
  EXPECT_EQ(read_file(folder / "again/model.safetensors"), read_file(folder / "runs/story/model.safetensors"));

  const Said eval = run(folder, "eval runs/story --json");
  EXPECT_EQ(eval.json()["test_accuracy"], after["accuracy"]);
  const Said compare = run(folder, "compare runs/story --rounds 2 --json");
  ASSERT_EQ(compare.status, 0) << compare.err;
  ASSERT_EQ(compare.json()["networks"].size(), 2u);
  EXPECT_EQ(compare.json()["networks"][1]["parameters"], after["parameters"]);
  EXPECT_GT(compare.json()["networks"][1]["latency_128"]["p95"], 0);
  // A run of a program with stages of its own can be compared too.
  write_file(folder / "runs/story/recipe.toml",
             read_file(folder / "runs/story/recipe.toml") + "\n[[stage]]\ntype = \"of-another-program\"\n");
  const Said foreign = run(folder, "compare runs/story --rounds 2 --json");
  ASSERT_EQ(foreign.status, 0) << foreign.err;
  EXPECT_EQ(foreign.json()["networks"][0]["parameters"], before["parameters"]);
  EXPECT_EQ(foreign.json()["networks"].size(), 2u);
  EXPECT_EQ(run(folder, "run story.toml").status, 2) << "the folder holds a run";
}

TEST(Prune, FlagsAreTheKeysOfTheStage) {
  const Folder folder;
  ASSERT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --out m --optimizer adam:beta2=0.9").status, 0);
  EXPECT_TRUE(contains(read_file(folder / "m/run.json"), "\"beta2\": 0.9"));
  const Said said = run(folder,
                        "prune m --sparsity 0.5 --sparsity-of fc1.weight=0.75 --epochs 1 --optimizer adam:beta2=0.9 "
                        "--warmup 0.5 --no-nesterov --teacher start --alpha 0.5 --out p "
                        "--term type=relational-distance,weight=2");
  ASSERT_EQ(said.status, 0) << said.all();
  const std::string recipe = read_file(folder / "p/recipe.toml");
  for (const char* line :
       {"optimizer = { name = \"adam\", beta2 = 0.9 }\n", "sparsity_of = { \"fc1.weight\" = 0.75 }\n", "warmup = 0.5\n",
        "alpha = 0.5\n", "type = \"relational-distance\"\nweight = 2.0\n"})
    EXPECT_TRUE(contains(recipe, line)) << line << recipe;
  for (const auto& [flags, message] : std::vector<std::pair<std::string, std::string>>{
           {"--sparsity 1.5", "[prune] --sparsity: expected a number in [0,1), got 1.5"},
           {"--macs 0.5 --rank-by cost", "[prune] --rank-by: expected a ranking: score-per-cost, score"},
           {"--sparsity 0.5 --optimizer adam:beta3=1", "no option is named 'beta3'"},
           {"--sparsity 0.5 --criterion tailor", "[prune] --criterion: [make_criterion] unknown criterion 'tailor'"},
           {"--sparsity 0.5 --macs 0.5", "[prune] expected either sparsity"},
           {"--sparsity 0.5 --seeds 2000", "--seeds: expected a number in [1,1000], got 2000"}}) {
    const Said refused = run(folder, "prune m --out q " + flags);
    EXPECT_EQ(refused.status, 2) << flags;
    EXPECT_TRUE(contains(refused.err, message)) << flags << refused.err;
  }
}

TEST(Run, DamagedFilesOfDoneStagesAreNoticed) {
  const Folder folder;
  write_file(folder / "r.toml", R"(model = "mlp:32"
data = "digits"
[[stage]]
type = "prune"
pattern = "channels"
macs = 0.5
epochs = 0
[[stage]]
type = "lottery"
rounds = 1
epochs = 1
[[stage]]
type = "compact"
)");
  const Said said = run(folder, "run r.toml --out r");
  ASSERT_EQ(said.status, 0) << said.err;
  EXPECT_TRUE(contains(said.out, "macs: 2,368 -> 1,184, budget 1,184")) << said.out;
  for (const char* file : {"1-prune/budget.json", "1-prune/removals.safetensors", "2-lottery/rounds/rounds.json",
                           "3-compact/compaction.json"}) {
    const std::string whole = read_file(folder / (std::string("r/") + file));
    write_file(folder / (std::string("r/") + file), whole.substr(0, whole.size() / 2));
    const Said resumed = run(folder, "run --resume --out r");
    EXPECT_EQ(resumed.status, 2) << file << resumed.all();
    EXPECT_TRUE(contains(resumed.err, file) && contains(resumed.err, "expected")) << resumed.err;
    EXPECT_FALSE(contains(resumed.err, "json.exception")) << resumed.err;
    write_file(folder / (std::string("r/") + file), whole);
  }
  EXPECT_EQ(run(folder, "run --resume --out r").status, 0);
}

TEST(Run, AFileIsNoFolder) {
  const Folder folder;
  write_file(folder / "file", "mine");
  write_file(folder / "r.toml", "model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = 1\n");
  for (const char* line :
       {"run r.toml -o file", "run r.toml -o file --overwrite", "train --model mlp:8 --data digits -o file"}) {
    const Said said = run(folder, line);
    EXPECT_EQ(said.status, 2) << line;
    EXPECT_TRUE(contains(said.err, "file is no folder")) << said.err;
  }
  EXPECT_EQ(read_file(folder / "file"), "mine");
}

TEST(Run, AnyTitleCanBeReadBack) {
  const Folder folder;
  write_file(folder / "story.toml", R"(title = "\nthree \"\"\" quotes, ''' too, \u007f"
model = "mlp:8"
data = "digits"
[[stage]]
type = "train"
epochs = 1
)");
  const Said said = run(folder, "run story.toml --out r");
  ASSERT_EQ(said.status, 0) << said.err;
  const std::string first = read_file(folder / "r/recipe.toml");
  const Said again = run(folder, "run r/recipe.toml --out r --resume");
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(read_file(folder / "r/recipe.toml"), first);
}

TEST(Run, RecipesOfAnyDepthAreRefusedInPeace) {
  const Folder folder;
  std::string key = "a";
  for (int i = 0; i < 31'000; ++i) key += ".a";
  write_file(folder / "deep.toml", key + " = 1\n");
  const Said said = run(folder, "run deep.toml");
  EXPECT_EQ(said.status, 2) << said.all();
  EXPECT_NE(said.err.find("deep.toml:1: expected keys of at most 32 parts"), std::string::npos) << said.err;
}

TEST(Run, AStoppedRunEndsWithTheSameBits) {
  const Folder folder;
  // Long enough to be stopped in the pruning stage.
  std::string story = kStory;
  story.replace(story.find("sparsity = 0.5\nepochs = 3"), 25, "sparsity = 0.5\nepochs = 40");
  write_file(folder / "story.toml", story);
  const Said stopped = run_and_interrupt(folder, "run story.toml --out one", "one/2-prune/checkpoint.safetensors");
  ASSERT_EQ(stopped.status, 130) << stopped.all();
  EXPECT_TRUE(contains(stopped.all(), "--resume")) << stopped.all();
  ASSERT_EQ(run(folder, "run story.toml --out one --resume").status, 0);
  ASSERT_EQ(run(folder, "run story.toml --out two").status, 0);
  EXPECT_EQ(read_file(folder / "one/model.safetensors"), read_file(folder / "two/model.safetensors"));
  const Said other = run(folder, "run story.toml --out one --resume --seed 7");
  EXPECT_EQ(other.status, 2);
  EXPECT_TRUE(contains(other.err, "another recipe")) << other.err;
}

TEST(Run, StartingAnewForgetsTheOlderRunAndNothingElse) {
  const Folder folder;
  std::string story = kStory;
  story.replace(story.find("sparsity = 0.5\nepochs = 3"), 25, "sparsity = 0.5\nepochs = 40");
  story.replace(story.find("epochs = 3"), 10, "epochs = 40");
  write_file(folder / "story.toml", story);
  ASSERT_EQ(run_and_interrupt(folder, "run story.toml --out one", "one/2-prune/checkpoint.safetensors").status, 130);
  fs::create_directories(folder / "one/mine");
  write_file(folder / "one/mine/done", "not a stage's");
  // Another run in the same folder: its pruning has the older one's settings of training, and must not go on from
  // there.
  story.replace(story.find("sparsity = 0.5"), 14, "sparsity = 0.3");
  write_file(folder / "story.toml", story);
  ASSERT_EQ(
      run_and_interrupt(folder, "run story.toml --out one --overwrite", "one/1-train/checkpoint.safetensors").status,
      130);
  ASSERT_EQ(run(folder, "run story.toml --out one --resume").status, 0);
  ASSERT_EQ(run(folder, "run story.toml --out two").status, 0);
  EXPECT_EQ(read_file(folder / "one/model.safetensors"), read_file(folder / "two/model.safetensors"));
  EXPECT_TRUE(fs::exists(folder / "one/mine/done"));
}

TEST(Run, EveryKindOfStage) {
  const Folder folder;
  write_file(folder / "r.toml", R"(
model = "mlp:24"
data = "digits"
[[stage]]
type = "teacher"
name = "big"
model = "mlp:48"
epochs = 2
[[stage]]
type = "sparse-training"
sparsity = 0.5
epochs = 2
every = 10
[[stage]]
type = "distill"
model = "mlp:20"
teacher = "big"
epochs = 2
[[stage]]
type = "surgery"
c = 0.5
epochs = 2
[[stage]]
type = "variational"
epochs = 2
optimizer = "adam"
[[stage]]
type = "prune"
pattern = "block 2x2"
criterion = "taylor"
sparsity = 0.9
epochs = 0
[[stage]]
type = "reconstruct"
reference = "5-variational"
[[stage]]
type = "compensate"
reference = "5-variational"
[[stage]]
type = "recalibrate"
)");
  const Said said = run(folder, "run r.toml --json --seeds 2");
  ASSERT_EQ(said.status, 0) << said.err;
  EXPECT_EQ(said.json()["runs"].size(), 2u);
  // 90 % of the blocks, and single weights that surgery and noise removed inside of others.
  EXPECT_GE(said.json()["runs"][1]["after"]["sparsity"].get<double>(), 0.9);
  EXPECT_LT(said.json()["runs"][1]["after"]["sparsity"].get<double>(), 1);
}

TEST(Run, TheLastTrainingMayIncludeTheValidationImages) {
  const Folder folder;
  const std::string first =
      "validation = 0.2\nmodel = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = 1\n";
  write_file(folder / "r.toml", first + "[[stage]]\ntype = \"train\"\nepochs = 2\ninclude_validation = true\n");
  ASSERT_EQ(run(folder, "run r.toml --out x").status, 0);
  const std::string metrics = read_file(folder / "x/2-train/metrics.jsonl");
  const auto steps = [](const std::string& lines) {
    return nlohmann::json::parse(lines.substr(0, lines.find('\n'))).at("step").get<int64_t>();
  };
  EXPECT_GT(steps(metrics), steps(read_file(folder / "x/1-train/metrics.jsonl")));
  EXPECT_FALSE(contains(metrics, "\"val_acc\":0.")) << "there is nothing left to validate on";
}

TEST(Run, ResidualBlocksGoAsAWhole) {
  const Folder folder;
  const std::string head = "model = \"resnet20\"\ndata = \"digits\"\nvalidation = 0.2\n";
  write_file(folder / "r.toml", head +
                                    "[[stage]]\ntype = \"blocks\"\ndrop = 2\n[[stage]]\ntype = \"train\"\nepochs = 1\n"
                                    "[[stage]]\ntype = \"compact\"\n");
  const Said said = run(folder, "run r.toml --out x --json");
  ASSERT_EQ(said.status, 0) << said.err;
  EXPECT_TRUE(contains(said.err, "the loss rises by")) << said.err;
  // Seven of nine blocks have no shortcut of their own; each of the smallest has two convolutions of 16 channels.
  const nlohmann::json report = said.json()["runs"][0]["after"];
  EXPECT_LE(report["parameters"].get<int64_t>(), 269722 - 288 - 2 * (2 * 16 * 16 * 9));
  write_file(folder / "r.toml", head + "[[stage]]\ntype = \"train\"\n[[stage]]\ntype = \"blocks\"\ndrop = 10\n");
  EXPECT_TRUE(
      contains(run(folder, "run r.toml --out y").err, "stage '2-blocks': [blocks] expected to drop at most the 7"));
}

TEST(Run, FilesSayHowTheirNetworkWasTrained) {
  const Folder folder;
  write_file(folder / "r.toml", R"(
model = "mlp:24"
data = "digits"
[[stage]]
type = "train"
epochs = 1
optimizer = "adam"
lr = 0.003
[[stage]]
type = "prune"
sparsity = 0.5
epochs = 0
[[stage]]
type = "distill"
model = "mlp:12"
epochs = 1
[[stage]]
type = "train"
epochs = 1
)");
  const auto settings_of = [&](const std::string& file) {
    const nlohmann::json info = run(folder, "info " + file + " --json").json();
    return nlohmann::json::parse(info.at("metadata").value("settings", "{}"), nullptr, false);
  };
  ASSERT_EQ(run(folder, "run r.toml --out r").status, 0);
  const nlohmann::json pruned = settings_of("r/2-prune/model.safetensors");
  EXPECT_EQ(pruned.value("model", ""), "mlp:24");
  EXPECT_EQ(pruned.value("optimizer", ""), "adam");
  EXPECT_EQ(pruned.value("lr", 0.0), 0.003);
  EXPECT_EQ(settings_of("r/model.safetensors").value("model", ""), "mlp:12") << "another network took over";
  // Pruned again, and again: the recipe knows what network it is.
  ASSERT_EQ(run(folder, "prune r --sparsity 0.3 --epochs 0 --out p").status, 0);
  ASSERT_EQ(run(folder, "prune p --sparsity 0.4 --epochs 0 --out q").status, 0);
  EXPECT_TRUE(contains(read_file(folder / "q/recipe.toml"), "model = \"mlp:12\""))
      << read_file(folder / "q/recipe.toml");
}

TEST(Compare, ShowsMeanAndDeviationOfSeveralSeeds) {
  const Folder folder;
  write_file(folder / "r.toml", R"(
model = "mlp:16"
data = "digits"
[[stage]]
type = "train"
epochs = 1
[[stage]]
type = "prune"
sparsity = 0.9
epochs = 1
)");
  const Said trained = run(folder, "run r.toml --seeds 3 --out r --json");
  ASSERT_EQ(trained.status, 0) << trained.err;
  const Said said = run(folder, "compare r --rounds 1 --json");
  ASSERT_EQ(said.status, 0) << said.err;
  const nlohmann::json networks = said.json()["networks"];
  ASSERT_EQ(networks.size(), 2u);
  std::vector<double> accuracies;
  double mean = 0, squares = 0;
  const nlohmann::json runs = trained.json()["runs"];
  for (const nlohmann::json& seed : runs) accuracies.push_back(seed["after"]["accuracy"]);
  for (const double accuracy : accuracies) mean += accuracy / 3;
  for (const double accuracy : accuracies) squares += (accuracy - mean) * (accuracy - mean) / 2;
  EXPECT_NEAR(networks[1]["accuracy"].get<double>(), mean, 1e-12);
  EXPECT_NEAR(networks[1]["accuracy_std"].get<double>(), std::sqrt(squares), 1e-12);
  EXPECT_GT(squares, 0);
  ASSERT_EQ(networks[1]["seeds"].size(), 3u);
  EXPECT_EQ(networks[1]["seeds"][2]["file"], "r/seed-2/model.safetensors");
  EXPECT_TRUE(contains(run(folder, "compare r --rounds 1").out, "r after, 3 seeds"));
  // What is finished counts; of a training with several seeds too.
  fs::remove(folder / "r/seed-2/model.safetensors");
  EXPECT_EQ(run(folder, "compare r --rounds 1 --json").json()["networks"][1]["seeds"].size(), 2u);
  ASSERT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --seeds 2 --out t").status, 0);
  EXPECT_EQ(run(folder, "compare t --rounds 1 --json").json()["networks"][0]["seeds"].size(), 2u);
}

TEST(Run, BadRecipesAreToldWhereAndWhat) {
  const Folder folder;
  struct Case {
    const char *recipe, *message;
  };
  const std::vector<Case> cases = {
      {"model = \"lenet5\"", "expected model and data"},
      {"model = \"lenet5\"\ndata = \"digits\"", "at least one [[stage]]"},
      {"modle = \"lenet5\"\ndata = \"digits\"", "r.toml:1: a recipe has no key 'modle', did you mean 'model'?"},
      {"model = \"lenet5\"\ndata = \"digits\"\n[[stage]]\ntype = \"prun\"", "did you mean 'prune'?"},
      {"model = \"lenet5\"\ndata = \"digits\"\n[[stage]]\ntype = \"prune\"\nsparsity = 1.5", "in [0,1)"},
      {"model = \"lenet5\"\ndata = \"digits\"\n[[stage]]\ntype = \"prune\"", "either sparsity"},
      {"model = \"lenet5\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = \"ten\"",
       "r.toml:5: a stage 'epochs': expected a whole number"},
      {"model = \"lenet5\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepoch = 3", "known: type, name"},
      {"model = \"lenet5\"\ndata = \"digits\"\n[[stage]]\ntype = \"prune\"\nsparsity = 0.5\ncriterion = \"magic\"",
       "unknown criterion 'magic'"},
      {"model = \"lenet5\"\ndata = \"digits\"\n[[stage]]\ntype = \"reconstruct\"\nreference = \"x\"",
       "reference = an earlier stage"},
      {"model = \"lenet5\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nname = \"../x\"", "can be a folder's"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nteacher = \"nowhere\"",
       "stage '1-train': expected teacher = one of start"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nteacher = \"start\"\nalpha = 3",
       "r.toml:6: expected alpha in [0,1], got 3"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nslimming = -1",
       "r.toml:5: expected slimming of at least 0, got -1"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"prune\"\nsparsity = 0.5\nround_to = 0",
       "r.toml:6: expected round_to in [1,1e+06], got 0"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"prune\"\nsparsity = 0.5\n"
       "sparsity_of = { \"fc1.weight\" = 1.5 }",
       "in [0,1) for 'fc1.weight', got 1.5"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"sparse-training\"\nsparsity = 1.5", "in [0,1)"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"variational\"\nepochs = 0", "epochs of at least 1"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"prune\"\nsparsity = 0.3\npattern = \"2 of 4\"",
       "r.toml:3: pattern \"2 of 4\": expected a sparsity of at least 0.5"},
      // After an hour of training, were they not tried beforehand.
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\n[[stage]]\ntype = \"prune\"\n"
       "pattern = \"channels\"\nmacs = 0.001",
       "r.toml:5: stage '2-prune': [prune_to_budget] a budget of"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\n[[stage]]\ntype = \"prune\"\nsparsity = "
       "0.5\n"
       "protect = [\"fc9\"]",
       "no site is named 'fc9'"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\n[[stage]]\ntype = \"lottery\"\n"
       "pattern = \"block 7x3\"",
       "stage '2-lottery'"},
      {"model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\ninclude_validation = true\n[[stage]]\n"
       "type = \"prune\"\nsparsity = 0.5",
       "r.toml:6: stage '1-train' trained on the validation images"},
      {"model = = 3", "r.toml:1: not TOML"},
      {"model = \"lenet55\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"", "r.toml:1: [make_model] unknown model"},
      {"model = \"mlp:8\"\ndata = \"digitz\"\n[[stage]]\ntype = \"train\"", "r.toml:1: "},
  };
  for (const Case& c : cases) {
    write_file(folder / "r.toml", c.recipe);
    const Said said = run(folder, "run r.toml --out x");
    EXPECT_EQ(said.status, 2) << c.recipe;
    EXPECT_TRUE(contains(said.err, c.message)) << c.recipe << "\n" << said.err;
    EXPECT_FALSE(fs::exists(folder / "x")) << c.recipe;
  }
  EXPECT_TRUE(contains(run(folder, "run nothing.toml").err, "nothing.toml"));
}

TEST(Run, TheRecipesOfTheTreeAreRecipes) {
  const Folder folder;
  int count = 0;
  for (const auto& entry : fs::directory_iterator(ESPALIER_RECIPES)) {
    if (entry.path().extension() != ".toml") continue;
    const Said said = run(folder, fmt::format("run '{}' --check", entry.path().string()));
    EXPECT_EQ(said.status, 0) << entry.path() << said.err;
    ++count;
  }
  EXPECT_GE(count, 8);
}

TEST(Run, IndicesOfTheOriginalOutliveStagesAndCommands) {
  const Folder folder;
  write_file(
      folder / "r.toml",
      "model = \"mlp:16\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = 1\n[[stage]]\ntype = \"prune\"\n"
      "pattern = \"channels\"\nsparsity = 0.5\nepochs = 0\n[[stage]]\ntype = \"compact\"\n[[stage]]\n"
      "type = \"train\"\nepochs = 1\n");
  ASSERT_EQ(run(folder, "run r.toml --out x").status, 0);
  ASSERT_EQ(run(folder, "prune x --pattern channels --sparsity 0.5 --epochs 0 --out y").status, 0);
  const Said compacted = run(folder, "compact y --json");
  ASSERT_EQ(compacted.status, 0) << compacted.err;
  const auto rows = [](const nlohmann::json& kept) { return kept.at("fc1.weight")[0].get<std::set<int64_t>>(); };
  const auto first = rows(nlohmann::json::parse(read_file(folder / "x/3-compact/compaction.json"))["kept"]);
  const auto second = rows(compacted.json()["kept"]["kept"]);
  EXPECT_EQ(first.size(), 8U);
  EXPECT_EQ(second.size(), 4U);
  EXPECT_TRUE(std::includes(first.begin(), first.end(), second.begin(), second.end()));
  EXPECT_GT(*second.rbegin(), 7) << "rows of the original network, not of the eight that were left";
}

TEST(Compact, ReplacesNothingUnasked) {
  const Folder folder;
  for (const char* name : {"a", "b"})
    ASSERT_EQ(run(folder, fmt::format("train --model mlp:8 --data digits --epochs 1 --out {}", name)).status, 0);
  const std::string a = read_file(folder / "a/model.safetensors"), b = read_file(folder / "b/model.safetensors");
  fs::create_hard_link(folder / "a/model.safetensors", folder / "link.safetensors");
  for (const auto& [line, message] : std::vector<std::pair<std::string, std::string>>{
           {"compact a -o b/model.safetensors", "b/model.safetensors is there already; add --overwrite"},
           {"compact a -o a/model.safetensors --overwrite", "would replace the network that it is made from"},
           {"compact a -o link.safetensors --overwrite", "would replace the network that it is made from"}}) {
    const Said said = run(folder, line);
    EXPECT_EQ(said.status, 2) << line << said.all();
    EXPECT_TRUE(contains(said.err, message)) << line << said.err;
  }
  EXPECT_TRUE(read_file(folder / "a/model.safetensors") == a && read_file(folder / "b/model.safetensors") == b);
  EXPECT_EQ(run(folder, "compact a").status, 0);
  EXPECT_EQ(run(folder, "compact a").status, 2);
  EXPECT_EQ(run(folder, "compact a --overwrite").status, 0);
}

TEST(Prune, OnTheCommandLine) {
  const Folder folder;
  ASSERT_EQ(run(folder, "train --model mlp:32 --data digits --epochs 3 --out m").status, 0);
  EXPECT_TRUE(contains(run(folder, "prune m --sparsity 0.8 --protect fc9 --out p").err, "no site is named 'fc9'"));
  EXPECT_TRUE(contains(run(folder, "prune m --sparsity 0.9 --protect fc1.weight,fc2.bias --out p").err, "fc2.bias"));
  EXPECT_TRUE(contains(run(folder, "prune m --sparsity 0.9 --protect 'fc*' --out p").err, "out of reach"));
  const Said pruned = run(folder, "prune m --sparsity 0.8 --epochs 2 --teacher start --json");
  ASSERT_EQ(pruned.status, 0) << pruned.err;
  EXPECT_NEAR(pruned.json()["runs"][0]["after"]["sparsity"].get<double>(), 0.8, 1e-3);
  EXPECT_TRUE(pruned.json()["runs"][0]["before"].is_object());
  const Said masks = run(folder, "masks m/prune --png pictures");
  EXPECT_TRUE(contains(masks.out, "% masked")) << masks.out;
  EXPECT_TRUE(fs::exists(folder / "pictures/fc1.weight.png"));

  const Said channels = run(folder, "prune m --pattern channels --sparsity 0.5 --epochs 0 --out c --json");
  ASSERT_EQ(channels.status, 0) << channels.err;
  const Said compacted = run(folder, "compact c --out small.safetensors --json");
  ASSERT_EQ(compacted.status, 0) << compacted.err;
  EXPECT_EQ(compacted.json()["after"]["parameters"], 64 * 16 + 16 + 16 * 10 + 10);
  EXPECT_FALSE(compacted.json()["after"].contains("accuracy")) << "it looks at no image";
  const Said eval = run(folder, "eval small.safetensors --json");
  EXPECT_EQ(eval.json()["test_accuracy"], channels.json()["runs"][0]["after"]["accuracy"]);

  const Said half = run(folder, "prune m --pattern channels --macs 0.5 --epochs 1 --out h --json");
  ASSERT_EQ(half.status, 0) << half.err;
  const nlohmann::json report = half.json()["runs"][0];
  EXPECT_LE(report["after"]["remaining_macs"].get<double>(), 0.5 * report["before"]["macs"].get<double>());
  EXPECT_GE(report["after"]["remaining_macs"].get<double>(), 0.4 * report["before"]["macs"].get<double>());
  // Masked weights are no removed channels: nine tenths of what is left are asked for.
  ASSERT_EQ(run(folder, "prune m --pattern \"2 of 4\" --sparsity 0.5 --epochs 0 --out e").status, 0);
  const Said most = run(folder, "prune e --pattern channels --macs 0.9 --epochs 0 --out em --json");
  ASSERT_EQ(most.status, 0) << most.err;
  const nlohmann::json left = most.json()["runs"][0];
  EXPECT_GE(left["after"]["remaining_macs"].get<double>(), 0.8 * left["before"]["remaining_macs"].get<double>());
  EXPECT_LE(left["after"]["remaining_macs"].get<double>(), 0.9 * left["before"]["remaining_macs"].get<double>());

  const Said none = run(folder, "prune m --pattern channels --macs 10 --epochs 0 --out n");
  EXPECT_EQ(none.status, 2) << none.all();
  EXPECT_TRUE(contains(none.err, "macs")) << none.err;

  const Said sensitivity = run(folder, "sensitivity m --images 200 --sparsities 0.5 0.9 --json");
  ASSERT_EQ(sensitivity.status, 0) << sensitivity.err;
  EXPECT_EQ(sensitivity.json()["sparsity_of"].size(), 2u);

  const Said student = run(folder, "distill m --student mlp:8 --epochs 2 --json");
  ASSERT_EQ(student.status, 0) << student.err;
  EXPECT_EQ(student.json()["runs"][0]["after"]["parameters"], 64 * 8 + 8 + 8 * 10 + 10);

  write_file(folder / "other.toml",
             "model = \"lenet5\"\ndata = \"mnist\"\n[[stage]]\ntype = \"train\"\nteacher = \"m\"");
  for (const auto& [line, message] : std::vector<std::pair<std::string, std::string>>{
           {"prune m --sparsity 1 --out x", "in [0,1)"},
           {"prune m --pattern channels --milliseconds 0.0000001 --epochs 0 --out x", "can't be met"},
           {"prune m --out x", "either sparsity"},
           {"prune m --sparsity 0.5 --pattern \"block 7x1\" --out x", "7"},
           {"prune m --sparsity 0.5 --pattern chanels --out x", "did you mean 'channels'?"},
           {"prune m --sparsity 0.5 --data mnist --out x", "expected a network for mnist, images (1,28,28)"},
           {"run other.toml --out x", "expected a teacher for mnist, images (1,28,28) in 10 classes; m was trained on"},
           {"prune m --sparsity 0.5 --criterion magnitud --out x", "did you mean 'magnitude'?"},
           {"distill m --out x", "needs a network"},
           {"compact nothing.safetensors", "nothing.safetensors"}}) {
    const Said said = run(folder, line);
    EXPECT_EQ(said.status, 2) << line << said.all();
    EXPECT_TRUE(contains(said.err, message)) << line << "\n" << said.err;
  }
}

}  // namespace
}  // namespace espalier::testing
