// What the table of operations cannot say: ties, kinks, extremes, statistics, and errors of single operations.
#include <cmath>
#include <limits>

#include "tests/autograd/testing.h"

namespace espalier {
namespace {

using testing::constant;
using testing::expect_contains;
using testing::leaf;
using testing::message_of;
using testing::values;
using Values = std::vector<double>;

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

Values gradient_of(const Variable& x, const Variable& y) { return values(grad({sum(y)}, {x})[0]); }

// --- kinks and ties ------------------------------------------------------------------------------------------------

TEST(Kinks, DerivativeAtZero) {
  const Variable x = leaf({-1, 0, 1});
  EXPECT_EQ(gradient_of(x, abs(x)), (Values{-1, 0, 1}));
  EXPECT_EQ(gradient_of(x, relu(x)), (Values{0, 0, 1}));
  EXPECT_EQ(gradient_of(x, square(x)), (Values{-2, 0, 2}));
  EXPECT_EQ(gradient_of(x, pow(x, 2)), (Values{-2, 0, 2}));
}

TEST(Kinks, SmoothFunctionsBuiltFromKinksAreSmoothAtZero) {
  const Variables zero = {leaf({0, 0.5, 0})};
  const auto one = [](Variable (*f)(const Variable&)) {
    return [f](const Variables& v) { return Variables{f(v[0])}; };
  };
  for (Variable (*f)(const Variable&) : {&softplus, &gelu, &silu, &sigmoid}) {
    EXPECT_TRUE(gradcheck(one(f), zero));
    EXPECT_TRUE(gradgradcheck(one(f), zero));
  }
  EXPECT_EQ(gradient_of(zero[0], softplus(zero[0]))[0], 0.5);
  const auto bce = [](const Variables& v) { return Variables{bce_with_logits(v[0], constant({0, 1, 1}))}; };
  EXPECT_TRUE(gradcheck(bce, zero));
  EXPECT_TRUE(gradgradcheck(bce, zero));
}

TEST(Kinks, ClampPassesTheGradientAtItsBounds) {
  const Variable x = leaf({-2, -1, 0, 1, 2});
  EXPECT_EQ(gradient_of(x, clamp(x, -1, 1)), (Values{0, 1, 1, 1, 0}));
}

TEST(Ties, MaximumGivesToTheFirst) {
  const Variable a = leaf({1, 2, 3}), b = leaf({3, 2, 1});
  EXPECT_EQ(gradient_of(a, maximum(a, b)), (Values{0, 1, 1}));
  EXPECT_EQ(gradient_of(b, maximum(a, b)), (Values{1, 0, 0}));
  EXPECT_EQ(gradient_of(a, minimum(a, b)), (Values{1, 1, 0}));
}

TEST(Ties, ReducedExtremesShareEvenly) {
  const Variable x = leaf({3, 1, 3, 3, 0, -1, 0, 0}, {2, 4});
  const Values g = gradient_of(x, max(x, {1}) * constant({3, 6}));
  EXPECT_EQ(g, (Values{1, 0, 1, 1, 2, 0, 2, 2}));
  EXPECT_EQ(gradient_of(x, min(x, {1})), (Values{0, 1, 0, 0, 0, 1, 0, 0}));
}

TEST(Ties, MaxPoolingGivesToTheFirstOfAWindow) {
  const Variable x = leaf({1, 1, 1, 1}, {1, 1, 2, 2});
  EXPECT_EQ(gradient_of(x, max_pool2d(x, {.kernel_h = 2, .kernel_w = 2})), (Values{1, 0, 0, 0}));
}

// --- extremes ------------------------------------------------------------------------------------------------------

TEST(Extremes, StableFormulasDoNotOverflow) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Variable x = leaf({-1000, 1000, 0}, {3}, dtype);
    EXPECT_EQ(values(sigmoid(x)), (Values{0, 1, 0.5}));
    EXPECT_EQ(values(softplus(x))[0], 0);
    EXPECT_EQ(values(softplus(x))[1], 1000);
    EXPECT_EQ(values(tanh(x)), (Values{-1, 1, 0}));
    EXPECT_EQ(values(gelu(x)), (Values{0, 1000, 0}));
    EXPECT_EQ(values(silu(x)), (Values{0, 1000, 0}));
    EXPECT_EQ(values(erf(x)), (Values{-1, 1, 0}));
    for (const Variable& y : {sigmoid(x), softplus(x), tanh(x), gelu(x), silu(x), erf(x)})
      for (double g : gradient_of(x, y)) EXPECT_TRUE(std::isfinite(g)) << y.node()->operation();
    EXPECT_EQ(gradient_of(x, softplus(x)), (Values{0, 1, 0.5}));
    EXPECT_EQ(values(softmax(x)), (Values{0, 1, 0}));
    EXPECT_EQ(values(log_softmax(x)), (Values{-2000, 0, -1000}));
    EXPECT_EQ(logsumexp(x, 0).item(), 1000);
    EXPECT_EQ(values(bce_with_logits(x, constant({0, 1, 1}, {3}, dtype), Reduction::none))[0], 0);
    EXPECT_EQ(values(bce_with_logits(x, constant({1, 0, 1}, {3}, dtype), Reduction::none))[1], 1000);
  }
  EXPECT_NEAR(logsumexp(leaf({1000, 1000}), 0).item(), 1000 + std::log(2), 1e-12);
}

