#include <nlohmann/json.hpp>

#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/dropout.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "layers/registry.h"
#include "layers/residual.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

std::vector<std::string> names_of(const Module& module) {
  std::vector<std::string> names;
  for (const auto& [name, parameter] : module.named_parameters()) names.push_back(name);
  return names;
}

std::shared_ptr<Sequential> small_net() {
  auto net = std::make_shared<Sequential>();
  net->add("conv1", Conv2d(3, 4, {.kernel = 3, .padding = 1, .bias = false}));
  net->add("bn1", BatchNorm2d(4));
  Sequential stage;
  stage.add(BasicBlock(4, 8, {.stride = 2}));
  net->add("stage1", std::move(stage));
  net->add("flatten", Flatten());
  net->add("fc", Linear(8 * 4 * 4, 5));
  return net;
}

TEST(Module, NamesAreFullAndInOrder) {
  const auto net = small_net();
  EXPECT_EQ(names_of(*net),
            (std::vector<std::string>{"conv1.weight", "bn1.weight", "bn1.bias", "stage1.0.conv1.weight",
                                      "stage1.0.bn1.weight", "stage1.0.bn1.bias", "stage1.0.conv2.weight",
                                      "stage1.0.bn2.weight", "stage1.0.bn2.bias", "fc.weight", "fc.bias"}));
  EXPECT_EQ(net->named_buffers()[3].first, "stage1.0.bn1.running_mean");
  EXPECT_EQ(net->num_parameters(), 3 * 4 * 9 + 8 + 4 * 8 * 9 + 16 + 8 * 8 * 9 + 16 + 128 * 5 + 5);
}

TEST(Module, ParametersKnowTheirFullNameAndPartsDoNotRename) {
  const auto net = small_net();
  const auto conv = net->find<Conv2d>("stage1.0.conv1");
  EXPECT_EQ(conv->weight().name(), "stage1.0.conv1.weight");
  EXPECT_EQ(conv->weight().variable().name(), "stage1.0.conv1.weight");
  EXPECT_EQ(conv->named_parameters()[0].first, "weight");
  EXPECT_EQ(conv->weight().name(), "stage1.0.conv1.weight");
  EXPECT_EQ(conv->label(), "Conv2d stage1.0.conv1");
  Sequential other;
  other.add("body", ModulePtr(net));
  EXPECT_EQ(conv->weight().name(), "body.stage1.0.conv1.weight");
}

TEST(Module, FindNamesTheNearest) {
  const auto net = small_net();
  EXPECT_EQ(net->find("").get(), net.get());
  EXPECT_EQ(net->find("stage1.0")->type(), "BasicBlock");
  expect_error([&] { net->find("stage1.0.conv3"); }, {"[find]", "stage1.0.conv3", "did you mean"});
  expect_error([&] { net->find<Linear>("conv1"); }, {"'conv1' is a Conv2d"});
}

TEST(Module, RejectsBadNames) {
  Sequential net;
  net.add("a", ReLU());
  expect_error([&] { net.add("a", ReLU()); }, {"'a' is taken"});
  expect_error([&] { net.add("a.b", ReLU()); }, {"'a.b'"});
  expect_error([&] { net.add("c", ModulePtr()); }, {"'c' is a null pointer"});
}

TEST(Module, ALayerUsedTwiceIsListedOnce) {
  const auto layer = share(Linear(4, 4));
  Sequential net;
  net.add("first", ModulePtr(layer)).add("relu", ReLU()).add("second", ModulePtr(layer));
  EXPECT_EQ(names_of(net), (std::vector<std::string>{"first.weight", "first.bias"}));
  EXPECT_EQ(layer->weight().name(), "first.weight");
  EXPECT_EQ(net.num_parameters(), 20);
  const Variable x = noise({2, 4}, 1, DType::f32);
  sum(net(x)).backward();
  EXPECT_TRUE(layer->weight().grad().defined());

  const ModulePtr copy = net.clone();
  EXPECT_EQ(names_of(*copy), names_of(net));
  EXPECT_EQ(copy->children()[0].second, copy->children()[2].second);
  EXPECT_TRUE(identical((*copy)(x).data(), net(x).data()));
}

