// Finding, loading, splitting and checking data sets; the real ones where they are installed.
#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "core/ops.h"
#include "datasets/dataset.h"
#include "datasets/digits.h"
#include "tests/datasets/fixtures.h"

namespace espalier {
namespace {

class Load : public FolderTest {
 protected:
  // Nothing but what a test writes.
  ScopedEnvironment data_{"ESPALIER_DATA", ""};
  ScopedEnvironment cache_{"XDG_CACHE_HOME", path("cache")};

  // Four small files in MNIST's form; all labels of the training set are `label`.
  void write_mnist(const std::string& folder, char label, bool compressed = false) const {
    const auto put = [&](const std::string& name, const std::string& bytes) {
      write(folder + "/" + name + (compressed ? ".gz" : ""), compressed ? gzip(bytes) : bytes);
    };
    put("train-images-idx3-ubyte", idx({3, 28, 28}, noise(3 * 784)));
    put("train-labels-idx1-ubyte", idx({3}, std::string(3, label)));
    put("t10k-images-idx3-ubyte", idx({2, 28, 28}, noise(2 * 784, 7)));
    put("t10k-labels-idx1-ubyte", idx({2}, "\x01\x02"));
  }
};

int64_t first_label(const Splits& splits) { return splits.train.labels.to_vector<int64_t>()[0]; }

TEST_F(Load, SearchesInOrder) {
  write_mnist("given/mnist", 1);
  write_mnist("environment/MNIST/raw", 2, true);
  write_mnist("cache/espalier/mnist", 3);
  EXPECT_EQ(first_label(load_dataset("mnist", {.any_size = true})), 3);
  const ScopedEnvironment environment("ESPALIER_DATA", path("environment"));
  EXPECT_EQ(first_label(load_dataset("mnist", {.any_size = true})), 2);
  const Splits given = load_dataset("mnist", {.data_dir = path("given"), .any_size = true});
  EXPECT_EQ(first_label(given), 1);
  EXPECT_EQ(given.train.source, path("given/mnist"));
  EXPECT_EQ(first_label(load_dataset("mnist", {.data_dir = path("given/mnist"), .any_size = true})), 1);
  // A folder that is there without the data set leaves the choice to the next ones.
  std::filesystem::create_directories(path("empty"));
  EXPECT_EQ(first_label(load_dataset("mnist", {.data_dir = path("empty"), .any_size = true})), 2);
}

TEST_F(Load, SaysWhereItLookedAndHowToGetTheData) {
  expect_file_error(
      [&] { load_dataset("mnist", {.data_dir = folder_.string()}); },
      {folder_.string() + " (the data folder given)", path("cache/espalier") + " (your cache, not there)",
       "/usr/share/datasets", "ESPALIER_DATA is not set", "espalier datasets download mnist", "--data-dir"});
  expect_file_error([&] { load_dataset("cifar10", {.data_dir = path("absent")}); },
                    {path("absent"), "expected a data folder", "espalier datasets download cifar10"});
}

TEST_F(Load, RefusesFilesCutBetweenTwoExamples) {
  write_mnist("mnist", 1);
  expect_file_error([&] { load_dataset("mnist", {.data_dir = folder_.string()}); },
                    {path("mnist"), "expected the 60000 training examples", "found 3", "datasets check mnist"});
}

TEST_F(Load, RefusesFilesThatDisagree) {
  write_mnist("mnist", 1);
  const LoadOptions here = {.data_dir = folder_.string()};
  write("mnist/train-labels-idx1-ubyte", idx({2}, "\x01\x02"));
  expect_file_error([&] { load_dataset("mnist", here); }, {"expected 3 labels", "found 2", "train-images-idx3-ubyte"});
  write_mnist("mnist", 10);
  expect_file_error([&] { load_dataset("mnist", here); }, {"expected labels in 0..9, found 10"});
  write_mnist("mnist", 1);
  write("mnist/t10k-images-idx3-ubyte", idx({2, 14, 28}, noise(2 * 392)));
  expect_file_error([&] { load_dataset("mnist", here); }, {"expected images of 28x28, found 14x28"});
  write_mnist("mnist", 1);
  std::filesystem::remove(path("mnist/t10k-labels-idx1-ubyte"));
  expect_file_error([&] { load_dataset("mnist", here); }, {"t10k-labels-idx1-ubyte.gz", "nothing of this name"});
}

TEST_F(Load, KnowsNamesWithoutTheirSpelling) {
  EXPECT_EQ(dataset_info("CIFAR-10").name, "cifar10");
  EXPECT_EQ(dataset_info("fashion_mnist").name, "fashion-mnist");
  try {
    load_dataset("fashon-mnist");
    FAIL() << "expected an ArgumentError";
  } catch (const ArgumentError& error) {
    EXPECT_NE(std::string(error.what()).find("fashion-mnist"), std::string::npos) << error.what();
  }
  for (const DatasetInfo& info : dataset_catalog()) {
    const std::set<std::string> names(info.class_names.begin(), info.class_names.end());
    EXPECT_EQ(names.size(), info.class_names.size()) << info.name;
    for (const RemoteFile& file : info.downloads) EXPECT_EQ(file.sha256.size(), 64u) << file.name;
  }
  EXPECT_EQ(dataset_info("cifar100").num_classes(), 100);
  EXPECT_EQ(dataset_info("emnist-balanced").num_classes(), 47);
  EXPECT_EQ(dataset_info("emnist-byclass").num_classes(), 62);
}

TEST_F(Load, ReadsEmnistLettersUprightAndFromZero) {
  std::string image(784, '\0');
  image[1] = 5;  // row 0, column 1 as stored
  for (const std::string split : {"train", "test"}) {
    write("emnist/gzip/emnist-letters-" + split + "-images-idx3-ubyte.gz", gzip(idx({1, 28, 28}, image)));
    write("emnist/gzip/emnist-letters-" + split + "-labels-idx1-ubyte.gz", gzip(idx({1}, "\x1a")));
  }
  const Splits splits = load_dataset("emnist-letters", {.data_dir = folder_.string(), .any_size = true});
  EXPECT_EQ(splits.train.class_names[static_cast<size_t>(first_label(splits))], "z");
  EXPECT_EQ(splits.train.images.to_vector<int>()[28], 5);
}

TEST_F(Load, ReadsCifarFromAnArchiveNamedAsTheFolder) {
  std::vector<std::pair<std::string, std::string>> members;
  for (int i = 1; i <= 5; ++i) {
    members.emplace_back(fmt::format("cifar-10-batches-bin/data_batch_{}.bin", i),
                         static_cast<char>(i) + noise(3072, static_cast<uint32_t>(i)));
  }
  members.emplace_back("cifar-10-batches-bin/test_batch.bin", "\x09" + noise(3072));
  const std::string archive = write("cifar-10-binary.tar.gz", gzip(tar(members)));
  for (const std::string& where : {archive, folder_.string()}) {
    const Splits splits = load_dataset("cifar10", {.data_dir = where, .any_size = true});
    EXPECT_EQ(splits.train.labels.to_vector<int64_t>(), (std::vector<int64_t>{1, 2, 3, 4, 5}));
    EXPECT_EQ(splits.test.labels.to_vector<int64_t>(), (std::vector<int64_t>{9}));
    EXPECT_EQ(splits.train.source, archive);
  }
  const CheckReport report = check_dataset("cifar10", {.data_dir = archive});
  EXPECT_FALSE(report.ok());
  EXPECT_NE(report.to_string().find("expected 50000, found 5"), std::string::npos) << report.to_string();
  EXPECT_NE(report.to_string().find("expected SHA-256 c4a38c50"), std::string::npos) << report.to_string();
}

TEST_F(Load, CheckReportsBadFilesInsteadOfThrowing) {
  const CheckReport absent = check_dataset("mnist", {.data_dir = folder_.string()});
  EXPECT_FALSE(absent.ok());
  EXPECT_NE(absent.to_string().find("BAD   files"), std::string::npos) << absent.to_string();
  write_mnist("mnist", 1);
  write("mnist/t10k-images-idx3-ubyte", "cut");
  const CheckReport bad = check_dataset("mnist", {.data_dir = folder_.string()});
  EXPECT_FALSE(bad.ok());
  EXPECT_NE(bad.to_string().find("expected 4 bytes of IDX magic number, found 3"), std::string::npos);
  EXPECT_TRUE(check_dataset("digits").ok()) << check_dataset("digits").to_string();
}

TEST(Digits, AreUcisAndSplitByClass) {
  const Dataset all = all_digits();
  EXPECT_EQ(all.images.shape(), Shape({1797, 1, 8, 8}));
  // The first row of digits.csv, and its last label.
  const std::vector<int> first = {0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0};
  const std::vector<int> pixels = all.images.to_vector<int>();
  for (size_t i = 0; i < first.size(); ++i) EXPECT_EQ(pixels[i], (first[i] * 255 + 8) / 16) << i;
  EXPECT_EQ(all.labels.to_vector<int64_t>()[0], 0);
  EXPECT_EQ(all.labels.to_vector<int64_t>()[1796], 8);
  EXPECT_EQ(*std::max_element(pixels.begin(), pixels.end()), 255);

  const Splits splits = load_dataset("digits");
  EXPECT_EQ(splits.train.size(), 1437);
  EXPECT_EQ(splits.test.size(), 360);
  const std::vector<int64_t> all_labels = all.labels.to_vector<int64_t>(),
                             test = splits.test.labels.to_vector<int64_t>();
  for (int64_t c = 0; c < 10; ++c) {
    const double share = static_cast<double>(std::count(all_labels.begin(), all_labels.end(), c)) * 360 / 1797;
    EXPECT_NEAR(static_cast<double>(std::count(test.begin(), test.end(), c)), share, 1) << c;
  }
  EXPECT_EQ(splits.test.mean, splits.train.mean);
}

TEST(SplitValidation, GivesEveryClassItsShareAndLosesNothing) {
  // Each image carries its index in its first two pixels.
  Dataset train{.name = "made",
                .source = "",
                .images = Tensor::zeros({1000, 1, 1, 2}, DType::u8),
                .labels = Tensor::zeros({1000}, DType::i64),
                .class_names = {"a", "b", "c"}};
  for (int64_t i = 0; i < 1000; ++i) {
    train.images.data<uint8_t>()[2 * i] = static_cast<uint8_t>(i / 256);
    train.images.data<uint8_t>()[2 * i + 1] = static_cast<uint8_t>(i % 256);
    train.labels.data<int64_t>()[i] = i % 10 == 0 ? 0 : i % 10 < 4 ? 1 : 2;
  }
  const auto ids = [](const Dataset& part) {
    std::vector<int64_t> result;
    for (int64_t i = 0; i < part.size(); ++i) {
      result.push_back(part.images.data<uint8_t>()[2 * i] * 256 + part.images.data<uint8_t>()[2 * i + 1]);
    }
    return result;
  };
  const TrainValidation split = split_validation(train, 0.1, 5);
  EXPECT_EQ(split.validation.size(), 100);
  std::vector<int64_t> all = ids(split.train);
  const std::vector<int64_t> taken = ids(split.validation);
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end()) && std::is_sorted(taken.begin(), taken.end()));
  all.insert(all.end(), taken.begin(), taken.end());
  EXPECT_EQ(std::set<int64_t>(all.begin(), all.end()).size(), 1000u);
  const std::vector<int64_t> labels = split.validation.labels.to_vector<int64_t>();
  EXPECT_EQ(std::count(labels.begin(), labels.end(), 0), 10);
  EXPECT_EQ(std::count(labels.begin(), labels.end(), 1), 30);
  for (size_t i = 0; i < taken.size(); ++i) {
    EXPECT_EQ(labels[i], train.labels.data<int64_t>()[taken[i]]);
  }