TEST(Extremes, BinaryCrossEntropyCancelsForNeitherSign) {
  struct Case {
    double x, t, loss, gradient, second;  // with 60 digits, rounded
  };
  const Case cases[] = {{40, 1, 4.2483542552915889e-18, -4.2483542552915889e-18, 4.2483542552915889e-18},
                        {-40, 0, 4.2483542552915889e-18, 4.2483542552915889e-18, 4.2483542552915889e-18},
                        {20, 1, 2.0611536203143808e-09, -2.0611536181902037e-09, 2.0611536139418492e-09},
                        {-20, 0, 2.0611536203143808e-09, 2.0611536181902037e-09, 2.0611536139418492e-09},
                        {5, 1, 0.0067153484891180684, -0.0066928509242848554, 0.0066480566707901546},
                        {-5, 0, 0.0067153484891180684, 0.0066928509242848554, 0.0066480566707901546},
                        {0, 0.25, 0.69314718055994529, 0.25, 0.25},
                        {3, 0.5, 1.5485873515737421, 0.4525741268224332, 0.04517665973091213},
                        {-3, 0.5, 1.5485873515737421, -0.4525741268224332, 0.04517665973091213},
                        {30, 0, 30.000000000000092, 0.99999999999990641, 9.3576229688384229e-14},
                        {-30, 1, 30.000000000000092, -0.99999999999990641, 9.3576229688384229e-14}};
  for (const DType dtype : {DType::f32, DType::f64}) {
    const double relative = 8 * (dtype == DType::f32 ? 0x1p-23 : 0x1p-52);
    for (const Case& c : cases) {
      const Variable x = leaf({c.x}, {1}, dtype);
      const Variable loss = bce_with_logits(x, constant({c.t}, {1}, dtype));
      const Variable gradient = grad({loss}, {x}, {.create_graph = true})[0], second = grad({gradient}, {x})[0];
      EXPECT_NEAR(loss.item() / c.loss, 1, relative) << c.x << ", " << c.t;
      EXPECT_NEAR(gradient.item() / c.gradient, 1, relative) << c.x << ", " << c.t;
      EXPECT_NEAR(second.item() / c.second, 1, relative) << c.x << ", " << c.t;
    }
  }
}

