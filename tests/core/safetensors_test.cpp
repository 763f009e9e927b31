// Writing and reading safetensors, and what a bad file or a full disk does.
#include "core/safetensors.h"

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/ops.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

class Safetensors : public ::testing::Test {
 protected:
  Safetensors() : folder_(fs::temp_directory_path() / fmt::format("espalier-safetensors-{}", getpid())) {
    fs::create_directories(folder_);
  }
  ~Safetensors() override { fs::remove_all(folder_); }

  std::string path(const std::string& name = "x.safetensors") const { return (folder_ / name).string(); }

  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  // A file from a header as text and the tensors' bytes.
  static std::string file(const std::string& header, const std::string& data) {
    std::string bytes(8, '\0');
    for (int i = 0; i < 8; ++i) bytes[static_cast<size_t>(i)] = static_cast<char>(header.size() >> (8 * i));
    return bytes + header + data;
  }

  // The message that loading such a file gives.
  std::string error(const std::string& bytes) const {
    write(path("bad"), bytes);
    try {
      load_safetensors(path("bad"));
    } catch (const FileError& e) {
      return e.what();
    }
    return "no error";
  }

  fs::path folder_;
};

TEST_F(Safetensors, ReadsEveryFloatOf16Bits) {
  std::string bits;
  for (int i = 0; i < 65536; ++i) bits += {static_cast<char>(i & 0xff), static_cast<char>(i >> 8)};
  write(path(), file(R"({"half":{"dtype":"F16","shape":[256,256],"data_offsets":[0,131072]},
                         "brain":{"dtype":"BF16","shape":[65536],"data_offsets":[131072,262144]}})",
                     bits + bits));
  const NamedTensors tensors = load_safetensors(path()).tensors;
  EXPECT_EQ(tensors[0].second.shape(), Shape({256, 256}));
  EXPECT_EQ(tensors[0].second.dtype(), DType::f32);
  const std::vector<float> half = tensors[0].second.to_vector<float>(), brain = tensors[1].second.to_vector<float>();
  // IEEE 754: sign, exponent, fraction; the smallest exponent's numbers have no leading 1.
  const auto expect_values = [](const std::vector<float>& found, int fraction_bits, int bias) {
    const int exponents = 1 << (15 - fraction_bits);
    for (int i = 0; i < 65536; ++i) {
      const int fraction = i & ((1 << fraction_bits) - 1), exponent = i >> fraction_bits & (exponents - 1);
      const float value = found[static_cast<size_t>(i)];
      ASSERT_EQ(std::signbit(value), i >= 32768) << i;
      if (exponent == exponents - 1) {
        ASSERT_EQ(std::isnan(value), fraction != 0) << i;
        ASSERT_EQ(std::isinf(value), fraction == 0) << i;
      } else {
        const int lead = exponent == 0 ? 0 : 1 << fraction_bits;
        ASSERT_EQ(std::abs(value), std::ldexp(lead + fraction, std::max(exponent, 1) - bias - fraction_bits)) << i;
      }
    }
  };
  expect_values(half, 10, 15);
  expect_values(brain, 7, 127);
  EXPECT_EQ(half[0x0001], 0x1p-24F);  // subnormal
  EXPECT_EQ(half[0x7bff], 65504.0F);
  EXPECT_EQ(brain[0x0001], 0x1p-133F);
  EXPECT_EQ(brain[0x4049], 3.140625F);
}

NamedTensors one_of_each() {
  return {{"f32", Tensor::from<float>({1.5f, -0.0f, std::numeric_limits<float>::infinity()}, {3})},
          {"f64", Tensor::from<double>({0.1, 1e300}, {2, 1})},
          {"i64", Tensor::from<int64_t>({std::numeric_limits<int64_t>::min(), 7}, {1, 2})},
          {"i32", Tensor::from<int32_t>({-1}, {1})},
          {"u8", Tensor::from<uint8_t>({0, 128, 255}, {3})},
          {"i8", Tensor::from<int8_t>({-128, 127}, {2})},
          {"bool", Tensor::from<bool>({true, false, true}, {3})},
          {"scalar", Tensor::scalar(2.5)},
          {"empty", Tensor::empty({0, 4})}};
}

