// Transforms: what operations see in place of a parameter or of a module's output.
#include "layers/transforms.h"

#include <nlohmann/json.hpp>

#include "layers/activations.h"
#include "layers/conv.h"
#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/registry.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

using Values = std::vector<float>;

/// x times a learned number: a transform as a user would write it.
class Scale : public Module {
 public:
  explicit Scale(double factor) : factor_(add_parameter("factor", Tensor::full({1}, factor))) {}
  Variable forward(const Variable& x) override { return is_training() ? x * factor_ : x * (factor_ * 2.0); }
  std::string type() const override { return "Scale"; }
  nlohmann::json config() const override { return {{"type", type()}}; }
  const Parameter& factor() const { return factor_; }

 private:
  Parameter& factor_;
};

void register_scale() {
  module_registry().replace("Scale", [](const nlohmann::json&) { return std::make_shared<Scale>(1); });
}

Values values(const Variable& x) { return x.data().to_vector<float>(); }

/// x -> -x - 1: it makes something of zeros.
class Shift : public Module {
 public:
  Variable forward(const Variable& x) override { return -x - 1.0; }
  std::string type() const override { return "Shift"; }
  nlohmann::json config() const override { return {{"type", type()}}; }
};

TEST(Transforms, OperationsSeeTheChainAndThenTheMask) {
  Parameter weight("weight", Tensor::from<float>({1, 2, 3}, {3}));
  const auto scale = std::make_shared<Scale>(10);
  weight.add_transform(std::make_shared<Shift>());
  weight.add_transform(scale);
  EXPECT_EQ(values(weight.operand()), (Values{-20, -30, -40}));
  weight.set_mask(Mask::from_units({3}, Pattern::element(), {true, false, true}));
  const Variable operand = weight.operand();
  EXPECT_EQ(values(operand), (Values{-20, 0, -40}));
  ASSERT_NE(operand.weight_view(), nullptr);
  sum(operand).backward();
  EXPECT_EQ(weight.grad().to_vector<float>(), (Values{-10, 0, -10}));
  EXPECT_EQ(scale->factor().grad().item(), -2 - 4);
  weight.zero_grad();
  weight.set_mask(weight.mask(), GradientFlow::dense);
  EXPECT_EQ(values(weight.operand()), (Values{-20, 0, -40}));
  sum(weight.operand()).backward();
  EXPECT_EQ(weight.grad().to_vector<float>(), (Values{-10, -10, -10}));
  weight.set_transforms({weight.transforms()[0]});
  EXPECT_EQ(values(weight.operand()), (Values{-2, 0, -4}));
}

TEST(Transforms, FoldIntoTheValueAsEvaluationSeesIt) {
  Parameter weight("weight", Tensor::from<float>({1, 2, 3}, {3}));
  weight.add_transform(std::make_shared<Scale>(10));
  weight.set_mask(Mask::from_units({3}, Pattern::element(), {true, false, true}));
  weight.fold_transforms();
  EXPECT_TRUE(weight.transforms().empty());
  EXPECT_EQ(weight.data().to_vector<float>(), (Values{20, 0, 60}));
  EXPECT_EQ(values(weight.operand()), (Values{20, 0, 60}));
}

TEST(Transforms, AreClonedWithTheirStateAndWhatTheyShare) {
  register_scale();
  set_seed(1);
  const ModulePtr net = share(Linear(3, 2));
  const auto first = std::make_shared<Scale>(3), second = std::make_shared<Scale>(1);
  second->share_parameter("factor", first->factor());
  net->parameters()[0].add_transform(first);
  net->parameters()[1].add_transform(second);
  net->parameters()[1].add_transform(first);
  const ModulePtr copy = net->clone();
  const Variable x(noise({4, 3}, 2, DType::f32));
  EXPECT_TRUE(identical((*copy)(x).data(), (*net)(x).data()));
  copy->eval();
  EXPECT_FALSE(identical((*copy)(x).data(), (*net)(x).data()));  // the copy has a mode of its own
  net->eval();
  EXPECT_TRUE(identical((*copy)(x).data(), (*net)(x).data()));
  const auto of = [&](size_t parameter, size_t place) {
    return std::dynamic_pointer_cast<Scale>(copy->parameters()[parameter].transforms().at(place));
  };
  EXPECT_EQ(of(0, 0), of(1, 1));
  EXPECT_EQ(of(0, 0)->factor().id(), of(1, 0)->factor().id());
  EXPECT_NE(of(0, 0)->factor().id(), first->factor().id());
  EXPECT_EQ(net->named_parameters().size(), 2U);
}

