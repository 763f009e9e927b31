// The losses of distillation against values computed by hand or by plain loops.
#include <cmath>

#include <gtest/gtest.h>

#include "core/random.h"
#include "pruning/distillation/terms.h"
#include "tests/layers/expect.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;
using Rows = std::vector<std::vector<double>>;

Tensor matrix(const Rows& rows) {
  std::vector<double> values;
  for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());
  return Tensor::from<double>(values, {static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())});
}

std::vector<double> softmax_of(const std::vector<double>& logits, double t) {
  std::vector<double> p;
  double total = 0;
  for (const double z : logits) p.push_back(std::exp(z / t)), total += p.back();
  for (double& value : p) value /= total;
  return p;
}

Variable loss_of(const DistillationTermPtr& term, const Variable& student, const Tensor& teacher,
                 const std::vector<int64_t>& labels = {}) {
  const NetworkView a{student}, b{Variable(teacher)};
  const auto count = static_cast<int64_t>(labels.size());
  return term->loss({a, b, Batch{{}, Tensor::from<int64_t>(labels, {count})}});
}

/// Views with one feature map "f" each.
Variable feature_loss(const DistillationTermPtr& term, const Variable& student, const Variable& teacher) {
  const NetworkView a{student, {{"f", student}}}, b{teacher, {{"g", teacher}}};
  return term->loss({a, b, Batch()});
}

const Rows kStudent = {{1, 2, 0}, {-1, 0.5, 3}}, kTeacher = {{2, 0, 1}, {0, 1, 1.5}};
const std::vector<int64_t> kLabels = {1, 2};

TEST(KnowledgeDistillation, ValueAndGradientAreWhatTheFormulaSays) {
  const double t = 2, alpha = 0.7;
  Variable student(matrix(kStudent), true);
  const Variable loss =
      loss_of(knowledge_distillation({.temperature = t, .alpha = alpha}), student, matrix(kTeacher), kLabels);
  double expected = 0;
  std::vector<double> gradient;
  for (size_t n = 0; n < 2; ++n) {
    const auto p = softmax_of(kTeacher[n], t), q = softmax_of(kStudent[n], t), hard = softmax_of(kStudent[n], 1);
    const auto label = static_cast<size_t>(kLabels[n]);
    for (size_t c = 0; c < 3; ++c) {
      expected += alpha * t * t * p[c] * std::log(p[c] / q[c]) / 2;
      // d KL/dz = (q - p)/T, d CE/dz = softmax - one_hot, both over N.
      gradient.push_back((alpha * t * (q[c] - p[c]) + (1 - alpha) * (hard[c] - (c == label ? 1 : 0))) / 2);
    }
    expected -= (1 - alpha) * std::log(hard[label]) / 2;
  }
  EXPECT_NEAR(loss.item(), expected, 1e-14);
  loss.backward();
  const std::vector<double> got = student.grad().data().to_vector<double>();
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], gradient[i], 1e-14);
}

TEST(KnowledgeDistillation, IsNothingWhereBothAgreeAndCrossEntropyWithoutTeacher) {
  EXPECT_NEAR(
      loss_of(knowledge_distillation({.alpha = 1}), Variable(matrix(kTeacher)), matrix(kTeacher), kLabels).item(), 0,
      1e-15);
  const Variable student(matrix(kStudent));
  EXPECT_EQ(loss_of(knowledge_distillation({.alpha = 0}), student, matrix(kTeacher), kLabels).item(),
            cross_entropy(student, Tensor::from<int64_t>(kLabels, {2})).item());
  EXPECT_EQ(loss_of(label_loss(), student, matrix(kTeacher), kLabels).item(),
            cross_entropy(student, Tensor::from<int64_t>(kLabels, {2})).item());
}

TEST(KnowledgeDistillation, AtHighTemperaturesItIsTheSquaredDistanceOfCentredLogits) {
  // Hinton et al. 2015, equation 4: 1/(2C) * sum (z_s - mean z_s - z_t + mean z_t)^2, to order 1/T.
  double limit = 0;
  for (size_t n = 0; n < 2; ++n) {
    double mean = 0;
    for (size_t c = 0; c < 3; ++c) mean += (kStudent[n][c] - kTeacher[n][c]) / 3;
    for (size_t c = 0; c < 3; ++c) limit += std::pow(kStudent[n][c] - kTeacher[n][c] - mean, 2) / 6 / 2;
  }
  double previous = 0;
  for (const double t : {1e2, 1e3, 1e4}) {
    const double loss = loss_of(knowledge_distillation({.temperature = t, .alpha = 1}), Variable(matrix(kStudent)),
                                matrix(kTeacher), kLabels)
                            .item();
    const double error = std::abs(loss - limit) / limit;
    EXPECT_LT(error, 10 / t);
    EXPECT_TRUE(previous == 0 || error < previous / 5) << t;
    previous = error;
  }
}