TEST_F(Safetensors, RoundTripsEveryTypeInOrder) {
  const NamedTensors tensors = one_of_each();
  save_safetensors(path(), tensors, {{"format", "pt"}, {"note", "\"quoted\" \xC3\xA9\n"}});
  const SafetensorsFile loaded = load_safetensors(path());
  ASSERT_EQ(loaded.tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(loaded.tensors[i].first, tensors[i].first);
    EXPECT_TRUE(identical(loaded.tensors[i].second, tensors[i].second)) << tensors[i].first;
  }
  EXPECT_EQ(loaded.metadata.at("format"), "pt");
  EXPECT_EQ(loaded.metadata.at("note"), "\"quoted\" \xC3\xA9\n");
}

TEST_F(Safetensors, HasTheFormatsLayout) {
  save_safetensors(path(), {{"w", Tensor::from<float>({1, 2}, {2})}});
  const std::string bytes = read(path());
  const std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const size_t padded = (header.size() + 7) / 8 * 8;
  ASSERT_EQ(bytes.size(), 8 + padded + 8);
  EXPECT_EQ(static_cast<uint8_t>(bytes[0]), padded);
  EXPECT_EQ(bytes.substr(8, header.size()), header);
  EXPECT_EQ(bytes.substr(8 + padded, 4), std::string("\x00\x00\x80\x3f", 4));  // 1.0f, little endian
}

