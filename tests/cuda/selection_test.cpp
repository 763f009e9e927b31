// Selection and the bits of masks on the device against the CPU's, bit for bit.
#include "core/selection.h"

#include <cmath>
#include <limits>

#include "core/bits.h"
#include "core/ops.h"
#include "tests/cuda/testing.h"

namespace espalier {
namespace {

using testing::expect_same;

using Tensors = std::vector<Tensor>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Scores with what is hard about them: ties, zeros of both signs, infinities, subnormal numbers, neighbours.
Tensor awkward_scores(int64_t count, DType dtype, Generator& generator) {
  std::vector<double> scores(static_cast<size_t>(count));
  for (double& score : scores) {
    const auto kind = static_cast<int>(generator.next_uniform() * 10);
    score = std::floor(generator.next_uniform() * 9) - 4;
    if (kind == 0) score = 0.0;
    if (kind == 1) score = -0.0;
    if (kind == 2) score = kInfinity;
    if (kind == 3) score = -kInfinity;
    if (kind == 4) score = 1e-40;
    if (kind == 5) score = std::nextafter(score, kInfinity);
    if (kind >= 8) score = generator.next_uniform() - 0.5;
  }
  return Tensor::from(scores, {count}).to(dtype);
}

Tensor random_words(int64_t bits, double density, Generator& generator) {
  std::vector<bool> exists(static_cast<size_t>(bits));
  for (size_t i = 0; i < exists.size(); ++i) exists[i] = generator.next_uniform() < density;
  return Mask::from_units({bits}, Pattern::element(), exists).words();
}

/// Ranks as scores, and as they are with means and costs.
const Ranks kRanks[] = {{}, {.mean = 0.3}, {.mean = 0.7, .cost = 3}};
const int64_t kSizes[] = {1, 31, 64, 65, 1000, 4099};

TEST(CudaBits, AreCombinedAndCounted) {
  Generator generator(1);
  for (const int64_t bits : kSizes) {
    const Tensor a = random_words(bits, 0.5, generator), b = random_words(bits, 0.3, generator);
    for (const BitOp op : {BitOp::bit_and, BitOp::bit_or, BitOp::bit_xor, BitOp::bit_and_not})
      expect_same({.inputs = {a, b}, .outputs = {Tensor::empty_like(a)}},
                  [&](const Kernels& k, const Tensors& in, Tensors& out) { k.combine_bits(op, in[0], in[1], out[0]); });
    expect_same({.inputs = {a}, .outputs = {Tensor::empty({1}, DType::i64)}},
                [](const Kernels& k, const Tensors& in, Tensors& out) { k.count_bits(in[0], out[0]); });
  }
  EXPECT_EQ(count_bits(Tensor::empty({0}, DType::i64, testing::device())), 0);
}

TEST(CudaSelection, ComparesAndCountsRanks) {
  Generator generator(2);
  for (const DType dtype : {DType::f32, DType::f64})
    for (const int64_t units : kSizes) {
      const Tensor scores = awkward_scores(units, dtype, generator), words = random_words(units, 0.7, generator);
      for (const Ranks& ranks : kRanks) {
        const double rank = ranks(scores.to_vector<double>()[static_cast<size_t>(units) / 2]);
        for (const CompareOp op :
             {CompareOp::eq, CompareOp::ne, CompareOp::lt, CompareOp::le, CompareOp::gt, CompareOp::ge})
          for (const double bound : {rank, 0.1, kInfinity})
            expect_same({.inputs = {scores}, .outputs = {Tensor::empty_like(words)}},
                        [&](const Kernels& k, const Tensors& in, Tensors& out) {
                          k.compare_ranks(op, in[0], ranks, bound, out[0]);
                        });
        // All ranks, those with the exponent of `rank`, and with all digits of it but the last four bits.
        for (const int shift : {52, 40, 4}) {
          const uint64_t key = ordered_key(rank);
          const RankBins bins{shift == 52 ? 0 : key >> shift >> 12 << 12 << shift, shift};
          expect_same({.inputs = {scores, words}, .outputs = {Tensor::empty({RankBins::kCount}, DType::i64)}},
                      [&](const Kernels& k, const Tensors& in, Tensors& out) {
                        k.count_ranks(in[0], in[1], ranks, bins, out[0]);
                      });
        }
      }
    }
}

TEST(CudaSelection, SumsSizesInTheCpusOrder) {
  Generator generator(3);
  for (const DType dtype : {DType::f32, DType::f64})
    for (const int64_t units : kSizes) {
      const Tensor scores = randn({units}, generator).to(dtype), words = random_words(units, 0.6, generator);
      expect_same({.inputs = {scores, words}, .outputs = {Tensor::empty(words.shape(), DType::f64)}},
                  [](const Kernels& k, const Tensors& in, Tensors& out) { k.sum_sizes(in[0], in[1], out[0]); });
      const Candidates here{scores, words}, there{scores.to(testing::device()), words.to(testing::device())};
      EXPECT_EQ(there.mean_size(), here.mean_size());
    }
}

TEST(CudaSelection, TakesTheBestOfGroups) {
  Generator generator(4);
  for (const DType dtype : {DType::f32, DType::f64})
    for (const auto& [n, m] : {std::pair{1, 1}, {1, 2}, {2, 4}, {3, 5}, {4, 4}, {7, 100}}) {
      const Tensor scores = awkward_scores(m * 11, dtype, generator);
      expect_same({.inputs = {scores}, .outputs = {Tensor::empty({words_for(m * 11)}, DType::i64)}},
                  [&](const Kernels& k, const Tensors& in, Tensors& out) { k.best_of_groups(in[0], n, m, out[0]); });
    }
}

/// Several sets, of both types, with ranks and costs of their own.
std::vector<Candidates> random_sets(Generator& generator, int64_t most) {
  std::vector<Candidates> sets;
  for (int s = 0; s < 3; ++s) {
    const auto units = 1 + static_cast<int64_t>(generator.next_uniform() * static_cast<double>(most));
    const DType dtype = generator.next_uniform() < 0.5 ? DType::f32 : DType::f64;
    const Tensor scores = generator.next_uniform() < 0.1 ? Tensor::full({units}, 2, dtype)  // all are equal
                                                         : awkward_scores(units, dtype, generator);
    const double density = generator.next_uniform() < 0.1 ? 0 : 0.8;
    const auto kind = static_cast<size_t>(generator.next_uniform() * 3);
    sets.push_back({scores, random_words(units, density, generator), kRanks[kind], kind == 2 ? 3.0 : 1.0});
  }
  return sets;
}

TEST(CudaSelection, RemovesWhatTheCpuDoes) {
  Generator generator(5);
  for (int round = 0; round < 40; ++round) {
    std::vector<Candidates> here = random_sets(generator, 400), there = here;
    for (Candidates& set : there) {
      set.scores = set.scores.to(testing::device());
      set.words = set.words.to(testing::device());
    }
    double all = 0;
    for (const Candidates& set : here) all += set.cost * static_cast<double>(set.count());
    const double cost = std::floor(generator.next_uniform() * 1.1 * all);
    SCOPED_TRACE(fmt::format("round {}: {} of {}", round, cost, all));
    Border expected = border_of_lowest(here, cost), got = border_of_lowest(there, cost);
    EXPECT_EQ(got.rank, expected.rank);
    EXPECT_EQ(got.ties, expected.ties);
    for (size_t s = 0; s < here.size(); ++s) {
      remove_lowest(expected, here[s]);
      remove_lowest(got, there[s]);
      EXPECT_EQ(there[s].words.device(), testing::device());
      EXPECT_TRUE(identical(there[s].words, here[s].words)) << "set " << s;
      EXPECT_EQ(got.ties, expected.ties);
      EXPECT_TRUE(identical(cut_and_splice(there[s].scores, -0.1, 0.2, there[s].words),
                            cut_and_splice(here[s].scores, -0.1, 0.2, here[s].words)));
    }
  }
}

TEST(CudaSelection, FindsTheFirstNaN) {
  Tensor scores = Tensor::ones({100}, DType::f32);
  EXPECT_EQ(find_nan(scores.to(testing::device())), -1);
  scores.data<float>()[70] = scores.data<float>()[90] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(find_nan(scores.to(testing::device())), 70);
}

TEST(CudaSelection, BringsNoScoresToTheHost) {
  Generator generator(6);
  const int64_t units = 100'000;  // 400 kB of scores, 12.5 kB of bits
  const Tensor scores = abs(randn({units}, generator)).to(testing::device());
  const uint64_t before = bytes_copied_to_host();
  const Mask mask = Mask::from_scores({100, 1000}, Pattern::element(), scores, units / 10);
  EXPECT_EQ(mask.device(), testing::device());
  EXPECT_EQ(mask.count(), units / 10);
  // Three histograms of f32's digits, and some counts of eight bytes.
  EXPECT_LT(bytes_copied_to_host() - before, uint64_t{3 * 8 * RankBins::kCount + 1000});
}

}  // namespace
}  // namespace espalier
