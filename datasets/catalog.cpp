// The data sets that load_dataset knows: what they hold, where their files are found and fetched.
#include <algorithm>
#include <cctype>
#include <string_view>

#include "datasets/dataset.h"

namespace espalier {
namespace {

using Format = DatasetInfo::Format;

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

// One name for each character: "abc" -> a, b, c.
std::vector<std::string> letters(std::string_view text) {
  std::vector<std::string> names;
  for (char c : text) names.emplace_back(1, c);
  return names;
}

constexpr std::string_view kDigits = "0123456789";
constexpr std::string_view kUpper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
constexpr std::string_view kLower = "abcdefghijklmnopqrstuvwxyz";

constexpr std::string_view kCifar100Classes =
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm";

const std::vector<std::string> kIdxTrain = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"};
const std::vector<std::string> kIdxTest = {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};

DatasetInfo digits() {
  return {.name = "digits",
          .title = "Optical Recognition of Handwritten Digits (UCI), 8x8 grey",
          .licence = "CC BY 4.0",
          .home = "https://doi.org/10.24432/C50P49",
          .format = Format::embedded,
          .channels = 1,
          .height = 8,
          .width = 8,
          .train_size = 1437,
          .test_size = 360,
          .class_names = letters(kDigits)};
}

DatasetInfo mnist() {
  const auto remote = [](const std::string& file, const std::string& sha256, int64_t bytes) {
    return RemoteFile{file + ".gz",
                      {"https://storage.googleapis.com/cvdf-datasets/mnist/" + file + ".gz",
                       "https://ossci-datasets.s3.amazonaws.com/mnist/" + file + ".gz"},
                      sha256,
                      bytes};
  };
  return {
      .name = "mnist",
      .title = "MNIST handwritten digits, 28x28 grey",
      .licence = "CC BY-SA 3.0",
      .home = "http://yann.lecun.com/exdb/mnist/",
      .format = Format::idx,
      .channels = 1,
      .height = 28,
      .width = 28,
      .train_size = 60000,
      .test_size = 10000,
      .class_names = letters(kDigits),
      .folders = {"mnist", "MNIST/raw", "MNIST"},
      .train_files = kIdxTrain,
      .test_files = kIdxTest,
      .downloads = {remote(kIdxTrain[0], "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422),
                    remote(kIdxTrain[1], "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881),
                    remote(kIdxTest[0], "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877),
                    remote(kIdxTest[1], "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542)},
      .content_sha256 = {"ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                         "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                         "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                         "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"}};
}

DatasetInfo fashion_mnist() {
  const auto remote = [](const std::string& file, const std::string& sha256, int64_t bytes) {
    return RemoteFile{
        file + ".gz",
        {"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/" + file + ".gz",
         "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/" + file + ".gz"},
        sha256,
        bytes};
  };
  return {
      .name = "fashion-mnist",
      .title = "Fashion-MNIST articles of clothing, 28x28 grey",
      .licence = "MIT",
      .home = "https://github.com/zalandoresearch/fashion-mnist",
      .format = Format::idx,
      .channels = 1,
      .height = 28,
      .width = 28,
      .train_size = 60000,
      .test_size = 10000,
      .class_names = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                      "Ankle boot"},
      .folders = {"fashion-mnist", "FashionMNIST/raw", "FashionMNIST"},
      .train_files = kIdxTrain,
      .test_files = kIdxTest,
      .downloads = {remote(kIdxTrain[0], "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26421880),
                    remote(kIdxTrain[1], "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29515),
                    remote(kIdxTest[0], "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4422102),
                    remote(kIdxTest[1], "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5148)},
      .content_sha256 = {"c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                         "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                         "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                         "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"},
      .debian_package = "dataset-fashion-mnist"};
}

// The six splits of EMNIST (Cohen et al. 2017) come in one zip archive and differ in classes and numbers only.
DatasetInfo emnist(const std::string& split_name, int64_t train_size, int64_t test_size, std::string_view classes) {
  const std::string prefix = "emnist-" + split_name;
  return {.name = prefix,
          .title = "EMNIST " + split_name + ": handwritten characters, 28x28 grey",
          .licence = "public domain (NIST)",
          .home = "https://www.nist.gov/itl/products-and-services/emnist-dataset",
          .format = Format::idx,
          .channels = 1,
          .height = 28,
          .width = 28,
          .train_size = train_size,
          .test_size = test_size,
          .class_names = letters(classes),
          .folders = {"emnist", "emnist/gzip", "EMNIST/raw", "EMNIST/raw/gzip", "gzip"},
          .train_files = {prefix + "-train-images-idx3-ubyte", prefix + "-train-labels-idx1-ubyte"},
          .test_files = {prefix + "-test-images-idx3-ubyte", prefix + "-test-labels-idx1-ubyte"},
          .downloads = {{"gzip.zip",
                         {"https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
                          "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip"},
                         "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
                         561753746}},
          .first_label = split_name == "letters" ? 1 : 0,
          .transposed = true};
}

DatasetInfo cifar(int classes) {
  const bool ten = classes == 10;
  const std::string archive = ten ? "cifar-10-binary.tar.gz" : "cifar-100-binary.tar.gz";
  return {
      .name = ten ? "cifar10" : "cifar100",
      .title = ten ? "CIFAR-10 photographs, 32x32 colour" : "CIFAR-100 photographs, 32x32 colour",
      .licence = "none stated",
      .home = "https://www.cs.toronto.edu/~kriz/cifar.html",
      .format = Format::cifar,
      .channels = 3,
      .height = 32,
      .width = 32,
      .train_size = 50000,
      .test_size = 10000,
      .class_names = split(ten ? "airplane automobile bird cat deer dog frog horse ship truck" : kCifar100Classes),
      .folders = ten ? split("cifar-10-batches-bin cifar10 cifar-10") : split("cifar-100-binary cifar100 cifar-100"),
      .train_files = ten ? split("data_batch_1.bin data_batch_2.bin data_batch_3.bin data_batch_4.bin "
                                 "data_batch_5.bin")
                         : split("train.bin"),
      .test_files = ten ? split("test_batch.bin") : split("test.bin"),
      .downloads = {{archive,
                     {"https://www.cs.toronto.edu/~kriz/" + archive},
                     ten ? "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
                         : "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                     ten ? 170052171 : 168513733}},
      .label_bytes = ten ? 1 : 2};
}

std::vector<DatasetInfo> make_catalog() {
  const std::string by_class = std::string(kDigits) + std::string(kUpper) + std::string(kLower);
  // Fifteen letters look the same small and large and share the large one's class.
  const std::string merged = std::string(kDigits) + std::string(kUpper) + "abdefghnqrt";
  return {digits(),
          mnist(),
          fashion_mnist(),
          emnist("balanced", 112800, 18800, merged),
          emnist("letters", 124800, 20800, kLower),
          emnist("digits", 240000, 40000, kDigits),
          emnist("mnist", 60000, 10000, kDigits),
          emnist("bymerge", 697932, 116323, merged),
          emnist("byclass", 697932, 116323, by_class),
          cifar(10),
          cifar(100)};
}

// A name without what people write differently.
std::string plain(std::string_view name) {
  std::string result;
  for (unsigned char c : name) {
    if (c != '-' && c != '_') result += static_cast<char>(std::tolower(c));
  }
  return result;
}

}  // namespace

const std::vector<DatasetInfo>& dataset_catalog() {
  static const std::vector<DatasetInfo> catalog = make_catalog();
  return catalog;
}

std::vector<std::string> dataset_names() {
  std::vector<std::string> names;
  for (const DatasetInfo& info : dataset_catalog()) names.push_back(info.name);
  return names;
}

const DatasetInfo& dataset_info(const std::string& name) {
  for (const DatasetInfo& info : dataset_catalog()) {
    if (plain(info.name) == plain(name)) return info;
  }
  const std::vector<std::string> names = dataset_names();
  fail("load_dataset", "expected one of {}, got '{}'{}", fmt::join(names, ", "), name, did_you_mean(name, names));
}

}  // namespace espalier
