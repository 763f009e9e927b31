// Sparse matrices and their products, against plain loops in double.
#include "core/sparse/csr.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/random.h"
#include "core/sparse/matrix_file.h"
#include "core/sparse/sddmm.h"
#include "core/sparse/spmm.h"
#include "core/threads.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_error;

Csr random_csr(int64_t rows, int64_t columns, double density, Generator& generator) {
  Csr a{.rows = rows, .columns = columns, .row_offsets = {0}, .column = {}, .value = {}};
  for (int64_t i = 0; i < rows; ++i) {
    const bool empty = generator.next_uniform() < 0.1;  // rows without entries
    for (int64_t k = 0; k < columns && !empty; ++k) {
      if (generator.next_uniform() >= density) continue;
      a.column.push_back(static_cast<int32_t>(k));
      a.value.push_back(static_cast<float>(generator.next_uniform() * 2 - 1));
    }
    a.row_offsets.push_back(static_cast<int64_t>(a.column.size()));
  }
  return a;
}

std::vector<float> random_floats(int64_t count, Generator& generator) {
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = static_cast<float>(generator.next_uniform() * 2 - 1);
  return x;
}

/// (rows, columns) -> (columns, rows).
std::vector<float> transposed_floats(const std::vector<float>& x, int64_t rows, int64_t columns) {
  std::vector<float> t(x.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      t[static_cast<size_t>(j * rows + i)] = x[static_cast<size_t>(i * columns + j)];
  return t;
}

/// Expects y (rows, n) = A x to the rounding of sums of its rows' lengths.
void expect_product(const Csr& a, const std::vector<float>& x, int64_t n, const std::vector<float>& y) {
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, size = 0;
      for (int64_t e = a.row_offsets[static_cast<size_t>(i)]; e < a.row_offsets[static_cast<size_t>(i) + 1]; ++e) {
        const auto at = static_cast<size_t>(e);
        const double term = static_cast<double>(a.value[at]) * x[static_cast<size_t>(a.column[at] * n + j)];
        sum += term;
        size += std::abs(term);
      }
      const double terms =
          static_cast<double>(a.row_offsets[static_cast<size_t>(i) + 1] - a.row_offsets[static_cast<size_t>(i)]);
      ASSERT_NEAR(y[static_cast<size_t>(i * n + j)], sum, (terms + 1) * 6e-8 * size) << "row " << i << ", column " << j;
    }
  }
}

std::vector<SpmmOptions> all_ways() {
  std::vector<SpmmOptions> ways;
  for (const VectorIsa isa : {VectorIsa::portable, VectorIsa::avx2, VectorIsa::avx512}) {
    if (isa > vector_isa()) continue;
    for (const bool generate : {false, true}) {
      for (const auto order : {SpmmOptions::Order::panel_by_panel, SpmmOptions::Order::tile_by_tile})
        ways.push_back({.isa = isa, .generate = generate, .order = order});
    }
  }
  if (vector_isa() == VectorIsa::avx512) {
    ways.push_back({.panel_rows = 14, .tile_vectors = 2, .block = 100});
    ways.push_back({.panel_rows = 3, .tile_vectors = 4, .block = 7});
  }
  if (vector_isa() >= VectorIsa::avx2)
    ways.push_back({.isa = VectorIsa::avx2, .panel_rows = 14, .tile_vectors = 1, .block = 33});
  ways.push_back({.generate = false, .panel_rows = 5, .tile_vectors = 4, .block = 9});
  return ways;
}

std::string describe(const SpmmOptions& options) {
  return fmt::format("{}{}, {} rows x {} vectors, block {}, order {}", name_of(options.isa),
                     options.generate ? " generated" : "", options.panel_rows, options.tile_vectors, options.block,
                     static_cast<int>(options.order));
}

