#include "training/answers.h"

#include <limits>

#include "tests/training/support.h"

namespace espalier {
namespace {

using namespace testing_support;

TEST(Answers, AreTheNetworksHighestOutputs) {
  const ModulePtr network = small_network(1);
  const Dataset data = digits(50);
  const Answers said = answers(*network, data, {.batch_size = 7});
  ASSERT_EQ(said.size(), 50);
  EXPECT_EQ(said.labels, data.labels.to_vector<int64_t>());
  EXPECT_DOUBLE_EQ(said.accuracy(), evaluate(*network, data).accuracy());
  for (double confidence : said.confidence) {
    EXPECT_GE(confidence, 0.1);  // the highest of ten
    EXPECT_LE(confidence, 1);
  }
}

TEST(Answers, OutputsThatAreNotFiniteAreAnError) {
  const ModulePtr network = small_network(1);
  Tensor weight = network->parameters().front().data();
  weight.fill_(std::numeric_limits<double>::quiet_NaN());
  expect_contains(message_of<NumericError>([&] { answers(*network, digits(20)); }), {"[answers]", "example 0"});
}

TEST(CalibrationError, ByHand) {
  // Of ten bins: (0.9,1.0] holds 2 examples, one right, confidences 1.9; (0.5,0.6] holds 2, both right, 1.1.
  const Answers said{.labels = {0, 0, 1, 1}, .classes = {0, 1, 1, 1}, .confidence = {0.95, 0.95, 0.55, 0.55}};
  EXPECT_NEAR(calibration_error(said, 10), (0.9 + 0.9) / 4, 1e-12);
  EXPECT_NEAR(calibration_error(said, 1), std::abs(3 - 3.0) / 4, 1e-12);
  expect_contains(message_of([&] { calibration_error(said, 0); }), "expected at least 1 bin");
}

TEST(CalibrationError, BinsHoldTheirUpperEdge) {
  // 0.5 belongs to (0,0.5], 0.6 to (0.5,1]: |1-0.5| + |0-0.6|; in one bin they would make up for each other.
  const Answers said{.labels = {0, 0}, .classes = {0, 1}, .confidence = {0.5, 0.6}};
  EXPECT_NEAR(calibration_error(said, 2), 1.1 / 2, 1e-12);
}

TEST(McNemar, ExactProbabilities) {
  EXPECT_DOUBLE_EQ(mcnemar_p(0, 0), 1);
  EXPECT_DOUBLE_EQ(mcnemar_p(5, 5), 1);
  EXPECT_NEAR(mcnemar_p(1, 9), 22.0 / 1024, 1e-14);  // 2 (1 + 10) / 2^10
  EXPECT_NEAR(mcnemar_p(9, 1), 22.0 / 1024, 1e-14);
  EXPECT_NEAR(mcnemar_p(10, 25), 0.01667384780012071, 1e-13);
  EXPECT_NEAR(mcnemar_p(1600, 1400), 0.0002785639610392337, 1e-12);  // 2^-3000 is 0 in double
}

TEST(Changes, ByHand) {
  const Answers before{
      .labels = {0, 0, 0, 1, 1, 2}, .classes = {0, 0, 0, 1, 0, 0}, .confidence = {.9, .9, .9, .9, .9, .9}};
  const Answers after{
      .labels = {0, 0, 0, 1, 1, 2}, .classes = {1, 0, 2, 1, 1, 1}, .confidence = {.6, .9, .8, .9, .9, .9}};
  const AnswerChanges seen = changes(before, after, 3);
  EXPECT_EQ(seen.broken, (std::vector<int64_t>{2, 0}));  // the more confident mistake first
  EXPECT_EQ(seen.repaired, (std::vector<int64_t>{4}));
  EXPECT_EQ(seen.moved, (std::vector<int64_t>{5}));
  EXPECT_EQ(seen.changed(), 4);
  EXPECT_DOUBLE_EQ(seen.p, 1);  // 2 (1 + 3) / 2^3
  ASSERT_EQ(seen.classes.size(), 3U);
  EXPECT_EQ(seen.classes[0].examples, 3);
  EXPECT_DOUBLE_EQ(seen.classes[0].before, 1);
  EXPECT_NEAR(seen.classes[0].after, 1.0 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(seen.classes[1].after, 1);
  EXPECT_EQ(seen.worst_class(), 0);
  EXPECT_EQ(changes(before, before, 3).worst_class(), -1);
}

TEST(Changes, OtherExamplesAreAnError) {
  const Answers a{.labels = {0}, .classes = {0}, .confidence = {1}};
  const Answers b{.labels = {1}, .classes = {0}, .confidence = {1}};
  expect_contains(message_of([&] { changes(a, b, 2); }), "[changes] expected answers to the same examples");
}

}  // namespace
}  // namespace espalier