TEST(Module, TiedWeightsAreOneParameter) {
  Sequential net;
  net.add("table", Embedding(7, 3));
  net.add("head", Linear(3, 7));
  const auto head = net.find<Linear>("head");
  const auto table = net.find<Embedding>("table");
  head->share_parameter("weight", table->weight());
  EXPECT_EQ(head->weight().id(), table->weight().id());
  EXPECT_EQ(names_of(net), (std::vector<std::string>{"table.weight", "head.bias"}));
  EXPECT_EQ(head->weight().name(), "table.weight");

  const ModulePtr copy = net.clone();
  EXPECT_EQ(copy->find<Linear>("head")->weight().id(), copy->find<Embedding>("table")->weight().id());
  EXPECT_NE(copy->find<Linear>("head")->weight().id(), head->weight().id());
  EXPECT_EQ(names_of(*copy), names_of(net));

  expect_error([&] { head->share_parameter("weight", Linear(4, 7).weight()); }, {"(7,3)", "(7,4)"});
  expect_error([&] { head->share_parameter("wieght", table->weight()); }, {"did you mean 'weight'"});
}

TEST(Module, CloneIsIndependentAndDrawsNothing) {
  const auto net = small_net();
  const Variable x = noise({2, 3, 8, 8}, 2, DType::f32);
  (*net)(x);  // moves the running statistics
  net->find("bn1")->eval();
  net->find<Linear>("fc")->weight();
  Parameter frozen = net->find<Linear>("fc")->bias();
  frozen.set_requires_grad(false);
  const PhiloxState before = default_generator().state();
  const ModulePtr copy = net->clone();
  EXPECT_EQ(default_generator().state(), before);

  EXPECT_FALSE(copy->find("bn1")->is_training());
  EXPECT_TRUE(copy->find("stage1")->is_training());
  EXPECT_FALSE(copy->find<Linear>("fc")->bias().requires_grad());
  EXPECT_TRUE(copy->find<Linear>("fc")->weight().requires_grad());
  const auto own = state_of(*net), theirs = state_of(*copy);
  ASSERT_EQ(own.size(), theirs.size());
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT_EQ(own[i].first, theirs[i].first);
    EXPECT_TRUE(identical(own[i].second, theirs[i].second)) << own[i].first;
    EXPECT_NE(own[i].second.storage(), theirs[i].second.storage()) << own[i].first;
  }
  Tensor weight = net->find<Conv2d>("conv1")->weight().data();
  const Tensor kept = copy->find<Conv2d>("conv1")->weight().data().clone();
  weight.fill_(7);
  EXPECT_TRUE(identical(copy->find<Conv2d>("conv1")->weight().data(), kept));
}

TEST(Module, TrainAndEvalReachAllAndEvalModeRestores) {
  const auto net = small_net();
  net->eval();
  for (const auto& [name, module] : net->named_modules()) EXPECT_FALSE(module->is_training()) << name;
  net->train();
  net->find("bn1")->eval();
  {
    const EvalMode eval(*net);
    EXPECT_FALSE(net->find("stage1.0.bn2")->is_training());
  }
  EXPECT_TRUE(net->find("stage1.0.bn2")->is_training());
  EXPECT_FALSE(net->find("bn1")->is_training());
}

TEST(Module, ConvertsDtypes) {
  const auto net = small_net();
  Parameter weight = net->find<Linear>("fc")->weight();
  const void* id = weight.id();
  const Tensor before = weight.data();
  sum((*net)(noise({2, 3, 8, 8}, 3, DType::f32))).backward();
  net->to(DType::f64);
  EXPECT_EQ(weight.data().dtype(), DType::f64);
  EXPECT_EQ(weight.id(), id);
  EXPECT_EQ(weight.grad().dtype(), DType::f64);
  EXPECT_TRUE(weight.requires_grad());
  EXPECT_EQ(max_difference(weight.data(), before), 0);
  for (const auto& [name, buffer] : net->named_buffers())
    EXPECT_EQ(buffer.dtype(), name.ends_with("num_batches_tracked") ? DType::i64 : DType::f64) << name;
  EXPECT_EQ((*net)(noise({2, 3, 8, 8}, 3)).dtype(), DType::f64);
  net->zero_grad();
  EXPECT_FALSE(weight.grad().defined());
  expect_error([&] { net->to(DType::i64); }, {"f32 or f64", "i64"});
}

TEST(Module, LoadStateListsEveryMisfitAndChangesNothing) {
  const auto net = small_net();
  NamedTensors state;
  for (const auto& [name, tensor] : state_of(*net)) {
    if (name == "bn1.weight" || name == "stage1.0.bn2.running_var") continue;
    const Tensor changed = tensor.to(DType::f32) + 1.0;
    state.emplace_back(name, name == "fc.weight" ? Tensor::zeros({5, 100}) : changed);
  }
  state.emplace_back("conv1.wieght", Tensor::zeros({1}));
  state.emplace_back("fc.bias", Tensor::zeros({5}));
  const Tensor before = net->find<Conv2d>("conv1")->weight().data().clone();
  expect_error([&] { load_state(*net, state); },
               {"[load_state]", "5 problem(s)", "missing: bn1.weight (4)", "missing: stage1.0.bn2.running_var (8)",
                "shape: fc.weight expected (5,128), got (5,100)",
                "unknown: conv1.wieght (1), did you mean 'conv1.weight'?", "twice: fc.bias"});
  EXPECT_TRUE(identical(net->find<Conv2d>("conv1")->weight().data(), before));
}

