// Wanda, APoZ and HRank on activations known by hand.
#include <nlohmann/json.hpp>

#include "layers/lstm.h"
#include "tests/pruning/criteria/support.h"
#include "tests/pruning/own_layers.h"

namespace espalier {
namespace {

using namespace criteria_testing;
using testing_support::expect_contains;
using testing_support::message_of;

TEST(Wanda, IsTheWeightTimesTheNormOfItsInput) {
  const Dataset data = images_of({{3, 1}, {-4, 2}, {0, 2}}, {1, 1, 2});  // norms 5 and 3
  const ModulePtr net = double_network(Flatten(), Linear(2, 2));
  net->parameters()[0].set_data(Tensor::from<double>({1, -2, -3, 0.5}, {2, 2}));
  CriterionInput input{.module = *net, .data = &data, .batch_size = 2};
  expect_near(scores_of(*wanda_criterion(), input), {5, 6, 15, 1.5, 0, 0}, 1e-6);
  expect_near(scores_of(*wanda_criterion({.per_row = true}), input), {0.5, 1, 1, 0.5, 0, 0}, 1e-15);
}

TEST(Wanda, EqualScoresOfARowRankAsTheyAreRemoved) {
  const Dataset data = images_of({{1, 1, 1}}, {1, 1, 3});
  const ModulePtr net = double_network(Flatten(), Linear(3, 1, {.bias = false}));
  net->parameters()[0].set_data(Tensor::from<double>({2, -2, 2}, {1, 3}));
  expect_near(scores_of(*wanda_criterion({.per_row = true}), {.module = *net, .data = &data}), {1, 2.0 / 3, 1.0 / 3},
              1e-15);
}

TEST(Wanda, ConvolutionsHaveANormForEachInputChannel) {
  // Channels (3,4) and (1,0); two groups: filter 0 reads channel 0, filter 1 channel 1.
  const Dataset data = images_of({{3, 4, 1, 0}}, {2, 1, 2});
  const ModulePtr grouped = double_network(Conv2d(2, 2, {.kernel = {1, 2}, .groups = 2, .bias = false}), Flatten());
  grouped->parameters()[0].set_data(Tensor::from<double>({1, -2, 3, -4}, {2, 1, 1, 2}));
  const LossFunction any = [](const Variable& y, const Batch&) { return mean(y); };
  expect_near(scores_of(*wanda_criterion(), {.module = *grouped, .data = &data, .loss = any}), {5, 10, 3, 4}, 1e-5);

  const ModulePtr full = double_network(Conv2d(2, 1, {.kernel = {1, 2}, .bias = false}), Flatten());
  full->parameters()[0].set_data(Tensor::from<double>({1, -2, 3, -4}, {1, 2, 1, 2}));
  expect_near(scores_of(*wanda_criterion(), {.module = *full, .data = &data, .loss = any}), {5, 10, 3, 4}, 1e-5);

  Conv2d narrow(1, 1, {.kernel = 1, .bias = false});
  narrow.select_inputs(2, {1});
  const ModulePtr selecting = double_network(std::move(narrow), Flatten());
  selecting->parameters()[0].set_data(Tensor::from<double>({-7}, {1, 1, 1, 1}));
  expect_near(scores_of(*wanda_criterion(), {.module = *selecting, .data = &data, .loss = any}), {7}, 1e-5);
}

TEST(Wanda, SeesWhatTheWeightsOfOnesOwnLayerRead) {
  const ModulePtr net = double_network(SqueezeExcite(2, 1), Flatten());
  const auto parameters = net->parameters();  // squeeze, its bias, expand, its bias
  Parameter squeeze = parameters[0], squeeze_bias = parameters[1], expand = parameters[2];
  squeeze.set_data(Tensor::from<double>({1, -2}, {1, 2}));
  squeeze_bias.set_data(Tensor::from<double>({2}, {1}));
  expand.set_data(Tensor::from<double>({3, -4}, {2, 1}));
  const Dataset data = images_of({{3, 1}}, {2, 1, 1});  // the hidden value is 1*3 - 2*1 + 2 = 3
  const LossFunction any = [](const Variable& y, const Batch&) { return mean(y); };
  expect_near(scores_of(*wanda_criterion(), {.module = *net, .data = &data, .loss = any}), {3, 2, 0, 9, 12, 0, 0},
              1e-5);
}

/// Images (N,1,T,I) as sequences (T,N,I) through an LSTM.
class Rows : public Module {
 public:
  Rows() : lstm_(add_child("lstm", LSTM(2, 3, {.num_layers = 2, .bidirectional = true}))) {}
  Variable forward(const Variable& x) override {
    return (*lstm_)(permute(reshape(x, {x.size(0), x.size(2), x.size(3)}), {1, 0, 2}));
  }
  std::string type() const override { return "Rows"; }
  nlohmann::json config() const override;

