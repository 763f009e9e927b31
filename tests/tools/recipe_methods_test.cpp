// Recipes with every way of pruning and of learning from a teacher, on digits: what they leave, that they resume, and
// what mistakes are told.
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "run_command.h"

namespace espalier::testing {
namespace {

namespace fs = std::filesystem;

std::string recipe(const std::string& stages) {
  return "model = \"mlp:24,16\"\ndata = \"digits\"\nvalidation = 0.2\n" + stages;
}

const std::string kTrain = "[[stage]]\ntype = \"train\"\nepochs = 3\n";

/// Figures of the network that a recipe leaves.
nlohmann::json after(const Folder& folder, const std::string& stages) {
  write_file(folder / "r.toml", recipe(stages));
  const Said said = run(folder, "run r.toml --out r --overwrite --json");
  EXPECT_EQ(said.status, 0) << said.err << stages;
  if (said.status != 0) return {};
  // The resolved recipe says the same.
  write_file(folder / "again.toml", read_file(folder / "r/recipe.toml"));
  EXPECT_EQ(run(folder, "run again.toml --check").out, read_file(folder / "r/recipe.toml") + "\n");
  return said.json()["runs"][0]["after"];
}

TEST(Budget, HoldsAfterTheTraining) {
  const Folder folder;
  const nlohmann::json result =
      after(folder, kTrain + "[[stage]]\ntype = \"prune\"\npattern = \"channels\"\nscope = \"layer\"\n" +
                        "macs = 0.4\nend = 0.5\nepochs = 2\n");
  EXPECT_LE(result["remaining_macs"], 0.4 * result["macs"].get<double>());
  // A hidden unit of the first layer has at most 64 + 16 MACs, one of the second 24 + 10.
  EXPECT_GE(result["remaining_macs"], 0.4 * result["macs"].get<double>() - 80);
  const nlohmann::json record = nlohmann::json::parse(read_file(folder / "r/2-prune/budget.json"));
  EXPECT_EQ(record["left"], result["remaining_macs"]);
  EXPECT_EQ(record["amount"], 0.4 * record["before"].get<double>());
}

TEST(Budget, LayersThatCollapseAreNamed) {
  const Folder folder;
  write_file(folder / "r.toml", recipe(kTrain + "[[stage]]\ntype = \"prune\"\npattern = \"channels\"\nepochs = 0\n" +
                                       "parameters = 0.17\nprotect = [\"fc2\"]\nscope = \"global\"\n"));
  const Said said = run(folder, "run r.toml --out r");
  ASSERT_EQ(said.status, 0) << said.err;
  EXPECT_TRUE(contains(said.err + said.out, "warning: next to nothing is left of fc1: ")) << said.err << said.out;
}

TEST(Validation, IsOnImagesThatTheNetworkWasNotTrainedOn) {
  const Folder folder;
  const auto prune = [&](const std::string& model, const std::string& options) {
    const Said said = run(folder, "prune " + model + " --sparsity 0.5 --epochs 1 --overwrite " + options);
    EXPECT_EQ(said.status, 0) << said.err;
    return said.err + said.out;
  };
  const auto resolved = [&](const std::string& file) { return read_file(folder / (file + "/recipe.toml")); };
  // Trained on all images: none are left to choose an epoch by.
  ASSERT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --out all").status, 0);
  EXPECT_TRUE(contains(prune("all", ""), "no validation: all/model.safetensors was trained on all training images"));
  EXPECT_TRUE(contains(resolved("all/prune"), "validation = 0.0\n"));
  EXPECT_TRUE(contains(resolved("all/prune"), "keep = \"last\""));
  EXPECT_TRUE(contains(prune("all", "--validation 0.1"), "warning: all/model.safetensors was trained on images of"));
  // What comes of it knows these images too.
  EXPECT_TRUE(contains(prune("all/prune", ""), "all/prune/model.safetensors was trained on all training images"));
  // Trained on a part: the same images are set aside, whatever the seed, in the prunings after it too.
  ASSERT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --validation 0.2 --seed 3 --out part").status, 0);
  EXPECT_TRUE(contains(prune("part", "--seed 5"),
                       "validation on the 20 % of the training images that part/model.safetensors was not trained on"));
  EXPECT_TRUE(contains(resolved("part/prune"), "validation = 0.2\n"));
  EXPECT_TRUE(contains(resolved("part/prune"), "validation_seed = 3\n"));
  prune("part/prune", "--seed 7");
  EXPECT_TRUE(contains(resolved("part/prune/prune"), "validation_seed = 3\n"));
  EXPECT_FALSE(contains(prune("part", "--validation 0.2"), "warning"));
  EXPECT_TRUE(contains(prune("part", "--validation 0.3"), "warning"));
  EXPECT_TRUE(contains(prune("part", "--validation 0"), "none was asked for"));
  // A student is a fresh network, but its teacher knows the images.
  const Said taught = run(folder, "distill part --student mlp:4 --epochs 1");
  EXPECT_TRUE(contains(taught.err + taught.out, "validation on the 20 %")) << taught.err;
  // A recipe's last stage may learn from the validation images too.
  write_file(folder / "r.toml", recipe("[[stage]]\ntype = \"train\"\nepochs = 1\ninclude_validation = true\n"));
  ASSERT_EQ(run(folder, "run r.toml --out r").status, 0);
  EXPECT_TRUE(contains(prune("r", ""), "was trained on all training images"));
}

TEST(Lottery, PrunesInRoundsAndKeepsThem) {
  const Folder folder;
  const nlohmann::json ticket = after(folder,
                                      "[[stage]]\ntype = \"lottery\"\nrounds = 2\nrate = 0.5\nscope = \"global\"\n"
                                      "rewind_to = 5\nepochs = 3\n");
  EXPECT_NEAR(ticket["sparsity"].get<double>(), 0.75, 1e-3);
  EXPECT_GT(ticket["accuracy"], 0.5);
  const nlohmann::json rounds = nlohmann::json::parse(read_file(folder / "r/1-lottery/rounds/rounds.json"));
  ASSERT_EQ(rounds["rounds"].size(), 3u);
  EXPECT_EQ(rounds["settings"]["rewind_step"], 5);
  EXPECT_TRUE(rounds["rounds"][2]["test_accuracy"].is_null()) << "nothing is chosen on the test set";
  EXPECT_FALSE(fs::exists(folder / "r/1-lottery/rounds/round-0/checkpoint.safetensors"));
  // Started anew, it forgets the older search.
  write_file(folder / "r.toml", recipe("[[stage]]\ntype = \"lottery\"\nrounds = 1\nepochs = 1\n"));
  ASSERT_EQ(run(folder, "run r.toml --out r --overwrite").status, 0);
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "r/1-lottery/rounds/rounds.json"))["rounds"].size(), 2u);
}