TEST(Extremes, VarianceWithoutDegreesOfFreedomIsNeverNegative) {
  const Variable two = leaf({1, 3});
  EXPECT_EQ(variance(two, {}, false, 1).item(), 2);
  for (const int correction : {2, 3, 10}) {
    EXPECT_EQ(variance(two, {}, false, correction).item(), kInf) << correction;
    EXPECT_EQ(variance(two.data(), {}, false, correction).item(), kInf) << correction;
  }
  EXPECT_TRUE(std::isnan(variance(leaf({5})).item()));
  EXPECT_TRUE(std::isnan(variance(leaf({5}).data(), {}, false, 2).item()));
  EXPECT_TRUE(std::isnan(variance(leaf({}, {0})).item()));
}

TEST(Extremes, LogsumexpOfInfinities) {
  EXPECT_EQ(logsumexp(leaf({-kInf, -kInf}), 0).item(), -kInf);
  EXPECT_EQ(logsumexp(leaf({1, kInf}), 0).item(), kInf);
  EXPECT_NEAR(logsumexp(leaf({-kInf, 2}), 0).item(), 2, 1e-15);
  EXPECT_TRUE(std::isnan(logsumexp(leaf({1, kNan}), 0).item()));
}

TEST(Extremes, MaskedClassesCostNothing) {
  // A logit of -infinity is how a class is switched off.
  const Variable logits = leaf({1, -kInf, 2, 0.5, 1, -kInf}, {2, 3});
  const Tensor targets = Tensor::from<int64_t>({2, 0}, {2});
  const Variable loss = cross_entropy(logits, targets);
  EXPECT_NEAR(loss.item(), (std::log1p(std::exp(-1)) + std::log1p(std::exp(0.5))) / 2, 1e-14);
  const Values g = gradient_of(logits, loss);
  for (double v : g) EXPECT_TRUE(std::isfinite(v));
  EXPECT_EQ(g[1], 0);
  EXPECT_EQ(g[5], 0);
  const Variable log_p = leaf({-0.5, -kInf, -1, -2}, {2, 2});
  EXPECT_EQ(nll_loss(log_p, Tensor::from<int64_t>({0, 1}, {2})).item(), 1.25);
  EXPECT_EQ(values(softmax(leaf({-kInf, 1})))[0], 0);
}

TEST(Extremes, KlDivergenceOfClassesOfProbabilityZero) {
  const Variable log_q = leaf({std::log(0.25), std::log(0.75)}, {1, 2});
  const Variable one_hot_p = constant({0, -kInf}, {1, 2});
  const Variable kl = kl_divergence(log_q, one_hot_p);
  EXPECT_NEAR(kl.item(), std::log(4), 1e-15);
  EXPECT_EQ(gradient_of(log_q, kl), (Values{-1, 0}));
}

TEST(Extremes, NanIsNotSwallowed) {
  const Variable x = leaf({kNan, 1});
  const Variable zero = constant({0, 0});
  for (const Variable& y : {relu(x), leaky_relu(x), maximum(x, zero), maximum(zero, x), minimum(x, zero),
                            clamp(x, -1, 1), sigmoid(x), tanh(x), gelu(x), silu(x), softplus(x), abs(x), softmax(x)})
    EXPECT_TRUE(std::isnan(values(y)[0])) << y.node()->operation();
  EXPECT_TRUE(std::isnan(max(x).item()));
  EXPECT_TRUE(std::isnan(values(max_pool2d(leaf({1, kNan, 3, 4}, {1, 1, 2, 2}), {.kernel_h = 2, .kernel_w = 2}))[0]));
}

TEST(Extremes, NormalisationOfALargeOffset) {
  // Variance as a difference of squares would be all rounding here.
  const Variable x = leaf({4096, 4097, 4098, 4099}, {4, 1}, DType::f32);
  const Values y = values(batch_norm(x, {}, {}, 0, nullptr));
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(y[i], (static_cast<double>(i) - 1.5) / std::sqrt(1.25), 1e-5);
}

// --- statistics ----------------------------------------------------------------------------------------------------

