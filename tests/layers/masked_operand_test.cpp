// The mask travels with the operand: layers' operations and their gradients know which weights exist.
#include <map>

#include "layers/conv.h"
#include "layers/embedding.h"
#include "layers/linear.h"
#include "layers/lstm.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

using Counts = std::map<std::pair<std::string, WeightProduct>, int>;
constexpr auto kForward = WeightProduct::forward;
constexpr auto kInput = WeightProduct::input_gradient;
constexpr auto kWeight = WeightProduct::weight_gradient;

/// Every second weight.
Mask half(const Shape& shape) {
  std::vector<bool> exists(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < exists.size(); i += 2) exists[i] = true;
  return Mask::from_units(shape, Pattern::element(), exists);
}

void mask_weights(Module& layer, GradientFlow flow = GradientFlow::masked) {
  for (Parameter& parameter : layer.parameters())
    if (parameter.shape().rank() > 1) parameter.set_mask(half(parameter.shape()), flow);
}

/// The products with masked weights of a forward and a backward pass.
Counts products(Module& layer, const Variable& x, const BackwardOptions& options = {}) {
  Counts counts;
  const WeightProductObserver observer([&](const char* operation, WeightProduct product, const WeightView& view) {
    EXPECT_TRUE(view.mask.defined());
    ++counts[{operation, product}];
  });
  layer.zero_grad();
  sum(square(layer(x))).backward({}, options);
  Variable(x).zero_grad();  // with a history it would hold the leaf that holds it
  return counts;
}

Variable input(const Shape& shape) { return Variable(noise(shape, 1, DType::f32), true); }

TEST(MaskedOperand, ReachesEveryProductOfLinearForwardAndBackward) {
  Linear layer(4, 3);
  EXPECT_EQ(products(layer, input({2, 4})), Counts());
  mask_weights(layer);
  EXPECT_EQ(products(layer, input({2, 4})),
            (Counts{{{"linear", kForward}, 1}, {{"linear", kInput}, 1}, {{"linear", kWeight}, 1}}));
  EXPECT_EQ(products(layer, noise({2, 4}, 1, DType::f32)),
            (Counts{{{"linear", kForward}, 1}, {{"linear", kWeight}, 1}}));
}

TEST(MaskedOperand, ReachesConvLstmAndEmbedding) {
  Conv2d conv(2, 3, {.kernel = 3});
  mask_weights(conv);
  EXPECT_EQ(products(conv, input({1, 2, 5, 5})),
            (Counts{{{"conv2d", kForward}, 1}, {{"conv2d", kInput}, 1}, {{"conv2d", kWeight}, 1}}));
  LSTM lstm(3, 4);
  mask_weights(lstm);
  EXPECT_EQ(products(lstm, input({5, 2, 3})),  // w_ih and w_hh
            (Counts{{{"lstm", kForward}, 2}, {{"lstm", kInput}, 2}, {{"lstm", kWeight}, 2}}));
  Embedding embedding(5, 4);
  mask_weights(embedding);
  EXPECT_EQ(products(embedding, Tensor::from<int64_t>({1, 4}, {2})),
            (Counts{{{"index_select", kForward}, 1}, {{"index_select", kWeight}, 1}}));
}

TEST(MaskedOperand, ARecordedBackwardPassIsDense) {
  Linear layer(4, 3);
  mask_weights(layer);
  const Counts counts = products(layer, input({2, 4}), {.create_graph = true});
  EXPECT_EQ(counts, (Counts{{{"linear", kForward}, 1}}));
  const Mask mask = layer.parameter("weight").mask();
  const Tensor gradient = layer.parameter("weight").grad();
  EXPECT_TRUE(identical(gradient, mask.apply(gradient)));
  EXPECT_GT(max(abs(gradient)).item(), 0);
  layer.zero_grad();
}