TEST(Terms, GradientsMatchDifferences) {
  Generator generator(3);
  const Tensor teacher = randn({4, 5}, generator, DType::f64);
  const Variable student(randn({4, 5}, generator, DType::f64), true);
  for (const DistillationTermPtr& term : {knowledge_distillation(), relational_distance(), relational_angle()})
    EXPECT_TRUE(gradcheck(
        [&](const Variables& x) {
          return Variables{loss_of(term, x[0], teacher, {0, 1, 2, 3})};
        },
        {student}))
        << term->name();
  const Variable map(randn({2, 3, 2, 2}, generator, DType::f64), true),
      other(randn({2, 4, 2, 2}, generator, DType::f64));
  EXPECT_TRUE(gradcheck(
      [&](const Variables& x) {
        return Variables{feature_loss(attention_transfer({{"f", "g"}}), x[0], other)};
      },
      {map}));
}

TEST(AttentionTransfer, ByHand) {
  // Two channels, 1 x 2 positions. Squares summed over channels: (9+16, 0+0) = (25, 0) and (1+4, 4+1) = (5, 5),
  // normalised (1, 0) and (1,1)/sqrt 2. Distance sqrt((1-r)^2 + r^2) with r = 1/sqrt 2; half of it.
  const Variable student(Tensor::from<double>({3, 0, 4, 0}, {1, 2, 1, 2}));
  const Variable teacher(Tensor::from<double>({1, 2, 2, 1}, {1, 2, 1, 2}));
  const double r = 1 / std::sqrt(2.0);
  EXPECT_NEAR(feature_loss(attention_transfer({{"f", "g"}}), student, teacher).item(),
              0.5 * std::sqrt((1 - r) * (1 - r) + r * r), 1e-15);
}

TEST(AttentionTransfer, OfEqualMapsIsZeroWithoutNaN) {
  Variable student(Tensor::from<double>({3, 0, 4, 0}, {1, 2, 1, 2}), true);
  const Variable loss = feature_loss(attention_transfer({{"f", "g"}}), student, student.detach());
  EXPECT_EQ(loss.item(), 0);
  loss.backward();
  EXPECT_EQ(student.grad().data().to_vector<double>(), (std::vector<double>{0, 0, 0, 0}));
}

TEST(RelationalDistance, ByHand) {
  // Distances 3, 4, 5 (mean 4) and 1, 1, 2 (mean 4/3): relative ones 0.75, 1, 1.25 and 0.75, 0.75, 1.5.
  const Rows student = {{0, 0}, {3, 0}, {0, 4}};  // d01 = 3, d02 = 4, d12 = 5
  const Rows teacher = {{0}, {1}, {-1}};          // d01 = 1, d02 = 1, d12 = 2
  const double expected = (0 + 0.5 * 0.0625 + 0.5 * 0.0625) / 3;
  EXPECT_NEAR(loss_of(relational_distance(), Variable(matrix(student)), matrix(teacher)).item(), expected, 1e-15);
}

TEST(RelationalDistance, FarApartCountsLinearly) {
  // Seven equal examples and one far away: 4 times the mean distance in the student, at most 7/3 in the teacher.
  const Rows student = {{0}, {0}, {0}, {0}, {0}, {0}, {0}, {10}}, teacher = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
  double total = 0, mean_s = 0, mean_t = 0;
  for (size_t i = 0; i < 8; ++i)
    for (size_t j = 0; j < 8; ++j) {
      mean_s += std::abs(student[i][0] - student[j][0]) / 56;
      mean_t += std::abs(teacher[i][0] - teacher[j][0]) / 56;
    }
  bool linear = false;
  for (size_t i = 0; i < 8; ++i)
    for (size_t j = 0; j < 8; ++j) {
      const double d =
          std::abs(std::abs(student[i][0] - student[j][0]) / mean_s - std::abs(teacher[i][0] - teacher[j][0]) / mean_t);
      linear = linear || d > 1;
      total += (d > 1 ? d - 0.5 : 0.5 * d * d) / 56;
    }
  EXPECT_TRUE(linear);
  EXPECT_NEAR(loss_of(relational_distance(), Variable(matrix(student)), matrix(teacher)).item(), total, 1e-14);
}

TEST(RelationalAngle, ByHandAndByLoops) {
  // A right triangle against a line: at the vertices the cosines are 0, 0.6, 0.8 and -1, 1, 1; each angle counts twice
  // among the six triples. |d| = 1, 0.4, 0.2.
  const Rows student = {{0, 0}, {3, 0}, {0, 4}}, teacher = {{0}, {1}, {-1}};
  const double expected = (0.5 * 1 + 0.5 * 0.16 + 0.5 * 0.04) / 3;
  EXPECT_NEAR(loss_of(relational_angle(), Variable(matrix(student)), matrix(teacher)).item(), expected, 1e-15);

  Generator generator(8);
  const Tensor a = randn({5, 3}, generator, DType::f64), b = randn({5, 2}, generator, DType::f64);
  const auto cosine = [](const Tensor& x, int64_t i, int64_t j, int64_t k) {
    const int64_t d = x.size(1);
    double dot = 0, left = 0, right = 0;
    for (int64_t c = 0; c < d; ++c) {
      const double u = x.data<double>()[i * d + c] - x.data<double>()[j * d + c];
      const double v = x.data<double>()[k * d + c] - x.data<double>()[j * d + c];
      dot += u * v, left += u * u, right += v * v;
    }
    return dot / std::sqrt(left * right);
  };
  double total = 0;
  for (int64_t i = 0; i < 5; ++i)
    for (int64_t j = 0; j < 5; ++j)
      for (int64_t k = 0; k < 5; ++k) {
        if (i == j || j == k || i == k) continue;
        const double d = std::abs(cosine(a, i, j, k) - cosine(b, i, j, k));
        total += (d > 1 ? d - 0.5 : 0.5 * d * d) / 60;
      }
  EXPECT_NEAR(loss_of(relational_angle(), Variable(a), b).item(), total, 1e-14);
}

