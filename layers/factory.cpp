// The table from the "type" of a configuration to the function that builds it. A new layer gets a line here.
#include "layers/activations.h"
#include "layers/config_reader.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/dropout.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "layers/models/heads.h"
#include "layers/models/lstm_rows.h"
#include "layers/models/zoo.h"
#include "layers/norm.h"
#include "layers/pooling.h"
#include "layers/registry.h"
#include "layers/residual.h"

namespace espalier {

namespace {
/// For types whose configuration is the type alone.
template <class M>
ModulePtr without_options(const nlohmann::json& config) {
  ConfigReader(config).finish();
  return std::make_shared<M>();
}

/// Configurations come from files: their nesting must not overflow the stack.
struct NestingGuard {
  static constexpr int kDeepest = 64;
  NestingGuard() {
    check(depth < kDeepest, "module_from_config", "modules are nested more than {} deep", kDeepest);
    ++depth;
  }
  ~NestingGuard() { --depth; }
  static thread_local int depth;
};
thread_local int NestingGuard::depth = 0;

ModulePtr zoo_model(const nlohmann::json& config) {
  ConfigReader reader(config);
  const std::string name = reader.text("model");
  const ModelOptions options{.classes = reader.integer("classes", 10),
                             .in_channels = reader.integer("in_channels", 0),
                             .height = reader.integer("height", 0),
                             .width = reader.integer("width", 0)};
  reader.finish();
  return make_model(name, options);
}
}  // namespace

ModulePtr module_from_config(const nlohmann::json& config) {
  const NestingGuard guard;
  check(
      config.is_object() && (config.contains("type") || config.contains("model")), "module_from_config",
      "expected a JSON object with a \"type\" such as {{\"type\": \"Linear\", \"in_features\": 784, \"out_features\": "
      "10}}, or with a \"model\" such as {{\"model\": \"resnet20\"}}");
  if (!config.contains("type")) return zoo_model(config);
  check(config["type"].is_string(), "module_from_config", "\"type\" must be a string");
  return module_registry().find("module_from_config", config["type"].get<std::string>())(config);
}

Registry<ModulePtr(const nlohmann::json&)>& module_registry() {
  static Registry<ModulePtr(const nlohmann::json&)> layers("module type",
                                                           {{"AdaptiveAvgPool2d", AdaptiveAvgPool2d::from_config},
                                                            {"AvgPool2d", AvgPool2d::from_config},
                                                            {"BasicBlock", BasicBlock::from_config},
                                                            {"BatchNorm1d", BatchNorm1d::from_config},
                                                            {"BatchNorm2d", BatchNorm2d::from_config},
                                                            {"Conv2d", Conv2d::from_config},
                                                            {"Dropout", Dropout::from_config},
                                                            {"Embedding", Embedding::from_config},
                                                            {"Flatten", without_options<Flatten>},
                                                            {"GaussianNoise", GaussianNoise::from_config},
                                                            {"GELU", without_options<GELU>},
                                                            {"Heads", Heads::from_config},
                                                            {"Identity", without_options<Identity>},
                                                            {"LSTM", LSTM::from_config},
                                                            {"LayerNorm", LayerNorm::from_config},
                                                            {"LeakyReLU", LeakyReLU::from_config},
                                                            {"Linear", Linear::from_config},
                                                            {"LstmRows", LstmRows::from_config},
                                                            {"MaxPool2d", MaxPool2d::from_config},
                                                            {"PadShortcut", PadShortcut::from_config},
                                                            {"ReLU", without_options<ReLU>},
                                                            {"Residual", Residual::from_config},
                                                            {"Sequential", Sequential::from_config},
                                                            {"SiLU", without_options<SiLU>},
                                                            {"Sigmoid", without_options<Sigmoid>},
                                                            {"Softmax", Softmax::from_config},
                                                            {"Tanh", without_options<Tanh>}});
  return layers;
}

}  // namespace espalier
