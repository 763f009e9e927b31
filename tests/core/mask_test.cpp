#include "core/mask.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/ops.h"
#include "core/random.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

Tensor scores(const std::vector<double>& values) { return Tensor::from(values, {static_cast<int64_t>(values.size())}); }

/// Every pattern on a weight it fits.
std::vector<std::pair<Shape, Pattern>> pattern_cases() {
  return {{{6, 8}, Pattern::element()},
          {{6, 8}, Pattern::block(3, 2)},
          {{6, 8}, Pattern::block(1, 4)},
          {{6, 8}, Pattern::n_of_m(2, 4)},
          {{4, 3, 5, 5}, Pattern::kernel()},
          {{4, 3, 5, 5}, Pattern::channel(0)},
          {{4, 3, 5, 5}, Pattern::channel(1)},
          {{12, 5}, Pattern::channel(0, 4)},
          {{12}, Pattern::channel(0, 4)},
          {{12, 3}, Pattern::recurrent()},
          {{7}, Pattern::element()},
          // Longer than a word, and rows that begin anywhere in one.
          {{37, 83}, Pattern::element()},
          {{36, 83}, Pattern::block(3, 1)},
          {{9, 130}, Pattern::block(3, 65)},
          {{37, 84}, Pattern::block(1, 4)},
          {{9, 130}, Pattern::block(1, 2)},
          {{5, 192}, Pattern::block(1, 64)},
          {{5, 256}, Pattern::block(1, 128)},
          {{10, 7, 3, 3}, Pattern::kernel()},
          {{9, 130}, Pattern::channel(0)},
          {{9, 130}, Pattern::channel(1)},
          {{280, 70}, Pattern::recurrent()},
          {{280, 70}, Pattern::channel(0, 4)}};
}

/// About half of the units, reproducibly.
Mask half(const Shape& shape, const Pattern& pattern, uint64_t seed) {
  Generator generator(seed);
  const int64_t units = mask_layout(shape, pattern).units();
  return Mask::from_scores(shape, pattern, rand({units}, generator), units / 2);
}

TEST(Mask, ExpandsEveryPatternAsItsDefinitionSays) {
  for (const auto& [shape, pattern] : pattern_cases()) {
    SCOPED_TRACE(pattern.to_string() + " on " + shape.to_string());
    const Mask mask = half(shape, pattern, 3);
    const std::vector<bool> units = mask.units(), elements = mask.expand().to_vector<bool>();
    const int64_t rows = shape[0], columns = shape.numel() / rows;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        bool expected = false;
        const auto unit = [&](int64_t i) { return units[static_cast<size_t>(i)]; };
        switch (pattern.kind()) {
          case Pattern::Kind::element:
          case Pattern::Kind::n_of_m: expected = unit(r * columns + c); break;
          case Pattern::Kind::block:
            expected = unit(r / pattern.first() * (columns / pattern.second()) + c / pattern.second());
            break;
          case Pattern::Kind::kernel: expected = unit(r * shape[1] + c / (shape[2] * shape[3])); break;
          case Pattern::Kind::channel:
            expected = pattern.first() == 0 ? unit(r % (rows / pattern.second())) : unit(c / (columns / shape[1]));
            break;
          case Pattern::Kind::recurrent: expected = unit(r % columns) && unit(c); break;
        }
        EXPECT_EQ(elements[static_cast<size_t>(r * columns + c)], expected) << r << "," << c;
      }
    EXPECT_EQ(mask.count_elements(), std::count(elements.begin(), elements.end(), true));
    EXPECT_EQ(mask.count(), std::count(units.begin(), units.end(), true));
    EXPECT_DOUBLE_EQ(mask.density() + mask.sparsity(), 1);
  }
}

TEST(Mask, AppliesToValuesAndClearsNaN) {
  for (const auto& [shape, pattern] : pattern_cases())
    for (DType dtype : {DType::f32, DType::f64}) {
      const Mask mask = half(shape, pattern, 5);
      Tensor x = Tensor::full(shape, std::nan(""), dtype);
      x.copy_(where(mask.expand(), Tensor::full(shape, 2, dtype), x));
      EXPECT_TRUE(identical(mask.apply(x), mask.expand(dtype) * 2)) << pattern.to_string();
    }
}

TEST(Mask, SumsOverUnits) {
  for (const auto& [shape, pattern] : pattern_cases()) {
    Generator generator(7);
    const Tensor x = rand(shape, generator, DType::f64);
    const std::vector<double> sums = Mask::sum_over_units(x, pattern).to_vector<double>();
    const int64_t units = mask_layout(shape, pattern).units();
    ASSERT_EQ(static_cast<int64_t>(sums.size()), units);
    const double all = sum(x).item();
    for (int64_t unit = 0; unit < units; ++unit) {
      if (pattern.kind() == Pattern::Kind::n_of_m) break;
      std::vector<bool> others(static_cast<size_t>(units), true);
      others[static_cast<size_t>(unit)] = false;
      const double left = sum(Mask::from_units(shape, pattern, others).apply(x)).item();
      EXPECT_NEAR(sums[static_cast<size_t>(unit)], all - left, 1e-15 * static_cast<double>(x.numel()))
          << pattern.to_string() << " unit " << unit;
    }
  }
}

