#include <nlohmann/json.hpp>

#include "layers/models/zoo.h"
#include "layers/summary.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

ModelSummary summary_of(const std::string& name, ModelOptions options = {}) {
  const Shape image = model_image(name, options);
  return summarize(*make_model(name, options), {1, image[0], image[1], image[2]});
}

/// The counts that the literature quotes (ResNet-56: 0.85M parameters, 125.5M MACs), exactly.
TEST(Zoo, ParametersAndMacs) {
  const struct {
    const char* name;
    int64_t parameters, macs;
  } kKnown[] = {
      {"lenet300", 266'610, 266'200},          {"lenet5", 431'080, 2'293'000},
      {"resnet20", 269'722, 40'551'040},       {"resnet32", 464'154, 68'862'592},
      {"resnet56", 853'018, 125'485'696},      {"vgg16", 14'724'042, 313'201'664},
      {"vgg19", 20'035'018, 398'136'320},      {"lstm-rows", 82'186, 28 * 4 * 128 * (28 + 128) + 1'280},
      {"mlp:1200,1200", 2'395'210, 2'392'800},
  };
  for (const auto& known : kKnown) {
    const ModelSummary summary = summary_of(known.name);
    EXPECT_EQ(summary.parameters, known.parameters) << known.name;
    EXPECT_EQ(summary.macs, known.macs) << known.name;
    EXPECT_EQ(summary.output, (Shape{1, 10})) << known.name;
    int64_t parameters = 0, macs = 0;
    for (const LayerSummary& layer : summary.layers) {
      parameters += layer.parameters;
      macs += layer.macs;
    }
    EXPECT_EQ(parameters, known.parameters) << known.name;
    EXPECT_EQ(macs, known.macs) << known.name;
  }
}

TEST(Zoo, OtherImagesAndClasses) {
  EXPECT_EQ(model_image("lenet5"), (Shape{1, 28, 28}));
  EXPECT_EQ(model_image("lenet5", {.in_channels = 3, .height = 32}), (Shape{3, 32, 32}));
  const ModelSummary lenet = summary_of("lenet5", {.classes = 100, .in_channels = 3, .height = 32});
  EXPECT_EQ(lenet.parameters, 3 * 500 + 20 + 25'050 + 1250 * 500 + 500 + 50'100);
  EXPECT_EQ(summary_of("resnet20", {.classes = 100, .in_channels = 1, .height = 28}).output, (Shape{1, 100}));
  EXPECT_EQ(summary_of("vgg16", {.height = 40, .width = 64}).parameters, 14'724'042);
  EXPECT_EQ(summary_of("lstm-rows:16", {.in_channels = 3, .height = 8}).parameters, 4 * 16 * (24 + 16 + 2) + 170);
  EXPECT_EQ(summary_of("mlp:5", {.classes = 2, .height = 8}).parameters, 64 * 5 + 5 + 12);
}

TEST(Zoo, BuildsFromJson) {
  const ModulePtr model = module_from_config({{"model", "mlp:8"}, {"classes", 3}, {"height", 4}, {"in_channels", 2}});
  EXPECT_EQ(model->num_parameters(), 32 * 8 + 8 + 27);
  expect_error(
      [] {
        module_from_config({{"model", "mlp:8"}, {"clases", 3}});
      },
      {"\"clases\"", "did you mean 'classes'"});
}

TEST(Zoo, NamesOfLayers) {
  const ModulePtr resnet = make_model("resnet20");
  EXPECT_EQ(resnet->find("stage3.2.conv2")->type(), "Conv2d");
  EXPECT_EQ(resnet->find("stage2.0.shortcut")->type(), "PadShortcut");
  EXPECT_EQ(make_model("vgg19")->find("features.conv5_4")->type(), "Conv2d");
  EXPECT_EQ(make_model("lenet5")->find("fc1")->config()["in_features"], 800);
}

TEST(Zoo, Errors) {
  expect_error([] { make_model("resnet22"); }, {"[make_model]", "'resnet22'", "did you mean 'resnet20'", "lenet300"});
  expect_error([] { make_model("transformer"); }, {"known: lenet300, lenet5"});
  expect_error([] { make_model("mlp"); }, {"'mlp'", "mlp:64,32"});
  for (const char* bad : {"mlp:", "mlp:a", "mlp:64,", "mlp:64,-1", "mlp:64,0", "mlp:64 32", "mlp:99999999999999999999"})
    expect_error([&] { make_model(bad); }, {"sizes from 1 to 1000000"});
  expect_error([] { make_model("lstm-rows:1,2"); }, {"one size"});
  expect_error([] { make_model("resnet20:3"); }, {"takes no sizes"});
  expect_error([] { make_model("lenet5", {.height = 12}); }, {"[lenet5]", "16x16", "12x12"});
  expect_error([] { make_model("vgg16", {.height = 28}); }, {"[vgg]", "32x32", "28x28"});
  expect_error([] { make_model("lenet5", {.classes = 0}); }, {"classes", "0"});
  const ModulePtr rows = make_model("lstm-rows");
  expect_error([&] { (*rows)(Tensor::zeros({2, 3, 28, 28})); }, {"[LstmRows]", "C*W = 28", "(2,3,28,28)"});
}

TEST(Summary, RowsTableAndJson) {
  const ModulePtr model = make_model("lenet300");
  Parameter bias = model->find("fc3")->parameters()[1];
  bias.set_requires_grad(false);
  model->find("relu1")->eval();
  const ModelSummary summary = summarize(*model, {2, 1, 28, 28});
  EXPECT_TRUE(model->is_training());
  EXPECT_FALSE(model->find("relu1")->is_training());
  ASSERT_EQ(summary.layers.size(), 6u);
  EXPECT_EQ(summary.layers[1].name, "fc1");
  EXPECT_EQ(summary.layers[1].type, "Linear");
  EXPECT_EQ(summary.layers[1].output, (Shape{2, 300}));
  EXPECT_EQ(summary.layers[1].parameters, 235'500);
  EXPECT_EQ(summary.layers[1].macs, 2 * 235'200);
  EXPECT_EQ(summary.trainable, 266'600);
  const std::string table = summary.to_table();
  for (const char* part : {"layer", "MACs", "fc1", "(2,300)", "235,500", "266,610", "532,400"})
    EXPECT_NE(table.find(part), std::string::npos) << table;
  const nlohmann::json json = summary.to_json();
  EXPECT_EQ(json["parameters"], 266'610);
  EXPECT_EQ(json["macs"], 2 * 266'200);
  EXPECT_EQ(json["layers"].size(), 6u);
  EXPECT_EQ(json["layers"][1]["output"], (std::vector<int64_t>{2, 300}));
  expect_error([&] { summarize(*model, {1, 1, 8, 8}); }, {"[Linear fc1]", "(1,64)"});
}

TEST(Summary, ASharedLayerCountsItsParametersOnce) {
  const ModulePtr net = module_from_config(nlohmann::json::parse(R"({"type":"Sequential","layers":[
      {"name":"a","module":{"type":"Linear","in_features":4,"out_features":4}},{"name":"b","same_as":"a"}]})"));
  const ModelSummary summary = summarize(*net, {1, 4});
  EXPECT_EQ(summary.parameters, 20);
  EXPECT_EQ(summary.macs, 32);
  EXPECT_EQ(summary.layers[0].parameters, 20);
  EXPECT_EQ(summary.layers[1].parameters, 0);
}

}  // namespace
}  // namespace espalier