TEST(Adaptive, StaysWithinTheLoss) {
  const Folder folder;
  const nlohmann::json pruned = after(folder, kTrain +
                                                  "[[stage]]\ntype = \"adaptive\"\nepochs = 3\ntolerance = 0.05\n"
                                                  "rounds = 3\nstep = 0.4\nteacher = \"start\"\n");
  const nlohmann::json search = nlohmann::json::parse(read_file(folder / "r/2-adaptive/rounds/rounds.json"));
  double accepted = 0;
  for (const nlohmann::json& round : search["rounds"])
    if (round["accepted"].get<bool>()) accepted = round["sparsity"];
  EXPECT_GT(accepted, 0);
  EXPECT_NEAR(pruned["sparsity"].get<double>(), accepted, 1e-9);
}

TEST(LearnedMasks, ReachTheirSparsityAndThresholdsRemoveSome) {
  const Folder folder;
  EXPECT_NEAR(after(folder, kTrain + "[[stage]]\ntype = \"learned-masks\"\nsparsity = 0.8\nepochs = 4\n")["sparsity"]
                  .get<double>(),
              0.8, 1e-3);
  const double removed = after(
      folder, kTrain + "[[stage]]\ntype = \"learned-masks\"\nselection = \"threshold\"\nepochs = 4\n")["sparsity"];
  EXPECT_GT(removed, 0);
  EXPECT_LT(removed, 1);
}

TEST(L0, MoreLambdaLeavesFewerChannels) {
  const Folder folder;
  std::vector<double> parameters;
  for (const char* lambda : {"0.0", "2.0"})
    parameters.push_back(
        after(folder, fmt::format("{}[[stage]]\ntype = \"l0\"\npattern = \"channels\"\nopen = 0.5\nlambda = {}\n"
                                  "epochs = 8\noptimizer = \"adam\"\nlr = 0.02\nschedule = \"constant\"\n"
                                  "[[stage]]\ntype = \"compact\"\n",
                                  kTrain, lambda))["parameters"]);
  EXPECT_LT(parameters[1], 0.9 * parameters[0]);
}

