// Stages and recipes as a library: a program's own stage, and what every stage has to keep.
#include "pipeline/run.h"

#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "pipeline/units.h"
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
  EXPECT_EQ(again.seeds[0].after.accuracy, result.seeds[0].after.accuracy);
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
    EXPECT_EQ(identity_of(back), identity_of(recipe)) << type;
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
}

}  // namespace
}  // namespace espalier
