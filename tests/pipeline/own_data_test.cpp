// Recipes on data of one's own: a regression, a classifier of sequences and an autoencoder are trained, pruned,
// distilled and compacted, and go on where they stopped.
#include <cmath>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "core/random.h"
#include "datasets/data_kind.h"
#include "pipeline/data.h"
#include "pipeline/model_file.h"
#include "pipeline/run.h"
#include "tests/expect_error.h"
#include "training/evaluate.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;

class OwnRecipe : public testing::Test {
 protected:
  OwnRecipe() { std::filesystem::create_directories(folder_); }
  ~OwnRecipe() override { std::filesystem::remove_all(folder_); }

  RecipeResult run(const std::string& recipe, bool resume = false) {
    lines_.clear();
    return run_recipe(parse_recipe(recipe, "test.toml"),
                      {.out = folder_ + "/run",
                       .resume = resume,
                       .overwrite = !resume,
                       .say = [this](const std::string& line) { lines_.push_back(line); },
                       .show_progress = [](TrainerOptions& trainer) { trainer.progress = ProgressMode::silent; }});
  }

  std::string folder_ =
      (std::filesystem::temp_directory_path() / ("espalier-own-" + std::to_string(::getpid()) + "-" +
                                                 testing::UnitTest::GetInstance()->current_test_info()->name()))
          .string();
  std::vector<std::string> lines_;
};

constexpr const char* kStages = R"(
[[stage]]
type = "train"
epochs = 25
[[stage]]
type = "prune"
sparsity = 0.5
criterion = "taylor"
epochs = 5
[[stage]]
type = "prune"
pattern = "channels"
criterion = "taylor"
scope = "layer"
sparsity = 0.3
epochs = 10
teacher = "1-train"
[[stage]]
type = "compact"
)";

/// y = a line in two of three columns.
std::string write_table(const std::string& path) {
  std::ofstream file(path);
  file << "a,b,c,y\n";
  Generator generator(1);
  const Tensor x = rand({160, 3}, generator);
  for (int64_t i = 0; i < 160; ++i) {
    const float *row = x.data<float>() + 3 * i, y = 2 * row[0] - row[2] + 0.25F;
    file << row[0] << ',' << row[1] << ',' << row[2] << ',' << y << '\n';
  }
  return path;
}

TEST_F(OwnRecipe, ARegressionOfATable) {
  const std::string data = "csv:" + write_table(folder_ + "/line.csv");
  const std::string recipe = "model = \"mlp:24,12\"\nvalidation = 0.2\ndata = \"" + data + "\"\n" + kStages;
  const RecipeResult result = run(recipe);
  const ModelReport& after = result.seeds.at(0).after;
  EXPECT_EQ(after.metrics.front().name, "mse");
  EXPECT_GT(after.value_of("r2"), 0.9);
  EXPECT_LT(after.remaining_parameters, result.seeds[0].before->parameters);
  EXPECT_TRUE(result.seeds[0].validation.has_value());
  const nlohmann::json json = to_json(result, parse_recipe(recipe, ""), {});
  EXPECT_TRUE(json.contains("test_mse"));
  EXPECT_FALSE(json.contains("test_error"));
  EXPECT_EQ(json["runs"][0]["validation_mse"], result.seeds[0].validation->value);
  EXPECT_FALSE(json["runs"][0]["after"].contains("accuracy"));
  expect_contains(report_table({{"after", {after}}}), "r2");

  // The file knows how to feed and judge the network.
  const ModelFile file = open_model(folder_ + "/run/model.safetensors");
  EXPECT_EQ(file.data->name, data);
  EXPECT_EQ(file.data->input, Shape({3}));
  const Dataset test = seen_by("test", file, load_data(data, "").test);
  EXPECT_NEAR(evaluate(*file.module, test).primary().value, after.metrics.front().value, 1e-9);
  EXPECT_EQ(run(recipe, true).seeds.at(0).after.metrics.front().value, after.metrics.front().value);
}

