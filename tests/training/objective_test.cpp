// Losses and metrics by name, evaluation of values, of steps and of two heads, and which epoch is the best.
#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "layers/linear.h"
#include "layers/models/heads.h"
#include "layers/models/zoo.h"
#include "tests/expect_error.h"
#include "training/evaluate.h"
#include "training/trainer.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;

Batch batch_of(const Tensor& labels) {
  Batch batch;
  batch.labels = labels;
  return batch;
}

TEST(Loss, IsThatOfTheTargets) {
  const Variable outputs = Tensor::from<float>({1, 2, 3, 5}, {4, 1});
  const Batch values = batch_of(Tensor::from<float>({1, 1, 1, 1}, {4}));
  EXPECT_DOUBLE_EQ(batch_loss(outputs, values).item(), (0 + 1 + 4 + 16) / 4.0);
  Batch named = values;
  named.loss = "l1";
  EXPECT_DOUBLE_EQ(batch_loss(outputs, named).item(), (0 + 1 + 2 + 4) / 4.0);
  const Variable logits = Tensor::from<float>({0, 0, 0, std::log(3.0F)}, {2, 2});
  const Batch classes = batch_of(Tensor::from<int64_t>({1, 1}, {2}));
  EXPECT_NEAR(batch_loss(logits, classes).item(), (std::log(2.0) - std::log(0.75)) / 2, 1e-6);
  named = batch_of(Tensor::from<float>({1, 0}, {2}));
  named.loss = "bce";
  EXPECT_NEAR(batch_loss(Variable(Tensor::from<float>({0, std::log(3.0F)}, {2, 1})), named).item(),
              (std::log(2.0) - std::log(0.25)) / 2, 1e-6);
}

TEST(Loss, OfStepsLeavesOutThoseWithoutAClass) {
  // Two sequences of two steps; the second step of the second has no class.
  const Variable outputs = Tensor::from<float>({0, 0, 0, std::log(3.0F), std::log(3.0F), 0, 9, -9}, {2, 2, 2});
  const Batch batch = batch_of(Tensor::from<int64_t>({0, 1, 1, -1}, {2, 2}));
  EXPECT_NEAR(batch_loss(outputs, batch).item(), (std::log(2.0) - std::log(0.75) - std::log(0.25)) / 3, 1e-6);
}

TEST(Loss, OfTwoHeadsIsTheirSum) {
  Batch batch = batch_of(Tensor::from<int64_t>({0}, {1}));
  batch.targets.emplace_back("size", Tensor::from<float>({5}, {1, 1}));
  const Bundle outputs{Variable(Tensor::from<float>({0, 0}, {1, 2})), Variable(Tensor::from<float>({2}, {1, 1}))};
  EXPECT_NEAR(batch_loss(outputs, batch).item(), std::log(2.0) + 9, 1e-6);
  expect_contains(message_of<ArgumentError>([&] { batch_loss(outputs.first(), batch); }), "expected 2 outputs");
}

TEST(Loss, ThatDoesNotFitSaysWhatDoes) {
  const Variable outputs = Tensor::zeros({2, 3});
  Batch batch = batch_of(Tensor::from<int64_t>({0, 1}, {2}));
  batch.loss = "mse";
  expect_contains(message_of<ArgumentError>([&] { batch_loss(outputs, batch); }), "classes need cross-entropy");
  batch = batch_of(Tensor::zeros({2, 2}));
  expect_contains(message_of<ArgumentError>([&] { batch_loss(outputs, batch); }), "(2,2)");
  batch.loss = "msi";
  expect_contains(message_of<ArgumentError>([&] { batch_loss(outputs, batch); }), "did you mean 'mse'");
  expect_contains(message_of<ArgumentError>([&] {
                    batch_loss(outputs, batch_of(Tensor::zeros({2, 3})), 0.1);
                  }),
                  "label_smoothing");
}

void set(Parameter parameter, const Tensor& values) { parameter.set_data(values); }

/// Four examples x = 0..3 with the target 2x, at a network y = x.
Dataset line() {
  return {.name = "line",
          .source = "",
          .images = Tensor::from<float>({0, 1, 2, 3}, {4, 1}),
          .labels = Tensor::from<float>({0, 2, 4, 6}, {4, 1})};
}
ModulePtr identity_line() {
  auto net = share(Linear(1, 1));
  set(net->weight(), Tensor::ones({1, 1}));
  set(net->parameter("bias"), Tensor::zeros({1}));
  return net;
}

TEST(Evaluate, RegressionHasErrorsAndTheShareOfTheVariance) {
  const ModulePtr net = identity_line();
  const Evaluation result = evaluate(*net, line(), {.batch_size = 3});
  ASSERT_EQ(result.metrics.size(), 3U);
  EXPECT_EQ(result.primary().name, "mse");
  EXPECT_DOUBLE_EQ(result.primary().value, (0 + 1 + 4 + 9) / 4.0);
  EXPECT_DOUBLE_EQ(result.metrics[1].value, (0 + 1 + 2 + 3) / 4.0);
  EXPECT_DOUBLE_EQ(result.metrics[2].value, 1 - 14.0 / 20);  // the targets differ from their mean 3 by 9 + 1 + 1 + 9
  EXPECT_DOUBLE_EQ(result.primary().score(), -3.5);
  EXPECT_NEAR(result.loss, 3.5, 1e-6);
  EXPECT_EQ(result.examples(), 4);
  EXPECT_EQ(result.to_json()["metrics"]["r2"], 1 - 14.0 / 20);
  EXPECT_FALSE(result.maybe_accuracy().has_value());
  expect_contains(message_of<ArgumentError>([&] { result.accuracy(); }), "asks for a class");

  Dataset by_r2 = line();
  by_r2.metric = "r2";
  EXPECT_EQ(evaluate(*net, by_r2).primary().name, "r2");
  by_r2.metric = "r3";
  expect_contains(message_of<ArgumentError>([&] { evaluate(*net, by_r2); }), "did you mean 'r2'");
}

