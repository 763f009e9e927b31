// Finding a data set's files and reading them.
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "datasets/cifar.h"
#include "datasets/data_kind.h"
#include "datasets/dataset.h"
#include "datasets/digits.h"
#include "datasets/idx.h"
#include "datasets/load.h"
#include "datasets/sha256.h"

namespace espalier {

namespace fs = std::filesystem;

namespace {

struct Root {
  std::string path;
  const char* origin;
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Also false where this user may not look.
bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

std::vector<Root> data_roots(const std::string& data_dir) {
  std::vector<Root> roots;
  if (!data_dir.empty()) roots.push_back({data_dir, "the data folder given"});
  if (const std::string path = environment("ESPALIER_DATA"); !path.empty()) roots.push_back({path, "ESPALIER_DATA"});
  if (const std::string path = user_data_dir(); !path.empty()) roots.push_back({path, "your cache"});
  roots.push_back({"/usr/share/datasets", "Debian's packages"});
  return roots;
}

std::string how_to_get(const DatasetInfo& info) {
  const std::string package = info.debian_package.empty() ? "" : fmt::format(", 'apt install {}'", info.debian_package);
  return fmt::format(
      "get it with 'espalier datasets download {}'{}, or name the folder it is in with --data-dir or "
      "ESPALIER_DATA",
      info.name, package);
}

std::optional<std::string> find_in(const DatasetInfo& info, const std::string& root) {
  std::error_code error;
  const bool is_cifar = info.format == DatasetInfo::Format::cifar;
  if (is_cifar && fs::is_regular_file(root, error)) return root;
  std::vector<std::string> folders = info.folders;
  folders.push_back("");
  for (const std::string& sub : folders) {
    const std::string folder = sub.empty() ? root : root + "/" + sub;
    // One file is enough to say that the data set is meant; a missing one among them is then an error.
    for (const std::string& file : info.train_files) {
      if (exists(folder + "/" + file) || exists(folder + "/" + file + ".gz")) return folder;
    }
    if (is_cifar) {
      for (const RemoteFile& remote : info.downloads) {
        if (exists(folder + "/" + remote.name)) return folder + "/" + remote.name;
      }
    }
  }
  return std::nullopt;
}

// MNIST and Fashion-MNIST name their files alike. Labels are small, so that hashing them costs nothing.
void refuse_other_set(const DatasetInfo& info, const std::string& labels_path, uint64_t most_bytes) {
  if (info.content_sha256.empty()) return;
  const std::string sum = sha256_of_contents(labels_path, most_bytes);
  for (const DatasetInfo& other : dataset_catalog()) {
    if (other.name != info.name && !other.content_sha256.empty() && other.content_sha256[1] == sum) {
      fail<FileError>("load_dataset", "{}: expected the files of {}, found those of {}; {}", labels_path, info.name,
                      other.name, how_to_get(info));
    }
  }
}

/// What a file may hold at most, `each` bytes for an example: enough to tell by how much a wrong number is wrong.
uint64_t most_contents(const DatasetInfo& info, bool train, bool any_size, int64_t each) {
  const int64_t header = 16, examples = train ? info.train_size : info.test_size;
  return any_size ? kMostContents : static_cast<uint64_t>(header + 2 * examples * each);
}

Dataset read_idx_split(const DatasetInfo& info, const std::string& folder, bool train, bool any_size) {
  const uint64_t most_images = most_contents(info, train, any_size, info.height * info.width),
                 most_labels = most_contents(info, train, any_size, 1);
  const std::vector<std::string>& files = train ? info.train_files : info.test_files;
  const std::string images_path = idx_path(folder, files[0]), labels_path = idx_path(folder, files[1]);
  if (train) refuse_other_set(info, labels_path, most_labels);
  Dataset part{.name = info.name,
               .source = folder,
               .images = read_idx_images(images_path, info.transposed, most_images),
               .labels = read_idx_labels(labels_path, info.num_classes(), info.first_label, most_labels),
               .class_names = info.class_names};
  if (part.images.size(0) != part.labels.size(0)) {
    fail<FileError>("read_dataset", "{}, offset 4: expected {} labels, one for each image of {}, found {}", labels_path,
                    part.images.size(0), images_path, part.labels.size(0));
  }
  if (part.height() != info.height || part.width() != info.width) {
    fail<FileError>("read_dataset", "{}, offset 8: expected images of {}x{}, found {}x{}", images_path, info.height,
                    info.width, part.height(), part.width());
  }
  return part;
}

Dataset read_cifar_split(const DatasetInfo& info, const std::string& source, bool train, bool any_size) {
  const int64_t record = info.label_bytes + info.channels * info.height * info.width;
  CifarImages read = read_cifar(source, train ? info.train_files : info.test_files,
                                {.label_bytes = info.label_bytes,
                                 .num_classes = info.num_classes(),
                                 .most_bytes = most_contents(info, train, any_size, record)});
  return {.name = info.name,
          .source = source,
          .images = std::move(read.images),
          .labels = std::move(read.labels),
          .class_names = info.class_names};
}

/// A file cut between two examples reads well: only the count tells.
void check_size(const DatasetInfo& info, const Dataset& part, bool train) {
  const int64_t expected = train ? info.train_size : info.test_size;
  if (part.size() == expected) return;
  fail<FileError>("load_dataset",
                  "{}: expected the {} {} examples of {}, found {}; a file is cut short or not the original: "
                  "'espalier datasets check {}' says which",
                  part.source, expected, train ? "training" : "test", info.name, part.size(), info.name);
}

}  // namespace

std::string user_data_dir() {
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty()) return cache + "/espalier";
  const std::string home = environment("HOME");
  return home.empty() ? "" : home + "/.cache/espalier";
}

std::string idx_path(const std::string& folder, const std::string& file) {
  const std::string path = folder + "/" + file;
  return exists(path) ? path : path + ".gz";
}

std::string find_dataset(const DatasetInfo& info, const std::string& data_dir) {
  if (info.format == DatasetInfo::Format::embedded) return "embedded";
  std::string looked;
  if (!data_dir.empty() && !exists(data_dir)) {
    fail<FileError>("load_dataset", "{}: expected a data folder, found nothing of this name; {}", data_dir,
                    how_to_get(info));
  }
  for (const Root& root : data_roots(data_dir)) {
    if (const std::optional<std::string> found = find_in(info, root.path)) return *found;
    looked += fmt::format("{}{} ({}{})", looked.empty() ? "" : ", ", root.path, root.origin,
                          exists(root.path) ? "" : ", not there");
  }
  if (environment("ESPALIER_DATA").empty()) looked += "; ESPALIER_DATA is not set";
  fail<FileError>("load_dataset", "expected the files of {} ({}, ...), found none; looked in {}; {}", info.name,
                  info.train_files[0], looked, how_to_get(info));
}

Dataset read_split(const DatasetInfo& info, const std::string& source, bool train, bool any_size) {
  return info.format == DatasetInfo::Format::idx ? read_idx_split(info, source, train, any_size)
                                                 : read_cifar_split(info, source, train, any_size);
}

std::string locate_dataset(const std::string& name, const LoadOptions& options) {
  const DatasetInfo& info = dataset_info(name);
  if (info.format == DatasetInfo::Format::embedded) return "embedded";
  for (const Root& root : data_roots(options.data_dir)) {
    if (const std::optional<std::string> found = find_in(info, root.path)) return *found;
  }
  return "";
}

std::vector<std::string> data_places(const LoadOptions& options) {
  std::vector<std::string> places;
  for (const Root& root : data_roots(options.data_dir))
    places.push_back(fmt::format("{} ({})", root.path, root.origin));
  return places;
}

Splits load_dataset(const std::string& name, const LoadOptions& options) {
  if (names_own_data(name)) return load_own_data(name, options.data_dir);
  const DatasetInfo& info = dataset_info(name);
  if (info.format == DatasetInfo::Format::embedded) return load_digits();
  const std::string source = find_dataset(info, options.data_dir);
  Splits splits{read_split(info, source, true, options.any_size), read_split(info, source, false, options.any_size)};
  if (!options.any_size) {
    check_size(info, splits.train, true);
    check_size(info, splits.test, false);
  }
  compute_statistics(splits.train);
  splits.test.mean = splits.train.mean;
  splits.test.stddev = splits.train.stddev;
  return splits;
}

}  // namespace espalier