TEST(Csr, HoldsTheWeightsThatExist) {
  // 1 0 2      mask 1 0 1
  // 3 4 0           0 1 1    a weight that exists may be 0
  const Tensor weight = Tensor::from(std::vector<float>{1, 0, 2, 3, 4, 0}, {2, 3});
  const Mask mask = Mask::from_units({2, 3}, Pattern::element(), {true, false, true, false, true, true});
  const Csr a = csr_of(mask, weight);
  EXPECT_EQ(a.row_offsets, (std::vector<int64_t>{0, 2, 4}));
  EXPECT_EQ(a.column, (std::vector<int32_t>{0, 2, 1, 2}));
  EXPECT_EQ(a.value, (std::vector<float>{1, 2, 4, 0}));
  EXPECT_EQ(csr_of(weight).column, (std::vector<int32_t>{0, 2, 0, 1}));
  EXPECT_EQ(to_dense(a).to_vector<float>(), (std::vector<float>{1, 0, 2, 0, 4, 0}));
  const Transposed t = transposed(a);
  EXPECT_EQ(t.matrix.row_offsets, (std::vector<int64_t>{0, 1, 2, 4}));
  EXPECT_EQ(t.matrix.column, (std::vector<int32_t>{0, 1, 0, 1}));
  EXPECT_EQ(t.matrix.value, (std::vector<float>{1, 4, 2, 0}));
  EXPECT_EQ(t.from, (std::vector<int32_t>{0, 2, 1, 3}));
}

TEST(Csr, OfMasksOfEveryPatternIsTheMaskedWeight) {
  Generator generator(3);
  const Tensor weight = Tensor::from(random_floats(64 * 6, generator), {8, 4, 3, 4});
  for (const Pattern& pattern : {Pattern::element(), Pattern::block(4, 2), Pattern::n_of_m(2, 4), Pattern::kernel(),
                                 Pattern::channel(0), Pattern::channel(1)}) {
    const int64_t units = mask_layout(weight.shape(), pattern).units();
    std::vector<bool> exists;
    for (int64_t u = 0; u < units; ++u)
      exists.push_back(pattern.kind() == Pattern::Kind::n_of_m ? u % 2 == 0 : u % 3 != 0);
    const Mask mask = Mask::from_units(weight.shape(), pattern, exists);
    const Csr a = csr_of(mask, weight);
    check_csr("test", a);
    EXPECT_EQ(a.nnz(), mask.count_elements()) << pattern.to_string();
    EXPECT_EQ(to_dense(a).to_vector<float>(), mask.apply(weight).to_vector<float>()) << pattern.to_string();
  }
}

TEST(Csr, SaysWhatIsWrong) {
  const Csr good{.rows = 2, .columns = 3, .row_offsets = {0, 1, 3}, .column = {2, 0, 1}, .value = {}};
  check_csr("test", good);
  Csr a = good;
  a.row_offsets = {0, 2};
  expect_error<ArgumentError>([&] { check_csr("test", a); }, {"expected 3 row offsets"});
  a = good;
  a.row_offsets = {0, 2, 1};
  a.column = {0, 2, 1};
  expect_error<ArgumentError>([&] { check_csr("test", a); }, {"row 1 goes from 2 to 1"});
  a = good;
  a.row_offsets = {0, 1, int64_t{1} << 62};
  expect_error<ArgumentError>([&] { check_csr("test", a); }, {"up to 3 entries"});
  a = good;
  a.column[2] = 3;
  expect_error<ArgumentError>([&] { check_csr("test", a); }, {"lie in [0,3), got 3"});
  a = good;
  a.column[2] = 0;
  expect_error<ArgumentError>([&] { check_csr("test", a); }, {"increase within row 1"});
  a = good;
  a.value = {1};
  expect_error<ArgumentError>([&] { check_csr("test", a); }, {"a value for each of 3 entries"});
}