TEST(Mask, KeepsTheBestUnitsAndBreaksTiesByIndex) {
  const Mask mask = Mask::from_scores({6}, Pattern::element(), scores({1, 5, 3, 3, 3, 0}), 3);
  EXPECT_EQ(mask.units(), std::vector<bool>({false, true, true, true, false, false}));
  const Mask threshold = Mask::from_threshold({6}, Pattern::element(), scores({1, 5, 3, 3, 3, 0}), 3);
  EXPECT_EQ(threshold.units(), std::vector<bool>({false, true, true, true, true, false}));
  EXPECT_EQ(Mask::from_scores({6}, Pattern::element(), scores({1, 5, 3, 3, 3, 0}), 0).count(), 0);
}

TEST(Mask, TwoOfFourKeepsTheTwoBestOfEveryFour) {
  const Mask mask = Mask::from_scores({1, 8}, Pattern::n_of_m(2, 4), scores({4, 3, 2, 1, 10, 20, 30, 40}), 4);
  EXPECT_EQ(mask.units(), std::vector<bool>({true, true, false, false, false, false, true, true}));
  EXPECT_THROW(Mask::from_units({1, 4}, Pattern::n_of_m(1, 4), {true, true, false, false}), ArgumentError);
}

TEST(Mask, AlgebraIsThatOfSets) {
  for (const auto& [shape, pattern] : pattern_cases()) {
    SCOPED_TRACE(pattern.to_string());
    const Mask a = half(shape, pattern, 1), b = half(shape, pattern, 2);
    const Tensor x = a.expand(), y = b.expand();
    EXPECT_TRUE(identical((a & b).expand(), x & y));
    EXPECT_TRUE(identical((a | b).expand(), x | y));
    EXPECT_TRUE(identical((a ^ b).expand(), x ^ y));
    EXPECT_TRUE((a & b).is_subset_of(a));
    EXPECT_TRUE(a.is_subset_of(a | b));
    EXPECT_EQ((a | b).is_subset_of(a), b.is_subset_of(a));
    EXPECT_TRUE(a == a);
    EXPECT_FALSE(a == b);
    if (pattern.kind() == Pattern::Kind::recurrent) {
      EXPECT_THROW(~a, ArgumentError);
    } else {
      EXPECT_TRUE(identical((~a).expand(), ~x));
    }
    EXPECT_TRUE(identical(a.as_elements().expand(), x));
  }
}

TEST(Mask, MixedPatternsMeetAsElements) {
  const Mask rows = half({4, 6}, Pattern::channel(0), 1), elements = half({4, 6}, Pattern::element(), 2);
  const Mask both = rows & elements;
  EXPECT_EQ(both.pattern(), Pattern::element());
  EXPECT_TRUE(identical(both.expand(), rows.expand() & elements.expand()));
}

TEST(Mask, SurvivesPackingAndPrinting) {
  for (const auto& [shape, pattern] : pattern_cases()) {
    const Mask mask = half(shape, pattern, 9);
    const Mask copy = Mask::from_packed(shape, Pattern::parse(pattern.to_string()), mask.packed());
    EXPECT_TRUE(copy == mask);
    EXPECT_NE(copy.version(), mask.version());
    EXPECT_EQ(mask.packed().numel(), (mask.num_units() + 7) / 8);
  }
}

TEST(Mask, DrawsDensity) {
  const Mask mask = Mask::from_units({2, 4}, Pattern::element(), {true, true, false, false, false, false, false, true});
  EXPECT_EQ(mask.draw(), "@@  \n   @\n");
  EXPECT_EQ(Mask::all({64, 64}).draw(2, 1), "@@\n");
}

TEST(Mask, RefusesWhatDoesNotFit) {
  EXPECT_THROW(Mask::all({6, 8}, Pattern::block(4, 2)), ArgumentError);
  EXPECT_THROW(mask_layout({6, 9}, Pattern::n_of_m(2, 4)), ArgumentError);
  EXPECT_THROW(Mask::all({6, 8}, Pattern::kernel()), ArgumentError);
  EXPECT_THROW(Mask::all({6, 4}, Pattern::recurrent()), ArgumentError);
  EXPECT_THROW(Mask::all({6}, Pattern::channel(1)), ArgumentError);
  testing_support::expect_error(
      [] {
        mask_layout({-2, -3}, Pattern::element());
      },
      {"a weight with elements", "(-2,-3)"});
  EXPECT_THROW(Mask::from_scores({3}, Pattern::element(), scores({1, 2}), 1), ArgumentError);
  EXPECT_THROW(Mask::from_scores({2}, Pattern::element(), scores({1, std::nan("")}), 1), NumericError);
  EXPECT_THROW(Mask::all({4}).apply(Tensor::zeros({5})), ArgumentError);
  EXPECT_THROW(Mask::all({4}) & Mask::all({5}), ArgumentError);
  EXPECT_THROW(Pattern::parse("4 of 2"), ArgumentError);
  testing_support::expect_error([] { Mask::all({6, 8}, Pattern::block(4, 2)); }, {"block 4x2", "(6,8)"});
}

}  // namespace
}  // namespace espalier