TEST(Relational, EqualExamplesAndSmallBatchesGiveNoNaN) {
  for (const Rows& rows : {Rows{{1, 2}}, Rows{{1, 2}, {1, 2}}, Rows{{1, 2}, {1, 2}, {1, 2}, {0, 1}}}) {
    for (const DistillationTermPtr& term : {relational_distance(), relational_angle()}) {
      Variable student(matrix(rows), true);
      loss_of(term, student, matrix(rows)).backward();
      for (const double g : student.grad().data().to_vector<double>()) EXPECT_TRUE(std::isfinite(g)) << term->name();
    }
  }
}

TEST(Relational, SinglePrecisionGivesTheSameFarFromTheOriginAndOfEqualExamples) {
  Generator generator(6);
  const Tensor a = randn({24, 300}, generator, DType::f64) + 20.0, b = randn({24, 200}, generator, DType::f64);
  for (const Tensor& x : {a, b}) x.slice(0, 7, 8).copy_(x.slice(0, 3, 4));
  for (const DistillationTermPtr& term : {relational_distance(), relational_angle()}) {
    Variable exact(a, true), single(a.to(DType::f32), true);
    const Variable expected = loss_of(term, exact, b), loss = loss_of(term, single, b.to(DType::f32));
    EXPECT_NEAR(loss.item(), expected.item(), 1e-5 * expected.item()) << term->name();
    expected.backward();
    loss.backward();
    double largest = 0;
    for (const double g : exact.grad().data().to_vector<double>()) largest = std::max(largest, std::abs(g));
    EXPECT_LT(max_difference(single.grad().data().to(DType::f64), exact.grad().data()), 1e-4 * largest) << term->name();
  }
}

TEST(Hint, ProjectsStudentChannelsOntoTheTeachers) {
  Generator generator(5);
  const Tensor student = randn({2, 3, 4, 4}, generator), teacher = randn({2, 5, 4, 4}, generator);
  const DistillationTermPtr term = hint("f", "g");
  const NetworkView a{Variable(student), {{"f", Variable(student)}}}, b{Variable(teacher), {{"g", Variable(teacher)}}};
  term->prepare({a, b, Batch()});
  ASSERT_NE(term->projection(), nullptr);
  const std::vector<Parameter> p = term->projection()->parameters();
  ASSERT_EQ(p[0].shape(), Shape({5, 3, 1, 1}));
  const Variable loss = term->loss({a, b, Batch()});
  double expected = 0;
  const float *w = p[0].data().data<float>(), *bias = p[1].data().data<float>();
  for (int64_t n = 0; n < 2; ++n)
    for (int64_t c = 0; c < 5; ++c)
      for (int64_t at = 0; at < 16; ++at) {
        double value = bias[c];
        for (int64_t i = 0; i < 3; ++i) value += double{w[c * 3 + i]} * student.data<float>()[(n * 3 + i) * 16 + at];
        expected += std::pow(value - teacher.data<float>()[(n * 5 + c) * 16 + at], 2) / 160;
      }
  EXPECT_NEAR(loss.item(), expected, 160 * 1e-7 * expected);
  loss.backward();
  EXPECT_TRUE(p[0].grad().defined());
  expect_contains(message_of<ArgumentError>([&] { term->prepare({a, b, Batch()}); }), "another Distillation");
}

TEST(Terms, FeaturesThatDoNotFitAreErrorsWithBothShapes) {
  const Variable small(Tensor::zeros({2, 3, 4, 4})), large(Tensor::zeros({2, 3, 8, 8})), flat(Tensor::zeros({2, 3}));
  for (const auto& [a, b] : {std::pair{small, large}, std::pair{small, flat}, std::pair{flat, large}}) {
    const NetworkView from{a, {{"f", a}}}, to{b, {{"g", b}}};
    for (const DistillationTermPtr& term : {hint("f", "g"), attention_transfer({{"f", "g"}})}) {
      const std::string message = message_of<ArgumentError>([&] { term->prepare({from, to, Batch()}); });
      expect_contains(message, a.shape().to_string());
      expect_contains(message, b.shape().to_string());
    }
  }
  EXPECT_THROW(knowledge_distillation({.temperature = 0}), ArgumentError);
  EXPECT_THROW(knowledge_distillation({.alpha = 1.5}), ArgumentError);
  EXPECT_THROW(attention_transfer({}), ArgumentError);
}

}  // namespace
}  // namespace espalier
