#include <cmath>

#include <nlohmann/json.hpp>

#include "layers/lstm.h"
#include "tests/layers/expect.h"

namespace espalier {
namespace {

std::unique_ptr<LSTM> f64_lstm(int64_t inputs, int64_t hidden, LstmOptions options = {}) {
  auto lstm = std::make_unique<LSTM>(inputs, hidden, options);
  lstm->to(DType::f64);
  return lstm;
}

Tensor named(const LSTM& lstm, const std::string& name) {
  for (const auto& [own, parameter] : lstm.named_parameters())
    if (own == name) return parameter.data();
  ADD_FAILURE() << "no " << name;
  return {};
}

/// One direction written down from the equations, step by step. x (T,I) -> h (T,H).
Tensor by_hand(const LSTM& lstm, const std::string& suffix, const Tensor& x, bool reverse) {
  const auto logistic = [](double v) { return 1 / (1 + std::exp(-v)); };
  const int64_t steps = x.size(0), hidden = lstm.hidden_size();
  const Tensor bias = named(lstm, "bias_ih" + suffix) + named(lstm, "bias_hh" + suffix);
  std::vector<double> h(static_cast<size_t>(hidden)), c = h, out(static_cast<size_t>(steps * hidden));
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t t = reverse ? steps - 1 - step : step;
    const std::vector<double> gates = (matmul(named(lstm, "weight_ih" + suffix), x.select(0, t)) +
                                       matmul(named(lstm, "weight_hh" + suffix), Tensor::from(h, {hidden})) + bias)
                                          .to_vector<double>();
    for (int64_t j = 0; j < hidden; ++j) {
      const auto gate = [&](int64_t g) { return gates[static_cast<size_t>(g * hidden + j)]; };
      double& cell = c[static_cast<size_t>(j)];
      cell = logistic(gate(1)) * cell + logistic(gate(0)) * std::tanh(gate(2));
      h[static_cast<size_t>(j)] = logistic(gate(3)) * std::tanh(cell);
      out[static_cast<size_t>(t * hidden + j)] = h[static_cast<size_t>(j)];
    }
  }
  return Tensor::from(out, {steps, hidden});
}

TEST(Lstm, ParametersHaveTorchNamesAndShapes) {
  const LSTM lstm(3, 5, {.num_layers = 2, .bidirectional = true});
  std::vector<std::string> seen;
  for (const auto& [name, parameter] : lstm.named_parameters())
    seen.push_back(fmt::format("{} {}", name, parameter.shape()));
  EXPECT_EQ(seen, (std::vector<std::string>{
                      "weight_ih_l0 (20,3)", "weight_hh_l0 (20,5)", "bias_ih_l0 (20)", "bias_hh_l0 (20)",
                      "weight_ih_l0_reverse (20,3)", "weight_hh_l0_reverse (20,5)", "bias_ih_l0_reverse (20)",
                      "bias_hh_l0_reverse (20)", "weight_ih_l1 (20,10)", "weight_hh_l1 (20,5)", "bias_ih_l1 (20)",
                      "bias_hh_l1 (20)", "weight_ih_l1_reverse (20,10)", "weight_hh_l1_reverse (20,5)",
                      "bias_ih_l1_reverse (20)", "bias_hh_l1_reverse (20)"}));
  for (const auto& [name, parameter] : lstm.named_parameters())
    EXPECT_LE(max(abs(parameter.data())).item(), 1 / std::sqrt(5.0)) << name;
}

TEST(Lstm, FollowsTheEquations) {
  const auto lstm = f64_lstm(3, 4, {.bidirectional = true});
  const Tensor x = noise({6, 1, 3}, 1);
  const LstmResult result = (*lstm)(x, LstmInputs{});
  const Tensor forward = by_hand(*lstm, "_l0", x.select(1, 0), false);
  const Tensor backward = by_hand(*lstm, "_l0_reverse", x.select(1, 0), true);
  EXPECT_LT(max_difference(result.output.data().select(1, 0), cat(std::vector<Tensor>{forward, backward}, 1)), 1e-12);
  EXPECT_LT(max_difference(result.h.data().select(1, 0),
                           stack(std::vector<Tensor>{forward.select(0, 5), backward.select(0, 0)}, 0)),
            1e-12);
}

TEST(Lstm, LayersStack) {
  const auto lstm = f64_lstm(3, 4, {.num_layers = 2});
  const Tensor x = noise({5, 1, 3}, 2);
  const Tensor first = by_hand(*lstm, "_l0", x.select(1, 0), false);
  const Tensor second = by_hand(*lstm, "_l1", first, false);
  const LstmResult result = (*lstm)(x, LstmInputs{});
  EXPECT_LT(max_difference(result.output.data().select(1, 0), second), 1e-12);
  EXPECT_EQ(result.h.shape(), (Shape{2, 1, 4}));
  EXPECT_LT(max_difference(result.h.data().select(1, 0),
                           stack(std::vector<Tensor>{first.select(0, 4), second.select(0, 4)}, 0)),
            1e-12);
}

TEST(Lstm, VariableLengthsEqualEachSequenceAlone) {
  const std::vector<int64_t> lengths = {4, 7, 1};
  for (const bool batch_first : {false, true}) {
    const auto lstm = f64_lstm(3, 4, {.num_layers = 2, .bidirectional = true, .batch_first = batch_first});
    const Tensor x = noise({7, 3, 3}, 3);  // (T,B,I)
    const auto given = [&](const Tensor& t) { return batch_first ? t.transpose(0, 1).contiguous() : t; };
    const LstmResult all = (*lstm)(given(x), {.lengths = Tensor::from(lengths, {3})});
    const Tensor output = given(all.output.data());
    for (int64_t b = 0; b < 3; ++b) {
      const int64_t steps = lengths[static_cast<size_t>(b)];
      const Tensor alone = x.slice(1, b, b + 1).slice(0, 0, steps);
      const LstmResult one = (*lstm)(given(alone), LstmInputs{});
      const Tensor own = given(output).slice(batch_first ? 0 : 1, b, b + 1);
      EXPECT_LT(max_difference(own.slice(batch_first ? 1 : 0, 0, steps), one.output.data()), 1e-12);
      const Tensor rest = own.slice(batch_first ? 1 : 0, steps, 7);
      for (const double value : rest.to_vector<double>()) EXPECT_EQ(value, 0);
      EXPECT_LT(max_difference(all.h.data().slice(1, b, b + 1), one.h.data()), 1e-12);
      EXPECT_LT(max_difference(all.c.data().slice(1, b, b + 1), one.c.data()), 1e-12);
    }
  }
}

TEST(Lstm, StatesCarryOver) {
  const auto lstm = f64_lstm(3, 4, {.num_layers = 2});
  const Tensor x = noise({6, 2, 3}, 4);
  const LstmResult whole = (*lstm)(x, LstmInputs{});
  const LstmResult first = (*lstm)(x.slice(0, 0, 2), LstmInputs{});
  const LstmResult rest = (*lstm)(x.slice(0, 2, 6), {.h0 = first.h, .c0 = first.c});
  EXPECT_LT(max_difference(whole.output.data().slice(0, 2, 6), rest.output.data()), 1e-12);
  EXPECT_LT(max_difference(whole.c.data(), rest.c.data()), 1e-12);
}

TEST(Lstm, DropoutActsBetweenLayersInTrainingOnly) {
  const auto two = f64_lstm(3, 8, {.num_layers = 2, .dropout = 0.5});
  const Variable x(noise({4, 2, 3}, 5));
  EXPECT_FALSE(identical((*two)(x).data(), (*two)(x).data()));
  two->eval();
  EXPECT_TRUE(identical((*two)(x).data(), (*two)(x).data()));
  const auto one = f64_lstm(3, 8, {.dropout = 0.5});
  EXPECT_TRUE(identical((*one)(x).data(), (*one)(x).data()));
}

TEST(Lstm, Gradients) {
  const auto lstm = f64_lstm(2, 3, {.num_layers = 2, .bidirectional = true});
  Variables inputs = {Variable(noise({3, 2, 2}, 6), true), Variable(noise({4, 2, 3}, 7), true),
                      Variable(noise({4, 2, 3}, 8), true)};
  for (const Parameter& parameter : lstm->parameters()) inputs.push_back(parameter);
  const Tensor lengths = Tensor::from(std::vector<int64_t>{3, 2}, {2});
  EXPECT_TRUE(gradcheck(
      [&](const Variables& v) {
        const LstmResult r = (*lstm)(v[0], {.h0 = v[1], .c0 = v[2], .lengths = lengths});
        return Variables{r.output, r.h, r.c};
      },
      inputs));
}

TEST(Lstm, Errors) {
  LSTM lstm(3, 4, {.num_layers = 2});
  const auto zeros = [](const Shape& shape) { return Variable(Tensor::zeros(shape)); };
  const Variable x = zeros({5, 2, 3});
  expect_error([&] { lstm(zeros({5, 2, 4})); }, {"[LSTM]", "(T,B,I) with I=3", "(5,2,4)"});
  expect_error([&] { lstm(zeros({5, 3})); }, {"(5,3)"});
  expect_error([&] { lstm(x, {.h0 = zeros({1, 2, 4})}); }, {"h0", "(2,2,4)", "(1,2,4)"});
  expect_error([&] { lstm(x, {.c0 = zeros({2, 2, 5})}); }, {"c0", "(2,2,4)", "(2,2,5)"});
  expect_error([&] { lstm(x, {.lengths = Tensor::from(std::vector<int64_t>{5, 6}, {2})}); }, {"length of 6", "[1,5]"});
  expect_error([&] { lstm(x, {.lengths = Tensor::from(std::vector<int64_t>{5, 0}, {2})}); }, {"length of 0"});
  expect_error([&] { lstm(x, {.lengths = Tensor::from(std::vector<int64_t>{5}, {1})}); }, {"i64 (2)"});
  expect_error([] { LSTM(0, 4); }, {"input_size=0"});
  expect_error([] { LSTM(3, 4, {.num_layers = 0}); }, {"num_layers=0"});
  expect_error([] { LSTM(3, 4, {.num_layers = 1025}); }, {"1 to 1024 layers", "num_layers=1025"});
  expect_error([] { LSTM(3, 4, {.dropout = 1}); }, {"dropout"});
}

}  // namespace
}  // namespace espalier