TEST(Movement, IsACriterionOfPruneStages) {
  const Folder folder;
  EXPECT_NEAR(
      after(folder,
            kTrain + "[[stage]]\ntype = \"prune\"\ncriterion = \"movement\"\nsparsity = 0.6\nepochs = 3\n")["sparsity"]
          .get<double>(),
      0.6, 1e-3);
}

TEST(Criteria, OfUntrainedNetworksSayWhatToUseOnATrainedOne) {
  const Folder folder;
  write_file(folder / "r.toml", recipe("[[stage]]\ntype = \"train\"\nepochs = 20\n[[stage]]\ntype = \"prune\"\n"
                                       "criterion = \"grasp\"\nsparsity = 0.5\nepochs = 0\n"));
  const Said said = run(folder, "run r.toml --out r");
  EXPECT_EQ(said.status, 2);
  EXPECT_TRUE(contains(said.err, "that of guessing 2.3")) << said.err;
  // Of a network that is trained already it is told before anything is written.
  for (const char* epochs : {"0", "1"}) {
    const Said refused =
        run(folder, fmt::format("prune r/1-train -c grasp --sparsity 0.5 --epochs {} --out p", epochs));
    EXPECT_EQ(refused.status, 2);
    EXPECT_TRUE(contains(refused.err, "that of guessing 2.3")) << refused.err;
    EXPECT_FALSE(fs::exists(folder / "p"));
  }
}

TEST(Prune, SaysWhatRemovesNothing) {
  const Folder folder;
  const std::string channels = "type = \"prune\"\npattern = \"channels\"\nepochs = 0\n";
  // 24 and 16 units: 1 % is less than half of one.
  write_file(folder / "r.toml", recipe("[[stage]]\n" + channels + "sparsity = 0.01\n"));
  const Said nothing = run(folder, "run r.toml --out r");
  EXPECT_EQ(nothing.status, 0) << nothing.all();
  EXPECT_TRUE(contains(nothing.out, "warning: nothing was removed")) << nothing.out;
  // Less than what went before.
  write_file(folder / "r.toml",
             recipe("[[stage]]\n" + channels + "sparsity = 0.5\n[[stage]]\n" + channels + "sparsity = 0.25\n"));
  const Said less = run(folder, "run r.toml --out r --overwrite");
  EXPECT_TRUE(contains(less.out, "warning: nothing was removed")) << less.out;
  EXPECT_EQ(less.out.find("warning: nothing"), less.out.rfind("warning: nothing")) << "by the second only";
  write_file(folder / "r.toml", recipe("[[stage]]\ntype = \"lottery\"\npattern = \"channel 0\"\nrounds = 1\nrate = "
                                       "0.01\nepochs = 1\n"));
  const Said ticket = run(folder, "run r.toml --out r --overwrite");
  EXPECT_TRUE(contains(ticket.out, "warning: round 1 removed nothing of fc1.weight, fc2.weight, fc3.weight"))
      << ticket.out;
}

TEST(Prune, AnnouncesWhatWasSetByHand) {
  const Folder folder;
  write_file(folder / "r.toml", recipe("[[stage]]\ntype = \"prune\"\nsparsity = 0.5\nepochs = 0\n"
                                       "sparsity_of = { \"fc1.weight\" = 0.9 }\n"));
  const Said said = run(folder, "run r.toml --out r");
  EXPECT_TRUE(contains(said.out, "prune 50 % of the other weights, 90 % of fc1.weight, by magnitude")) << said.out;
}

TEST(Prune, ResumeInAFolderWithoutARunSaysSo) {
  const Folder folder;
  after(folder, kTrain);
  for (const char* line : {"prune r --resume", "prune r --resume --out nothing", "prune --resume --out nothing",
                           "distill r --resume --out nothing"}) {
    const Said said = run(folder, line);
    EXPECT_EQ(said.status, 2) << line;
    EXPECT_TRUE(contains(said.err, "expected a run to resume, found none")) << line << said.err;
    EXPECT_FALSE(fs::exists(folder / "nothing") || fs::exists(folder / "r/prune")) << line;
  }
}

TEST(Collapse, IsWarnedOf) {
  const Folder folder;
  // Of 2,080 weights ten stay: fc1 has 1,536 of them.
  write_file(folder / "r.toml", recipe("[[stage]]\ntype = \"prune\"\nsparsity = 0.995\nepochs = 0\n"));
  const Said said = run(folder, "run r.toml --out r");
  EXPECT_EQ(said.status, 0);
  EXPECT_TRUE(contains(said.out, "warning: next to nothing is left of fc1.weight: ")) << said.out;
  write_file(folder / "r.toml", recipe("[[stage]]\ntype = \"prune\"\nsparsity = 0.5\nepochs = 0\n"));
  EXPECT_FALSE(contains(run(folder, "run r.toml --out r --overwrite").out, "warning"));
}

