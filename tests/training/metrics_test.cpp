#include "training/metrics.h"

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "tests/training/support.h"
#include "training/progress.h"

namespace espalier {
namespace {

using namespace testing_support;

/// Counts by hand: class 0: 3 right, 1 taken for 1; class 1: 2 right, 2 taken for 0; class 2: 1 taken for 0.
ConfusionMatrix example() {
  ConfusionMatrix m(4, {"cat", "dog", "emu", "fox"});
  for (int i = 0; i < 3; ++i) m.add(0, 0);
  m.add(0, 1);
  for (int i = 0; i < 2; ++i) m.add(1, 1);
  for (int i = 0; i < 2; ++i) m.add(1, 0);
  m.add(2, 0);
  return m;
}

TEST(ConfusionMatrix, ByHand) {
  const ConfusionMatrix m = example();
  EXPECT_EQ(m.examples(), 9);
  EXPECT_EQ(m.support(1), 4);
  EXPECT_DOUBLE_EQ(m.accuracy(), 5.0 / 9);
  EXPECT_DOUBLE_EQ(m.precision(0), 3.0 / 6);
  EXPECT_DOUBLE_EQ(m.recall(0), 3.0 / 4);
  EXPECT_DOUBLE_EQ(m.f1(0), 2 * 0.5 * 0.75 / (0.5 + 0.75));
  EXPECT_DOUBLE_EQ(m.precision(2), 0);  // never predicted
  EXPECT_DOUBLE_EQ(m.f1(2), 0);
  // The fox occurs nowhere and does not count.
  EXPECT_DOUBLE_EQ(m.macro_precision(), (3.0 / 6 + 2.0 / 3 + 0) / 3);
  EXPECT_DOUBLE_EQ(m.macro_recall(), (0.75 + 0.5 + 0) / 3);
  EXPECT_DOUBLE_EQ(m.macro_f1(), (m.f1(0) + m.f1(1)) / 3);
}

TEST(ConfusionMatrix, ScoresTiesAndTopK) {
  ConfusionMatrix m(3, {}, 2);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  m.add(Tensor::from<float>({0.1F, 0.7F, 0.2F,  // 1, then 2
                             0.4F, 0.4F, 0.2F,  // a tie: the first
                             0.5F, 0.3F, 0.2F,  // label 2 is third
                             0.9F, nan, 0.1F},  // NaN counts as the highest
                            {4, 3}),
        Tensor::from<int64_t>({2, 1, 2, 0}, {4}));
  EXPECT_EQ(m.count(2, 1), 1);
  EXPECT_EQ(m.count(1, 0), 1);
  EXPECT_EQ(m.count(2, 0), 1);
  EXPECT_EQ(m.count(0, 1), 1);
  EXPECT_DOUBLE_EQ(m.accuracy(), 0);
  EXPECT_DOUBLE_EQ(m.top_k_accuracy(), 3.0 / 4);
}

TEST(ConfusionMatrix, BadInputIsExplained) {
  ConfusionMatrix m(3);
  expect_contains(message_of<ArgumentError>([&] {
                    m.add(Tensor::zeros({1, 3}), Tensor::from<int64_t>({3}, {1}));
                  }),
                  "label 3 of example 0 is outside [0,3)");
  EXPECT_THROW(m.add(Tensor::zeros({1, 4}), Tensor::from<int64_t>({0}, {1})), ArgumentError);
  EXPECT_THROW(m.add(0, -1), ArgumentError);
  EXPECT_THROW(ConfusionMatrix(2, {"one"}), ArgumentError);
}

TEST(ConfusionMatrix, TableIsAlignedAndJsonComplete) {
  const ConfusionMatrix m = example();
  const std::string table = m.to_table();
  expect_contains(table, "cat           0.5000  0.7500  0.6000         4\n");
  expect_contains(table, "cat        3  1  0  0\n");
  const nlohmann::json json = m.to_json();
  EXPECT_EQ(json["accuracy"], m.accuracy());
  EXPECT_EQ(json["classes"][1]["name"], "dog");
  EXPECT_EQ(json["matrix"], (nlohmann::json{{3, 1, 0, 0}, {2, 2, 0, 0}, {1, 0, 0, 0}, {0, 0, 0, 0}}));
  ConfusionMatrix many(100);
  many.add(7, 42);
  expect_contains(many.to_table(), "most frequent confusions");
}

TEST(Average, WeighsByExamples) {
  Average mean;
  EXPECT_EQ(mean.value(), 0);
  mean.add(1, 3);
  mean.add(5, 1);
  EXPECT_DOUBLE_EQ(mean.value(), 2);
}

TEST(Progress, RendersRateAndTimeLeftInTheGivenWidth) {
  const std::string wide = render_progress("epoch 1/2", 30000, 60000, 0, 2.5, "loss 0.1", 100);
  expect_contains(wide, "epoch 1/2  [===============>              ]  50%  12,000 images/s  0:03 left  loss 0.1");
  for (int width : {0, 1, 10, 40, 79, 200})
    EXPECT_LE(static_cast<int>(render_progress("epoch 1/2", 30000, 60000, 0, 2.5, "loss 0.1", width).size()), width);
  // What an earlier run did is not this run's speed.
  expect_contains(render_progress("e", 40, 50, 30, 1, "", 80), " 10 images/s  0:01 left");
  EXPECT_EQ(format_duration(3723.4), "1:02:03");
}

TEST(Progress, LinesGoToTheLogAndSilenceIsSilent) {
  std::vector<std::string> lines;
  const auto log = [&](const std::string& line) { lines.push_back(line); };
  Progress(ProgressMode::lines, log).line("one");
  Progress(ProgressMode::silent, log).line("two");
  EXPECT_EQ(lines, std::vector<std::string>{"one"});
}

}  // namespace
}  // namespace espalier