TEST_F(OwnRecipe, ALossAndAMetricByName) {
  const std::string data = "csv:" + write_table(folder_ + "/line.csv");
  const std::string head = "model = \"mlp:8\"\nvalidation = 0.2\ndata = \"" + data + "\"\n";
  const std::string stage = "[[stage]]\ntype = \"train\"\nepochs = 2\n";
  const RecipeResult result = run(head + "loss = \"l1\"\nmetric = \"mae\"\n" + stage);
  EXPECT_EQ(result.seeds.at(0).after.metrics.front().name, "mae");
  EXPECT_NEAR(result.seeds[0].after.loss, result.seeds[0].after.metrics.front().value, 1e-6);
  expect_contains(to_toml(parse_recipe(head + "loss = \"l1\"\n" + stage, "")), "loss = \"l1\"");
  EXPECT_EQ(open_model(folder_ + "/run/model.safetensors").data->loss, "l1");
  expect_contains(message_of<Error>([&] { run(head + "loss = \"l2\"\n" + stage); }), "did you mean 'l1'");
  expect_contains(message_of<Error>([&] { run(head + "metric = \"acuracy\"\n" + stage); }), "did you mean 'accuracy'");
  expect_contains(message_of<Error>([&] { run(head + "loss = \"cross-entropy\"\n" + stage); }), "values need mse");
}

TEST_F(OwnRecipe, AnAutoencoderOfDigits) {
  const RecipeResult result =
      run(std::string("model = \"mlp:32,12,32\"\nvalidation = 0.1\ndata = \"reconstruct:digits\"\n") + kStages);
  const ModelReport& after = result.seeds.at(0).after;
  EXPECT_GT(after.value_of("r2"), 0.5);
  EXPECT_LT(after.remaining_parameters, result.seeds[0].before->parameters / 2);
  EXPECT_FALSE(result.seeds[0].changes.has_value());
}

/// Sequences of 3 to 8 steps of two numbers; the first is around 0.8 in one class, around -0.8 in the other.
Splits sequences() {
  const auto part = [](int64_t count, uint64_t seed) {
    Generator generator(seed);
    Dataset data{.name = "sums",
                 .source = "",
                 .images = randn({count, 8, 2}, generator),
                 .labels = {},
                 .class_names = {"below", "above"}};
    std::vector<int64_t> lengths, labels;
    for (int64_t i = 0; i < count; ++i) {
      lengths.push_back(3 + static_cast<int64_t>(generator.next_below(6)));
      labels.push_back(static_cast<int64_t>(generator.next_below(2)));
      for (int64_t t = 0; t < lengths.back(); ++t)
        data.images.data<float>()[(i * 8 + t) * 2] += labels.back() == 1 ? 0.8F : -0.8F;
    }
    data.inputs.emplace_back("lengths", Tensor::from(lengths, {count}));
    data.labels = Tensor::from(labels, {count});
    return data;
  };
  return {part(240, 1), part(120, 2)};
}

/// A kind of data that this program brings.
class Sums : public DataKind {
 public:
  Splits load(const std::string&, const std::string&) override { return sequences(); }
};

TEST_F(OwnRecipe, AClassifierOfSequences) {
  if (!data_kind_registry().contains("sums")) data_kind_registry().add("sums", [] { return std::make_shared<Sums>(); });
  const RecipeResult result =
      run(std::string("model = \"lstm-rows:12\"\nvalidation = 0.2\ndata = \"sums:all\"\n") + kStages);
  const SeedResult& seed = result.seeds.at(0);
  EXPECT_EQ(seed.after.metrics.front().name, "accuracy");
  EXPECT_GT(seed.before->accuracy(), 0.85);
  EXPECT_GT(seed.after.accuracy(), 0.8);
  EXPECT_LT(seed.after.remaining_parameters, seed.before->parameters);
  EXPECT_TRUE(seed.changes.has_value());
}

}  // namespace
}  // namespace espalier