TEST(BatchNorm, HandsOutItsStatistics) {
  const Variable x = leaf({1, 10, 2, 20, 3, 30, 6, 60}, {4, 2});
  BatchStats stats;
  const Variable y = batch_norm(x, {}, {}, 1e-5, &stats);
  EXPECT_EQ(values(stats.mean), (Values{3, 30}));
  EXPECT_EQ(values(stats.variance), (Values{3.5, 350}));  // biased: divided by 4
  const Variable same = batch_norm_eval(x, stats.mean, stats.variance, {}, {}, 1e-5);
  EXPECT_TRUE(all_close(y.data(), same.data(), 1e-12, 1e-12));
}

TEST(BatchNorm, WeightAndBiasAreOptionalOneByOne) {
  const Variable x = leaf({1, 10, 2, 20, 3, 30, 6, 60}, {4, 2}), weight = leaf({2, 3}), bias = leaf({5, 7});
  const auto norm = [](int which) {
    return [which](const Variables& v) {
      return Variables{batch_norm(v[0], which & 1 ? v[1] : Variable(), which & 2 ? v[2] : Variable(), 1e-3, nullptr)};
    };
  };
  for (int which = 0; which < 4; ++which) {
    EXPECT_TRUE(gradcheck(norm(which), {x, weight, bias})) << which;
    EXPECT_TRUE(gradgradcheck(norm(which), {x, weight, bias})) << which;
  }
  EXPECT_TRUE(all_close(norm(3)({x, weight, bias})[0].data(), (norm(0)({x})[0] * weight + bias).data(), 1e-12, 1e-12));
}

