// The espalier command from outside: help, names, JSON, exit statuses, lists.
#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "run_command.h"

namespace espalier::testing {
namespace {

TEST(Command, EveryHelpHasExamples) {
  const Folder folder;
  for (const char* command : {"",
                              "train",
                              "eval",
                              "predict",
                              "prune",
                              "distill",
                              "compact",
                              "run",
                              "sensitivity",
                              "compare",
                              "masks",
                              "info",
                              "datasets",
                              "datasets list",
                              "datasets download",
                              "datasets check",
                              "datasets show",
                              "models",
                              "models list",
                              "models show"}) {
    const Said said = run(folder, fmt::format("{} --help", command));
    EXPECT_EQ(said.status, 0) << command;
    EXPECT_TRUE(contains(said.out, "Examples:\n  espalier ")) << command << "\n" << said.out;
    EXPECT_EQ(said.err, "") << command;
  }
}

TEST(Command, WithoutACommandItSaysWhichThereAre) {
  const Folder folder;
  for (const char* line : {"", "datasets", "models"}) {
    const Said said = run(folder, line);
    EXPECT_EQ(said.status, 2) << line;
    EXPECT_TRUE(contains(said.err, "expected a command: ")) << said.err;
    EXPECT_TRUE(contains(said.err, "--help")) << said.err;
    EXPECT_EQ(said.out, "");
  }
}

struct Wrong {
  const char* line;
  const char* message;
};

TEST(Command, WrongNamesAndValuesExitWith2AndSuggestTheNearest) {
  const Folder folder;
  constexpr Wrong kWrong[] = {
      {"trian --model lenet5", "[espalier] unknown command 'trian', did you mean 'train'?"},
      {"datasets shwo digits", "[datasets] unknown command 'shwo', did you mean 'show'?"},
      {"train --modle lenet5 --data digits", "[train] unknown option '--modle', did you mean '--model'?"},
      {"train --model mlp:8 --data digits --ephocs=3", "unknown option '--ephocs', did you mean '--epochs'?"},
      {"predict --tpo 3", "unknown option '--tpo', did you mean '--top'?"},
      {"models show resnet20 extra", "unexpected argument 'extra'"},
      {"models show", "is required"},
      {"models show resnet21", "did you mean 'resnet20'?"},
      {"models show lenet5 --size 0", "--size: expected a whole number of at least 1, got 0"},
      {"models show lenet5 --classes -3", "--classes: expected a whole number of at least 1, got -3"},
      {"models show resnet20 --data cifar11", "did you mean 'cifar10'?"},
      {"train --model lenet55 --data mnist", "did you mean 'lenet5'?"},
      {"train --model mlp: --data digits", "expected sizes"},
      {"train --model lenet5", "expected --data NAME; known: digits, mnist"},
      {"train --data digits", "expected --model NAME; known: lenet300"},
      {"train --model mlp:8 --data digts", "did you mean 'digits'?"},
      {"train --model mlp:8 --data digits --optimizer adm", "did you mean 'adam'?"},
      {"train --model mlp:8 --data digits --schedule cosin", "did you mean 'cosine'?"},
      {"train --model mlp:8 --data digits --augment crop-flp", "did you mean 'flip'?"},
      {"train --model mlp:8 --data digits --epochs three", "--epochs"},
      {"train --model mlp:8 --data digits --epochs 0", "--epochs: expected a number from 1"},
      {"train --model mlp:8 --data digits --lr nan", "--lr: expected a number"},
      {"train --model mlp:8 --data digits --validation 1.5", "--validation: expected a number in [0,1), got 1.5"},
      {"train --model mlp:8 --data digits --patience 3", "add --validation 0.1"},
      {"train --model mlp:8 --data digits --optimizer adam --nesterov", "--nesterov"},
      {"train --model mlp:8 --data digits --device cuda", "[cuda]"},
      {"train --model mlp:8 --data digits --device gpu", "[device]"},
      {"train --model mlp:8 --data digits --threads 0", "--threads"},
      {"train --model mlp:8 --data digits --batch-size 5000", "5000"},
      {"train --model lenet5 --data digits", "at least 16x16"},
      {"train --resume --out nothing-here", "expected a run to resume"},
      {"train --resume", "--resume needs --out DIR"},
      {"train --resume --overwrite --out x", "expected --resume or --overwrite"},
      {"train --model mlp:8 --data digits --out ''", "--out: expected a value, got ''"},
      {"prune nothing --sparsity 0.5 -o ''", "--out: expected a value, got ''"},
      {"compact nothing -o ''", "--out: expected a value, got ''"},
      {"eval ''", "model: expected a value, got ''"},
      {"diff a b --png ''", "--png: expected a value, got ''"},
      {"eval", "expected a model.safetensors below runs/"},
      {"eval nothing.safetensors", "nothing.safetensors: can't open"},
      {"predict nothing.png", "expected a model.safetensors below runs/"},
      {"datasets show digits --class zero", "--class: expected one of 0, 1"},
      {"datasets show digits --index 100000", "--index: expected 0 to 1436"},
      {"datasets show digits --split tset", "did you mean 'test'?"},
      {"datasets show digits --style color", "did you mean 'colour'?"},
  };
  for (const Wrong& wrong : kWrong) {
    const Said said = run(folder, wrong.line);
    EXPECT_EQ(said.status, 2) << wrong.line << "\n" << said.all();
    EXPECT_TRUE(contains(said.err, wrong.message)) << wrong.line << "\n" << said.all();
    EXPECT_TRUE(said.err.starts_with("espalier: [")) << said.err;
    EXPECT_EQ(said.out, "") << wrong.line;
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "runs")) << "a refused training leaves no folder behind";
}

TEST(Command, SeedsAreWholeNumbersFrom0On) {
  const Folder folder;
  write_file(folder / "r.toml", "model = \"mlp:8\"\ndata = \"digits\"\nseed = -1\n[[stage]]\ntype = \"train\"");
  for (const char* line :
       {"train --model mlp:8 --data digits --seed -1", "run r.toml --seed -1", "prune m --seed=-1 --sparsity 0.5",
        "distill m --seed 9223372036854775808", "datasets show digits --seed 1.5", "run r.toml"}) {
    const Said said = run(folder, line);
    EXPECT_EQ(said.status, 2) << line << said.all();
    EXPECT_TRUE(contains(said.err, "seed") && contains(said.err, "a whole number")) << line << "\n" << said.err;
  }
  EXPECT_EQ(run(folder, "train --model mlp:8 --data digits --epochs 1 --seed 9223372036854775807").status, 0);
}

TEST(Command, APictureReplacesPicturesOnly) {
  const Folder folder;
  write_file(folder / "net.safetensors", "hours of training");
  const Said said = run(folder, "datasets show digits --save net.safetensors");
  EXPECT_EQ(said.status, 2) << said.all();
  EXPECT_TRUE(contains(said.err, "net.safetensors is there already and no PNG image")) << said.err;
  EXPECT_EQ(read_file(folder / "net.safetensors"), "hours of training");
  for (int time = 0; time < 2; ++time) EXPECT_EQ(run(folder, "datasets show digits --save digit.png").status, 0);
}

TEST(Command, WithJsonAnErrorIsAnObjectToo) {
  const Folder folder;
  for (const char* line :
       {"train --modle x --json", "--json", "eval nothing.safetensors --json", "models show x --json"}) {
    const Said said = run(folder, line);
    EXPECT_EQ(said.status, 2) << line;
    EXPECT_TRUE(contains(said.json().value("error", ""), "[")) << line << said.out;
    EXPECT_EQ(std::count(said.out.begin(), said.out.end(), '\n'), 1) << "stdout holds nothing else: " << said.out;
  }
}

TEST(Command, MissingDataSaysWhereItLookedAndHowToGetIt) {
  const Folder folder;
  const Said said = run(folder, "train --model lenet5 --data cifar100");
  EXPECT_EQ(said.status, 2);
  for (const char* part : {"data_batch", "train.bin", "/cache/espalier", "ESPALIER_DATA", "/usr/share/datasets",
                           "espalier datasets download cifar100"})
    EXPECT_EQ(contains(said.err, part), std::string(part) != "data_batch") << part << "\n" << said.err;
  const Said no_folder = run(folder, "train --model lenet5 --data mnist --data-dir nowhere");
  EXPECT_EQ(no_folder.status, 2);
  EXPECT_TRUE(contains(no_folder.err, "nowhere: expected a data folder, found nothing")) << no_folder.err;
}

TEST(Command, ModelsListAndShow) {
  const Folder folder;
  const Said list = run(folder, "models list");
  EXPECT_EQ(list.status, 0) << list.err;
  for (const char* name : {"lenet300", "lenet5", "resnet20", "resnet56", "vgg16", "vgg19", "lstm-rows", "mlp:SIZES"})
    EXPECT_TRUE(contains(list.out, name)) << name;
  const Said show = run(folder, "models show lenet5 --json");
  EXPECT_EQ(show.status, 0) << show.err;
  // 430,500 weights and 580 biases; 20*25*24^2 + 50*500*8^2 + 800*500 + 5000 MACs.
  EXPECT_EQ(show.json()["parameters"], 431080);
  EXPECT_EQ(show.json()["macs"], 2293000);
  EXPECT_TRUE(contains(show.err, "conv2")) << "the table goes to stderr with --json";
  const Said groups = run(folder, "models show resnet20 --groups --json");
  EXPECT_EQ(groups.json()["groups"][1]["units"], 16);
  const std::string name = groups.json()["groups"][1]["name"];
  EXPECT_TRUE(
      contains(run(folder, fmt::format("models show resnet20 --explain '{}'", name)).out, "filter u of conv1.weight"));
  EXPECT_TRUE(contains(run(folder, "models show resnet20 --dot").out, "digraph"));
  EXPECT_EQ(run(folder, "models show mlp:8 --channels 3 --size 32 --classes 100 --json").json()["parameters"],
            3072 * 8 + 8 + 8 * 100 + 100);
}

TEST(Command, DatasetsListCheckAndShow) {
  const Folder folder;
  const Said list = run(folder, "datasets list");
  EXPECT_EQ(list.status, 0) << list.err;
  for (const char* part : {"digits", "embedded", "emnist-letters", "cifar100", "1,437"})
    EXPECT_TRUE(contains(list.out, part)) << part << list.out;
  const Said check = run(folder, "datasets check digits --json");
  EXPECT_EQ(check.status, 0) << check.err;
  EXPECT_TRUE(check.json()["ok"]);
  const Said show = run(folder, "datasets show digits --class 7 --count 3 --json");
  EXPECT_EQ(show.status, 0) << show.err;
  ASSERT_EQ(show.json()["images"].size(), 3u);
  for (const auto& image : show.json()["images"]) EXPECT_EQ(image["class"], "7");
  EXPECT_FALSE(contains(show.err, "\x1b")) << "colours are for terminals";
  const Said colour = run(folder, "datasets show digits --index 3 --style colour");
  EXPECT_TRUE(contains(colour.out, "\x1b[38;") && contains(colour.out, "\u2580"));
}

TEST(Command, DatasetsCheckFindsBadFiles) {
  const Folder folder;
  std::filesystem::create_directories(folder / "data/mnist");
  write_file(folder / "data/mnist/train-images-idx3-ubyte", "not an IDX file");
  const Said said = run(folder, "datasets check mnist --data-dir data --json");
  EXPECT_EQ(said.status, 2) << said.err;
  EXPECT_FALSE(said.json().value("ok", true));
}

TEST(Command, InfoDescribesTheMachine) {
  const Folder folder;
  const Said said = run(folder, "info", "export ESPALIER_DATA=/some/where OMP_NUM_THREADS=1;");
  EXPECT_EQ(said.status, 0) << said.err;
  for (const char* part : {"espalier 0.", "OpenBLAS", "threads   1 ", "cuda", "/some/where (ESPALIER_DATA)"})
    EXPECT_TRUE(contains(said.out, part)) << part << "\n" << said.out;
  const std::string version = run(folder, "info --json").json()["version"];
  EXPECT_EQ(run(folder, "--version").out, "espalier " + version + "\n");
}

}  // namespace
}  // namespace espalier::testing
