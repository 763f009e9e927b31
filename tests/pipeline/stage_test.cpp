// Stages and recipes as a library: a program's own stage, and what every stage has to keep.
#include "pipeline/run.h"

#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/safetensors.h"
#include "layers/models/zoo.h"
#include "pipeline/model_file.h"
#include "pipeline/units.h"
#include "pruning/pruner.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;

constexpr const char* kHead = "model = \"mlp:16,8\"\ndata = \"digits\"\nvalidation = 0.2\n";

Recipe recipe_of(const std::string& stages) { return parse_recipe(kHead + stages, "test.toml"); }

/// A folder that is gone afterwards.
struct Folder {
  std::string path =
      (std::filesystem::temp_directory_path() / ("espalier-pipeline-" + std::to_string(::getpid()) + "-" +
                                                 ::testing::UnitTest::GetInstance()->current_test_info()->name()))
          .string();
  Folder() { std::filesystem::remove_all(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

/// Masks every row of a layer but the first ones: a stage that only this program knows.
class KeepRows : public Stage {
 public:
  void fields(FieldVisitor& f) override {
    f("layer", layer_, "Whose rows go");
    f("rows", rows_, at_least(1), "How many stay");
  }
  void settle(const Recipe&) override {
    if (layer_.empty()) refuse("a keep-rows stage needs layer = \"fc1\"");
  }
  std::string describe() const override { return fmt::format("{}: {} rows of {}", type, rows_, layer_); }
  bool rehearse(SeedRun& run) override {
    mask(run);
    return true;
  }
  void run(SeedRun& run) override {
    mask(run);
    RunFolder(run.folder_of(*this)).write_json("rows.json", {{"rows", rows_}});
    run.say("kept {} rows", rows_);
  }
  std::vector<std::string> files() const override { return {"rows.json"}; }

 private:
  void mask(SeedRun& run) const {
    for (const Site& site : weight_sites(*run.network(), Pattern::channel(0))) {
      if (site.name != layer_ + ".weight") continue;
      std::vector<bool> exists(static_cast<size_t>(site.units), false);
      std::fill(exists.begin(), exists.begin() + std::min(rows_, site.units), true);
      set_existing_units(site, exists);
      return;
    }
    fail("keep-rows", "no layer is named '{}'", layer_);
  }

  std::string layer_;
  int64_t rows_ = 4;
};

void register_keep_rows() {
  if (!stage_registry().contains("keep-rows"))
    stage_registry().add("keep-rows", [] { return std::make_shared<KeepRows>(); });
}

TEST(Pipeline, AProgramsOwnStageIsReadRunResumedAndForgotten) {
  register_keep_rows();
  const std::string text =
      "[[stage]]\ntype = \"train\"\nepochs = 2\n[[stage]]\ntype = \"keep-rows\"\nlayer = \"fc1\"\nrows = 5\n"
      "[[stage]]\ntype = \"compact\"\n";
  const Recipe recipe = recipe_of(text);
  const Folder folder;
  std::vector<std::string> said;
  RunOptions options{.out = folder.path, .say = [&](const std::string& line) { said.push_back(line); }};
  const RecipeResult result = run_recipe(recipe, options);
  ASSERT_EQ(result.seeds.size(), 1U);
  EXPECT_EQ(result.seeds[0].after.parameters, 64 * 5 + 5 + 5 * 8 + 8 + 8 * 10 + 10);
  EXPECT_NE(std::find(said.begin(), said.end(), "kept 5 rows"), said.end());
  EXPECT_TRUE(std::filesystem::exists(folder.path + "/2-keep-rows/rows.json"));

  options.resume = true;
  const RecipeResult again = run_recipe(recipe, options);
  EXPECT_EQ(again.seeds[0].after.accuracy(), result.seeds[0].after.accuracy());
  expect_contains(message_of([&] {
                    Recipe other = recipe_of(text);
                    other.seed = 1;
                    run_recipe(other, options);
                  }),
                  "was started with another recipe");

  // Another run in the folder forgets what this one left, the stage's own file too.
  options.resume = false;
  options.overwrite = true;
  run_recipe(recipe_of("[[stage]]\ntype = \"train\"\nname = \"2-keep-rows\"\nepochs = 1\n"), options);
  EXPECT_FALSE(std::filesystem::exists(folder.path + "/2-keep-rows/rows.json"));
}

TEST(Pipeline, MistakesInAnOwnStageAreToldLikeOthers) {
  register_keep_rows();
  expect_contains(message_of([] { recipe_of("[[stage]]\ntype = \"keep-rows\"\n"); }),
                  "[recipe] test.toml:4: a keep-rows stage needs layer");
  expect_contains(message_of([] { recipe_of("[[stage]]\ntype = \"keep-rows\"\nlayer = \"fc1\"\nrows = 0\n"); }),
                  "test.toml:7: expected rows of at least 1, got 0");
  expect_contains(message_of([] { recipe_of("[[stage]]\ntype = \"keep-rows\"\nlayr = \"fc1\"\n"); }),
                  "test.toml:6: a stage has no key 'layr', did you mean 'layer'?");
  const Folder folder;
  expect_contains(message_of([&] {
                    run_recipe(recipe_of("[[stage]]\ntype = \"keep-rows\"\nlayer = \"fc9\"\n"), {.out = folder.path});
                  }),
                  "stage '1-keep-rows': [keep-rows] no layer is named 'fc9'");
  EXPECT_FALSE(std::filesystem::exists(folder.path));
}

/// What a stage needs besides its type to be complete.
std::string least_of(const std::string& type) {
  if (type == "prune") return "sparsity = 0.5\n";
  if (type == "distill" || type == "teacher") return "model = \"mlp:8\"\n";
  if (type == "blocks") return "drop = 1\n";
  if (type == "compensate" || type == "reconstruct") return "reference = \"1-train\"\n";
  if (type == "keep-rows") return "layer = \"fc1\"\n";
  return "";
}

TEST(Pipeline, EveryStageIsWrittenAsItIsReadAndHasHelp) {
  for (const std::string& type : stage_registry().names()) {
    const std::string text =
        fmt::format("[[stage]]\ntype = \"train\"\n[[stage]]\ntype = \"{}\"\n{}", type, least_of(type));
    const Recipe recipe = recipe_of(text);
    const std::string written = to_toml(recipe);
    const Recipe back = parse_recipe(written, "written.toml");
    EXPECT_EQ(to_toml(back), written) << type;
    for (const FieldDescription& option : describe_stage(type))
      EXPECT_FALSE(option.field.help.empty()) << type << "." << option.field.name;
  }
}

TEST(Pipeline, OptionsOfTheLibraryAreOptionsOfRecipes) {
  // What could only be said in C++ before.
  const Recipe recipe = recipe_of(
      "[[stage]]\ntype = \"train\"\nteacher = \"start\"\nteacher_cache = \"never\"\n"
      "[[stage]]\ntype = \"surgery\"\nlow = 0.8\nhigh = 1.2\ngamma = 0.001\npower = 2\nbegin = 0.1\n"
      "[[stage]]\ntype = \"l0\"\nbeta = 0.5\ngamma = -0.2\nzeta = 1.2\n"
      "[[stage]]\ntype = \"reconstruct\"\nreference = \"1-train\"\nridge = 1e-4\npositions = 5\nbias = false\n"
      "[[stage]]\ntype = \"compact\"\ntolerance = 1e-4\n");
  const std::string text = to_toml(recipe);
  for (const char* line : {"teacher_cache = \"never\"", "low = 0.8", "high = 1.2", "gamma = 0.001", "power = 2.0",
                           "begin = 0.1", "beta = 0.5", "gamma = -0.2", "zeta = 1.2", "ridge = 0.0001", "positions = 5",
                           "bias = false", "tolerance = 0.0001"})
    expect_contains(text, line);
  EXPECT_EQ(to_toml(parse_recipe(text, "again")), text);
}

TEST(Pipeline, NumbersOfAnySizeAreNumbers) {
  for (const char* number : {"9007199254740993", "-9223372036854775808", "9223372036854775807"}) {
    expect_contains(message_of([&] { recipe_of(fmt::format("[[stage]]\ntype = \"train\"\nwarmup = {}\n", number)); }),
                    "expected");
    expect_contains(
        message_of([&] {
          recipe_of(fmt::format("[[stage]]\ntype = \"prune\"\nsparsity = 0.5\nsparsity_of = {{ fc1 = {} }}\n", number));
        }),
        "expected a number in [0,1) for 'fc1', got");
  }
  expect_contains(to_toml(recipe_of("[[stage]]\ntype = \"prune\"\nparameters = 9007199254740993\n")),
                  "parameters = 9007199254740992.0");
}

TEST(Pipeline, ARecipeEditedInItsFolderIsNoticed) {
  const Folder folder;
  const RunOptions options{.out = folder.path};
  run_recipe(recipe_of("[[stage]]\ntype = \"train\"\nepochs = 1\n"), options);
  const std::string file = folder.path + "/recipe.toml";
  std::string text = *read_text(file);
  text.replace(text.find("epochs = 1"), 10, "epochs = 2");
  write_file_atomically(file, text);
  RunOptions again = options;
  again.resume = true;
  expect_contains(message_of([&] { run_recipe(load_recipe(file), again); }), "was started with another recipe");
}

TEST(Pipeline, WhatDoesNothingSaysSo) {
  const Folder folder;
  std::vector<std::string> warnings;
  run_recipe(
      recipe_of(
          "[[stage]]\ntype = \"train\"\nepochs = 1\n[[stage]]\ntype = \"recalibrate\"\n[[stage]]\ntype = \"regrow\"\n"
          "[[stage]]\ntype = \"reconstruct\"\nreference = \"1-train\"\n"),
      {.out = folder.path, .warn = [&](const std::string& line) { warnings.push_back(line); }});
  ASSERT_EQ(warnings.size(), 3U);
  expect_contains(warnings[0], "no BatchNorm");
  expect_contains(warnings[1], "nothing came back");
  expect_contains(warnings[2], "nothing was done");
}

TEST(Pipeline, ACriterionHasOptionsOfItsOwn) {
  const auto stage = [](const std::string& criterion) {
    return recipe_of("[[stage]]\ntype = \"prune\"\nsparsity = 0.5\nepochs = 0\ncriterion = " + criterion + "\n");
  };
  const Recipe recipe = stage("{ name = \"taylor\", squared = false }");
  expect_contains(to_toml(recipe), "criterion = { name = \"taylor\", squared = false }\n");
  EXPECT_EQ(to_toml(parse_recipe(to_toml(recipe), "again")), to_toml(recipe));
  expect_contains(to_toml(stage("{ name = \"taylor\", squared = true }")), "criterion = \"taylor\"\n");
  EXPECT_NE(identity_of(recipe), identity_of(stage("\"taylor\"")));
  expect_contains(message_of([&] { stage("{ name = \"taylor\", square = false }"); }),
                  "test.toml:8: a criterion has no key 'square', did you mean 'squared'?; known: name, squared");
  expect_contains(message_of([&] { stage("{ name = \"woodfisher\", damping = 0 }"); }),
                  "test.toml:8: expected damping above 0, got 0");
  expect_contains(message_of([&] { stage("{ name = \"tailor\" }"); }),
                  "test.toml:8: [make_criterion] unknown criterion 'tailor'");
  expect_contains(message_of([&] { stage("3"); }), "a stage 'criterion': expected a text in quotes, or a table");

  // What the options say is what is done.
  const ModulePtr network = make_model("mlp:16,8", {.in_channels = 1, .height = 8, .width = 8});
  const auto scores = [&](const PartChoice& choice) {
    return Pruner(network, weight_sites(*network), {.criterion = make_criterion(choice)}).scores();
  };
  EXPECT_EQ(scores({.name = "sigma", .options = R"({"k": 2})"}),
            Pruner(network, weight_sites(*network), {.criterion = sigma_criterion(2)}).scores());
  EXPECT_NE(scores({.name = "sigma", .options = R"({"k": 2})"}), scores({.name = "sigma"}));
  expect_contains(message_of([&] { make_criterion(PartChoice{.name = "sigma", .options = R"({"q": 2})"}); }),
                  "no option is named 'q'");
  expect_contains(message_of([&] { make_criterion(PartChoice{.name = "sigma", .options = R"({"k": "two"})"}); }),
                  "k: expected a value of its kind, got \"two\"");
}

/// Adam whose options a program chose, under a name of its own.
struct MeekOptions {
  double lr = 0.125, weight_decay = 0.5;
};
void fields(FieldVisitor& f, MeekOptions& o) {
  lr_field(f, o.lr);
  weight_decay_field(f, o.weight_decay);
}
class Meek : public Sgd {
 public:
  explicit Meek(ParameterGroups groups, const MeekOptions& options = {})
      : Sgd(std::move(groups), {.lr = options.lr, .weight_decay = options.weight_decay}) {}
};

TEST(Pipeline, AnOptimizerHasOptionsOfItsOwn) {
  const auto stage = [](const std::string& lines) {
    return to_toml(recipe_of("[[stage]]\ntype = \"train\"\nepochs = 1\n" + lines));
  };
  const std::string text = stage("optimizer = { name = \"adam\", beta1 = 0.8, beta2 = 0.99, lr = 0.001 }\n");
  expect_contains(text, "optimizer = { name = \"adam\", beta2 = 0.99 }\nlr = 0.001\nmomentum = 0.8\n");
  EXPECT_EQ(to_toml(parse_recipe(text, "again")), text);
  EXPECT_EQ(stage("optimizer = \"adam:beta2=0.99,lr=0.001,beta1=0.8\"\n"), text);
  expect_contains(stage("optimizer = { name = \"adam\", beta2 = 0.999 }\n"), "optimizer = \"adam\"\nlr = 0.002\n");
  expect_contains(message_of([&] { stage("lr = 0.1\noptimizer = { name = \"adam\", lr = 0.001 }\n"); }),
                  "test.toml:4: [train] lr is said of the optimiser and beside it");
  expect_contains(message_of([&] { stage("optimizer = { name = \"adam\", beta3 = 0.9 }\n"); }),
                  "test.toml:7: a optimizer has no key 'beta3'");
  expect_contains(message_of([&] { stage("optimizer = \"adam\"\nnesterov = true\n"); }),
                  "nesterov: expected the optimiser sgd with a momentum");

  optimizer_registry().replace("meek", maker_of<Meek, MeekOptions>);
  expect_contains(stage("optimizer = \"meek\"\n"),
                  "optimizer = \"meek\"\nlr = 0.125\nnesterov = false\nweight_decay = 0.5\n");
  const Folder folder;
  const RecipeResult result = run_recipe(
      recipe_of("[[stage]]\ntype = \"train\"\nepochs = 1\nweight_decay = 0\noptimizer = { name = \"meek\" }\n"),
      {.out = folder.path});
  EXPECT_GT(result.seeds.at(0).after.accuracy(), 0.2);
}

TEST(Pipeline, LearnsFromTheFirstImagesOnly) {
  const Folder folder;
  const Recipe recipe =
      parse_recipe(std::string("images = 100\n") + kHead + "[[stage]]\ntype = \"train\"\nepochs = 1\n", "few.toml");
  const Splits data = load_dataset("digits");
  const SeedRun run(recipe, 0, data, folder.path, {});
  EXPECT_EQ(run.train().size() + run.validation().size(), 100);
  EXPECT_EQ(run.validation().size(), 20);
  run_recipe(recipe, {.out = folder.path});
  // What starts from that network knows which images it has not seen.
  const Recipe next = parse_recipe("start = \"" + folder.path +
                                       "\"\nmodel = \"mlp:16,8\"\ndata = \"digits\"\n[[stage]]\n"
                                       "type = \"train\"\nepochs = 1\n",
                                   "next.toml");
  EXPECT_EQ(next.images, 100);
  EXPECT_EQ(next.validation, 0.2);
  EXPECT_TRUE(validates_on_unseen_images(next));
}

TEST(Pipeline, ClassesHaveWeights) {
  const Folder folder;
  run_recipe(recipe_of("[[stage]]\ntype = \"train\"\nepochs = 3\nclass_weights = { \"9\" = 0 }\n"),
             {.out = folder.path});
  const ModulePtr network = open_model(find_model(folder.path)).module;
  const ConfusionMatrix confusion = evaluate(*network, load_dataset("digits").test).confusion;
  EXPECT_EQ(confusion.recall(9), 0) << "nothing asked for class 9";
  EXPECT_GT(confusion.accuracy(), 0.7);
  const std::string stage = "[[stage]]\ntype = \"train\"\nepochs = 1\nclass_weights = { \"9\" = 2.5 }\n";
  expect_contains(to_toml(recipe_of(stage)), "class_weights = { \"9\" = 2.5 }\n");
  expect_contains(message_of([&] { recipe_of("[[stage]]\ntype = \"train\"\nclass_weights = { nine = 2 }\n"); }),
                  "test.toml:4: [train] class_weights: 'nine' is no class of digits");
  expect_contains(message_of([&] { recipe_of(stage + "teacher = \"start\"\n"); }),
                  "class_weights are of the labels' loss");
}

TEST(Pipeline, ANetworkOfAProgramHasAName) {
  model_registry().replace("wide", [] {
    return ModelInfo{"wide",
                     "one hidden layer of twice the inputs",
                     {1, 8, 8},
                     [](const Shape& image, const Shape& head, const std::vector<int64_t>&) {
                       return make_model(
                           fmt::format("mlp:{}", 2 * image.numel()),
                           {.classes = head.numel(), .in_channels = image[0], .height = image[1], .width = image[2]});
                     }};
  });
  const Recipe recipe =
      parse_recipe("model = \"wide\"\ndata = \"digits\"\n[[stage]]\ntype = \"train\"\nepochs = 1\n", "own.toml");
  const Folder folder;
  EXPECT_EQ(run_recipe(recipe, {.out = folder.path}).seeds.at(0).after.parameters, 64 * 128 + 128 + 128 * 10 + 10);
}

TEST(Pipeline, ACriterionThatWatchesNeedsATraining) {
  const auto stage = [](const std::string& lines) { recipe_of("[[stage]]\ncriterion = \"movement\"\n" + lines); };
  stage("type = \"prune\"\nsparsity = 0.5\nepochs = 1\n");
  for (const char* lines : {"type = \"prune\"\nmacs = 0.5\nepochs = 1\n", "type = \"adaptive\"\n",
                            "type = \"lottery\"\n", "type = \"prune\"\nsparsity = 0.5\nend = 0\nepochs = 1\n"})
    expect_contains(message_of([&] { stage(lines); }),
                    "criterion = \"movement\" knows nothing before a training has shown it gradients");
  expect_contains(message_of([&] { stage("type = \"prune\"\nsparsity = 0.5\nepochs = 0\n"); }),
                  "a stage of type prune works while it trains");
}

}  // namespace
}  // namespace espalier