TEST(Transforms, OfAnOutputAreALayerBehindTheLayer) {
  register_scale();
  set_seed(1);
  const ModulePtr net = share(Sequential(Linear(3, 2), ReLU()));
  const Variable x(noise({4, 3}, 2, DType::f32));
  const Tensor plain = (*net->find("0"))(x).data();
  const auto scale = std::make_shared<Scale>(-1);
  net->find("0")->set_output_transform(scale);
  EXPECT_TRUE(identical((*net)(x).data(), relu(Variable(-plain)).data()));
  std::vector<std::string> names;
  for (const auto& [name, parameter] : net->named_parameters()) names.push_back(parameter.name());
  EXPECT_EQ(names, (std::vector<std::string>{"0.weight", "0.bias", "0.output_transform.factor"}));
  EXPECT_EQ(net->find("0.output_transform"), scale);

  std::vector<std::string> called;
  {
    const ForwardObserver observer(
        [&](Module& module, const Variable&, const Variable&) { called.push_back(module.type()); });
    (*net)(x);
  }
  EXPECT_EQ(called, (std::vector<std::string>{"Linear", "Scale", "ReLU", "Sequential"}));
  const ModulePtr copy = net->clone();
  EXPECT_TRUE(identical((*copy)(x).data(), (*net)(x).data()));
  net->eval();
  EXPECT_FALSE(scale->is_training());
  net->find("0")->set_output_transform(nullptr);
  EXPECT_TRUE(identical((*net)(x).data(), relu(Variable(plain)).data()));
}

TEST(Transforms, ANoiseLayerIsOneInTrainingOnly) {
  set_seed(3);
  const ModulePtr net = share(Linear(50, 40));
  net->parameters()[0].add_transform(std::make_shared<GaussianNoise>(NoiseOptions{.deviation = 0.5}));
  const Tensor difference = net->parameters()[0].operand().data() - net->parameters()[0].data();
  EXPECT_NEAR(std::sqrt(mean(square(difference)).item()), 0.5, 0.02);
  const ModulePtr copy = net->clone();
  net->eval();
  EXPECT_TRUE(identical(net->parameters()[0].operand().data(), net->parameters()[0].data()));
  EXPECT_EQ(copy->parameters()[0].transforms()[0]->config(), GaussianNoise({.deviation = 0.5}).config());
  EXPECT_THROW(GaussianNoise({.deviation = -1}), ArgumentError);
}

TEST(Transforms, AreBuiltFromTheirConfigurationUnlessTheyAreThere) {
  register_scale();
  const ModulePtr net = share(Sequential(Linear(3, 2), ReLU())), other = share(Sequential(Linear(3, 2), ReLU()));
  EXPECT_TRUE(transforms_config(*net).is_null());
  net->parameters()[0].add_transform(std::make_shared<Scale>(2));
  net->find("1")->set_output_transform(std::make_shared<Scale>(2));
  const nlohmann::json config = transforms_config(*net);
  build_transforms(*other, config);
  EXPECT_EQ(transforms_config(*other), config);
  const ModulePtr wide = share(Sequential(Linear(3, 2), ReLU()));
  wide->to(DType::f64);
  build_transforms(*wide, config);
  EXPECT_EQ((*wide)(Variable(noise({4, 3}, 2))).dtype(), DType::f64);
  const ModulePtr before = other->parameters()[0].transforms()[0];
  build_transforms(*other, config);
  EXPECT_EQ(other->parameters()[0].transforms()[0], before);
  build_transforms(*other, nullptr);
  EXPECT_TRUE(other->parameters()[0].transforms().empty());
  EXPECT_EQ(other->find("1")->output_transform(), nullptr);
  const ModulePtr stranger = share(Linear(3, 2));
  expect_error([&] { build_transforms(*stranger, config); }, {"[set_parameter_transforms]", "0/weight", "Scale"});
}

TEST(Transforms, OfTheWrongShapeAreNamed) {
  class Half : public Module {
    Variable forward(const Variable& x) override { return slice(x, 0, 0, 1); }
    std::string type() const override { return "Half"; }
    nlohmann::json config() const override { return {{"type", type()}}; }
  };
  Linear layer(3, 2);
  Parameter weight = layer.parameter("weight");
  weight.add_transform(std::make_shared<Half>());
  expect_error([&] { weight.operand(); }, {"[Parameter::operand]", "Half", "weight", "(1,3)", "(2,3)"});
  expect_error([&] { weight.add_transform(nullptr); }, {"[Parameter::add_transform]", "weight"});
  weight.set_transforms({});
  layer.set_output_transform(std::make_shared<Half>());
  expect_error([&] { layer(Variable(Tensor::zeros({2, 3}))); }, {"Linear", "Half", "(1,2)", "(2,2)"});
}

}  // namespace
}  // namespace espalier
