// What the machine can do: a file that is trusted only when it is whole and of this machine.
#include "core/calibration.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_error;

class CalibrationFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("espalier_calibration_{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path() const { return (folder_ / "cache" / "calibration.json").string(); }
  std::string text() const {
    std::ifstream file(path());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& text) const { std::ofstream(path()) << text; }

  std::filesystem::path folder_;
};

TEST_F(CalibrationFile, IsMeasuredKeptAndRead) {
  const Calibration measured = calibrate();
  ASSERT_EQ(measured.of(vector_isa()).isa, vector_isa());
  ASSERT_EQ(measured.rates.size(), static_cast<size_t>(vector_isa()) + 1);
  const MachineRates& rates = measured.of(vector_isa());
  EXPECT_GT(rates.fma_flops, 1e8);
  EXPECT_GT(rates.l1_bytes, rates.memory_bytes);
  EXPECT_EQ(measured.bytes_rate(rates, 1), rates.l1_bytes);
  EXPECT_EQ(measured.bytes_rate(rates, measured.l2_size), rates.l2_bytes);
  EXPECT_EQ(measured.bytes_rate(rates, int64_t{1} << 40), rates.memory_bytes);
  save_calibration(path(), measured);
  const Calibration read = load_calibration(path());
  EXPECT_EQ(read.processor, measured.processor);
  EXPECT_EQ(read.of(vector_isa()).fma_flops, rates.fma_flops);
  EXPECT_EQ(read.of(VectorIsa::portable).l3_bytes, measured.of(VectorIsa::portable).l3_bytes);
  EXPECT_EQ(read.l2_size, measured.l2_size);
  EXPECT_EQ(read.scaling, measured.scaling);
}

TEST_F(CalibrationFile, IsRefusedWhenItIsDamagedOrOfAnotherMachine) {
  Calibration machine{.processor = "some other processor", .l1_size = 1, .l2_size = 1, .l3_size = 0, .rates = {}};
  machine.rates.push_back({VectorIsa::portable, 1, 1, 1, 1, 1, 1});
  save_calibration(path(), machine);
  expect_error<FileError>([&] { load_calibration(path()); }, {"measured on 'some other processor'", "--calibrate"});
  const std::string whole = text();
  for (const std::string& damaged : {std::string(), whole.substr(0, whole.size() / 2), std::string("[]"),
                                     std::string(100'000, '['), std::string(whole).replace(whole.find("1.0"), 3, "0.0"),
                                     std::string(whole).replace(whole.find("1.0"), 3, "\"x\""),
                                     std::string(whole).replace(whole.find("portable"), 8, "mmx")}) {
    write(damaged);
    expect_error<FileError>([&] { load_calibration(path()); }, {"calibration.json is damaged", "--calibrate"});
  }
  expect_error<FileError>([&] { load_calibration((folder_ / "none.json").string()); }, {"expected to read"});
}

TEST(Calibration, TakesTheBestInstructionSetThatWasMeasured) {
  Calibration machine;
  machine.rates = {{VectorIsa::portable, 1, 1, 1, 1, 1, 1}, {VectorIsa::avx2, 2, 1, 1, 1, 1, 1}};
  EXPECT_EQ(machine.of(VectorIsa::avx512).fma_flops, 2);
  EXPECT_EQ(machine.of(VectorIsa::portable).fma_flops, 1);
  machine.rates.clear();
  expect_error([&] { machine.of(VectorIsa::avx2); }, {"no rates were measured"});
}

}  // namespace
}  // namespace espalier