TEST(Evaluate, StepsOfSequences) {
  Dataset steps{.name = "steps",
                .source = "",
                .images = Tensor::from<float>({1, -1, -1, 1, 1, 0}, {2, 3, 1}),
                .labels = Tensor::from<int64_t>({1, 0, 1, 1, 1, -1}, {2, 3}),
                .class_names = {"down", "up"}};
  auto net = share(Linear(1, 2, {.bias = false}));
  set(net->weight(), Tensor::from<float>({-1, 1}, {2, 1}));
  const Evaluation result = evaluate(*net, steps);
  EXPECT_EQ(result.primary().name, "accuracy");
  EXPECT_DOUBLE_EQ(result.primary().value, 4.0 / 5);  // the third step of the first is wrong, the last has no class
}

TEST(Evaluate, TwoHeads) {
  Dataset data = line();
  data.labels = Tensor::from<int64_t>({0, 0, 1, 1}, {4});
  data.class_names = {"small", "large"};
  data.targets.push_back({.name = "twice", .values = line().labels});
  auto body = share(Linear(1, 3));
  set(body->weight(), Tensor::from<float>({-1, 1, 2}, {3, 1}));
  set(body->parameter("bias"), Tensor::from<float>({1.5F, -1.5F, 1}, {3}));
  Heads net(body, {2, 1});
  const Evaluation result = evaluate(net, data);
  EXPECT_EQ(result.primary().name, "accuracy");
  EXPECT_DOUBLE_EQ(result.primary().value, 1);
  ASSERT_EQ(result.metrics.size(), 4U);
  EXPECT_EQ(result.metrics[1].name, "twice.mse");
  EXPECT_DOUBLE_EQ(result.metrics[1].value, 1);
  data.metric = "twice.mae";
  EXPECT_EQ(evaluate(net, data).primary().name, "twice.mae");
}

TEST(Trainer, TheBestEpochOfARegressionHasTheLowestError) {
  // A learning rate that doubles the distance each epoch: the first epoch is the best.
  const ModulePtr net = identity_line();
  auto sgd = std::make_shared<Sgd>(*net, SgdOptions{.lr = 0.4});
  Trainer trainer(
      net, sgd, {.epochs = 4, .batch_size = 4, .patience = 2, .restore_best = true, .progress = ProgressMode::silent});
  const TrainingResult result = trainer.fit(line(), line());
  ASSERT_EQ(result.history.size(), 3U);
  EXPECT_EQ(result.stop, StopReason::early_stopping);
  EXPECT_EQ(result.best_epoch, 1);
  EXPECT_LT(result.history[0].validation_metrics.at("mse"), result.history[1].validation_metrics.at("mse"));
  EXPECT_FALSE(result.history[0].train_accuracy.has_value());
  const nlohmann::json json = to_json(result.history[0]);
  EXPECT_TRUE(json["val_acc"].is_null());
  EXPECT_EQ(json["val_mse"], result.history[0].validation_metrics.at("mse"));
  EXPECT_EQ(epoch_record_from_json(json).validation_metrics, result.history[0].validation_metrics);
  EXPECT_DOUBLE_EQ(evaluate(*net, line()).primary().value, result.history[0].validation_metrics.at("mse"));
}

TEST(Zoo, TakesSequencesOtherShapesAndHeads) {
  const ModulePtr heads = make_model("mlp:8", {.input = {3, 2}, .heads = {{4}, {1}}});
  const Bundle outputs = heads->call(Tensor::zeros({5, 3, 2}));
  ASSERT_EQ(outputs.size(), 2U);
  EXPECT_EQ(outputs[0].shape(), Shape({5, 4}));
  EXPECT_EQ(outputs[1].shape(), Shape({5, 1}));
  const ModulePtr again = module_from_config(heads->config());
  EXPECT_EQ(again->config(), heads->config());

  const ModulePtr steps = make_model("lstm-rows:6", {.input = {7, 2}, .heads = {{7, 3}}});
  EXPECT_EQ((*steps)(Tensor::zeros({5, 7, 2})).shape(), Shape({5, 7, 3}));
  EXPECT_EQ(module_from_config(steps->config())->config(), steps->config());
  expect_contains(message_of<ArgumentError>([] { make_model("lenet5", {.input = {7, 2}}); }), "lstm-rows:64");
}

TEST(LstmRows, TheStateAfterASequencesLengthCounts) {
  const ModulePtr net = make_model("lstm-rows:4", {.input = {3, 2}, .heads = {{2}}});
  const Tensor x = randn({2, 3, 2});
  const Tensor cut = net->call(Bundle{x, Tensor::from<int64_t>({2, 3}, {2})}).data();
  const Tensor first = (*net)(x.slice(0, 0, 1).slice(1, 0, 2).contiguous()).data(),
               second = (*net)(x.slice(0, 1, 2).contiguous()).data();
  EXPECT_TRUE(all_close(cut.slice(0, 0, 1).contiguous(), first, 1e-5, 1e-6));
  EXPECT_TRUE(all_close(cut.slice(0, 1, 2).contiguous(), second, 1e-5, 1e-6));
}

}  // namespace
}  // namespace espalier
