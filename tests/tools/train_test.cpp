// espalier train and eval: what is reported agrees, runs resume, and nothing good is lost when something goes wrong.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "run_command.h"

namespace espalier::testing {
namespace {

namespace fs = std::filesystem;

TEST(Train, LearnsDigitsAndEvalAgrees) {
  const Folder folder;
  const Said train = run(folder, "train --model mlp:32 --data digits --epochs 2 --json");
  ASSERT_EQ(train.status, 0) << train.err;
  const nlohmann::json result = train.json();
  for (const char* key :
       {"test_accuracy", "test_loss", "macro_f1", "parameters", "macs", "seconds", "images_per_second", "peak_bytes"})
    EXPECT_TRUE(result[key].is_number()) << key;
  EXPECT_GT(result["test_accuracy"], 0.8);
  EXPECT_TRUE(result["test_accuracy_std"].is_null()) << "one seed has no deviation";
  EXPECT_EQ(result["parameters"], 64 * 32 + 32 + 32 * 10 + 10);
  EXPECT_EQ(result["folder"], "runs/mlp-32-digits");
  EXPECT_EQ(std::count(train.out.begin(), train.out.end(), '\n'), 1) << train.out;
  EXPECT_TRUE(contains(train.err, "epoch 2/2")) << train.err;
  EXPECT_EQ(std::count(train.err.begin(), train.err.end(), '\r'), 0) << "no bar without a terminal";
  for (const char* file : {"model.safetensors", "checkpoint.safetensors", "metrics.jsonl", "run.json", "result.json"})
    EXPECT_TRUE(fs::exists(folder / ("runs/mlp-32-digits/" + std::string(file)))) << file;

  for (const char* what : {"eval --json", "eval runs/mlp-32-digits --json",
                           "eval runs/mlp-32-digits/model.safetensors --data digits --json --batch-size 7",
                           "eval runs/mlp-32-digits/checkpoint.safetensors --json"}) {
    const Said eval = run(folder, what);
    ASSERT_EQ(eval.status, 0) << eval.err;
    EXPECT_EQ(eval.json()["test_accuracy"], result["test_accuracy"]) << what;
    EXPECT_EQ(eval.json()["macro_f1"], result["macro_f1"]) << what;
    EXPECT_NEAR(eval.json()["test_loss"].get<double>(), result["test_loss"].get<double>(), 1e-5) << what;
    EXPECT_GT(eval.json()["peak_bytes"], 0);
  }
  const Said per_class = run(folder, "eval --per-class");
  EXPECT_TRUE(contains(per_class.out, "precision")) << per_class.out;
  const Said info = run(folder, "info runs/mlp-32-digits");
  EXPECT_TRUE(contains(info.out, "trained on  digits, images 1x8x8, 10 classes")) << info.out;

  // The second training of the same kind goes elsewhere; a named folder with a run is refused.
  EXPECT_EQ(run(folder, "train --model mlp:32 --data digits --epochs 1 --json").json()["folder"],
            "runs/mlp-32-digits-2");
  const Said again = run(folder, "train --model mlp:32 --data digits --epochs 1 --out runs/mlp-32-digits");
  EXPECT_EQ(again.status, 2);
  EXPECT_TRUE(contains(again.err, "--overwrite")) << again.err;
  EXPECT_EQ(run(folder, "train --model mlp:32 --data digits --epochs 1 --out runs/mlp-32-digits --overwrite").status,
            0);
}

TEST(Train, ATableOfOnesOwnIsTrainedEvaluatedAndPruned) {
  const Folder folder;
  std::string table = "a,b,y\n";
  for (int i = 0; i < 100; ++i)
    table += fmt::format("{},{},{}\n", i % 10, i / 10, 0.1 * (i % 10) - 0.05 * (i / 10) + 0.5);
  write_file(folder / "cars.csv", table);
  const Said train = run(
      folder, "train --model mlp:16 --data 'csv:cars.csv?test=0.3' --validation 0.2 --epochs 60 --batch-size 8 --json");
  ASSERT_EQ(train.status, 0) << train.err;
  const nlohmann::json result = train.json();
  EXPECT_EQ(result["folder"], "runs/mlp-16-cars-csv");
  EXPECT_GT(result["test_r2"], 0.9);
  EXPECT_FALSE(result.contains("test_accuracy"));
  EXPECT_FALSE(result.contains("macro_f1"));
  EXPECT_TRUE(contains(train.err, "val mse")) << train.err;
  EXPECT_FALSE(contains(train.err, "acc")) << train.err;
  const Said eval = run(folder, "eval --json");
  ASSERT_EQ(eval.status, 0) << eval.err;
  EXPECT_EQ(eval.json()["test_mse"], result["test_mse"]);
  EXPECT_TRUE(contains(run(folder, "info runs/mlp-16-cars-csv").out, "trained on  csv:cars.csv?test=0.3, inputs 2"));
  const Said prune = run(folder, "prune runs/mlp-16-cars-csv --pattern channels --sparsity 0.3 --epochs 2 --json");
  ASSERT_EQ(prune.status, 0) << prune.err;
  EXPECT_TRUE(prune.json().contains("test_mse")) << prune.out;
  EXPECT_TRUE(contains(run(folder, "compare runs/mlp-16-cars-csv runs/mlp-16-cars-csv/prune").out, "r2"));
  EXPECT_TRUE(contains(run(folder, "compact runs/mlp-16-cars-csv/prune").all(), "after"));
  EXPECT_TRUE(contains(run(folder, "train --model lenet5 --data csv:cars.csv").err, "mlp:64"));
  EXPECT_TRUE(contains(run(folder, "train --model mlp:8 --data csv:cars.csv --loss mze").err, "did you mean 'mse'"));
  EXPECT_TRUE(contains(run(folder, "predict x.png").err, "tells the class of an image"));
}

TEST(Train, TheSameSeedGivesTheSameBitsAndAnotherDoesNot) {
  const Folder folder;
  const auto weights = [&](const std::string& out, const std::string& more) {
    const Said said =
        run(folder, "train --model mlp:16 --data digits --epochs 1 --augment crop-cutout --out " + out + more);
    EXPECT_EQ(said.status, 0) << said.err;
    return read_file(folder / (out + "/model.safetensors"));
  };
  const std::string first = weights("a", ""), second = weights("b", ""), other = weights("c", " --seed 1");
  EXPECT_FALSE(first.empty());
  EXPECT_TRUE(first == second);
  EXPECT_FALSE(first == other);
}

TEST(Train, SeveralSeedsGiveMeanAndDeviation) {
  const Folder folder;
  const Said said = run(folder, "train --model mlp:16 --data digits --epochs 1 --seeds 3 --seed 5 --out r --json");
  ASSERT_EQ(said.status, 0) << said.err;
  const nlohmann::json json = said.json();
  ASSERT_EQ(json["runs"].size(), 3u);
  double mean = 0, squares = 0;
  for (const auto& one : json["runs"]) mean += one["test_accuracy"].get<double>() / 3;
  for (const auto& one : json["runs"]) squares += std::pow(one["test_accuracy"].get<double>() - mean, 2);
  EXPECT_NEAR(json["test_accuracy"].get<double>(), mean, 1e-12);
  EXPECT_NEAR(json["test_accuracy_std"].get<double>(), std::sqrt(squares / 2), 1e-12);
  EXPECT_EQ(json["runs"][2]["seed"], 7);
  EXPECT_TRUE(fs::exists(folder / "r/seed-6/model.safetensors"));
  // One of them alone gives the same.
  const Said alone = run(folder, "train --model mlp:16 --data digits --epochs 1 --seed 6 --out alone --json");
  EXPECT_EQ(alone.json()["test_accuracy"], json["runs"][1]["test_accuracy"]);
}

TEST(Train, EveryOptimiserScheduleAndModelFamilyRuns) {
  const Folder folder;
  for (const char* options : {"--model mlp:16 --optimizer adam --schedule cosine", "--model mlp:16 --optimizer adamw",
                              "--model mlp:16 --optimizer rmsprop --momentum 0.5 --schedule constant",
                              "--model mlp:16 --no-nesterov --schedule step:1,0.5 --warmup 1",
                              "--model mlp:16 --label-smoothing 0.1 --clip 1 --weight-decay 0 --schedule plateau",
                              "--model lstm-rows:16 --threads 2", "--model resnet20 --batch-size 512"}) {
    const Said said = run(folder, fmt::format("train --data digits --epochs 2 --overwrite --out r {} --json", options));
    EXPECT_EQ(said.status, 0) << options << "\n" << said.err;
    EXPECT_GT(said.json().value("test_accuracy", 0.0), 0.05) << options;
  }
}

TEST(Train, ValidationKeepsTheBestEpochAndStopsEarly) {
  const Folder folder;
  const Said said = run(folder,
                        "train --model mlp:32 --data digits --epochs 200 --schedule constant --validation 0.2 "
                        "--patience 2 --json");
  ASSERT_EQ(said.status, 0) << said.err;
  const nlohmann::json one = said.json()["runs"][0];
  EXPECT_EQ(one["stop"], "early stopping");
  EXPECT_EQ(one["epochs"].get<int>(), one["best_epoch"].get<int>() + 2);
  const Said best = run(folder, "eval runs/mlp-32-digits/best.safetensors --json");
  EXPECT_EQ(best.json()["test_accuracy"], said.json()["test_accuracy"]) << "the reported network is the best one";
}

TEST(Train, QuietLeavesTheResult) {
  const Folder folder;
  const Said said = run(folder, "train --model mlp:8 --data digits --epochs 1 --quiet");
  EXPECT_EQ(said.status, 0);
  EXPECT_TRUE(contains(said.out, "test accuracy")) << said.out;
  EXPECT_FALSE(contains(said.all(), "epoch 1/1")) << said.all();
  EXPECT_EQ(said.err, "");
}

TEST(Train, ResumedAfterCtrlCIsTheSameToTheBit) {
  const Folder folder;
  const std::string options = "train --model mlp:1024,1024 --data digits --epochs 6 --optimizer adam";
  const Said whole = run(folder, options + " --out whole --json");
  ASSERT_EQ(whole.status, 0) << whole.err;

  const Said stopped = run_and_interrupt(folder, options + " --out parts --json", "parts/checkpoint.safetensors");
  EXPECT_EQ(stopped.status, 130) << stopped.all();
  EXPECT_TRUE(contains(stopped.err, "espalier train --resume --out parts")) << stopped.err;
  EXPECT_TRUE(stopped.json().value("interrupted", false));
  EXPECT_EQ(run(folder, "eval parts/checkpoint.safetensors").status, 0) << "what was saved is whole";

  const Said resumed = run(folder, "train --resume --out parts --json");
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_TRUE(contains(resumed.err, "resuming")) << resumed.err;
  EXPECT_EQ(resumed.json()["test_accuracy"], whole.json()["test_accuracy"]);
  EXPECT_TRUE(read_file(folder / "whole/model.safetensors") == read_file(folder / "parts/model.safetensors"));

  const Said other = run(folder, "train --resume --out parts --model mlp:9");
  EXPECT_EQ(other.status, 2);
  EXPECT_TRUE(contains(other.err, "the run to resume trains mlp:1024,1024 on digits")) << other.err;
  const Said rate = run(folder, "train --resume --out parts --lr 0.5");
  EXPECT_EQ(rate.status, 2) << rate.all();
  EXPECT_TRUE(contains(rate.err, "lr: was ")) << rate.err;
}

TEST(Train, ANanLossNamesTheStepAndExitsWith1) {
  const Folder folder;
  const Said said =
      run(folder, "train --model mlp:64 --data digits --epochs 5 --lr 1e8 --schedule constant --out r --json");
  EXPECT_EQ(said.status, 1) << said.all();
  EXPECT_TRUE(contains(said.err, "step ")) << said.err;
  EXPECT_TRUE(contains(said.json().value("error", ""), "lower the learning rate")) << said.out;
  EXPECT_FALSE(fs::exists(folder / "r/model.safetensors"));
}

TEST(Train, AFullDiskExitsWith1AndTheOldCheckpointStays) {
  const Folder folder;
  const std::string options = "train --model mlp:256 --data digits --schedule constant --out r";
  ASSERT_EQ(run(folder, options + " --epochs 1").status, 0);
  const std::string before = read_file(folder / "r/checkpoint.safetensors");
  // Files may grow to 16 blocks of 512 bytes (1,024 in some shells); a checkpoint needs more.
  const Said full = run(folder, "train --resume --epochs 3 --out r", "trap '' XFSZ; ulimit -f 16;");
  EXPECT_EQ(full.status, 1) << full.all();
  EXPECT_TRUE(contains(full.err, "[save] ")) << full.err;
  EXPECT_TRUE(contains(full.err, "unchanged")) << full.err;
  EXPECT_TRUE(read_file(folder / "r/checkpoint.safetensors") == before);
  EXPECT_EQ(run(folder, "train --resume --epochs 3 --out r").status, 0) << "and the run goes on when there is room";
  EXPECT_EQ(run(folder, "train --model mlp:8 --data digits --out /proc/nothing").status, 1);

  const std::string network = read_file(folder / "r/model.safetensors");
  const Said anew = run(folder, options + " --epochs 1 --overwrite", "trap '' XFSZ; ulimit -f 16;");
  EXPECT_EQ(anew.status, 1) << anew.all();
  EXPECT_TRUE(contains(anew.err, "r/checkpoint.safetensors") && contains(anew.err, "there is no such file"))
      << anew.err;
  EXPECT_TRUE(read_file(folder / "r/model.safetensors") == network) << "it stays until a new one takes its place";
}

TEST(Eval, BadCheckpointsAreRefusedWithPathAndReason) {
  const Folder folder;
  ASSERT_EQ(run(folder, "train --model mlp:16 --data digits --epochs 1 --out r").status, 0);
  const std::string good = read_file(folder / "r/model.safetensors");
  const auto refused = [&](const std::string& contents, const char* what) {
    write_file(folder / "bad.safetensors", contents);
    for (const char* line : {"eval bad.safetensors --data digits", "info bad.safetensors"}) {
      const Said said = run(folder, line);
      EXPECT_EQ(said.status, 2) << what << "\n" << said.all();
      EXPECT_TRUE(contains(said.err, "bad.safetensors")) << what << "\n" << said.err;
    }
  };
  refused("", "empty");
  refused("hello", "text");
  refused(good.substr(0, good.size() - 1), "cut by one byte");
  refused(good.substr(0, good.size() / 2), "cut in half");
  std::string renamed = good;
  renamed.replace(renamed.find("\"fc1.weight\""), 12, "\"fc9.weight\"");
  refused(renamed, "unknown tensor");
  const Said names = run(folder, "eval bad.safetensors");
  EXPECT_TRUE(contains(names.err, "fc1.weight") && contains(names.err, "fc9.weight")) << names.err;
  std::string classes = good;
  classes.replace(classes.find("stddev"), 6, "stdde_");
  refused(classes, "data description without stddev");

  const Said other = run(folder, "eval r --data fashion-mnist");
  if (!contains(other.err, "expected the files of")) {
    EXPECT_EQ(other.status, 2);
    EXPECT_TRUE(contains(other.err, "takes images (1,8,8)")) << other.err;
  }
}

}  // namespace
}  // namespace espalier::testing