TEST(WoodFisher, TheWeightsThatRemainMakeUpForTheOthers) {
  const Folder folder;
  const std::string prune =
      kTrain + "[[stage]]\ntype = \"prune\"\ncriterion = \"woodfisher\"\nsparsity = 0.8\nepochs = 0\n";
  const nlohmann::json without = after(folder, prune), with = after(folder, prune + "update = true\n");
  EXPECT_EQ(with["sparsity"], without["sparsity"]);
  EXPECT_GT(with["accuracy"].get<double>(), without["accuracy"].get<double>() + 0.02);
  // As does a budget, and as the command does.
  const Said command = run(folder, "prune r/1-train -c woodfisher --epochs 0 --update --parameters 0.5 --out p --json");
  ASSERT_EQ(command.status, 0) << command.err;
  EXPECT_TRUE(contains(command.err, "the others updated")) << command.err;
}

TEST(Regrow, AShareOfTheRemovedWeightsComesBackAt0) {
  const Folder folder;
  const std::string prune = kTrain + "[[stage]]\ntype = \"prune\"\nsparsity = 0.8\nepochs = 0\n";
  const nlohmann::json pruned = after(folder, prune);
  const nlohmann::json grown = after(folder, prune + "[[stage]]\ntype = \"regrow\"\nshare = 0.5\n");
  EXPECT_NEAR(grown["sparsity"].get<double>(), pruned["sparsity"].get<double>() / 2, 1e-3);
  EXPECT_EQ(grown["accuracy"], pruned["accuracy"]);
  const nlohmann::json some =
      after(folder, prune + "[[stage]]\ntype = \"regrow\"\nshare = 1.0\nprotect = [\"fc1.weight\", \"fc2*\"]\n");
  EXPECT_LT(some["sparsity"], pruned["sparsity"]);
  EXPECT_GT(some["sparsity"], grown["sparsity"]);
}

TEST(Inputs, AtOnceNoMoreGoesThanWasAsked) {
  const Folder folder;
  // Rows and input features of fc1 have its weights in common. 1,536 and 384 weights are pruned, 160 are the outputs'.
  for (const char* scope : {"global", "layer"}) {
    const double sparsity =
        after(folder, fmt::format("{}[[stage]]\ntype = \"prune\"\npattern = \"channels\"\ninputs = [\"fc1.weight\"]\n"
                                  "scope = \"{}\"\nsparsity = 0.5\nepochs = 0\n",
                                  kTrain, scope))["sparsity"];
    EXPECT_NEAR(sparsity * 2080 / 1920, 0.5, 0.03) << scope;
  }
}

TEST(Terms, AStudentLearnsFromLayersToo) {
  const Folder folder;
  const std::string student = kTrain + "[[stage]]\ntype = \"distill\"\nmodel = \"mlp:12,8\"\nepochs = 2\n";
  after(folder, student);
  const std::string plain = read_file(folder / "r/model.safetensors");
  for (const char* term : {"type = \"hint\"\nstudent = \"fc1\"\nteacher = \"fc1\"\nweight = 0.5",
                           "type = \"relational-distance\"", "type = \"relational-angle\"\nweight = 2.0"}) {
    EXPECT_GT(after(folder, student + "[[stage.term]]\n" + term + "\n")["accuracy"], 0.3) << term;
    EXPECT_NE(read_file(folder / "r/model.safetensors"), plain) << term;
  }
  write_file(folder / "conv.toml",
             "model = \"resnet20\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = 1\nbatch_size = 256\n"
             "[[stage]]\ntype = \"train\"\nepochs = 1\nteacher = \"1-train\"\nbatch_size = 256\n"
             "[[stage.term]]\ntype = \"attention\"\nstudent = \"conv1\"\nteacher = \"conv1\"\nweight = 10.0\n");
  const Said said = run(folder, "run conv.toml --out c");
  EXPECT_EQ(said.status, 0) << said.err;
  EXPECT_TRUE(contains(said.all(), ", attention")) << said.all();
}