TEST(MaskedOperand, GradientsAreThoseOfTheDenseProductAtTheMasksPositions) {
  const auto gradients = [](Module& layer, const Variable& x, GradientFlow flow, bool create_graph) {
    mask_weights(layer, flow);
    layer.zero_grad();
    sum(square(layer(x) + 1.0)).backward({}, {.create_graph = create_graph});
    std::vector<Tensor> result;
    for (const Parameter& parameter : layer.parameters()) {
      const Tensor gradient = parameter.grad().clone();
      const Mask& mask = parameter.mask();
      result.push_back(mask.defined() ? mask.apply(gradient) : gradient);
      const bool is_whole = !mask.defined() || flow == GradientFlow::masked;
      EXPECT_EQ(identical(result.back(), gradient), is_whole) << parameter.name();
    }
    layer.zero_grad();
    Variable(x).zero_grad();
    return result;
  };
  const auto expect_same = [&](Module&& layer, const Variable& x) {
    SCOPED_TRACE(layer.type());
    const std::vector<Tensor> dense = gradients(layer, x, GradientFlow::dense, false);
    const std::vector<Tensor> masked = gradients(layer, x, GradientFlow::masked, false);
    const std::vector<Tensor> recorded = gradients(layer, x, GradientFlow::masked, true);
    for (size_t i = 0; i < dense.size(); ++i) {
      EXPECT_TRUE(identical(masked[i], dense[i])) << i;
      EXPECT_LE(max_difference(recorded[i], dense[i]), 1e-5) << i;
    }
  };
  expect_same(Linear(4, 3), input({2, 5, 4}));
  expect_same(Conv2d(2, 3, {.kernel = 3}), input({2, 2, 5, 5}));
  expect_same(LSTM(3, 4), input({5, 2, 3}));
  expect_same(Embedding(5, 4), Tensor::from<int64_t>({1, 4, 1}, {3}));
}

TEST(MaskedOperand, AGradientThatTheOperationHasMaskedIsHandedOnWithItsView) {
  Linear layer(4, 3);
  mask_weights(layer);
  const Parameter& weight = layer.parameter("weight");
  layer(input({2, 4})).sum().backward();
  const WeightViewPtr& view = weight.variable().grad().weight_view();
  ASSERT_NE(view, nullptr);
  EXPECT_EQ(view->mask.version(), weight.mask().version());
  layer(input({2, 4})).sum().backward();  // a sum of two knows nothing
  EXPECT_EQ(weight.variable().grad().weight_view(), nullptr);
  EXPECT_TRUE(identical(weight.grad(), weight.mask().apply(weight.grad())));
}

TEST(MaskedOperand, APlanIsMadeForAMaskAndFilledAgainForNewValues) {
  struct Plan {
    int made = 0, refilled = 0;
  };
  Parameter weight("weight", Tensor::ones({2, 4}));
  weight.set_mask(half({2, 4}));
  int made = 0;
  const auto plan = [&]() -> Plan& {
    const Variable operand = weight.operand();
    const WeightView& view = *operand.weight_view();
    return view.plan->get<Plan>(
        view.mask, operand.data(),
        [&](const Mask&, const Tensor&) {
          return Plan{++made, 0};
        },
        [](Plan& stale, const Tensor&) { ++stale.refilled; });
  };
  const auto expect = [&](int times_made, int times_refilled) {
    const Plan& now = plan();
    EXPECT_EQ(std::pair(now.made, now.refilled), std::pair(times_made, times_refilled));
  };
  expect(1, 0);
  expect(1, 0);
  Tensor values = weight.data();
  values.fill_(2);  // an update in place
  expect(1, 1);
  weight.set_data(Tensor::ones({2, 4}));
  expect(1, 2);
  weight.set_mask(~half({2, 4}));
  expect(2, 0);
  weight.set_mask(weight.mask(), GradientFlow::dense);
  plan().refilled = 0;
  expect(2, 0);
  weight.clear_mask();
  EXPECT_EQ(weight.operand().weight_view(), nullptr);
}

}  // namespace
}  // namespace espalier