TEST(Spmm, IsTheProductInEveryWay) {
  Generator generator(7);
  const struct {
    int64_t rows, columns, n;
    double density;
  } cases[] = {{1, 1, 1, 1},          {31, 40, 16, 0.3}, {32, 5, 17, 0.5}, {63, 130, 33, 0.1},
               {100, 300, 100, 0.05}, {7, 2100, 5, 0.1}, {0, 4, 8, 1},     {5, 0, 8, 1},
               {6, 7, 0, 1},          {40, 50, 128, 1},  {29, 64, 64, 0},  {257, 31, 20, 0.9}};
  for (const auto& c : cases) {
    const Csr a = random_csr(c.rows, c.columns, c.density, generator);
    const std::vector<float> x = random_floats(c.columns * c.n, generator);
    std::vector<float> first;
    for (const SpmmOptions& options : all_ways()) {
      SCOPED_TRACE(fmt::format("({},{}) x {}: {}", c.rows, c.columns, c.n, describe(options)));
      const SpmmPlan plan(a, options);
      EXPECT_EQ(plan.nnz(), a.nnz());
      std::vector<float> packed(static_cast<size_t>(plan.packed_floats(c.n)), std::nanf(""));
      plan.pack(x.data(), c.n, c.n, packed.data());
      std::vector<float> y(static_cast<size_t>(c.rows * c.n), std::nanf(""));
      plan.run(packed.data(), c.n, y.data(), c.n);
      expect_product(a, x, c.n, y);
      std::vector<float> again(y.size(), std::nanf(""));
      plan.multiply(x.data(), c.n, c.n, again.data(), c.n);
      EXPECT_EQ(again, y);

      const std::vector<float> batch = transposed_floats(x, c.columns, c.n);
      std::fill(packed.begin(), packed.end(), std::nanf(""));
      plan.pack_batch(batch.data(), c.n, c.columns, packed.data());
      std::vector<float> outputs(y.size(), std::nanf(""));
      plan.run_batch(packed.data(), c.n, nullptr, outputs.data(), c.rows);
      EXPECT_EQ(transposed_floats(outputs, c.n, c.rows), y);
#if defined(__FMA__)  // all fuse multiply-adds then, in the same order
      if (first.empty()) first = y;
      EXPECT_EQ(y, first);
#endif
    }
  }
}

TEST(Spmm, GeneratesCodeWhereTheProcessorCan) {
  Generator generator(1);
  const Csr a = random_csr(60, 80, 0.2, generator);
#if defined(__x86_64__) && defined(__linux__)
  EXPECT_EQ(SpmmPlan(a).is_generated(), vector_isa() != VectorIsa::portable);
#endif
  EXPECT_FALSE(SpmmPlan(a, {.isa = VectorIsa::portable}).is_generated());
  EXPECT_FALSE(SpmmPlan(a, {.generate = false}).is_generated());
}

TEST(Spmm, HasTheSameBitsForAnyNumberOfThreads) {
  Generator generator(11);
  const Csr a = random_csr(300, 200, 0.1, generator);
  const std::vector<float> x = random_floats(200 * 50, generator), dy = random_floats(300 * 50, generator);
  const int before = num_threads();
  for (const bool generate : {false, true}) {
    for (const auto order : {SpmmOptions::Order::panel_by_panel, SpmmOptions::Order::tile_by_tile}) {
      const SpmmPlan plan(a, {.generate = generate, .order = order});
      std::vector<float> one, g_one;
      for (const int threads : {1, 2, 5}) {
        set_num_threads(threads);
        std::vector<float> y(300 * 50), g(static_cast<size_t>(a.nnz()));
        plan.multiply(x.data(), 50, 50, y.data(), 50);
        sddmm(a, dy.data(), 50, x.data(), 50, 50, g.data());
        if (one.empty()) one = y, g_one = g;
        EXPECT_EQ(y, one);
        EXPECT_EQ(g, g_one);
      }
    }
  }
  set_num_threads(before);
}

TEST(Spmm, TakesNewValuesAndABias) {
  // | 0 2 |   x of three examples: (1,1) (2,0) (0,3)
  // | 1 0 |
  Csr a{.rows = 2, .columns = 2, .row_offsets = {0, 1, 2}, .column = {1, 0}, .value = {2, 1}};
  for (const SpmmOptions& options : all_ways()) {
    SpmmPlan plan(a, options);
    const std::vector<float> x = {1, 1, 2, 0, 0, 3}, bias = {10, 20};
    std::vector<float> packed(static_cast<size_t>(plan.packed_floats(3))), y(6);
    plan.pack_batch(x.data(), 3, 2, packed.data());
    plan.run_batch(packed.data(), 3, bias.data(), y.data(), 2);
    EXPECT_EQ(y, (std::vector<float>{12, 21, 10, 22, 16, 20}));
    plan.set_values(std::vector<float>{-1, 5});
    plan.run_batch(packed.data(), 3, nullptr, y.data(), 2);
    EXPECT_EQ(y, (std::vector<float>{-1, 5, 0, 10, -3, 0}));
    expect_error<ArgumentError>([&] { plan.set_values(std::vector<float>{1}); }, {"expected 2 values, got 1"});
  }
}