TEST(Methods, AStoppedRunEndsWithTheSameBits) {
  struct Case {
    const char *stage, *wait_for;
  };
  const std::vector<Case> cases = {
      {"type = \"lottery\"\nname = \"s\"\nrounds = 2\nrewind_to = 7\nepochs = 25\n", "rounds/round-1/checkpoint"},
      {"type = \"adaptive\"\nname = \"s\"\nrounds = 3\nepochs = 60\ntolerance = 5.0\n", "rounds/round-2/checkpoint"},
      {"type = \"learned-masks\"\nname = \"s\"\nepochs = 40\n", "checkpoint"},
      {"type = \"l0\"\nname = \"s\"\nepochs = 40\npattern = \"channel 0\"\n", "checkpoint"},
      {"type = \"prune\"\nname = \"s\"\nepochs = 40\ncriterion = \"movement\"\nsparsity = 0.8\n", "checkpoint"},
      {"type = \"train\"\nname = \"s\"\nepochs = 40\nteacher = \"1-train\"\n[[stage.term]]\ntype = \"hint\"\n"
       "student = \"fc1\"\nteacher = \"fc2\"\n",
       "checkpoint"}};
  for (const Case& c : cases) {
    const Folder folder;
    write_file(folder / "r.toml",
               recipe("[[stage]]\ntype = \"train\"\nepochs = 1\n[[stage]]\n" + std::string(c.stage)));
    const Said stopped =
        run_and_interrupt(folder, "run r.toml --out one", fmt::format("one/s/{}.safetensors", c.wait_for));
    ASSERT_EQ(stopped.status, 130) << c.stage << stopped.all();
    const Said resumed = run(folder, "run r.toml --out one --resume");
    ASSERT_EQ(resumed.status, 0) << c.stage << resumed.all();
    ASSERT_EQ(run(folder, "run r.toml --out two").status, 0) << c.stage;
    EXPECT_EQ(read_file(folder / "one/model.safetensors"), read_file(folder / "two/model.safetensors")) << c.stage;
  }
}

