#include "core/random.h"

#include <algorithm>
#include <thread>

#include "core/ops.h"
#include "core/threads.h"
#include "tests/core/strided_testing.h"

namespace espalier {
namespace {

using testing::cpu;
using testing::poisoned;

/// The words that value i of a kernel is made of, one block at a time.
uint32_t word(const PhiloxState& state, uint64_t i) {
  const uint64_t block = state.offset + i / 4;
  return philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(state.stream),
                 static_cast<uint32_t>(state.stream >> 32)},
                {static_cast<uint32_t>(state.seed), static_cast<uint32_t>(state.seed >> 32)})[i % 4];
}

const std::vector<PhiloxState> kStates = {
    {0, 0, 0}, {42, 7, 3}, {0x123456789abcdefull, 0xfedcba987654321ull, 0xfffffffeull}, {1, 0, ~uint64_t{0} - 1}};

TEST(Philox, PublishedKnownAnswers) {
  // Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds.
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  const uint32_t ones = 0xffffffffu;
  EXPECT_EQ(philox({ones, ones, ones, ones}, {ones, ones}),
            (std::array<uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
            (std::array<uint32_t, 4>{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(Random, UniformIsTheDocumentedFunctionOfTheWords) {
  for (const PhiloxState& state : kStates) {
    for (const int64_t n : {1, 3, 4, 5, 63, 64, 65, 1000}) {
      Tensor x = poisoned({n}, DType::f32), y = poisoned({n}, DType::f64);
      cpu().uniform(state, -1, 3, x);
      cpu().uniform(state, -1, 3, y);
      for (int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<uint64_t>(i);
        ASSERT_EQ(x.data<float>()[i], -1.0f + 4.0f * (static_cast<float>(word(state, at) >> 8) * 0x1p-24f));
        const uint64_t both = uint64_t{word(state, 2 * at)} << 32 | word(state, 2 * at + 1);
        ASSERT_EQ(y.data<double>()[i], -1.0 + 4.0 * (static_cast<double>(both >> 11) * 0x1p-53));
      }
    }
  }
}

TEST(Random, NormalIsBoxMullerOfTheWords) {
  for (const PhiloxState& state : kStates) {
    const int64_t n = 1001;
    Tensor x = poisoned({n}, DType::f32), y = poisoned({n}, DType::f64);
    cpu().normal(state, 1, 2, x);
    cpu().normal(state, 1, 2, y);
    for (int64_t i = 0; i < n; ++i) {
      const auto first = static_cast<uint64_t>(i / 2 * 2);
      const auto pick = [&](double radius, double turn) {
        const double angle = 2 * M_PI * turn, length = std::sqrt(-2 * std::log(radius));
        return 1 + 2 * length * (i % 2 ? std::sin(angle) : std::cos(angle));
      };
      // The radius is rounded to f32, which matters where it is close to 1.
      const float radius = (static_cast<float>(word(state, first)) + 1.0f) * 0x1p-32f;
      const double expected = pick(radius, static_cast<double>(word(state, first + 1) >> 8) * 0x1p-24);
      ASSERT_NEAR(x.data<float>()[i], expected, 4e-6);
      const auto unit = [&](uint64_t w) {
        return static_cast<double>((uint64_t{word(state, w)} << 32 | word(state, w + 1)) >> 11) * 0x1p-53;
      };
      ASSERT_NEAR(y.data<double>()[i], pick(1 - unit(2 * first), unit(2 * first + 2)), 1e-13);
    }
  }
}

TEST(Random, BernoulliComparesTheWordInEveryDtype) {
  for (int t = 0; t < kNumDTypes; ++t) {
    const auto dtype = static_cast<DType>(t);
    for (const double p : {0.0, 0.3, 1.0}) {
      Tensor x = poisoned({777}, dtype);
      cpu().bernoulli(kStates[1], p, x);
      const std::vector<double> values = x.to_vector<double>();
      for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], word(kStates[1], i) < p * 0x1p32);
    }
  }
}

TEST(Random, ViewsAreFilledInRowMajorOrderAndNothingElse) {
  const PhiloxState state{5, 0, 0};
  Tensor expected = Tensor::empty({6, 4});
  cpu().uniform(state, 0, 1, expected);
  Tensor permuted = poisoned({4, 6}, DType::f32).transpose(0, 1);
  cpu().uniform(state, 0, 1, permuted);
  EXPECT_TRUE(identical(permuted.contiguous(), expected));
  Tensor wide = Tensor::full({6, 8}, 9);
  Tensor odd = wide.slice(1, 1, 8, 2);
  cpu().uniform(state, 0, 1, odd);
  EXPECT_TRUE(identical(odd.contiguous(), expected));
  EXPECT_EQ(sum(wide == 9.0).item(), 24);
}

TEST(Random, ResultsDoNotDependOnTheThreadCount) {
  const int threads = num_threads();
  for (const DType dtype : {DType::f32, DType::f64}) {
    std::vector<Tensor> uniforms, normals;
    for (const int count : {1, 2, 3, 4}) {
      set_num_threads(count);
      Generator generator(9);
      uniforms.push_back(rand({100003}, generator, dtype));
      normals.push_back(randn({100003}, generator, dtype));
      EXPECT_TRUE(identical(uniforms.back(), uniforms.front()));
      EXPECT_TRUE(identical(normals.back(), normals.front()));
    }
  }
  set_num_threads(threads);
}

TEST(Random, Moments) {
  constexpr int64_t kCount = 1 << 20;
  constexpr double kSigmas = 5;
  const double root = std::sqrt(static_cast<double>(kCount));
  for (const DType dtype : {DType::f32, DType::f64}) {
    Generator generator(2024);
    const Tensor u = rand({kCount}, generator, dtype);
    EXPECT_NEAR(mean(u).item(), 0.5, kSigmas * std::sqrt(1.0 / 12) / root);
    EXPECT_NEAR(variance(u).item(), 1.0 / 12, kSigmas * std::sqrt(1.0 / 180) / root);
    EXPECT_GE(min(u).item(), 0);
    EXPECT_LT(max(u).item(), 1);
    const Tensor z = randn({kCount}, generator, dtype);
    EXPECT_NEAR(mean(z).item(), 0, kSigmas / root);
    EXPECT_NEAR(variance(z).item(), 1, kSigmas * std::sqrt(2.0) / root);
    EXPECT_NEAR(mean(z * z * z).item(), 0, kSigmas * std::sqrt(15.0) / root);
    EXPECT_NEAR(mean(square(square(z))).item(), 3, kSigmas * std::sqrt(96.0) / root);
    // Neighbours, which share a Box-Muller pair or a block, are uncorrelated.
    for (const int64_t lag : {1, 2, 3, 4}) {
      const Tensor product = z.slice(0, 0, kCount - lag) * z.slice(0, lag, kCount);
      EXPECT_NEAR(mean(product).item(), 0, kSigmas / root);
    }
    Tensor b = Tensor::empty({kCount}, dtype);
    bernoulli_(b, 0.2, generator);
    EXPECT_NEAR(mean(b).item(), 0.2, kSigmas * std::sqrt(0.16) / root);
  }
}

TEST(Random, UpperBoundIsExcludedWhereRoundingWouldReachIt) {
  Generator generator(1);
  Tensor x = Tensor::empty({1 << 18});
  uniform_(x, 1000, 1000.001, generator);
  EXPECT_LT(max(x).item(), static_cast<double>(1000.001f));
  EXPECT_GE(min(x).item(), 1000);
  uniform_(x, 2, 2, generator);
  EXPECT_EQ(max(x).item(), 2);
}

TEST(Generator, ReservesWhatTheKernelsUse) {
  Generator generator(3, 1);
  Tensor x = Tensor::empty({10});
  uniform_(x, 0, 1, generator);
  EXPECT_EQ(generator.state(), (PhiloxState{3, 1, 3}));
  Tensor y = Tensor::empty({10}, DType::f64);
  normal_(y, 0, 1, generator);
  EXPECT_EQ(generator.state().offset, 8u);
  bernoulli_(y, 0.5, generator);
  EXPECT_EQ(generator.state().offset, 11u);
  // The next tensor goes on where the last ended: no value is used twice.
  Generator again(3, 1);
  const Tensor first = rand({12}, again), second = rand({12}, again);
  Generator whole(3, 1);
  EXPECT_TRUE(identical(rand({24}, whole), cat({first, second}, 0)));
}

TEST(Generator, StateBringsBackEverySequence) {
  Generator generator(17);
  generator.next_u32();
  const PhiloxState saved = generator.state();
  const auto draw = [](Generator& g) {
    std::vector<double> values;
    for (int i = 0; i < 5; ++i) {
      values.push_back(g.next_u32());
      values.push_back(g.next_uniform());
      values.push_back(g.next_normal());
      values.push_back(static_cast<double>(g.next_below(1000)));
    }
    return values;
  };
  const std::vector<double> expected = draw(generator);
  Generator resumed;
  resumed.set_state(saved);
  EXPECT_EQ(draw(resumed), expected);
  Generator other(17, 1);
  EXPECT_NE(draw(other), expected);
}

TEST(Generator, DrawsAreUniformNormalAndUnbiased) {
  Generator generator(8);
  constexpr int kCount = 60000;
  std::vector<int> counts(6, 0);
  double uniform = 0, normal = 0, squares = 0;
  for (int i = 0; i < kCount; ++i) {
    ++counts[generator.next_below(6)];
    const double u = generator.next_uniform(), z = generator.next_normal();
    ASSERT_TRUE(u >= 0 && u < 1);
    uniform += u;
    normal += z;
    squares += z * z;
  }
  for (const int count : counts) EXPECT_NEAR(count, kCount / 6, 5 * std::sqrt(kCount / 6.0));
  EXPECT_NEAR(uniform / kCount, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));
  EXPECT_NEAR(normal / kCount, 0, 5 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1, 5 * std::sqrt(2.0 / kCount));
  EXPECT_EQ(generator.next_below(1), 0u);
  for (int i = 0; i < 100; ++i) EXPECT_LT(generator.next_below(~uint64_t{0}), ~uint64_t{0});
  EXPECT_THROW(generator.next_below(0), ArgumentError);
}

TEST(Generator, PermutationsAreCompleteAndFair) {
  Generator generator(4);
  std::vector<int64_t> order = generator.permutation(1000);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(order[static_cast<size_t>(i)], i);
  EXPECT_TRUE(generator.permutation(0).empty());
  std::vector<int> counts(6, 0);  // the orders of three
  for (int i = 0; i < 12000; ++i) {
    const std::vector<int64_t> p = generator.permutation(3);
    ++counts[static_cast<size_t>(p[0] * 2 + (p[1] > p[2]))];
  }
  for (const int count : counts) EXPECT_NEAR(count, 2000, 5 * std::sqrt(2000.0));
}

TEST(Generator, SeedAndThreads) {
  set_seed(11);
  const Tensor first = rand({100});
  set_seed(11);
  EXPECT_TRUE(identical(rand({100}), first));
  set_seed(12);
  EXPECT_FALSE(identical(rand({100}), first));
  PhiloxState here = default_generator().state(), there;
  std::thread([&] { there = default_generator().state(); }).join();
  EXPECT_NE(here.stream, there.stream);
}

TEST(Random, WrongArgumentsThrow) {
  Tensor x = Tensor::empty({3}), i = Tensor::empty({3}, DType::i64), none;
  EXPECT_THROW(uniform_(i), ArgumentError);
  EXPECT_THROW(uniform_(x, 1, 0), ArgumentError);
  EXPECT_THROW(uniform_(x, 0, INFINITY), ArgumentError);
  EXPECT_THROW(normal_(x, 0, -1), ArgumentError);
  EXPECT_THROW(bernoulli_(x, 1.5), ArgumentError);
  EXPECT_THROW(bernoulli_(none, 0.5), ArgumentError);
}

}  // namespace
}  // namespace espalier
