// Every type of the table: config() rebuilds it, and with the same state it gives the same bits.
#include <set>

#include <nlohmann/json.hpp>

#include "core/storage.h"
#include "layers/models/zoo.h"
#include "layers/registry.h"
#include "layers/size_budget.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

struct Example {
  nlohmann::json config;
  Shape input;
};

std::vector<Example> examples() {
  const auto parse = [](const char* text) { return nlohmann::json::parse(text); };
  return {
      {parse(R"({"type":"Linear","in_features":5,"out_features":3,"bias":true})"), {2, 5}},
      {parse(R"({"type":"Linear","in_features":5,"out_features":3,"bias":false})"), {2, 4, 5}},
      {parse(R"({"type":"Conv2d","in_channels":4,"out_channels":6,"kernel":[3,2],"stride":[2,1],"padding":[1,0],
                "dilation":[1,2],"groups":2,"bias":true})"),
       {2, 4, 9, 8}},
      {parse(R"({"type":"Conv2d","in_channels":4,"out_channels":4,"kernel":3,"stride":1,"padding":1,"dilation":1,
                "groups":4,"bias":false})"),
       {2, 4, 5, 5}},
      {parse(R"({"type":"BatchNorm1d","num_features":5,"epsilon":1e-3,"momentum":0.2,"affine":true})"), {4, 5}},
      {parse(R"({"type":"BatchNorm1d","num_features":5,"epsilon":1e-5,"momentum":null,"affine":false})"), {4, 5, 3}},
      {parse(R"({"type":"BatchNorm2d","num_features":3,"epsilon":1e-5,"momentum":0.1,"affine":true})"), {4, 3, 2, 2}},
      {parse(R"({"type":"LayerNorm","shape":[3,4],"epsilon":1e-5,"affine":true,"bias":false})"), {2, 3, 4}},
      {parse(R"({"type":"LayerNorm","shape":[4],"epsilon":1e-5,"affine":false,"bias":false})"), {2, 3, 4}},
      {parse(R"({"type":"Dropout","p":0.3})"), {2, 3}},
      {parse(R"({"type":"GaussianNoise","deviation":0.3})"), {2, 3}},
      {parse(R"({"type":"MaxPool2d","kernel":3,"stride":2,"padding":1})"), {2, 3, 7, 7}},
      {parse(R"({"type":"AvgPool2d","kernel":[2,3],"stride":[2,3],"padding":0})"), {2, 3, 6, 6}},
      {parse(R"({"type":"AdaptiveAvgPool2d","output":[2,3]})"), {2, 3, 7, 7}},
      {parse(R"({"type":"Flatten"})"), {2, 3, 4}},
      {parse(R"({"type":"Identity"})"), {2, 3}},
      {parse(R"({"type":"ReLU"})"), {2, 3}},
      {parse(R"({"type":"LeakyReLU","negative_slope":0.2})"), {2, 3}},
      {parse(R"({"type":"GELU"})"), {2, 3}},
      {parse(R"({"type":"SiLU"})"), {2, 3}},
      {parse(R"({"type":"Tanh"})"), {2, 3}},
      {parse(R"({"type":"Sigmoid"})"), {2, 3}},
      {parse(R"({"type":"Softmax","axis":1})"), {2, 3, 4}},
      {parse(R"({"type":"Embedding","count":7,"dim":3})"), {2, 3}},
      {parse(R"({"type":"LSTM","input_size":3,"hidden_size":4,"num_layers":2,"bidirectional":true,"dropout":0.5,
                "batch_first":true,"bias":true})"),
       {2, 5, 3}},
      {parse(R"({"type":"LSTM","input_size":3,"hidden_size":4,"num_layers":1,"bidirectional":false,"dropout":0.0,
                "batch_first":false,"bias":false})"),
       {2, 5, 3}},
      {parse(R"({"type":"LstmRows","row_size":6,"classes":3,"hidden_size":4,"num_layers":2,"dropout":0.1})"),
       {2, 1, 5, 6}},
      {parse(
           R"({"type":"LstmRows","row_size":6,"classes":3,"hidden_size":4,"num_layers":1,"dropout":0.0,"every_step":true})"),
       {2, 5, 6}},
      {parse(R"({"type":"Heads","sizes":[3,1],"body":{"type":"Linear","in_features":6,"out_features":4,"bias":true}})"),
       {2, 6}},
      {parse(R"({"type":"PadShortcut","in_channels":3,"out_channels":6,"stride":2})"), {2, 3, 5, 5}},
      {parse(R"({"type":"BasicBlock","in_channels":4,"out_channels":8,"width":3,"stride":2,"shortcut":"pad"})"),
       {2, 4, 6, 6}},
      {parse(R"({"type":"BasicBlock","in_channels":4,"out_channels":8,"width":8,"stride":2,"shortcut":"projection"})"),
       {2, 4, 6, 6}},
      {parse(R"({"type":"Residual","relu":false,"body":{"type":"Linear","in_features":4,"out_features":6,"bias":true},
                "shortcut":{"type":"Linear","in_features":4,"out_features":6,"bias":false}})"),
       {2, 4}},
      {parse(R"({"type":"Residual","relu":true,"body":{"type":"Tanh"}})"), {2, 4}},
      {parse(R"({"type":"Sequential","layers":[
                {"name":"a","module":{"type":"Linear","in_features":4,"out_features":4,"bias":true}},
                {"name":"b","same_as":"a"},{"name":"c","module":{"type":"ReLU"}}]})"),
       {2, 4}},
  };
}

