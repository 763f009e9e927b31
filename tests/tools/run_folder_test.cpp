// Runs that meet in one folder, one after the other or at the same time, and runs that end badly.
#include <csignal>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "run_command.h"

namespace espalier::testing {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLong = "train --model mlp:512,512 --data digits --epochs 100000 --schedule constant";

TEST(Folders, OneProcessAtATimeAndADeadOneIsNoHindrance) {
  const Folder folder;
  Running first(folder, fmt::format("{} --out r", kLong));
  ASSERT_TRUE(first.wait_for([&] { return fs::exists(folder / "r/checkpoint.safetensors"); }));
  for (const std::string line : {"train --resume --out r", "train --model mlp:8 --data digits --overwrite --out r",
                                 "prune r --sparsity 0.5 --epochs 0 --out r --overwrite"}) {
    const Said second = run(folder, line);
    EXPECT_EQ(second.status, 2) << line << second.all();
    EXPECT_TRUE(contains(second.err, fmt::format("r is held by process {} on ", first.process()))) << second.err;
    EXPECT_TRUE(contains(second.err, "train --model mlp:512,512")) << second.err;
  }
  first.send(SIGKILL);
  EXPECT_EQ(first.finish().status, 128 + SIGKILL);
  // A second chance for the file that was half written: the next run clears it away.
  write_file(folder / "r/checkpoint.safetensors.tmp-4711-0", "half of a checkpoint");
  const Said next = run(folder, "train --model mlp:8 --data digits --epochs 1 --overwrite --out r");
  EXPECT_EQ(next.status, 0) << next.all();
  for (const auto& entry : fs::directory_iterator(folder / "r"))
    EXPECT_FALSE(contains(entry.path().filename().string(), ".tmp-")) << entry.path();
}

TEST(Folders, ANetworkOfARunUnderWayIsSaidToBeOne) {
  const Folder folder;
  Running first(folder, fmt::format("{} --out r", kLong));
  ASSERT_TRUE(first.wait_for([&] { return fs::exists(folder / "r/checkpoint.safetensors"); }));
  const std::string warning = fmt::format("is still being trained by process {} on ", first.process());
  for (const char* line : {"prune r --sparsity 0.5 --epochs 0", "distill r --student mlp:8 --epochs 1",
                           "compact r -o c.safetensors", "compact r -o d.safetensors --json"}) {
    const Said said = run(folder, line);
    EXPECT_EQ(said.status, 0) << line << said.all();
    EXPECT_TRUE(contains(said.all(), "warning: r/checkpoint.safetensors " + warning)) << line << said.all();
  }
  first.send(SIGKILL);
  first.finish();
  EXPECT_FALSE(contains(run(folder, "prune r --sparsity 0.5 --epochs 0").all(), "still being trained"));
}

TEST(Folders, RunsThatStartTogetherTakeFoldersOfTheirOwn) {
  const Folder folder;
  const auto folders_of = [&](const std::vector<std::string>& lines) {
    std::vector<std::unique_ptr<Running>> all;
    for (const std::string& line : lines) all.push_back(std::make_unique<Running>(folder, line + " --json"));
    std::set<std::string> taken;
    for (const auto& one : all) {
      const Said said = one->finish();
      EXPECT_EQ(said.status, 0) << said.err;
      taken.insert(said.json().value("folder", ""));
    }
    return taken;
  };
  const std::string train = "train --model mlp:16 --data digits --epochs 1";
  EXPECT_EQ(folders_of({train, train, train}),
            (std::set<std::string>{"runs/mlp-16-digits", "runs/mlp-16-digits-2", "runs/mlp-16-digits-3"}));
  const std::string prune = "prune runs/mlp-16-digits --epochs 0 --sparsity ";
  const std::set<std::string> prunings = folders_of({prune + "0.5", prune + "0.9"});
  EXPECT_EQ(prunings, (std::set<std::string>{"runs/mlp-16-digits/prune", "runs/mlp-16-digits/prune-2"}));
  std::set<std::string> sparsities;
  for (const std::string& pruned : prunings)
    sparsities.insert(fmt::format(
        "{:.1f}", nlohmann::json::parse(read_file(folder / (pruned + "/result.json")))["runs"][0]["after"]["sparsity"]
                      .get<double>()));
  EXPECT_EQ(sparsities, (std::set<std::string>{"0.5", "0.9"}));
}

TEST(Folders, SeedsOfAnOlderRunAreNeverTakenForTheNewOnes) {
  const Folder folder;
  const std::string line = "train --model mlp:512,512 --data digits --epochs 4 --seeds 3";
  ASSERT_EQ(run(folder, line + " --out r").status, 0);
  const std::string before = read_file(folder / "r/seed-0/checkpoint.safetensors");
  const Said stopped = run_and_interrupt(folder, line + " --weight-decay 0.05 --out r --overwrite", [&] {
    const std::string now = read_file(folder / "r/seed-0/checkpoint.safetensors");
    return !now.empty() && now != before;
  });
  ASSERT_EQ(stopped.status, 130) << stopped.all();
  ASSERT_TRUE(contains(stopped.out, "espalier train --resume --out r")) << stopped.out;
  EXPECT_FALSE(fs::exists(folder / "r/seed-1/checkpoint.safetensors"));
  ASSERT_EQ(run(folder, "train --resume --out r").status, 0);
  ASSERT_EQ(run(folder, line + " --weight-decay 0.05 --out fresh").status, 0);
  for (int seed = 0; seed < 3; ++seed)
    EXPECT_TRUE(read_file(folder / fmt::format("r/seed-{}/model.safetensors", seed)) ==
                read_file(folder / fmt::format("fresh/seed-{}/model.safetensors", seed)))
        << seed;
  // Fewer seeds: what nobody replaces goes with the end of the new run.
  ASSERT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --out r --overwrite").status, 0);
  EXPECT_TRUE(fs::exists(folder / "r/model.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "r/seed-2")) << "nothing is left in it";
}

TEST(Folders, ASlashAtTheEndIsNoOtherFolder) {
  const Folder folder;
  ASSERT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --seeds 2 --out r/").status, 0);
  EXPECT_TRUE(fs::exists(folder / "r/seed-0/model.safetensors") && fs::exists(folder / "r/seed-1/model.safetensors"));
}

TEST(Folders, EvalSaysThatANetworkIsOfAnOlderRun) {
  const Folder folder;
  ASSERT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --out r").status, 0);
  EXPECT_FALSE(contains(run(folder, "eval r").all(), "warning"));
  const std::string identity = read_file(folder / "r/run.json");
  const Said stopped = run_and_interrupt(folder, fmt::format("{} --out r --overwrite", kLong),
                                         [&] { return read_file(folder / "r/run.json") != identity; });
  ASSERT_EQ(stopped.status, 130) << stopped.all();
  const Said said = run(folder, "eval r");
  EXPECT_EQ(said.status, 0) << said.all();
  EXPECT_TRUE(contains(said.all(), "warning: r/model.safetensors was not trained by the run in r/run.json"))
      << said.all();
}

TEST(Folders, AKillBetweenTheStepsOfAnOverwriteMixesNothing) {
  const Folder folder;
  const std::string line = "train --model mlp:16 --data digits --out r --epochs ";
  ASSERT_EQ(run(folder, line + "2").status, 0);
  const std::string network = read_file(folder / "r/model.safetensors"),
                    checkpoint = read_file(folder / "r/checkpoint.safetensors");
  // Killed when the old state was removed and the new identity not yet written: the old run is trained once more.
  fs::remove(folder / "r/checkpoint.safetensors");
  ASSERT_EQ(run(folder, "train --resume --out r").status, 0);
  EXPECT_TRUE(read_file(folder / "r/model.safetensors") == network);
  // The order that it never has: an old checkpoint under a new identity is refused by the checkpoint itself.
  for (const auto& [flags, difference] :
       std::vector<std::pair<std::string, std::string>>{{"2 --weight-decay 0.05", "weight_decay: was "},
                                                        {"2 --momentum 0.5", "optimizer.momentum: was "},
                                                        {"2 --no-nesterov", "optimizer.nesterov: was true, is false"},
                                                        {"2 --augment shift", "augmentations"},
                                                        {"2 --validation 0.2 --patience 1", "patience: was 0, is 1"},
                                                        {"3", "epochs: was 2, is 3"}}) {
    ASSERT_EQ(run(folder, line + flags + " --overwrite").status, 0);
    write_file(folder / "r/checkpoint.safetensors", checkpoint);
    const Said said = run(folder, "train --resume --out r");
    EXPECT_EQ(said.status, 2) << flags << said.all();
    EXPECT_TRUE(contains(said.err, difference)) << flags << said.err;
  }
}

TEST(Folders, ARefusedResumeChangesNothing) {
  const Folder folder;
  ASSERT_EQ(run(folder, "train --model mlp:16 --data digits --epochs 2 --out r").status, 0);
  const std::string identity = read_file(folder / "r/run.json");
  for (const auto& [flags, message] :
       std::vector<std::pair<std::string, std::string>>{{"--lr 0.5", "lr: was 0.05, is 0.5"},
                                                        {"--epochs 40", "depend on where it ends"},
                                                        {"--augment flip", "augment: was \"none\", is \"flip\""},
                                                        {"--seeds 2", "seeds: was 1, is 2"}}) {
    const Said said = run(folder, "train --resume --out r " + flags);
    EXPECT_EQ(said.status, 2) << flags << said.all();
    EXPECT_TRUE(contains(said.err, message)) << flags << said.err;
    EXPECT_EQ(read_file(folder / "r/run.json"), identity);
  }
  EXPECT_EQ(run(folder, "train --resume --out r").status, 0);
  EXPECT_EQ(run(folder, "train --resume --out nothing").status, 2);
  EXPECT_FALSE(fs::exists(folder / "nothing"));
}

TEST(Folders, FinishedNetworksStayWhenFewerSeedsAreAskedFor) {
  const Folder folder;
  const std::string line = "train --model mlp:8 --data digits --epochs 1 --out r";
  ASSERT_EQ(run(folder, line + " --seeds 3").status, 0);
  const std::string identity = read_file(folder / "r/run.json"), result = read_file(folder / "r/result.json");
  const Said fewer = run(folder, "train --resume --out r --seeds 2");
  EXPECT_EQ(fewer.status, 2) << fewer.all();
  EXPECT_TRUE(contains(fewer.err, "seeds: was 3, is 2")) << fewer.err;
  EXPECT_TRUE(fs::exists(folder / "r/seed-2/model.safetensors"));
  EXPECT_EQ(read_file(folder / "r/run.json"), identity);
  EXPECT_EQ(read_file(folder / "r/result.json"), result);
  ASSERT_EQ(run(folder, "train --resume --out r --seeds 4").status, 0);
  EXPECT_TRUE(fs::exists(folder / "r/seed-2/model.safetensors") && fs::exists(folder / "r/seed-3/model.safetensors"));
}

TEST(Folders, OnlyFoldersOfSeedsAreTouched) {
  const Folder folder;
  for (const char* own : {"r/seed-notes", "r/seed-", "elsewhere"}) {
    fs::create_directories(folder / own);
    write_file(folder / own + "/metrics.jsonl", "a user's own");
  }
  fs::create_directory_symlink(folder / "elsewhere", folder / "r/seed-7");
  ASSERT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --out r --overwrite").status, 0);
  for (const char* own : {"r/seed-notes", "r/seed-", "elsewhere"}) {
    EXPECT_EQ(read_file(folder / own + "/metrics.jsonl"), "a user's own") << own;
    EXPECT_FALSE(fs::exists(folder / own + "/.lock")) << own;
  }
}

TEST(Folders, ACompactionsRecordThatIsNoneIsNamed) {
  const Folder folder;
  write_file(folder / "r.toml",
             "model = \"mlp:8\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = 1\n"
             "[[stage]]\ntype = \"compact\"\n");
  ASSERT_EQ(run(folder, "run r.toml --out x").status, 0);
  for (const char* text : {"{}", "{\"kept\": 3}", "half of a fi"}) {
    write_file(folder / "x/2-compact/compaction.json", text);
    const Said said = run(folder, "run --resume --out x");
    EXPECT_EQ(said.status, 2) << text << said.all();
    EXPECT_TRUE(contains(said.err, "x/2-compact/compaction.json: not what a ")) << said.err;
  }
}

TEST(Folders, AConstantRateCanGoOnForLonger) {
  const Folder folder;
  const std::string line = "train --model mlp:16 --data digits --schedule constant --epochs ";
  ASSERT_EQ(run(folder, line + "2 --out r").status, 0);
  ASSERT_EQ(run(folder, "train --resume --out r --epochs 4").status, 0);
  ASSERT_EQ(run(folder, line + "4 --out whole").status, 0);
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "r/result.json"))["test_loss"],
            nlohmann::json::parse(read_file(folder / "whole/result.json"))["test_loss"]);
  const Said shorter = run(folder, "train --resume --out r --epochs 3");
  EXPECT_EQ(shorter.status, 2);
  EXPECT_TRUE(contains(shorter.err, "only be made longer")) << shorter.err;
}