TEST(Spmm, SaysWhatItHasNoRegistersFor) {
  const Csr a{.rows = 1, .columns = 1, .row_offsets = {0, 1}, .column = {0}, .value = {1}};
  if (vector_isa() == VectorIsa::portable) GTEST_SKIP() << "no code is generated on this processor";
  expect_error<ArgumentError>([&] { SpmmPlan(a, {.panel_rows = 40}); }, {"has the registers for"});
  expect_error<ArgumentError>([&] { SpmmPlan(a, {.generate = false, .tile_vectors = 3}); }, {"1, 2 or 4 vectors"});
  expect_error<ArgumentError>([&] { SpmmPlan(a, {.block = -1}); }, {"a block above 0"});
}

TEST(Sddmm, IsTheProductAtTheEntries) {
  Generator generator(5);
  const struct {
    int64_t rows, columns, n;
    double density;
  } cases[] = {{1, 1, 1, 1}, {33, 40, 128, 0.3}, {70, 9, 129, 0.6}, {5, 300, 300, 0.2},
               {0, 3, 4, 1}, {4, 0, 4, 1},       {6, 5, 0, 1}};
  for (const auto& c : cases) {
    SCOPED_TRACE(fmt::format("({},{}) over {}", c.rows, c.columns, c.n));
    const Csr a = random_csr(c.rows, c.columns, c.density, generator);
    const std::vector<float> x = random_floats(c.columns * c.n, generator), dy = random_floats(c.rows * c.n, generator);
    std::vector<float> g(static_cast<size_t>(a.nnz()), std::nanf("")), batch = g;
    sddmm(a, dy.data(), c.n, x.data(), c.n, c.n, g.data());
    for (int64_t i = 0; i < c.rows; ++i) {
      for (int64_t e = a.row_offsets[static_cast<size_t>(i)]; e < a.row_offsets[static_cast<size_t>(i) + 1]; ++e) {
        double sum = 0;
        for (int64_t j = 0; j < c.n; ++j)
          sum += static_cast<double>(dy[static_cast<size_t>(i * c.n + j)]) *
                 x[static_cast<size_t>(a.column[static_cast<size_t>(e)] * c.n + j)];
        ASSERT_NEAR(g[static_cast<size_t>(e)], sum, 6e-8 * static_cast<double>(c.n * c.n)) << "entry " << e;
      }
    }
    sddmm_batch(a, transposed_floats(dy, c.rows, c.n).data(), c.rows, transposed_floats(x, c.columns, c.n).data(),
                c.columns, c.n, batch.data());
    EXPECT_EQ(batch, g);
  }
}

class MatrixFile : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return path(name);
  }
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("espalier_matrix_{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
};

TEST_F(MatrixFile, IsReadAsItWasWritten) {
  Generator generator(2);
  Csr a = random_csr(12, 9, 0.3, generator);
  write_matrix(path("a.mtx"), a);
  const Csr same = read_matrix(path("a.mtx"));
  EXPECT_EQ(same.row_offsets, a.row_offsets);
  EXPECT_EQ(same.column, a.column);
  EXPECT_EQ(same.value, a.value);
  write_matrix(path("a.smtx"), a);
  const Csr structure = read_matrix(path("a.smtx"));
  EXPECT_EQ(structure.columns, 9);
  EXPECT_EQ(structure.row_offsets, a.row_offsets);
  EXPECT_EQ(structure.column, a.column);
  EXPECT_TRUE(structure.value.empty());
  for (const char* name : {"empty.smtx", "empty.mtx"}) {
    write_matrix(path(name), Csr{.rows = 0, .columns = 5, .row_offsets = {0}, .column = {}, .value = {}});
    EXPECT_EQ(read_matrix(path(name)).columns, 5);
  }
}

