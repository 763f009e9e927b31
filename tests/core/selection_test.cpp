// Choosing the lowest scores, against the sort that defines it.
#include "core/selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/bits.h"
#include "core/mask.h"
#include "core/random.h"

namespace espalier {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Scores with what is hard about them: many ties, zeros of both signs, infinities, subnormal numbers.
std::vector<double> awkward_scores(size_t count, Generator& generator) {
  std::vector<double> scores(count);
  for (double& score : scores) {
    const auto kind = static_cast<int>(generator.next_uniform() * 10);
    if (kind == 0) score = 0.0;
    if (kind == 1) score = -0.0;
    if (kind == 2) score = kInfinity;
    if (kind == 3) score = -kInfinity;
    if (kind == 4) score = 1e-40F;
    if (kind >= 5 && kind < 8) score = std::floor(generator.next_uniform() * 9) - 4;
    if (kind >= 8) score = static_cast<float>(generator.next_uniform() - 0.5);
  }
  return scores;
}

/// The units that are left when the `count` lowest of those that exist have gone, the higher index first.
std::vector<bool> sorted_reference(const std::vector<double>& scores, std::vector<bool> exists, int64_t count) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return scores[a] != scores[b] ? scores[a] < scores[b] : a > b; });
  for (const size_t unit : order)
    if (exists[unit] && count-- > 0) exists[unit] = false;
  return exists;
}

Tensor tensor_of(const std::vector<double>& values, DType dtype) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}).to(dtype);
}
Tensor words_of(const std::vector<bool>& bits) {
  return Mask::from_units({static_cast<int64_t>(bits.size())}, Pattern::element(), bits).words().clone();
}

TEST(Selection, RemovesWhatASortWould) {
  Generator generator(1);
  for (const DType dtype : {DType::f32, DType::f64})
    for (const size_t units : {1U, 5U, 31U, 64U, 65U, 100U, 1000U, 5003U})
      for (int round = 0; round < 12; ++round) {
        const std::vector<double> scores = awkward_scores(units, generator);
        std::vector<bool> exists(units, true);
        if (round % 2 == 1)
          for (size_t i = 0; i < units; ++i) exists[i] = generator.next_uniform() < 0.6;
        const int64_t all = std::count(exists.begin(), exists.end(), true);
        const auto count = static_cast<int64_t>(generator.next_uniform() * static_cast<double>(all + 1));
        SCOPED_TRACE(fmt::format("{} units, {} of {} {}", units, count, all, name_of(dtype)));
        Candidates candidates{tensor_of(scores, dtype), words_of(exists)};
        Border border = border_of_lowest(std::span(&candidates, 1), count);
        remove_lowest(border, candidates);
        EXPECT_EQ(border.ties, 0);
        EXPECT_EQ(candidates.count(), all - count);
        EXPECT_EQ(candidates.words.to_vector<int64_t>(),
                  words_of(sorted_reference(scores, exists, count)).to_vector<int64_t>());
      }
}

TEST(Selection, OneBorderGoesThroughSeveralSetsAndTiesGoToTheFirst) {
  std::vector<Candidates> sets = {{tensor_of({1, 2, 2}, DType::f32), words_of({true, true, true})},
                                  {tensor_of({2, 0, 2, 3}, DType::f32), words_of({true, true, true, true})}};
  Border border = border_of_lowest(sets, 5);  // 0, 1, and three of the four twos
  EXPECT_EQ(border.rank, 2);
  EXPECT_EQ(border.ties, 3);
  for (Candidates& set : sets) remove_lowest(border, set);
  EXPECT_EQ(sets[0].words.to_vector<int64_t>(), std::vector<int64_t>{0b000});
  EXPECT_EQ(sets[1].words.to_vector<int64_t>(), std::vector<int64_t>{0b1001});
  border = border_of_lowest(sets, 3);  // of the two that are left
  for (Candidates& set : sets) remove_lowest(border, set);
  EXPECT_EQ(sets[1].count(), 0);
}

TEST(Selection, UnitsGoByRankUntilTheirCostIsReached) {
  // Ranks: scores / 4, those below 0 times 4; scores; scores / 2, as doubles.
  const auto sets = [] {
    return std::vector<Candidates>{{tensor_of({4, -1, 12}, DType::f32), words_of({true, true, true}), {.cost = 4}, 4},
                                   {tensor_of({-4, 1, 2}, DType::f32), words_of({true, true, true})},
                                   {tensor_of({3, 2, 6}, DType::f64), words_of({true, true, true}), {.mean = 2}, 0.5}};
  };
  const auto left = [&](double cost) {
    std::vector<Candidates> candidates = sets();
    Border border = border_of_lowest(candidates, cost);
    std::vector<int64_t> words;
    for (Candidates& set : candidates) {
      remove_lowest(border, set);
      words.push_back(set.words.to_vector<int64_t>().front());
    }
    return words;
  };
  // -1 and -4 both rank -4, then 1 of each set, 1.5, 2, and 3 twice.
  EXPECT_EQ(left(0), (std::vector<int64_t>{0b111, 0b111, 0b111}));
  EXPECT_EQ(left(4), (std::vector<int64_t>{0b101, 0b111, 0b111}));
  EXPECT_EQ(left(4.5), (std::vector<int64_t>{0b101, 0b110, 0b111}));
  EXPECT_EQ(left(9), (std::vector<int64_t>{0b100, 0b110, 0b111}));
  EXPECT_EQ(left(10.5), (std::vector<int64_t>{0b100, 0b100, 0b101}));
  EXPECT_EQ(left(10.6), (std::vector<int64_t>{0b100, 0b100, 0b100}));
  EXPECT_EQ(left(12.1), (std::vector<int64_t>{0b000, 0b000, 0b100}));
  EXPECT_EQ(left(100), (std::vector<int64_t>{0, 0, 0}));
}