TEST(Folders, TheAdvisedLineGoesOnWithEveryKindOfRun) {
  const Folder folder;
  ASSERT_EQ(run(folder, "train --model mlp:512,512 --data digits --epochs 1 --out m").status, 0);
  write_file(folder / "story.toml",
             "model = \"mlp:512,512\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = 40\n");
  for (const auto& [line, advice] : std::vector<std::pair<std::string, std::string>>{
           {"prune m --sparsity 0.5 --epochs 40", "prune --resume --out "},
           {"distill m --student mlp:512 --epochs 40", "distill --resume --out "},
           {"run story.toml --seed 3", "run --resume --out "}}) {
    ASSERT_EQ(run(folder, line + " --out whole --overwrite").status, 0) << line;
    fs::remove_all(folder / "a b");
    const Said stopped = run_and_interrupt(folder, line + " --out 'a b'", [&] {
      std::error_code not_yet;
      for (const auto& entry : fs::recursive_directory_iterator(folder / "a b", not_yet))
        if (entry.path().filename() == "checkpoint.safetensors") return true;
      return false;
    });
    ASSERT_EQ(stopped.status, 130) << stopped.all();
    ASSERT_TRUE(contains(stopped.out, "espalier " + advice + "'a b'")) << stopped.out;
    const Said resumed = run(folder, advice + "'a b'");
    ASSERT_EQ(resumed.status, 0) << resumed.all();
    EXPECT_TRUE(contains(resumed.out, "resuming")) << resumed.out;
    EXPECT_TRUE(read_file(folder / "a b/model.safetensors") == read_file(folder / "whole/model.safetensors")) << line;
  }
  const Said onto_itself = run(folder, "prune m --sparsity 0.5 --epochs 0 --out m --overwrite");
  EXPECT_EQ(onto_itself.status, 2);
  EXPECT_TRUE(contains(onto_itself.err, "m/model.safetensors would replace the network that it is made from"))
      << onto_itself.err;
}

TEST(Limits, TooLittleMemoryIsAnErrorAndNoEndlessLoop) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers reserve terabytes of addresses";
#endif
  const Folder folder;
  for (const int kilobytes : {140'000, 200'000, 260'000, 300'000, 420'000}) {
    const Said said = run(folder, "train --model mlp:16 --data digits --epochs 1 --overwrite --out r",
                          fmt::format("ulimit -v {};", kilobytes));
    if (kilobytes == 420'000 && said.status == 0) continue;  // enough for one thread
    EXPECT_EQ(said.status, 2) << kilobytes << said.all();
    EXPECT_TRUE(contains(said.err, "the limit of memory")) << kilobytes << said.err;
  }
  // It is said at the start, not by the first product: this command has none.
  const Said early = run(folder, "models list", "ulimit -v 300000;");
  EXPECT_EQ(early.status, 2) << early.all();
  EXPECT_TRUE(contains(early.err, "expected room for 2 buffers of 128 MiB")) << early.err;
}

}  // namespace
}  // namespace espalier::testing