TEST_F(Safetensors, WritesViewsAsTheirElements) {
  const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  save_safetensors(path(), {{"t", x.transpose(0, 1)}, {"s", x.slice(1, 1, 3)}});
  const SafetensorsFile loaded = load_safetensors(path());
  EXPECT_EQ(loaded.tensors[0].second.to_vector<float>(), (std::vector<float>{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(loaded.tensors[1].second.to_vector<float>(), (std::vector<float>{2, 3, 5, 6}));
}

TEST_F(Safetensors, RefusesNamesItCouldNotReadBack) {
  const Tensor x = Tensor::zeros({1});
  EXPECT_THROW(save_safetensors(path(), {{"a", x}, {"a", x}}), ArgumentError);
  EXPECT_THROW(save_safetensors(path(), {{"__metadata__", x}}), ArgumentError);
  EXPECT_THROW(save_safetensors(path(), {{"\xff", x}}), ArgumentError);
  EXPECT_THROW(save_safetensors(path(), {{"a", Tensor()}}), ArgumentError);
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(Safetensors, NamesWhatIsWrong) {
  const std::string four(4, '\0');
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  struct Case {
    std::string bytes, expected;
  };
  const Case cases[] = {
      {"", "found a file of 0 bytes"},
      {"1234567", "found a file of 7 bytes"},
      {std::string(8, '\xff'), "found a length of 18446744073709551615"},
      {file("{}", "").substr(0, 9), "cut short"},
      {file("", ""), "JSON header of 0 bytes"},
      {file("[]", ""), "expected a JSON object as the header, found array"},
      {file("{\"w\":", ""), "expected a JSON header"},
      {file("{\"a\xff\":1}", ""), "expected a JSON header"},
      {file(std::string(100000, '['), ""), "expected a JSON header"},
      {file(R"({"w":3})", ""), "tensor 'w': expected an object with dtype"},
      {file(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}})", four),
       "expected an object with dtype"},
      {file(entry("F8_E4M3", "[4]", "[0,4]"), four), "found \"F8_E4M3\""},
      {file(entry("BF16", "[1]", "[0,4]"), four), "expected 2 bytes for BF16 (1)"},
      {file(entry("F32", "[-1]", "[0,4]"), four), "expected sizes of at least 0"},
      {file(entry("F32", "[1.0]", "[0,4]"), four), "expected sizes of at least 0"},
      {file(entry("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), four), "at most 8 sizes"},
      {file(entry("F32", "[4611686018427387904,4]", "[0,0]"), ""), "overflows"},
      {file(entry("F32", "[0,9223372036854775807,9223372036854775807]", "[0,0]"), ""), "overflows"},
      {file(entry("F32", "[18446744073709551616]", "[0,0]"), ""), "expected sizes of at least 0"},
      {file(entry("F32", "[2]", "[0,4]"), four), "expected 8 bytes for f32 (2)"},
      {file(entry("F32", "[1]", "[4,0]"), four), "expected data_offsets"},
      {file(entry("F32", "[1]", "[-4,0]"), four), "expected data_offsets"},
      {file(entry("F32", "[1]", "[0]"), four), "expected data_offsets"},
      {file(entry("F32", "[1]", "[4,8]"), four + four), "a hole between tensors"},
      {file(entry("F32", "[1]", "[0,4]"), "123"), "the file is cut short"},
      {file(entry("F32", "[1]", "[0,4]"), "12345"), "bytes after the last tensor"},
      {file(entry("BOOL", "[2]", "[0,2]"), "\x01\x02"), "expected booleans 0 or 1, found 2"},
      {file(R"({"__metadata__":{"a":1}})", ""), "__metadata__ 'a': expected a string, found number"},
      {file(R"({"__metadata__":[]})", ""), "__metadata__: expected an object"},
      {file(
           R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           "12"),
       "found 'w' twice"},
      {file(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
           "123"),
       "tensors overlap"},
  };
  for (const Case& c : cases) {
    const std::string message = error(c.bytes);
    EXPECT_NE(message.find(c.expected), std::string::npos) << "expected: " << c.expected << "\nfound: " << message;
    EXPECT_TRUE(message == "no error" || message.find(path("bad")) != std::string::npos) << message;
  }
  EXPECT_THROW(load_safetensors(path("absent")), FileError);
  EXPECT_THROW(load_safetensors(folder_.string()), FileError);
}

// A parser of outside bytes must either read or refuse, whatever the bytes.
TEST_F(Safetensors, NoFlippedOrMissingByteGetsPastTheChecks) {
  save_safetensors(path(), {{"w", Tensor::from<float>({1, 2, 3}, {3})}, {"m", Tensor::from<bool>({true}, {1})}},
                   {{"k", "v"}});
  const std::string good = read(path());
  const auto try_load = [&](const std::string& bytes) {
    write(path("fuzz"), bytes);
    try {
      const SafetensorsFile loaded = load_safetensors(path("fuzz"));
      size_t total = 0;
      for (const auto& [name, tensor] : loaded.tensors) total += tensor.bytes();
      EXPECT_LE(total, bytes.size());
      return true;
    } catch (const FileError&) {
      return false;
    }
  };
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_FALSE(try_load(good.substr(0, i))) << "cut at " << i;
    for (int flip : {0x01, 0x02, 0x10, 0x80, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      try_load(bad);
    }
  }
  EXPECT_TRUE(try_load(good));
  EXPECT_FALSE(try_load(good + "x"));
}

TEST_F(Safetensors, ReplacesAtomically) {
  write_file_atomically(path("notes"), "old");
  write_file_atomically(path("notes"), "new");
  EXPECT_EQ(read(path("notes")), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
  EXPECT_THROW(write_file_atomically(path("no/such/folder"), "x"), FileError);
}

// The child process may write only a few kilobytes to a file, as on a full disk.
TEST_F(Safetensors, FullDiskKeepsTheOldFile) {
  save_safetensors(path(), {{"w", Tensor::full({4}, 3)}});
  const std::string old = read(path());
  const Tensor large = Tensor::zeros({100000});  // before the fork: OpenMP's threads do not survive it
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    int status = 1;
    try {
      save_safetensors(path(), {{"w", large}});
    } catch (const FileError& e) {
      const std::string message = e.what();
      const bool clear = message.find(path()) != std::string::npos && message.find("unchanged") != std::string::npos &&
                         message.find("after 4096 bytes") != std::string::npos;
      status = clear ? 0 : 2;
    }
    _exit(status);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read(path()), old);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << "a temporary file was left behind";
}

}  // namespace
}  // namespace espalier