/// Values that suit the module: ids for a table.
Variable input_for(const nlohmann::json& config, const Shape& shape) {
  if (config["type"] == "Embedding") return Tensor::from(std::vector<int64_t>{0, 6, 3, 2, 2, 5}, shape);
  return noise(shape, 11, DType::f32);
}

TEST(Config, EveryTypeRoundTrips) {
  std::set<std::string> seen;
  for (const auto& [config, shape] : examples()) {
    SCOPED_TRACE(config.dump());
    seen.insert(config["type"]);
    const ModulePtr module = module_from_config(config);
    EXPECT_EQ(module->type(), config["type"]);
    EXPECT_EQ(module->config(), config);
    const Variable x = input_for(config, shape);
    (*module)(x);  // running statistics other than the initial ones
    module->eval();
    const ModulePtr rebuilt = module_from_config(nlohmann::json::parse(module->config().dump()));
    load_state(*rebuilt, state_of(*module));
    rebuilt->eval();
    EXPECT_TRUE(identical((*module)(x).data(), (*rebuilt)(x).data()));
    EXPECT_TRUE(identical((*module)(x).data(), (*module->clone())(x).data()));
  }
  for (const std::string& type : module_registry().names())
    EXPECT_TRUE(seen.contains(type) || type == "Doubled" || type == "Scale") << type << " has no example here";
}

TEST(Config, DefaultsMayBeLeftOut) {
  const ModulePtr conv = module_from_config({{"type", "Conv2d"}, {"in_channels", 3}, {"out_channels", 8}});
  EXPECT_EQ(conv->config(), nlohmann::json::parse(R"({"type":"Conv2d","in_channels":3,"out_channels":8,"kernel":3,
      "stride":1,"padding":0,"dilation":1,"groups":1,"bias":true})"));
  EXPECT_EQ(module_from_config({{"type", "MaxPool2d"}, {"kernel", 3}})->config()["stride"], 3);
  const ModulePtr net = module_from_config(nlohmann::json::parse(
      R"({"type":"Sequential","layers":[{"type":"Flatten"},{"type":"Linear","in_features":4,"out_features":2}]})"));
  EXPECT_EQ(net->find("1")->type(), "Linear");
}

TEST(Config, SizesThatNoMemoryHoldsAreRefusedBeforeTheyTakeAny) {
  reset_peak_memory();
  const size_t before = memory_stats().peak;
  expect_error([] { make_model("mlp:1000000,1000000"); },
               {"[mlp]", "784-1000000-1000000-10", "4003176000000 bytes", "choose smaller sizes"});
  // What a file claims has less than the machine's memory: every layer that has a size asks for it.
  for (const char* config :
       {R"({"type":"Linear","in_features":40000,"out_features":40000})",
        R"({"type":"Conv2d","in_channels":4000,"out_channels":4000,"kernel":3})",
        R"({"type":"Conv2d","in_channels":1,"out_channels":4000,"kernel":[1,2000]})",
        R"({"type":"Embedding","count":1000000,"dim":100})", R"({"type":"LSTM","input_size":1,"hidden_size":10000})",
        R"({"type":"LSTM","input_size":1,"hidden_size":100,"num_layers":1000})",
        R"({"type":"BatchNorm2d","num_features":100000000})", R"({"type":"BatchNorm1d","num_features":100000000})",
        R"({"type":"LayerNorm","shape":[10000,10000]})",
        R"({"type":"BasicBlock","in_channels":4000,"out_channels":4000})", R"({"model":"mlp:100000,10000"})",
        R"({"model":"vgg16"})"})
    expect_error(
        [&] {
          const SizeBudget budget(1 << 20, "so says the test");
          module_from_config(nlohmann::json::parse(config));
        },
        {"would take", "so says the test"});
  EXPECT_LT(memory_stats().peak - before, size_t{8} << 20);
}