TEST(Selection, CutsBelowAndSplicesAbove) {
  Generator generator(4);
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::vector<double> scores = awkward_scores(1003, generator);
    std::vector<bool> exists(scores.size());
    for (size_t i = 0; i < exists.size(); ++i) exists[i] = generator.next_uniform() < 0.5;
    const Tensor words = cut_and_splice(tensor_of(scores, dtype), -1, 1, words_of(exists));
    for (size_t i = 0; i < exists.size(); ++i) {
      if (scores[i] < -1) exists[i] = false;
      if (scores[i] > 1) exists[i] = true;
    }
    EXPECT_EQ(words.to_vector<int64_t>(), words_of(exists).to_vector<int64_t>());
  }
}

TEST(Selection, CutsByBordersThatNoFloatHas) {
  const float tenth = 0.1F, below = std::nextafter(tenth, 0.0F);  // below < 0.1 < tenth
  const Tensor words = words_of({true, true, false, false});
  const Tensor scores = Tensor::from<float>({below, tenth, below, tenth}, {4});
  EXPECT_EQ(cut_and_splice(scores, 0.1, 0.1, words).to_vector<int64_t>(), std::vector<int64_t>{0b1010});
  EXPECT_EQ(cut_and_splice(scores, -1e300, 1e300, words).to_vector<int64_t>(), std::vector<int64_t>{0b0011});
}

TEST(Selection, FindsTheFirstNaN) {
  EXPECT_EQ(find_nan(tensor_of({1, kInfinity, std::nan(""), std::nan("")}, DType::f32)), 2);
  EXPECT_EQ(find_nan(tensor_of({1, -kInfinity}, DType::f64)), -1);
}

TEST(Selection, MeanSizesAreOfCandidatesAndAddedByHalves) {
  const std::vector<bool> exists = {true, false, true, true};
  EXPECT_EQ((Candidates{tensor_of({1, 50, -2, 6}, DType::f32), words_of(exists)}.mean_size()), 3);
  EXPECT_EQ((Candidates{tensor_of({1, 50}, DType::f64), words_of({false, false})}.mean_size()), 0);
  // In order, each 2^-53 would be lost beside 1; by halves, numbers 1 and 33 meet first.
  const double least = 0x1p-53;
  std::vector<double> scores(64, 0.0);
  scores[0] = 1;
  scores[1] = scores[33] = least;
  EXPECT_EQ((Candidates{tensor_of(scores, DType::f64), full_words(64)}.mean_size()), (1 + 2 * least) / 64);
  scores.assign(5000, 0.5);  // 79 words, whose sums are added in two rounds more
  EXPECT_EQ((Candidates{tensor_of(scores, DType::f32), full_words(5000)}.mean_size()), 0.5);
}

TEST(Selection, RanksThatDifferInTheirLastBitAreTold) {
  for (const double base : {1.0, -1.0, 1e-310, -5e300}) {  // subnormal numbers too
    const double above = std::nextafter(base, kInfinity), below = std::nextafter(base, -kInfinity);
    Candidates set{tensor_of({above, base, below, base}, DType::f64), full_words(4)};
    const Border border = border_of_lowest(std::span(&set, 1), 2);
    EXPECT_EQ(border.rank, base);
    EXPECT_EQ(border.ties, 1);
    EXPECT_EQ(highest_of(set, 2).to_vector<int64_t>(), std::vector<int64_t>{0b0011});
  }
}

TEST(Bits, TheHighestOfThoseThatAreSet) {
  Generator generator(3);
  for (const size_t units : {1U, 64U, 65U, 700U}) {
    std::vector<bool> bits(units);
    for (size_t i = 0; i < units; ++i) bits[i] = generator.next_uniform() < 0.4;
    const int64_t all = std::count(bits.begin(), bits.end(), true);
    EXPECT_EQ(count_bits(words_of(bits)), all);
    for (const int64_t count : {int64_t{0}, int64_t{1}, all / 2, all, all + 1}) {
      std::vector<bool> expected = bits;
      for (size_t i = 0, excess = static_cast<size_t>(std::max<int64_t>(all - count, 0)); excess > 0; ++i)
        if (expected[i]) {
          expected[i] = false;
          --excess;
        }
      EXPECT_EQ(highest_bits(words_of(bits), count).to_vector<int64_t>(), words_of(expected).to_vector<int64_t>())
          << count << " of " << units;
    }
  }
}

TEST(Selection, MasksFromScoresAreThoseOfASort) {
  Generator generator(2);
  for (const DType dtype : {DType::f32, DType::f64})
    for (const int64_t keep : {0, 1, 100, 250, 251, 400}) {
      const std::vector<double> scores = awkward_scores(400, generator);
      const std::vector<bool> all(400, true);
      EXPECT_EQ(Mask::from_scores({20, 20}, Pattern::element(), tensor_of(scores, dtype), keep).units(),
                sorted_reference(scores, all, 400 - keep));
      // n of m: the n best of each group, and of these the best.
      std::vector<bool> allowed(400, false);
      for (size_t group = 0; group < 400; group += 5) {
        const std::vector<double> part(scores.begin() + static_cast<int64_t>(group),
                                       scores.begin() + static_cast<int64_t>(group + 5));
        const std::vector<bool> best = sorted_reference(part, std::vector<bool>(5, true), 2);
        for (size_t i = 0; i < 5; ++i) allowed[group + i] = best[i];
      }
      EXPECT_EQ(Mask::from_scores({20, 20}, Pattern::n_of_m(3, 5), tensor_of(scores, dtype), keep).units(),
                sorted_reference(scores, allowed, std::max<int64_t>(240 - keep, 0)));
    }
}

}  // namespace
}  // namespace espalier