TEST(Module, LoadStateCopiesAndConverts) {
  const auto net = small_net(), other = small_net();
  other->to(DType::f64);
  const Variable x = noise({2, 3, 8, 8}, 4, DType::f32);
  other->find<BatchNorm2d>("bn1")->forward(noise({2, 4, 8, 8}, 4));
  load_state(*net, state_of(*other));
  other->to(DType::f32);
  net->eval();
  other->eval();
  EXPECT_EQ(net->find<BatchNorm2d>("bn1")->num_batches_tracked().item(), 1);
  EXPECT_TRUE(identical((*net)(x).data(), (*other)(x).data()));
}

TEST(Module, ObserversSeeEveryCallAndNest) {
  Sequential net(Linear(3, 4), ReLU(), Linear(4, 2));
  std::vector<std::string> seen;
  int outer = 0;
  {
    const ForwardObserver count([&](Module&, const Variable&, const Variable&) { ++outer; });
    {
      const ForwardObserver observer([&](Module& module, const Variable& input, const Variable& output) {
        seen.push_back(fmt::format("{} {}->{}", module.type(), input.shape(), output.shape()));
      });
      net(Variable(Tensor::zeros({5, 3})));
    }
    net(Variable(Tensor::zeros({5, 3})));
  }
  net(Variable(Tensor::zeros({5, 3})));
  EXPECT_EQ(seen, (std::vector<std::string>{"Linear (5,3)->(5,4)", "ReLU (5,4)->(5,4)", "Linear (5,4)->(5,2)",
                                            "Sequential (5,3)->(5,2)"}));
  EXPECT_EQ(outer, 8);
}

/// A user's module: held by value, moved into place, known to clone once its type is registered.
class Doubled : public Module {
 public:
  explicit Doubled(int64_t n) : inner_(add_child("inner", Linear(n, n))) {}
  Variable forward(const Variable& x) override { return (*inner_)(x)*2.0; }
  std::string type() const override { return "Doubled"; }
  nlohmann::json config() const override { return {{"type", type()}, {"n", inner_->in_features()}}; }

 private:
  std::shared_ptr<Linear> inner_;
};

TEST(Module, UsersTypesJoinTheTable) {
  Sequential net(Doubled(3), ReLU());
  expect_error([&] { net.clone(); }, {"unknown module type 'Doubled'"});
  module_registry().replace("Doubled", [](const nlohmann::json& config) -> ModulePtr {
    return std::make_shared<Doubled>(config.at("n").get<int64_t>());
  });
  const Variable x = noise({2, 3}, 5, DType::f32);
  EXPECT_TRUE(identical((*net.clone())(x).data(), net(x).data()));
}

TEST(Parameter, RejectsIntegersAndReportsUndefined) {
  expect_error([] { Parameter("ids", Tensor::zeros({2}, DType::i64)); }, {"'ids'", "i64"});
  const Parameter none;
  EXPECT_FALSE(none.defined());
  EXPECT_FALSE(none.variable().defined());
  expect_error([&] { none.name(); }, {"undefined"});
}

TEST(Parameter, SetDataKeepsIdentityAndForgetsTheGradient) {
  Linear layer(3, 2);
  Parameter weight = layer.weight();
  sum(layer(Variable(Tensor::ones({1, 3})))).backward();
  ASSERT_TRUE(weight.grad().defined());
  const void* id = weight.id();
  weight.set_data(Tensor::ones({1, 3}));
  EXPECT_EQ(weight.id(), id);
  EXPECT_FALSE(weight.grad().defined());
  EXPECT_TRUE(weight.requires_grad());
  EXPECT_EQ(layer.out_features(), 1);
  EXPECT_EQ(layer.config()["out_features"], 1);
}

TEST(Dropout, IsTheIdentityInEvaluation) {
  Dropout layer({.p = 0.25});
  const Variable x(Tensor::ones({100, 100}));
  set_seed(3);
  const Tensor y = layer(x).data();
  const double kept = sum(y > 0.5).item() / 1e4;
  EXPECT_NEAR(kept, 0.75, 4 * std::sqrt(0.75 * 0.25 / 1e4));
  EXPECT_EQ(max(y).item(), static_cast<float>(1 / 0.75));
  layer.eval();
  EXPECT_TRUE(identical(layer(x).data(), x.data()));
  expect_error([] { Dropout({.p = 1}); }, {"[Dropout]", "0 <= p < 1"});
}

}  // namespace
}  // namespace espalier
