#include "datasets/data_kind.h"

#include <charconv>
#include <filesystem>

#include <nlohmann/json.hpp>

namespace espalier {

namespace {

constexpr const char* kReconstruct = "reconstruct";

struct OwnData {
  std::string kind, path;
  nlohmann::json options = nlohmann::json::object();
};

/// "true", "0.1", "price": as JSON.
nlohmann::json value_of(const std::string& text) {
  if (text == "true" || text == "false") return text == "true";
  double number = 0;
  const char* end = text.data() + text.size();
  if (const auto [at, error] = std::from_chars(text.data(), end, number); error == std::errc() && at == end) {
    if (text.find_first_not_of("-0123456789") == std::string::npos) return static_cast<int64_t>(number);
    return number;
  }
  return text;
}

OwnData parse_own(const std::string& name) {
  const size_t colon = name.find(':');
  OwnData data{.kind = name.substr(0, colon), .path = name.substr(colon + 1)};
  if (data.kind == kReconstruct) return data;  // the options are those of the data behind it
  const size_t mark = data.path.find('?');
  if (mark == std::string::npos) return data;
  const std::string text = data.path.substr(mark + 1) + "&";
  data.path.resize(mark);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('&', begin), equals = text.find('=', begin);
    check(equals < end && equals > begin, "data", "{}: expected options as in ?target=price&test=0.1, got '{}'", name,
          text.substr(begin, end - begin));
    data.options[text.substr(begin, equals - begin)] = value_of(text.substr(equals + 1, end - equals - 1));
    begin = end + 1;
  }
  return data;
}

DataKindPtr make_kind(const OwnData& data) {
  DataKindPtr kind = data_kind_registry().find("data", data.kind)();
  read_fields("data", data.options, [&](FieldVisitor& f) { kind->fields(f); });
  return kind;
}

/// Any other data, to be given back by an autoencoder.
class Reconstruct : public DataKind {
 public:
  Splits load(const std::string& path, const std::string& data_dir) override {
    Splits data = load_dataset(path, {.data_dir = data_dir});
    for (Dataset* part : {&data.train, &data.test}) {
      part->reconstructs = true;
      part->targets.clear();
    }
    return data;
  }
  std::string canonical(const std::string& path) const override { return data_name(path); }
};

}  // namespace

Registry<DataKindPtr()>& data_kind_registry() {
  static Registry<DataKindPtr()> kinds("kind of data",
                                       {{"npz", [] { return make_arrays_kind(true); }},
                                        {"npy", [] { return make_arrays_kind(false); }},
                                        {"csv", make_csv_kind},
                                        {"idx", make_idx_kind},
                                        {"folder", make_folder_kind},
                                        {kReconstruct, [] { return std::make_shared<Reconstruct>(); }}});
  return kinds;
}

bool names_own_data(const std::string& name) { return name.find(':') != std::string::npos; }

std::string data_name(const std::string& name) {
  if (!names_own_data(name)) return dataset_info(name).name;
  const OwnData data = parse_own(name);
  const DataKindPtr kind = make_kind(data);
  check(!data.path.empty(), "data", "expected a path behind '{}:', got none", data.kind);
  return data.kind + ":" + kind->canonical(data.path) + name.substr(data.kind.size() + 1 + data.path.size());
}

Splits load_own_data(const std::string& name, const std::string& data_dir) {
  const OwnData data = parse_own(name);
  Splits splits = make_kind(data)->load(data.path, data_dir);
  if (splits.train.mean.empty()) compute_statistics(splits.train);
  splits.test.mean = splits.train.mean;
  splits.test.stddev = splits.train.stddev;
  for (Dataset* part : {&splits.train, &splits.test}) part->name = data_name(name);
  return splits;
}

std::string find_path(const std::string& path, const std::string& data_dir) {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) return path;
  const std::string beside = data_dir + "/" + path;
  if (!data_dir.empty() && std::filesystem::exists(beside, ignored)) return beside;
  fail<FileError>("read_dataset", "{}: expected a file or folder, found nothing of this name{}", path,
                  data_dir.empty() ? "" : ", and none in " + data_dir);
}

void fields(FieldVisitor& f, SplitOptions& o) {
  f("test", o.test, between_zero_and_one(), "Share of the examples that become the test set, where no file has one");
}

Splits split_test(const Dataset& all, const SplitOptions& options) {
  TrainValidation parts = split_validation(all, options.test);
  return {std::move(parts.train), std::move(parts.validation)};
}

}  // namespace espalier