TEST(Dropout, KeepsTheMeanAndItsShare) {
  Generator generator(5);
  const Variable x(Tensor::ones({100'000}), true);
  for (double p : {0.1, 0.5, 0.9}) {
    const Variable y = dropout(x, p, generator);
    const double kept = sum((y.data() != 0.0)).item() / 1e5;
    EXPECT_NEAR(kept, 1 - p, 5 * std::sqrt(p * (1 - p) / 1e5));
    EXPECT_NEAR(mean(y.data()).item(), 1, 5 * std::sqrt(p / (1 - p) / 1e5));
    // The gradient falls where the value fell.
    EXPECT_TRUE(all_close(grad({sum(y)}, {x})[0].data(), y.data()));
  }
}

TEST(Dropout, FollowsItsGenerator) {
  const Variable x(Tensor::ones({1000}));
  Generator first(3), same(3), other(4);
  const Tensor y = dropout(x, 0.5, first).data();
  EXPECT_TRUE(identical(y, dropout(x, 0.5, same).data()));
  EXPECT_FALSE(identical(y, dropout(x, 0.5, first).data()));
  EXPECT_FALSE(identical(y, dropout(x, 0.5, other).data()));
}

TEST(Dropout, OfNothingIsTheInput) {
  const Variable x = leaf({1, 2});
  EXPECT_EQ(values(dropout(x, 0)), (Values{1, 2}));
  for (double wrong : {-0.1, 1.0, 1.5, kNan}) EXPECT_THROW(dropout(x, wrong), ArgumentError) << wrong;
}

// --- losses --------------------------------------------------------------------------------------------------------

TEST(Losses, IgnoredTargetsHaveNoGradient) {
  const Variable logits = leaf({1, 2, 3, 4, 5, 7}, {3, 2});
  const Tensor targets = Tensor::from<int64_t>({0, -100, 1}, {3});
  const Values g = gradient_of(logits, cross_entropy(logits, targets));
  EXPECT_EQ(g[2], 0);
  EXPECT_EQ(g[3], 0);
  EXPECT_NEAR(g[0], -(1 - 1 / (1 + std::exp(1))) / 2, 1e-14);  // the mean is over two examples
}

TEST(Losses, CrossEntropyIsThatOfTheLogSoftmax) {
  const Variable logits = leaf({1, 2, 3, 4, 5, 7}, {3, 2});
  const Tensor targets = Tensor::from<int64_t>({0, 1, 1}, {3});
  EXPECT_DOUBLE_EQ(cross_entropy(logits, targets).item(), nll_loss(log_softmax(logits), targets).item());
}

TEST(Losses, KlDivergenceOfADistributionFromItselfIsZero) {
  const Variable log_p = log_softmax(leaf({1, 2, 3, 4, 5, 7}, {3, 2}));
  EXPECT_NEAR(kl_divergence(log_p, log_p).item(), 0, 1e-15);
}

TEST(Losses, ErrorsNameTargetAndShapes) {
  const Variable logits = leaf({1, 2, 3, 4, 5, 7}, {3, 2});
  const auto targets = [](const std::vector<int64_t>& v) { return Tensor::from(v, {static_cast<int64_t>(v.size())}); };
  expect_contains(message_of([&] { cross_entropy(logits, targets({0, 2, 1})); }), {"[cross_entropy]", "0 to 1", "2"});
  expect_contains(message_of([&] { cross_entropy(logits, targets({0, -1, 1})); }), {"[cross_entropy]", "-1"});
  expect_contains(message_of([&] { nll_loss(logits, targets({0, 5, 1})); }), {"[nll_loss]", "5"});
  expect_contains(message_of([&] { cross_entropy(logits, targets({0, 1})); }), {"[cross_entropy]", "(3,2)", "(2)"});
  expect_contains(message_of([&] { cross_entropy(logits, Tensor::zeros({3})); }), {"[cross_entropy]", "i64", "f32"});
  expect_contains(message_of([&] {
                    cross_entropy(logits, targets({0, 1, 0}), {.class_weights = Tensor::ones({3})});
                  }),
                  {"[cross_entropy]", "(2)", "(3)"});
  expect_contains(message_of([&] { cross_entropy(logits, targets({0, 1, 0}), {.label_smoothing = 1.5}); }), {"1.5"});
  expect_contains(message_of([&] { mse_loss(logits, constant({1, 2})); }), {"[mse_loss]", "(3,2)", "(2)"});
  expect_contains(message_of([&] { l1_loss(logits, constant({1, 2})); }), {"[l1_loss]", "(3,2)", "(2)"});
  expect_contains(message_of([&] { bce_with_logits(logits, constant({1, 2})); }), {"[bce_with_logits]", "(3,2)"});
  expect_contains(message_of([&] { kl_divergence(logits, constant({1, 2})); }), {"[kl_divergence]", "(3,2)"});
}

// --- recurrence ----------------------------------------------------------------------------------------------------

struct LstmInputs {
  Variable x = leaf(numbers(24), {4, 3, 2}), h0 = leaf(numbers(6), {3, 2}), c0 = leaf(numbers(6), {3, 2}),
           w_ih = leaf(numbers(16), {8, 2}), w_hh = leaf(numbers(16), {8, 2});
  static Values numbers(int n) {
    Values v;
    for (int i = 0; i < n; ++i) v.push_back(std::sin(i * 1.7 + n));
    return v;
  }
  LstmStates run(const Tensor& lengths = {}, bool reverse = false) const {
    return lstm(x, h0, c0, w_ih, w_hh, {}, {}, lengths, reverse);
  }
};

TEST(Lstm, StepsPastTheLengthDoNotMatter) {
  const Tensor lengths = Tensor::from<int64_t>({2, 4, 1}, {3});
  for (bool reverse : {false, true}) {
    LstmInputs in;
    const LstmStates states = in.run(lengths, reverse);
    const Variables dx = grad({sum(states.output) + sum(states.h) + sum(states.c)}, {in.x});
    LstmInputs other;
    for (int64_t b = 0; b < 3; ++b)
      for (int64_t t = values(lengths)[static_cast<size_t>(b)]; t < 4; ++t) {
        other.x.data().select(0, t).select(0, b).fill_(1e6);
        EXPECT_EQ(values(dx[0].data().select(0, t).select(0, b)), (Values{0, 0}));
        EXPECT_EQ(values(states.output.data().select(0, t).select(0, b)), (Values{0, 0}));
      }
    const LstmStates same = other.run(lengths, reverse);
    EXPECT_TRUE(identical(states.output.data(), same.output.data()));
    EXPECT_TRUE(identical(states.h.data(), same.h.data()));
    EXPECT_TRUE(identical(states.c.data(), same.c.data()));
  }
}

TEST(Lstm, AShortSequenceIsTheSameAlone) {
  const Tensor lengths = Tensor::from<int64_t>({2, 4, 1}, {3});
  for (bool reverse : {false, true}) {
    const LstmInputs in;
    const LstmStates together = in.run(lengths, reverse);
    for (int64_t b = 0; b < 3; ++b) {
      const int64_t length = lengths.to_vector<int64_t>()[static_cast<size_t>(b)];
      const LstmStates alone = lstm(slice(slice(in.x, 0, 0, length), 1, b, b + 1), slice(in.h0, 0, b, b + 1),
                                    slice(in.c0, 0, b, b + 1), in.w_ih, in.w_hh, {}, {}, {}, reverse);
      EXPECT_TRUE(all_close(alone.h.data(), together.h.data().slice(0, b, b + 1), 1e-13, 1e-14));
      EXPECT_TRUE(all_close(alone.c.data(), together.c.data().slice(0, b, b + 1), 1e-13, 1e-14));
      EXPECT_TRUE(
          all_close(alone.output.data(), together.output.data().slice(0, 0, length).slice(1, b, b + 1), 1e-13, 1e-14));
    }
  }
}

TEST(Lstm, ReverseIsForwardOnTheReversedSequence) {
  const LstmInputs in;
  const Tensor backwards = Tensor::from<int64_t>({3, 2, 1, 0}, {4});
  const LstmStates reversed = in.run({}, true);
  const LstmStates forward = lstm(index_select(in.x, 0, backwards), in.h0, in.c0, in.w_ih, in.w_hh, {}, {});
  EXPECT_TRUE(all_close(reversed.h.data(), forward.h.data(), 1e-13, 1e-14));
  EXPECT_TRUE(all_close(reversed.output.data(), index_select(forward.output.data(), 0, backwards), 1e-13, 1e-14));
}

TEST(Lstm, ErrorsNameShapes) {
  const LstmInputs in;
  const auto with_lengths = [&](const Tensor& lengths) { return message_of([&] { in.run(lengths); }); };
  expect_contains(with_lengths(Tensor::from<int64_t>({2, 5, 1}, {3})), {"[lstm]", "5", "4"});
  expect_contains(with_lengths(Tensor::from<int64_t>({2, -1, 1}, {3})), {"[lstm]", "-1"});
  expect_contains(with_lengths(Tensor::from<int64_t>({2, 1}, {2})), {"[lstm]", "(2)", "(3)"});
  expect_contains(with_lengths(Tensor::ones({3})), {"[lstm]", "i64", "f32"});
  const auto run = [&](const Variable& x, const Variable& h, const Variable& w_ih, const Variable& w_hh) {
    return message_of([&] { lstm(x, h, in.c0, w_ih, w_hh, {}, {}); });
  };
  expect_contains(run(select(in.x, 0, 0), in.h0, in.w_ih, in.w_hh), {"[lstm]", "(T,B,I)", "(3,2)"});
  expect_contains(run(in.x, slice(in.h0, 0, 0, 2), in.w_ih, in.w_hh), {"[lstm]", "(3,2)", "(2,2)"});
  expect_contains(run(slice(in.x, 2, 0, 1), in.h0, in.w_ih, in.w_hh), {"[lstm]", "(4,3,1)", "(8,2)"});
  expect_contains(run(in.x, in.h0, in.w_ih, slice(in.w_hh, 0, 0, 4)), {"[lstm]", "(8,2)", "(4,2)"});
}

// --- errors of the others ------------------------------------------------------------------------------------------

TEST(OperationErrors, NameOperationAndShapes) {
  const Variable images = leaf(Values(2 * 3 * 4 * 4, 1), {2, 3, 4, 4}), matrix = leaf(Values(6, 1), {2, 3});
  const auto weight = [](const Shape& shape) { return leaf(Values(static_cast<size_t>(shape.numel()), 1), shape); };
  expect_contains(message_of([&] { matrix + leaf({1, 2}); }), {"[add]", "(2,3)", "(2)"});
  expect_contains(message_of([&] { matmul(matrix, matrix); }), {"[matmul]", "(2,3)"});
  expect_contains(message_of([&] { linear(matrix, weight({4, 5})); }), {"[linear]", "(2,3)", "(4,5)"});
  expect_contains(message_of([&] { linear(matrix, weight({4, 3}), weight({3})); }), {"[linear]", "(4)", "(3)"});
  expect_contains(message_of([&] {
                    conv2d(images, weight({4, 1, 3, 3}));
                  }),
                  {"[conv2d]", "(2,3,4,4)", "(4,1,3,3)", "in_channels"});
  expect_contains(message_of([&] { conv2d(images, weight({4, 3, 5, 5})); }), {"[conv2d]", "5x5", "4x4", "padding"});
  expect_contains(message_of([&] { conv2d(images, weight({4, 1, 3, 3}), {}, {.groups = 3}); }), {"[conv2d]", "groups"});
  expect_contains(message_of([&] { conv2d(images, weight({4, 3, 3, 3}), weight({3})); }), {"[conv2d]", "(4)", "(3)"});
  expect_contains(message_of([&] { conv2d(images, weight({4, 3, 3, 3}), {}, {.stride_h = 0}); }), {"[conv2d]", "0"});
  expect_contains(message_of([&] { conv2d(matrix, weight({4, 3, 3, 3})); }), {"[conv2d]", "(N,C,H,W)", "(2,3)"});
  expect_contains(message_of([&] { max_pool2d(images, {.kernel_h = 5, .kernel_w = 5}); }),
                  {"[max_pool2d]", "5x5", "(2,3,4,4)"});
  expect_contains(message_of([&] { avg_pool2d(matrix, {}); }), {"[avg_pool2d]", "(2,3)"});
  expect_contains(message_of([&] { adaptive_avg_pool2d(images, 0, 1); }), {"[adaptive_avg_pool2d]", "0x1"});
  expect_contains(message_of([&] { batch_norm(images, weight({4}), {}, 1e-5, nullptr); }),
                  {"[batch_norm]", "(3)", "(4)"});
  expect_contains(message_of([&] { batch_norm(weight({1, 3}), {}, {}, 1e-5, nullptr); }), {"[batch_norm]", "(1,3)"});
  expect_contains(message_of([&] { layer_norm(matrix, 1, weight({2}), {}, 1e-5); }), {"[layer_norm]", "(3)", "(2)"});
  expect_contains(message_of([&] { layer_norm(weight({3, 0}), 1, {}, {}, 1e-5); }), {"[layer_norm]", "(3,0)"});
  expect_contains(message_of([&] { layer_norm(matrix, 3, {}, {}, 1e-5); }), {"[layer_norm]", "(2,3)", "3"});
  expect_contains(message_of([&] { softmax(matrix, 2); }), {"[softmax]", "2"});
  expect_contains(message_of([&] { embedding(matrix, Tensor::from<int64_t>({0, 7}, {2})); }), {"7"});
  expect_contains(message_of([&] { embedding(images, Tensor::from<int64_t>({0}, {1})); }),
                  {"[embedding]", "(2,3,4,4)"});
  expect_contains(message_of([&] { cat({matrix, images}, 0); }), {"[cat]", "(2,3)", "(2,3,4,4)"});
  expect_contains(message_of([&] { Variable() + matrix; }), {"undefined"});
}

TEST(LayerNorm, OfSizeOneIsItsBias) {
  // One value is its own mean.
  const Variable x = leaf({5, -3}, {2, 1}), weight = leaf({2}), bias = leaf({7});
  EXPECT_EQ(values(layer_norm(x, 1, weight, bias, 1e-5)), (Values{7, 7}));
}

}  // namespace
}  // namespace espalier