 private:
  std::shared_ptr<LSTM> lstm_;
};
nlohmann::json Rows::config() const { fail("Rows", "not needed"); }

TEST(Wanda, LstmsHaveNormsOfTheirInputsAndOfTheirHiddenStates) {
  set_seed(2);
  const ModulePtr net = std::make_shared<Rows>();
  net->to(DType::f64);
  const Dataset data = images_of({{1, 0, 2, -1, 1, 1}, {0, 1, 1, 1, -2, 1}}, {1, 3, 2});
  const Saliencies s = wanda_criterion()->score(net->parameters(), {.module = *net, .data = &data});

  // By hand: one step of a direction after the other.
  const Matrix x = rows_of(data);
  const auto named = [&](const std::string& name) {
    for (const auto& [full, p] : net->named_parameters())
      if (full == "lstm." + name) return p.data().to_vector<double>();
    ADD_FAILURE() << name;
    return Values();
  };
  const auto sigmoid_of = [](double v) { return 1 / (1 + std::exp(-v)); };
  // sequences[n][t][feature]
  std::vector<Matrix> sequences;
  for (const Values& row : x) sequences.push_back({{row[0], row[1]}, {row[2], row[3]}, {row[4], row[5]}});
  for (int layer = 0; layer < 2; ++layer) {
    std::vector<Matrix> next(2, Matrix(3, Values(6, 0.0)));
    const size_t inputs = sequences[0][0].size();
    for (const bool reverse : {false, true}) {
      const std::string suffix = fmt::format("_l{}{}", layer, reverse ? "_reverse" : "");
      const Values w_ih = named("weight_ih" + suffix), w_hh = named("weight_hh" + suffix);
      const Values b_ih = named("bias_ih" + suffix), b_hh = named("bias_hh" + suffix);
      Values input_squares(inputs, 0.0), hidden_squares(3, 0.0);
      for (size_t n = 0; n < 2; ++n) {
        Values h(3, 0.0), c(3, 0.0);
        for (size_t step = 0; step < 3; ++step) {
          const size_t t = reverse ? 2 - step : step;
          Values gates(12);
          for (size_t i = 0; i < inputs; ++i) input_squares[i] += sequences[n][t][i] * sequences[n][t][i];
          for (size_t j = 0; j < 3; ++j) hidden_squares[j] += h[j] * h[j];
          for (size_t g = 0; g < 12; ++g) {
            gates[g] = b_ih[g] + b_hh[g];
            for (size_t i = 0; i < inputs; ++i) gates[g] += w_ih[g * inputs + i] * sequences[n][t][i];
            for (size_t j = 0; j < 3; ++j) gates[g] += w_hh[g * 3 + j] * h[j];
          }
          for (size_t j = 0; j < 3; ++j) {
            c[j] = sigmoid_of(gates[3 + j]) * c[j] + sigmoid_of(gates[j]) * std::tanh(gates[6 + j]);
            h[j] = sigmoid_of(gates[9 + j]) * std::tanh(c[j]);
            next[n][t][(reverse ? 3 : 0) + j] = h[j];
          }
        }
      }
      for (const auto& [full, p] : net->named_parameters()) {
        const bool is_ih = full == "lstm.weight_ih" + suffix;
        if (!is_ih && full != "lstm.weight_hh" + suffix) continue;
        const Values& squares = is_ih ? input_squares : hidden_squares;
        Values expected = p.data().to_vector<double>();
        for (size_t i = 0; i < expected.size(); ++i)
          expected[i] = std::abs(expected[i]) * std::sqrt(squares[i % squares.size()]);
        expect_near(s.at(p.id()).to_vector<double>(), expected, 1e-10);
      }
    }
    sequences = next;
  }
}

TEST(Wanda, ALayerThatIsNotCalledIsAnError) {
  const ModulePtr net = double_network(Flatten(), Linear(2, 2));
  const Dataset data = images_of({{1, 1}}, {1, 1, 2});
  const Parameter other("other.weight", Tensor::ones({2, 2}));
  expect_contains(
      message_of<ArgumentError>([&] { wanda_criterion()->score({other}, {.module = *net, .data = &data}); }),
      "other.weight");
}

TEST(Apoz, IsTheShareOfActivationsAboveZero) {
  const Dataset data = images_of({{1, 2}, {-1, 1}, {2, -3}, {1, 0}}, {1, 1, 2});
  const ModulePtr net = double_network(Flatten(), Linear(2, 3), ReLU());
  net->parameters()[0].set_data(Tensor::from<double>({1, 0, 0, 1, -1, -1}, {3, 2}));
  net->parameters()[1].set_data(Tensor::from<double>({0, 0.5, 10}, {3}));
  const CriterionInput input{.module = *net, .data = &data, .batch_size = 3};
  // x0 > 0: 3 of 4; x1 + 0.5 > 0: 3 of 4; 10 - x0 - x1 > 0: all. Spread over the two weights of a row.
  expect_near(scores_of(*apoz_criterion(), input), {0.375, 0.375, 0.375, 0.375, 0.5, 0.5, 0, 0, 0}, 1e-12);
}

TEST(Apoz, LooksBehindTheBatchNormThatFollows) {
  const Dataset data = images_of({{1, 2}, {-1, 1}}, {1, 1, 2});  // a row of two pixels
  const ModulePtr net = double_network(Conv2d(1, 2, {.kernel = 1, .bias = false}), BatchNorm2d(2), ReLU(), Flatten());
  net->parameters()[0].set_data(Tensor::from<double>({1, -1}, {2, 1, 1, 1}));
  Parameter bias = net->find<BatchNorm2d>("1")->bias();
  bias.set_data(Tensor::from<double>({-1.5, 5}, {2}));
  const Saliencies s = apoz_criterion()->score(net->parameters(), {.module = *net, .data = &data});
  // Pixels 1, 2, -1, 1: above 1.5 one of four; 5 - x > 0 all.
  expect_near(s.at(net->parameters()[0].id()).to_vector<double>(), {0.25, 1}, 1e-12);
}

TEST(Apoz, LstmsHaveNone) {
  const ModulePtr net = std::make_shared<Rows>();
  const Dataset data = images_of({{1, 0, 2, -1, 1, 1}}, {1, 3, 2});
  expect_contains(
      message_of<ArgumentError>([&] { apoz_criterion()->score(net->parameters(), {.module = *net, .data = &data}); }),
      "weight_ih_l0");
}

TEST(HRank, IsTheMeanRankOfTheMapsAfterTheRelu) {
  // 2x2 images of rank 2, 1 and 2; filter 0 passes them on, filter 1 leaves nothing above 0, filter 2 only pixels
  // above 2: rank 1, 1 and 1.
  const Dataset data = images_of({{1, 2, 2, 3}, {3, 3, 3, 3}, {1, 0, 0, 3}}, {1, 2, 2});
  const ModulePtr net = double_network(Conv2d(1, 3, {.kernel = 1}), ReLU(), Flatten());
  net->parameters()[0].set_data(Tensor::from<double>({1, -1, 1}, {3, 1, 1, 1}));
  net->parameters()[1].set_data(Tensor::from<double>({0, -1, -2.5}, {3}));
  expect_near(scores_of(*hrank_criterion(), {.module = *net, .data = &data, .batch_size = 2}), {5.0 / 3, 0, 1, 0, 0, 0},
              1e-12);
}

}  // namespace
}  // namespace espalier
