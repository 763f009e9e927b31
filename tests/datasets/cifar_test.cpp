// The reader of CIFAR's binary version, from folders and archives.
#include "datasets/cifar.h"

#include "tests/datasets/fixtures.h"

namespace espalier {
namespace {

class Cifar : public FolderTest {};

std::string record(const std::string& labels, uint32_t seed) { return labels + noise(3072, seed); }

TEST_F(Cifar, ReadsPlanesAndLabelsInOrder) {
  write("a.bin", record("\x03", 1) + record("\x09", 2));
  write("b.bin", record(std::string(1, '\0'), 3) + record("\x07", 4));
  const CifarImages read = read_cifar(folder_.string(), {"a.bin", "b.bin"}, {});
  EXPECT_EQ(read.images.shape(), Shape({4, 3, 32, 32}));
  EXPECT_EQ(read.labels.to_vector<int64_t>(), (std::vector<int64_t>{3, 9, 0, 7}));
  const std::string third = noise(3072, 3);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(read.images.data<uint8_t>()) + 2 * 3072, 3072), third);
}

TEST_F(Cifar, TakesTheFineLabelOfCifar100) {
  write("train.bin", record("\x05\x63", 1));
  const CifarImages read = read_cifar(folder_.string(), {"train.bin"}, {.label_bytes = 2, .num_classes = 100});
  EXPECT_EQ(read.labels.to_vector<int64_t>(), (std::vector<int64_t>{99}));
  write("train.bin", record("\x05\x64", 1));
  expect_file_error([&] { read_cifar(folder_.string(), {"train.bin"}, {.label_bytes = 2, .num_classes = 100}); },
                    {"train.bin", "offset 1", "0..99", "found 100 for record 0"});
}

TEST_F(Cifar, ReadsArchivesAsFolders) {
  const std::string one = record("\x03", 1) + record("\x02", 2), two = record("\x09", 3) + record("\x01", 4);
  const std::string archive = tar({{"cifar/readme.html", "hello"}, {"cifar/two.bin", two}, {"cifar/one.bin", one}});
  for (const std::string& bytes : {archive, gzip(archive)}) {
    const std::string path = write("cifar.tar.gz", bytes);
    const CifarImages read = read_cifar(path, {"one.bin", "two.bin"}, {});
    EXPECT_EQ(read.labels.to_vector<int64_t>(), (std::vector<int64_t>{3, 2, 9, 1}));
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(read.images.data<uint8_t>()), 3072), noise(3072, 1));
  }
}

TEST_F(Cifar, NamesWhatIsWrong) {
  const auto load = [&] { read_cifar(folder_.string(), {"a.bin", "b.bin"}, {}); };
  write("a.bin", record("\x01", 1) + record("\x02", 2));
  expect_file_error(load, {path("b.bin"), "nothing of this name"});
  write("b.bin", "");
  expect_file_error(load, {path("b.bin"), "offset 0", "multiple of 3073", "found 0"});
  write("b.bin", (record("\x01", 1) + record("\x02", 2)).substr(0, 6000));
  expect_file_error(load, {"offset 6000", "multiple of 3073", "found 6000"});
  write("b.bin", record("\x01", 1));
  expect_file_error(load, {"expected 2 records as in a.bin, found 1"});
  write("b.bin", record("\x01", 1) + record("\x0a", 2));
  expect_file_error(load, {"offset 3073", "expected labels in 0..9, found 10 for record 1"});
}

TEST_F(Cifar, NoticesBrokenArchives) {
  const std::string archive = tar({{"a.bin", record("\x03", 1)}});
  const std::string good = gzip(archive);
  const auto load = [&](const std::string& bytes) {
    return [this, bytes] { read_cifar(write("x.tar.gz", bytes), {"a.bin"}, {}); };
  };
  std::string wrong_sum = good;
  wrong_sum[good.size() - 8] = static_cast<char>(wrong_sum[good.size() - 8] ^ 1);
  expect_file_error(load(wrong_sum), {"x.tar.gz", "incorrect data check"});
  expect_file_error(load(good.substr(0, good.size() / 2)), {"x.tar.gz", "unexpected end of file"});
  expect_file_error(load(archive.substr(0, 1000)), {"x.tar.gz"});
  expect_file_error(load(tar({{"b.bin", "x"}})), {"expected a member a.bin"});
  expect_file_error(load("neither tar nor gzip"), {"x.tar.gz"});
  expect_file_error(load(""), {"x.tar.gz"});
  // A member that claims 8 GB.
  std::string giant = archive;
  giant.replace(124, 11, "77777777777");
  giant.replace(148, 8, "        ");
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(giant[i]);
  giant.replace(148, 6, fmt::format("{:06o}", sum));
  expect_file_error(load(giant), {"member a.bin", "expected at most"});
}

TEST_F(Cifar, MoreThanTheLimitIsRefusedBeforeItTakesMemory) {
  write("a.bin.gz", gzip(std::string(100'000'000, '\0')));
  std::filesystem::rename(path("a.bin.gz"), path("a.bin"));
  const CifarOptions options{.most_bytes = 2 * 3073};
  expect_file_error([&] { read_cifar(folder_.string(), {"a.bin"}, options); },
                    {path("a.bin"), "offset 6146", "expected at most 6146 bytes"});
  const std::string three = record("\x01", 1) + record("\x02", 2) + record("\x03", 3);
  const std::string archive = write("cifar.tar.gz", gzip(tar({{"a.bin", three}})));
  expect_file_error([&] { read_cifar(archive, {"a.bin"}, options); }, {"member a.bin", "at most 6146", "found 9219"});
  // What follows the archive's end costs time only, but not for ever.
  const std::string long_tail =
      write("tail.tar.gz", gzip(tar({{"a.bin", record("\x01", 1)}})) + gzip(std::string(410'000'000, '\0')));
  expect_file_error([&] { read_cifar(long_tail, {"a.bin"}, {}); }, {"expected at most 400000000 bytes"});
}

TEST_F(Cifar, NoDamageOfAnArchiveCrashes) {
  const std::string archive = tar({{"a.bin", record("\x03", 1)}});
  for (size_t i = 0; i < 600; ++i) {
    std::string bad = archive;
    bad[i] = static_cast<char>(bad[i] ^ 0xff);
    try {
      EXPECT_EQ(read_cifar(write("x.tar", bad), {"a.bin"}, {}).labels.numel(), 1);
    } catch (const FileError&) {
    }
  }
}

}  // namespace
}  // namespace espalier