TEST(Methods, MistakesAreToldWithLineAndKeys) {
  const Folder folder;
  struct Case {
    std::string stage;
    const char* message;
  };
  const std::string term = "type = \"train\"\nteacher = \"start\"\n[[stage.term]]\n";
  const std::vector<Case> cases = {
      {"type = \"lotery\"", "did you mean 'lottery'?"},
      {"type = \"lottery\"\nround = 3", "r.toml:6: a stage has no key 'round', did you mean 'rounds'?"},
      {"type = \"lottery\"\nrate = 1.5", "expected rate in (0,1), got 1.5"},
      {"type = \"lottery\"\nscope = \"erk\"", "\"layer\" or \"global\""},
      {"type = \"lottery\"\nepochs = 0", "epochs of at least 1"},
      {"type = \"lottery\"\nrewind_to = 100000\nepochs = 1", "rewind_step"},
      {"type = \"lottery\"\nscope = \"global\"\nrate_of = { \"fc1.weight\" = 0.1 }", "expected scope = \"layer\""},
      {"type = \"lottery\"\nrate_of = { \"fc9.weight\" = 0.1 }", "no site is named 'fc9.weight'"},
      {"type = \"adaptive\"\nstep = 0.01", "smallest_step <= step"},
      {"type = \"adaptive\"\nprotect = [\"fc9\"]", "no site is named 'fc9'"},
      {"type = \"adaptive\"\ncriterion = \"movement\"", "criterion = \"movement\" knows nothing before a training"},
      {"type = \"learned-masks\"\nselection = \"topk\"", "expected a selection: top-k, threshold"},
      {"type = \"learned-masks\"\nend = 0.9", "end <= harden"},
      {"type = \"learned-masks\"\nselection = \"threshold\"\npattern = \"2 of 4\"", "selection = \"top-k\""},
      {"type = \"learned-masks\"\nselection = \"threshold\"\nprotect = [\"fc9\"]", "no site is named 'fc9'"},
      {"type = \"surgery\"\nharden = 0.0", "expected harden in (0,1], got 0"},
      {"type = \"surgery\"\nc_of = { \"fc9.weight\" = 2.0 }", "no site is named 'fc9.weight'"},
      {"type = \"surgery\"\nprotect = [\"fc9\"]", "no site is named 'fc9'"},
      {"type = \"sparse-training\"\nprotect = [\"fc9\"]", "no site is named 'fc9'"},
      {"type = \"prune\"\nsparsity = 0.5\nupdate = true\nepochs = 0", "belongs to criterion = \"woodfisher\""},
      {"type = \"prune\"\nsparsity = 0.5\nupdate = true\ncriterion = \"woodfisher\"", "expected epochs = 0"},
      {"type = \"regrow\"\nshare = 1.5", "share"},
      {"type = \"regrow\"\nbatches = 0", "batches of at least 1"},
      {"type = \"regrow\"\npattern = \"2 of 4\"", "can't be kept"},
      {"type = \"regrow\"\nprotect = [\"fc9\"]", "no site is named 'fc9'"},
      {"type = \"regrow\"\nepochs = 1", "a stage has no key 'epochs'"},
      {"type = \"train\"\nslimming = 0.1", "no BatchNorm"},
      {"type = \"train\"\noptimizer = \"sgdd\"", "did you mean 'sgd'?"},
      {"type = \"train\"\naugment = \"flipp\"", "did you mean 'flip'?"},
      {"type = \"l0\"\npattern = \"2 of 4\"", "can't be kept"},
      {"type = \"prune\"\ncriterion = \"hrank\"\nsparsity = 0.5", "prune 'channel 0' or channels"},
      {"type = \"adaptive\"\ncriterion = \"connections\"", "prune 'channel 0' or channels"},
      {"type = \"train\"\nepochs = 1\n[[stage]]\ntype = \"lottery\"\ncriterion = \"fpgm\"", "stage '2-lottery': "},
      {"type = \"l0\"\nlambda = -1", "expected lambda of at least 0, got -1"},
      {"type = \"l0\"\nlamda = 1", "did you mean 'lambda'?"},
      {"type = \"prune\"\ncriterion = \"movement\"\nsparsity = 0.5\nepochs = 0", "epochs of at least 1"},
      {"type = \"prune\"\ncriterion = \"movement\"\nmacs = 0.5", "got a budget"},
      {"type = \"prune\"\nsparsity = 0.5\nrank_by = \"score\"", "rank_by belongs to a budget"},
      {"type = \"prune\"\nmacs = 0.5\nrank_by = \"cost\"", "expected a ranking: score-per-cost, score"},
      {"type = \"prune\"\ncriterion = \"movement\"\nsparsity = 0.5\ncurve = \"one-shot\"", "a begin"},
      {term + "type = \"hnt\"", "did you mean 'hint'?"},
      {term + "type = \"hint\"\nstudent = \"fc1\"", "r.toml:7: a term of type hint compares two layers"},
      {term + "type = \"hint\"\nstudnt = \"fc1\"\nteacher = \"fc1\"", "did you mean 'student'?"},
      {"type = \"prune\"\nratio = 1e17", "too large"},
      {"type = \"prune\"\nratio = inf", "expected ratio of at least 1, got inf"},
      {"type = \"variational\"\nthreshold = nan", "expected threshold that is finite, got nan"},
      {term + "type = \"relational-angle\"\nwieght = 2", "a term has no key 'wieght', did you mean 'weight'?"},
      {term + "type = \"attention\"\nstudent = \"fc1\"\nteacher = \"fc1\"", "r.toml:4: stage '1-train': "},
      {term + "type = \"relational-angle\"\nweight = 1e300", "the loss of the first two images is"},
      {"type = \"train\"\nteacher = \"start\"\ntemperature = 1e-300",
       "expected temperature of at least 0.01, got 1e-300"},
      {term + "type = \"hint\"\nstudent = \"fc9\"\nteacher = \"fc1\"", "the student has no layer 'fc9'"},
      {"type = \"train\"\n[[stage.term]]\ntype = \"relational-angle\"", "belong to a teacher"},
      {"type = \"lottery\"\nteacher = \"start\"\n[[stage.term]]\ntype = \"hint\"\nstudent = \"fc1\"\nteacher = \"fc1\"",
       "trains many times"},
  };
  for (const Case& c : cases) {
    write_file(folder / "r.toml", recipe("[[stage]]\n" + c.stage));
    const Said said = run(folder, "run r.toml --out x");
    EXPECT_EQ(said.status, 2) << c.stage;
    EXPECT_TRUE(contains(said.err, c.message)) << c.stage << "\n" << said.err;
  }
  write_file(folder / "r.toml", "model = \"mlp:8\"\ndata = \"digits\"\nvalidation = 0\n[[stage]]\ntype = \"adaptive\"");
  EXPECT_TRUE(contains(run(folder, "run r.toml --out x").err, "expected validation above 0"));
}

}  // namespace
}  // namespace espalier::testing
