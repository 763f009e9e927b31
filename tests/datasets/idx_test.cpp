// The IDX reader, and everything that can be wrong with such a file.
#include "datasets/idx.h"

#include "core/storage.h"
#include "datasets/sha256.h"
#include "tests/datasets/fixtures.h"

namespace espalier {
namespace {

class Idx : public FolderTest {};

TEST_F(Idx, ReadsImagesPlainAndCompressed) {
  const std::string file = idx({2, 2, 3}, std::string("\x00\x01\x02\x03\x04\x05\xff\xfe\xfd\xfc\xfb\xfa", 12));
  for (const std::string& bytes : {file, gzip(file)}) {
    const Tensor images = read_idx_images(write("images", bytes));
    EXPECT_EQ(images.shape(), Shape({2, 1, 2, 3}));
    EXPECT_EQ(images.dtype(), DType::u8);
    EXPECT_EQ(images.to_vector<int>(), (std::vector<int>{0, 1, 2, 3, 4, 5, 255, 254, 253, 252, 251, 250}));
  }
}

TEST_F(Idx, TransposesEmnist) {
  const Tensor images = read_idx_images(write("images", idx({1, 2, 2}, "\x01\x02\x03\x04")), true);
  EXPECT_EQ(images.to_vector<int>(), (std::vector<int>{1, 3, 2, 4}));
  expect_file_error([&] { read_idx_images(write("wide", idx({1, 1, 2}, "ab")), true); }, {"square", "1x2"});
}

TEST_F(Idx, ReadsLabelsFromTheFirst) {
  const std::string path = write("labels", idx({3}, "\x01\x03\x02"));
  EXPECT_EQ(read_idx_labels(path, 4).to_vector<int64_t>(), (std::vector<int64_t>{1, 3, 2}));
  EXPECT_EQ(read_idx_labels(path, 3, 1).to_vector<int64_t>(), (std::vector<int64_t>{0, 2, 1}));
  expect_file_error([&] { read_idx_labels(path, 3); },
                    {path, "offset 9", "expected labels in 0..2", "found 3 for example 1"});
  expect_file_error([&] { read_idx_labels(path, 26, 2); }, {"offset 8", "expected labels in 2..27", "found 1"});
}

TEST_F(Idx, AGzipStreamWithoutItsTrailerIsCutShort) {
  // All pixels are there; the checksum and length after them, 8 bytes, are not, in part or as a whole.
  for (const size_t count : {size_t{12}, size_t{3'000'000}}) {
    const std::string good = gzip(idx({1, 1, static_cast<uint32_t>(count)}, noise(count)));
    for (size_t missing = 1; missing <= 8; ++missing) {
      const std::string path = write("images.gz", good.substr(0, good.size() - missing));
      expect_file_error([&] { read_idx_images(path); }, {path, "whole gzip stream", "unexpected end of file"});
      expect_file_error([&] { sha256_of_contents(path); }, {path, "whole gzip stream", "unexpected end of file"});
    }
  }
}

TEST_F(Idx, ReadsAStreamOfSeveralMembersAsGzipDoes) {
  const std::string file = idx({2, 1, 2}, "abcd");
  const std::string path = write("images.gz", gzip(file.substr(0, 5)) + gzip(file.substr(5)));
  EXPECT_EQ(read_idx_images(path).to_vector<int>(), (std::vector<int>{'a', 'b', 'c', 'd'}));
}

TEST_F(Idx, MoreThanTheLimitTakesNeitherMemoryNorTime) {
  // 100 kB of gzip that stand for 100 MB.
  const std::string path = write("images.gz", gzip(idx({100'000'000, 1, 1}, std::string(100'000'000, '\0'))));
  reset_peak_memory(Device::cpu());
  expect_file_error([&] { read_idx_images(path, false, 2'000'000); },
                    {"promises 100000000", "can hold at most 1999984"});
  expect_file_error([&] { read_idx_labels(write("labels", idx({9}, "123456789")), 10, 0, 16); }, {"at most 8"});
  expect_file_error([&] { sha256_of_contents(path, 2'000'000); }, {"offset 2000000", "at most 2000000 bytes"});
  EXPECT_LT(memory_stats(Device::cpu()).peak, 1'000'000u);
}

TEST_F(Idx, NamesWhatIsWrong) {
  const std::string pixels = noise(2 * 4 * 4);
  const std::string good = idx({2, 4, 4}, pixels);
  struct Case {
    std::string bytes;
    std::vector<std::string> expected;
  };
  const Case cases[] = {
      {"", {"offset 0", "expected 4 bytes of IDX magic number, found 0"}},
      {std::string("\x00\x00", 2), {"expected 4 bytes", "found 2"}},
      {"<html>not found</html>", {"0x00000803", "found 0x3c68746d", "HTML"}},
      {idx({32}, pixels), {"expected the IDX magic number 0x00000803", "found 0x00000801"}},
      {std::string("\x00\x00\x0d\x03", 4), {"found 0x00000d03"}},
      {good.substr(0, 10), {"offset 8", "expected 4 bytes of IDX sizes, found 2"}},
      {good.substr(0, good.size() - 1), {"promises 2 elements (2x4x4)", "cut short"}},
      {good + "x", {"offset 48", "expected the end of the file"}},
      {idx({0, 4, 4}, ""), {"offset 4", "at least 1 for axis 0, found 0"}},
      {idx({0xffffffff, 0xffffffff, 0xffffffff}, pixels), {"offset 4", "promises 4294967295 elements"}},
      {idx({2, 0x7fffffff, 0x7fffffff}, pixels), {"promises 2 elements"}},
  };
  for (const Case& c : cases) {
    const std::string path = write("bad", c.bytes);
    expect_file_error([&] { read_idx_images(path); }, {path});
    expect_file_error([&] { read_idx_images(path); }, c.expected);
  }
  expect_file_error([&] { read_idx_images(path("absent")); }, {path("absent"), "nothing of this name"});
  expect_file_error([&] { read_idx_images(folder_.string()); }, {"a folder"});
}

TEST_F(Idx, NoticesBrokenGzip) {
  const std::string good = gzip(idx({20, 8, 8}, noise(20 * 64)));
  const auto load = [&](const std::string& bytes) {
    return [this, bytes] { read_idx_images(write("bad.gz", bytes)); };
  };
  std::string wrong_sum = good;
  wrong_sum[good.size() - 8] = static_cast<char>(wrong_sum[good.size() - 8] ^ 1);
  expect_file_error(load(wrong_sum), {"bad.gz", "incorrect data check"});
  std::string wrong_length = good;
  wrong_length[good.size() - 4] = static_cast<char>(wrong_length[good.size() - 4] ^ 1);
  expect_file_error(load(wrong_length), {"incorrect length check"});
  expect_file_error(load(good.substr(0, good.size() / 2)), {"offset", "unexpected end of file", "fetch it again"});
  expect_file_error(load(good.substr(0, good.size() - 3)), {"unexpected end of file"});
  expect_file_error(load(good.substr(0, 2)), {"unexpected end of file"});
  // A promise of 4 GB in a file of a few bytes is refused before memory is taken.
  expect_file_error(load(gzip(idx({65535, 256, 256}, "x"))), {"promises 65535 elements", "can hold at most"});
}

TEST_F(Idx, NoFlippedOrMissingByteOfAGzipGetsThrough) {
  const std::string contents = idx({2, 4, 4}, noise(32));
  const std::string good = gzip(contents);
  const Tensor expected = read_idx_images(write("good.gz", good));
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_THROW(read_idx_images(write("cut.gz", good.substr(0, i))), FileError) << "cut at " << i;
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x20);
    // Bytes 4 to 9 of gzip's header are a time and a system: they may change and nothing is lost.
    try {
      const Tensor images = read_idx_images(write("flipped.gz", bad));
      EXPECT_TRUE(i >= 4 && i <= 9) << "byte " << i;
      EXPECT_EQ(images.to_vector<int>(), expected.to_vector<int>());
    } catch (const FileError&) {
    }
  }
}

}  // namespace
}  // namespace espalier