  EXPECT_EQ(ids(split_validation(train, 100, 5).validation), taken);
  EXPECT_NE(ids(split_validation(train, 100, 6).validation), taken);
  EXPECT_THROW(split_validation(train, 0), ArgumentError);
  EXPECT_THROW(split_validation(train, 1000), ArgumentError);
  EXPECT_THROW(split_validation(train, std::nan("")), ArgumentError);
}

TEST(Statistics, AreThoseOfThePixels) {
  Dataset made{.name = "made",
               .source = "",
               .images = Tensor::from<uint8_t>({0, 255, 51, 51, 255, 0, 51, 51}, {2, 2, 1, 2}),
               .labels = Tensor::zeros({2}, DType::i64)};
  compute_statistics(made);
  EXPECT_NEAR(made.mean[0], 0.5, 1e-6);
  EXPECT_NEAR(made.stddev[0], 0.5, 1e-6);
  EXPECT_NEAR(made.mean[1], 0.2, 1e-6);
  EXPECT_EQ(made.stddev[1], 1.0f) << "a constant channel";
}

// The data set, or nothing, with the test skipped, where this machine doesn't have it.
std::optional<Splits> real(const std::string& name) {
  try {
    return load_dataset(name);
  } catch (const FileError&) {
    return std::nullopt;
  }
}