TEST(Config, ErrorsNameTypeKeyAndNearest) {
  const auto build = [](const char* text) { return [=] { module_from_config(nlohmann::json::parse(text)); }; };
  expect_error(build(R"({"type":"Conv2D"})"), {"[module_from_config]", "'Conv2D'", "did you mean 'Conv2d'"});
  expect_error(build(R"({"type":"Linear","in_features":4})"), {"Linear needs the key \"out_features\""});
  expect_error(build(R"({"type":"Linear","in_features":4.5,"out_features":2})"),
               {"\"in_features\" of Linear must be a whole number, got 4.5"});
  expect_error(build(R"({"type":"Linear","in_features":4,"out_features":2,"bais":true})"),
               {"no option \"bais\"", "did you mean 'bias'"});
  expect_error(build(R"({"type":"Linear","in_features":4,"out_features":2,"bias":1})"), {"true or false, got 1"});
  expect_error(build(R"({"type":"Linear","in_features":-4,"out_features":2})"), {"[Linear]", "positive", "(2,-4)"});
  expect_error(build(R"({"type":"Linear","in_features":4611686018427387904,"out_features":4611686018427387904})"),
               {"[Linear]", "would take", "choose smaller sizes"});
  expect_error(build(R"({"type":"Conv2d","in_channels":3,"out_channels":8,"kernel":[3,3,3]})"),
               {"\"kernel\" of Conv2d must be a whole number or [height, width]"});
  expect_error(build(R"({"type":"ReLU","slope":1})"), {"ReLU has no option \"slope\""});
  expect_error(build(R"({"type":"Sequential","layers":[{"name":"b","same_as":"a"}]})"), {"'b'", "'a'"});
  expect_error(build(R"({"type":"BasicBlock","in_channels":4,"out_channels":8,"shortcut":"project"})"),
               {"\"pad\" or \"projection\""});
  expect_error(build(R"({"type":3})"), {"\"type\" must be a string"});
  expect_error(build(R"([])"), {"expected a JSON object"});
}

TEST(Config, DeepNestingIsAnErrorNotAnOverflow) {
  nlohmann::json config = {{"type", "ReLU"}};
  for (int i = 0; i < 1000; ++i) config = {{"type", "Residual"}, {"body", std::move(config)}};
  expect_error([&] { module_from_config(config); }, {"nested more than"});
  EXPECT_NO_THROW(module_from_config({{"type", "ReLU"}}));
}

TEST(Config, EveryModelRoundTrips) {
  for (std::string name : model_names()) {
    if (name == "mlp:SIZES") name = "mlp:12,7";
    if (name == "vgg19" || name == "resnet56") continue;  // the same code as vgg16 and resnet32, only slower
    SCOPED_TRACE(name);
    const ModulePtr model = make_model(name, {.classes = 7});
    const Shape image = model_image(name);
    const Variable x = noise({2, image[0], image[1], image[2]}, 12, DType::f32);
    model->eval();
    const ModulePtr rebuilt = module_from_config(nlohmann::json::parse(model->config().dump()));
    load_state(*rebuilt, state_of(*model));
    rebuilt->eval();
    const NoGrad no_grad;
    const Tensor y = (*model)(x).data();
    EXPECT_EQ(y.shape(), (Shape{2, 7}));
    EXPECT_TRUE(identical(y, (*rebuilt)(x).data()));
    EXPECT_EQ(rebuilt->config(), model->config());
  }
}

/// Outputs of no examples, and zero gradients of everything that makes them.
void expect_empty(Module& module, const Variable& x, const Shape& expected) {
  const Variable y = module(x);
  EXPECT_EQ(y.shape(), expected);
  module.zero_grad();
  sum(y).backward();
  if (x.requires_grad()) {
    EXPECT_EQ(x.grad().shape(), x.shape());
  }
  for (const auto& [name, parameter] : module.named_parameters()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_EQ(max(abs(parameter.grad())).item(), 0) << name;
  }
}

TEST(Config, EveryTypeTakesABatchOfNoExamples) {
  for (const Example& example : examples()) {
    SCOPED_TRACE(example.config.dump());
    const ModulePtr module = module_from_config(example.config);
    module->eval();
    const int batch = example.config.value("batch_first", true) ? 0 : 1;
    Shape empty = example.input, expected = (*module)(input_for(example.config, example.input)).shape();
    empty[batch] = expected[batch] = 0;
    const bool ids = example.config["type"] == "Embedding";
    const auto input = [&] {
      return ids ? Variable(Tensor::zeros(empty, DType::i64)) : Variable(Tensor::zeros(empty), true);
    };
    expect_empty(*module, input(), expected);
    module->train();
    // Statistics of no values are none.
    const std::string type = module->type();
    if (type.starts_with("BatchNorm") || type == "BasicBlock")
      expect_error([&] { (*module)(input()); }, {"each channel needs more than one value", "eval()"});
    else
      expect_empty(*module, input(), expected);
  }
}

TEST(Config, EveryModelTakesABatchOfNoExamples) {
  for (std::string name : model_names()) {
    if (name == "mlp:SIZES") name = "mlp:12,7";
    if (name == "vgg19" || name == "resnet56") continue;  // the same code as vgg16 and resnet32, only slower
    SCOPED_TRACE(name);
    const ModulePtr model = make_model(name);
    model->eval();
    const Shape image = model_image(name);
    expect_empty(*model, Variable(Tensor::zeros({0, image[0], image[1], image[2]}), true), {0, 10});
  }
}

}  // namespace
}  // namespace espalier
