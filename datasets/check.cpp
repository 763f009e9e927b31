// espalier datasets check: is what lies on the disk what it should be?
#include <algorithm>
#include <filesystem>

#include "datasets/dataset.h"
#include "datasets/digits.h"
#include "datasets/load.h"
#include "datasets/sha256.h"

namespace espalier {
namespace {

void check_split(const DatasetInfo& info, const Dataset& part, const char* split, int64_t expected,
                 std::vector<CheckItem>& items) {
  items.push_back({fmt::format("{} examples", split), part.size() == expected,
                   part.size() == expected ? fmt::format("{}", expected)
                                           : fmt::format("expected {}, found {}", expected, part.size())});
  std::vector<int64_t> counts(static_cast<size_t>(info.num_classes()));
  for (int64_t i = 0; i < part.size(); ++i) ++counts[static_cast<size_t>(part.labels.data<int64_t>()[i])];
  const int64_t missing = std::count(counts.begin(), counts.end(), 0);
  items.push_back({fmt::format("{} labels", split), missing == 0,
                   missing == 0 ? fmt::format("all {} classes, {} to {} examples each", info.num_classes(),
                                              *std::min_element(counts.begin(), counts.end()),
                                              *std::max_element(counts.begin(), counts.end()))
                                : fmt::format("{} of {} classes have no example", missing, info.num_classes())});
}

void check_sum(const std::string& what, const std::string& expected, const std::string& found,
               std::vector<CheckItem>& items) {
  items.push_back(
      {what, expected == found,
       expected == found ? "SHA-256 " + found : fmt::format("expected SHA-256 {}, found {}", expected, found)});
}

void check_sums(const DatasetInfo& info, const std::string& source, std::vector<CheckItem>& items) {
  if (info.format == DatasetInfo::Format::cifar && std::filesystem::is_regular_file(source)) {
    check_sum(std::filesystem::path(source).filename().string(), info.downloads[0].sha256, sha256_of_file(source),
              items);
  }
  if (info.format != DatasetInfo::Format::idx || info.content_sha256.empty()) return;
  std::vector<std::string> files = info.train_files;
  files.insert(files.end(), info.test_files.begin(), info.test_files.end());
  for (size_t i = 0; i < files.size(); ++i) {
    check_sum(files[i], info.content_sha256[i], sha256_of_contents(idx_path(source, files[i])), items);
  }
}

}  // namespace

bool CheckReport::ok() const {
  return std::all_of(items.begin(), items.end(), [](const CheckItem& item) { return item.ok; });
}

std::string CheckReport::to_string() const {
  std::string text = fmt::format("{}: {}\n", name, source.empty() ? "not found" : source);
  for (const CheckItem& item : items) {
    text += fmt::format("  {:<4}  {}: {}\n", item.ok ? "ok" : "BAD", item.what, item.detail);
  }
  return text;
}

CheckReport check_dataset(const std::string& name, const LoadOptions& options) {
  const DatasetInfo& info = dataset_info(name);
  CheckReport report{info.name, "", {}};
  const auto attempt = [&](const std::string& what, auto&& step) {
    try {
      step();
    } catch (const FileError& error) {
      report.items.push_back({what, false, error.what()});
    }
  };
  attempt("files", [&] { report.source = find_dataset(info, options.data_dir); });
  if (report.source.empty()) return report;
  if (info.format == DatasetInfo::Format::embedded) {
    const Splits splits = load_digits();
    check_split(info, splits.train, "train", info.train_size, report.items);
    check_split(info, splits.test, "test", info.test_size, report.items);
    return report;
  }
  for (const bool train : {true, false}) {
    const char* split = train ? "train" : "test";
    attempt(split, [&] {
      check_split(info, read_split(info, report.source, train), split, train ? info.train_size : info.test_size,
                  report.items);
    });
  }
  attempt("checksums", [&] { check_sums(info, report.source, report.items); });
  return report;
}

}  // namespace espalier