TEST(RealData, Mnist) {
  const std::optional<Splits> mnist = real("mnist");
  if (!mnist) GTEST_SKIP() << "skipped: no MNIST found";
  EXPECT_EQ(mnist->train.size(), 60000);
  EXPECT_EQ(mnist->test.size(), 10000);
  EXPECT_EQ(first_label(*mnist), 5);
  EXPECT_NEAR(mnist->train.mean[0], 0.1307, 5e-5);
  EXPECT_NEAR(mnist->train.stddev[0], 0.3081, 5e-5);
  const CheckReport report = check_dataset("mnist");
  EXPECT_TRUE(report.ok()) << report.to_string();
  // The same file names hold another data set.
  expect_file_error([&] { load_dataset("fashion-mnist", {.data_dir = mnist->train.source}); },
                    {"expected the files of fashion-mnist, found those of mnist"});
}

TEST(RealData, FashionMnist) {
  const std::optional<Splits> fashion = real("fashion-mnist");
  if (!fashion) GTEST_SKIP() << "skipped: no Fashion-MNIST found";
  EXPECT_EQ(fashion->train.size(), 60000);
  EXPECT_EQ(fashion->train.class_names[static_cast<size_t>(first_label(*fashion))], "Ankle boot");
  EXPECT_NEAR(fashion->train.mean[0], 0.2860, 5e-5);
  EXPECT_NEAR(fashion->train.stddev[0], 0.3530, 5e-5);
  const CheckReport report = check_dataset("fashion-mnist");
  EXPECT_TRUE(report.ok()) << report.to_string();
}

TEST(RealData, Cifar10) {
  const std::optional<Splits> cifar = real("cifar10");
  if (!cifar) GTEST_SKIP() << "skipped: no CIFAR-10 found";
  EXPECT_EQ(cifar->train.size(), 50000);
  EXPECT_EQ(cifar->test.size(), 10000);
  const double means[] = {0.4914, 0.4822, 0.4465}, stddevs[] = {0.2470, 0.2435, 0.2616};
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(cifar->train.mean[c], means[c], 6e-5);
    EXPECT_NEAR(cifar->train.stddev[c], stddevs[c], 6e-5);
  }
  const CheckReport report = check_dataset("cifar10");
  EXPECT_TRUE(report.ok()) << report.to_string();
}

}  // namespace
}  // namespace espalier