TEST_F(MatrixFile, TakesWhatOthersWrite) {
  const Csr a = read_matrix(write("a.smtx", "2, 3, 3\r\n0 1 3 \r\n2 1 0 \r\n"));  // a row in another order
  EXPECT_EQ(a.column, (std::vector<int32_t>{2, 0, 1}));
  const Csr b = read_matrix(
      write("b.mtx", "%%MatrixMarket matrix coordinate real symmetric\n% a remark\n3 3 2\n3 1 -2.5\n2 2 1e-3\n"));
  EXPECT_EQ(to_dense(b).to_vector<float>(), (std::vector<float>{0, 0, -2.5F, 0, 1e-3F, 0, -2.5F, 0, 0}));
}

TEST_F(MatrixFile, TrustsNothing) {
  const std::vector<std::pair<std::string, const char*>> bad = {
      {"", "expected rows, columns and entries, found the end of the file"},
      {"1099511627776, 3, 3\n0\n", "expected sizes from 0"},
      {"2, 3, 1099511627776\n0 1 3\n2 1 0\n", "too few for them"},
      {"2000000000, 3, 3\n0 1 3\n2 1 0\n", "too few for their offsets"},
      {"-1, 3, 3\n0 1 3\n2 1 0\n", "expected sizes from 0"},
      {"2, 3, 3\n0 3 1\n2 1 0\n", "never fall, found 1 after 3"},
      {"2, 3, 3\n0 1 2\n2 1 0\n", "from 0 to 3 that never fall, found 2"},
      {"2, 3, 3\n1 1 3\n2 1 0\n", "found 1 after 0"},
      {"2, 3, 3\n0 1\n2 1 0\n", "expected a row offset, found the end of the line"},
      {"2, 3, 3\n0 1 3\n2 1 3\n", "expected columns in [0,3), found 3"},
      {"2, 3, 3\n0 1 3\n2 1 -1\n", "expected columns in [0,3), found -1"},
      {"2, 3, 3\n0 1 3\n2 1 1\n", "found column 1 twice in row 1"},
      {"2, 3, 3\n0 1 3\n2 1\n", "expected a column, found the end of the line"},
      {"2, 3, 3\n0 1 3\n2 1 0 2\n", "expected the end of the line, found ' 2'"},
      {"2, 3, 3\n0 1 3\n2 1 0\nmore\n", "expected the end of the file"},
      {"2, x, 3\n", "expected the number of columns, found 'x, 3'"}};
  for (const auto& [text, words] : bad) {
    SCOPED_TRACE(text);
    const std::string file = write("bad.smtx", text);
    expect_error<FileError>([&] { read_matrix(file); }, {words});
    expect_error<FileError>([&] { read_matrix(file); }, {"bad.smtx, line "});
  }
  const std::string header = "%%MatrixMarket matrix coordinate real general\n";
  for (const auto& [text, words] : std::vector<std::pair<std::string, const char*>>{
           {"%%MatrixMarket matrix array real general\n2 2\n", "expected '%%MatrixMarket matrix coordinate"},
           {header + "2 2 2\n1 1 1\n", "expected an entry, found the end of the file"},
           {header + "2 2 1\n3 1 1\n", "within (2,2), counted from 1, found (3,1)"},
           {header + "2 2 1\n0 1 1\n", "found (0,1)"},
           {header + "2 2 2\n1 1 1\n1 1 2\n", "found (1,1) twice"},
           {header + "2000000000 2 1\n1 1 1\n", "expected at most 128 rows"},
           {header + "2 2 1\n1 1 x\n", "expected a value, found 'x'"}}) {
    SCOPED_TRACE(text);
    const std::string file = write("bad.mtx", text);
    expect_error<FileError>([&] { read_matrix(file); }, {words});
  }
  expect_error<FileError>([&] { read_matrix(path("none.smtx")); }, {"can't be opened"});
  expect_error<ArgumentError>([&] { read_matrix(path("none.txt")); }, {"expected a file *.smtx or *.mtx"});
}

}  // namespace
}  // namespace espalier
