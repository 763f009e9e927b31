// The benchmark of sparse products: figures that follow from their definitions, and kernels that misbehave.
#include "pipeline/bench/spmm_benchmark.h"

#include <memory>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/random.h"
#include "pipeline/bench/ceiling.h"
#include "pipeline/bench/foreign_kernel.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::expect_error;

/// One multiply-add, one load a second and one byte a second at each level, times `rates`.
Calibration slow_machine(double flops, double loads, double bytes) {
  Calibration machine;
  machine.l1_size = 1000;
  machine.l2_size = 10'000;
  machine.l3_size = 100'000;
  for (const VectorIsa isa : {VectorIsa::portable, VectorIsa::avx2, VectorIsa::avx512})
    machine.rates.push_back({isa, flops, loads, bytes, bytes / 2, bytes / 4, bytes / 8});
  return machine;
}

BenchmarkMatrix small_matrix() {
  Generator generator(4);
  Csr a{.rows = 40, .columns = 30, .row_offsets = {0}, .column = {}, .value = {}};
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int32_t k = 0; k < a.columns; ++k)
      if (generator.next_uniform() < 0.2F) a.column.push_back(k);
    a.row_offsets.push_back(static_cast<int64_t>(a.column.size()));
  }
  return {"small", a};
}

TEST(Ceiling, IsTheSlowestResource) {
  // | 1 1 |  times X (2,16): three entries, 16 columns
  // | 0 1 |
  const Csr a{.rows = 2, .columns = 2, .row_offsets = {0, 2, 3}, .column = {0, 1, 1}, .value = {}};
  // 3 * 16 multiply-adds of two operations; loads: 3 values and, with both rows in one panel, 2 vectors of X;
  // bytes: 3 values, 2 rows of X and 2 of Y.
  Ceiling ceiling = spmm_ceiling(a, 16, slow_machine(1, 1e9, 1e9), VectorIsa::avx512);
  EXPECT_DOUBLE_EQ(ceiling.seconds, 96);
  EXPECT_EQ(ceiling.resource, "multiply-adds");
  ceiling = spmm_ceiling(a, 16, slow_machine(1e9, 1, 1e9), VectorIsa::avx512);
  EXPECT_DOUBLE_EQ(ceiling.seconds, 5);
  EXPECT_EQ(ceiling.resource, "loads");
  ceiling = spmm_ceiling(a, 16, slow_machine(1e9, 1e9, 1), VectorIsa::avx512);
  EXPECT_DOUBLE_EQ(ceiling.seconds, 4 * (3 + 4 * 16));
  EXPECT_EQ(ceiling.resource, "bytes");
  // A vector that isn't full counts whole; AVX2 has two vectors for 16 columns, whose values are loaded once for both.
  EXPECT_DOUBLE_EQ(spmm_ceiling(a, 3, slow_machine(1, 1e9, 1e9), VectorIsa::avx512).seconds, 96);
  EXPECT_DOUBLE_EQ(spmm_ceiling(a, 16, slow_machine(1e9, 1, 1e9), VectorIsa::avx2).seconds, 3 + 2 * 2);
  // 4 * (3 + 4 * 300) bytes fit the second level only, which has half the rate.
  EXPECT_DOUBLE_EQ(spmm_ceiling(a, 300, slow_machine(1e12, 1e12, 1), VectorIsa::avx512).seconds, 2 * 4 * (3 + 4 * 300));
}

TEST(SpmmBenchmark, TimesWhatIsRight) {
  SpmmBenchmarkOptions options;
  options.n = {5, 32};
  options.rounds = 3;
  options.turn = 1e-6;
  const auto all = benchmark_spmm({small_matrix()}, options, slow_machine(1e12, 1e12, 1e12), {}, {}, {});
  ASSERT_EQ(all.size(), 6U);  // dense, generated, loops for each n
  for (const SpmmMeasurement& one : all) {
    if (one.kernel == "generated" && vector_isa() == VectorIsa::portable) {
      EXPECT_EQ(one.problem, "not supported");
      continue;
    }
    EXPECT_TRUE(one.is_timed()) << one.problem;
    EXPECT_LE(one.error, 1);
    EXPECT_GT(one.whole.least, 0);
    EXPECT_LE(one.whole.least, one.whole.median);
    EXPECT_GT(one.ceiling, 0);
    EXPECT_DOUBLE_EQ(one.speed_up(), one.dense / one.whole.median);
    EXPECT_EQ(one.to_json().at("nnz").get<int64_t>(), small_matrix().matrix.nnz());
  }
  EXPECT_DOUBLE_EQ(all[0].speed_up(), 1);
}

TEST(SpmmBenchmark, SummariesAreGeometricMeans) {
  std::vector<SpmmMeasurement> all(2);
  for (size_t i = 0; i < 2; ++i) {
    all[i].kernel = "loops";
    all[i].matrix = i == 0 ? "a" : "b";
    all[i].n = 8;
    all[i].dense = 8;
    all[i].whole.median = i == 0 ? 1 : 16;  // 8 times as fast, half as fast
    all[i].packed.median = 2;
    all[i].ceiling = 1;
    all[i].plan = 14;
  }
  const auto summaries = summarize(all);
  ASSERT_EQ(summaries.size(), 1U);
  EXPECT_DOUBLE_EQ(summaries[0].whole.mean, 2);
  EXPECT_DOUBLE_EQ(summaries[0].whole.worst, 0.5);
  EXPECT_EQ(summaries[0].whole.worst_matrix, "b");
  EXPECT_EQ(summaries[0].losses, 1);
  EXPECT_DOUBLE_EQ(summaries[0].packed.mean, 4);
  EXPECT_DOUBLE_EQ(summaries[0].share.mean, 0.5);
  EXPECT_DOUBLE_EQ(all[0].break_even().value(), 2);
  EXPECT_FALSE(all[1].break_even().has_value());
}

/// The problem that the benchmark has with a library.
std::string problem_of(const std::string& library) {
  ForeignKernel kernel(library);
  SpmmBenchmarkOptions options;
  options.n = {7};
  options.rounds = 2;
  options.turn = 1e-6;
  const auto all =
      benchmark_spmm({small_matrix(), small_matrix()}, options, slow_machine(1e12, 1e12, 1e12), {&kernel}, {}, {});
  EXPECT_EQ(all.size(), 8U);
  EXPECT_EQ(all[3].kernel, kernel.name());
  EXPECT_TRUE(all[0].is_timed());  // the others go on
  EXPECT_TRUE(all[6].is_timed());
  EXPECT_EQ(all[3].is_timed(), all[7].is_timed());
  return all[3].problem;
}

TEST(ForeignKernel, IsTimedWhenItIsRight) {
  EXPECT_EQ(problem_of(ESPALIER_TEST_KERNELS "/libespalier_kernels.so"), "");
  EXPECT_EQ(problem_of(ESPALIER_TEST_KERNELS "/kernel_0.so"), "");
}

TEST(ForeignKernel, IsNamedWhenItMisbehaves) {
  expect_contains(problem_of(ESPALIER_TEST_KERNELS "/kernel_1.so"), "wrong by ");
  expect_contains(problem_of(ESPALIER_TEST_KERNELS "/kernel_2.so"), "kernel_2.so crashed (Segmentation fault)");
  expect_contains(problem_of(ESPALIER_TEST_KERNELS "/kernel_3.so"), "crashed (Segmentation fault)");
  expect_contains(problem_of(ESPALIER_TEST_KERNELS "/kernel_4.so"), "not supported");
  expect_contains(problem_of(ESPALIER_TEST_KERNELS "/kernel_5.so"), "wrong by inf");
  expect_contains(problem_of(ESPALIER_TEST_KERNELS "/kernel_6.so"), "has ended its process");
  expect_error<UnavailableError>([] { ForeignKernel("/no/such/library.so"); }, {"can't be timed"});
}

}  // namespace
}  // namespace espalier
