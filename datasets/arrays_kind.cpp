// npz:FILE and npy:FOLDER: arrays by name. "x" holds the inputs and "y" the targets; "lengths" belongs to sequences;
// "x_NAME" and "y_NAME" are further inputs and targets; "_train" and "_test" end the names where the data is split.
#include <algorithm>
#include <filesystem>
#include <map>

#include "datasets/data_kind.h"
#include "datasets/npy.h"

namespace espalier {

namespace {

namespace fs = std::filesystem;
using Arrays = std::map<std::string, Tensor>;

/// More files than any data set has arrays.
constexpr size_t kMostArrays = 1000;

Arrays read_folder(const std::string& path) {
  Arrays arrays;
  std::error_code error;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    const fs::path file = at->path();
    if (file.extension() != ".npy") continue;
    arrays[file.stem().string()] = read_npy(file.string());
    if (arrays.size() > kMostArrays)
      fail<FileError>("read_dataset", "{}: expected at most {} arrays, found more", path, kMostArrays);
  }
  if (error) fail<FileError>("read_dataset", "{}: expected a folder of .npy files: {}", path, error.message());
  return arrays;
}

/// What the targets are: classes for whole numbers, unless they are said to be values.
Tensor as_targets(const std::string& where, const Tensor& y, bool values) {
  if (y.dtype() == DType::f32 || values) {
    const Tensor floats = y.to(DType::f32);
    return floats.rank() == 1 ? floats.reshape({floats.size(0), 1}) : floats;
  }
  const Tensor classes = y.to(DType::i64);
  if (classes.rank() > 2)
    fail<FileError>("read_dataset",
                    "{}: expected classes (N) or (N,T), or values (f32, or option values=true), found {}", where,
                    y.shape());
  return classes;
}

/// Pixels as (N,C,H,W), everything else as a network takes it.
Tensor as_inputs(const Tensor& x) {
  if (x.dtype() != DType::u8) return x;
  const auto is_colour = [&](int axis) { return x.size(axis) == 1 || x.size(axis) == 3; };
  if (x.rank() == 3) return x.reshape({x.size(0), 1, x.size(1), x.size(2)});
  if (x.rank() == 4 && is_colour(1)) return x;
  if (x.rank() == 4 && is_colour(3)) return x.permute({0, 3, 1, 2}).contiguous();
  return x.to(DType::f32);
}

std::vector<std::string> numbered(int64_t classes) {
  std::vector<std::string> names;
  for (int64_t c = 0; c < classes; ++c) names.push_back(std::to_string(c));
  return names;
}

int64_t largest_class(const std::string& where, const std::vector<const Tensor*>& parts) {
  constexpr int64_t kMostClasses = 100'000;
  int64_t largest = 0;
  for (const Tensor* part : parts)
    for (const int64_t label : part->to_vector<int64_t>()) {
      const int64_t lowest = part->rank() == 2 ? -1 : 0;  // a step without a class
      if (label < lowest || label >= kMostClasses)
        fail<FileError>("read_dataset", "{}: expected classes in {}..{}, found {}; option values=true reads numbers",
                        where, lowest, kMostClasses - 1, label);
      largest = std::max(largest, label);
    }
  return largest;
}

class ArraysKind : public DataKind {
 public:
  explicit ArraysKind(bool zipped) : zipped_(zipped) {}
  void fields(FieldVisitor& f) override {
    f("values", values_, "Whole numbers in y are values, not classes");
    espalier::fields(f, split_);
  }

  Splits load(const std::string& path, const std::string& data_dir) override {
    source_ = find_path(path, data_dir);
    arrays_ = zipped_ ? read_npz(source_) : read_folder(source_);
    const bool is_split = arrays_.contains("x_train");
    std::vector<Dataset> parts;
    for (const char* end : {"_train", "_test"})
      if (is_split || parts.empty()) parts.push_back(take(is_split ? end : ""));
    if (!arrays_.empty()) refuse_rest(is_split);
    name_classes(parts);
    if (is_split) return {std::move(parts[0]), std::move(parts[1])};
    return split_test(parts[0], split_);
  }

 private:
  /// The array of that name; undefined where there is none.
  Tensor pop(const std::string& name) {
    const auto found = arrays_.find(name);
    if (found == arrays_.end()) return {};
    Tensor array = found->second;
    arrays_.erase(found);
    return array;
  }

  /// The examples whose names end with "_train", "_test" or nothing.
  Dataset take(const std::string& end) {
    Dataset part{.name = {}, .source = source_, .images = {}, .labels = {}};
    const Tensor x = pop("x" + end), y = pop("y" + end), lengths = pop("lengths" + end);
    if (!x.defined())
      fail<FileError>("read_dataset", "{}: expected an array 'x{}' of inputs, found none", source_, end);
    part.images = as_inputs(x);
    part.reconstructs = !y.defined();
    if (y.defined()) part.labels = as_targets(source_ + "(y" + end + ")", y, values_);
    if (lengths.defined()) part.inputs.emplace_back("lengths", checked_lengths(lengths, part.images));
    for (auto& [name, array] : further("x_", end)) part.inputs.emplace_back(name, as_inputs(array));
    for (auto& [name, array] : further("y_", end))
      part.targets.push_back({.name = name, .values = as_targets(source_ + "(y_" + name + end + ")", array, values_)});
    check_counts(part, end);
    return part;
  }

  /// Of "y_age_train": {"age", ...}, in the order of their names.
  std::vector<std::pair<std::string, Tensor>> further(const std::string& begin, const std::string& end) {
    std::vector<std::pair<std::string, Tensor>> found;
    std::vector<std::string> names;
    for (const auto& [name, array] : arrays_)
      if (name.starts_with(begin) && name.ends_with(end) && name.size() > begin.size() + end.size())
        names.push_back(name);
    for (const std::string& name : names)
      found.emplace_back(name.substr(begin.size(), name.size() - begin.size() - end.size()), pop(name));
    return found;
  }

  Tensor checked_lengths(const Tensor& lengths, const Tensor& x) const {
    if (lengths.rank() != 1 || x.rank() < 2 || is_floating(lengths.dtype()))
      fail<FileError>("read_dataset", "{}: expected whole numbers (N) as lengths of sequences (N,T,...), found {}",
                      source_, lengths.shape());
    const Tensor numbers = lengths.to(DType::i64);
    for (const int64_t length : numbers.to_vector<int64_t>())
      if (length < 1 || length > x.size(1))
        fail<FileError>("read_dataset", "{}: expected lengths in 1..{}, found {}", source_, x.size(1), length);
    return numbers;
  }

  void check_counts(const Dataset& part, const std::string& end) const {
    const auto check_one = [&](const std::string& name, const Tensor& array) {
      if (array.defined() && array.size(0) != part.size())
        fail<FileError>("read_dataset", "{}: expected {} rows of '{}{}', one for each of 'x{}', found {}", source_,
                        part.size(), name, end, end, array.size(0));
    };
    check_one("y", part.labels);
    for (const auto& [name, array] : part.inputs) check_one(name, array);
    for (const Target& target : part.targets) check_one("y_" + target.name, target.values);
  }

  [[noreturn]] void refuse_rest(bool is_split) const {
    const std::string& name = arrays_.begin()->first;
    std::vector<std::string> known;
    for (const char* base : {"x", "y", "lengths"})
      for (const char* end : {"_train", "_test"}) known.push_back(std::string(base) + (is_split ? end : ""));
    fail<FileError>("read_dataset", "{}: expected arrays x, y, lengths, x_NAME and y_NAME{}, found '{}'{}", source_,
                    is_split ? ", each with _train or _test" : "", name, did_you_mean(name, known));
  }

  /// Classes are numbered up to the largest in either part.
  void name_classes(std::vector<Dataset>& parts) const {
    for (const Dataset& part : parts)
      if (part.targets.size() != parts[0].targets.size() || part.inputs.size() != parts[0].inputs.size() ||
          part.labels.defined() != parts[0].labels.defined() || part.input_shape() != parts[0].input_shape())
        fail<FileError>("read_dataset",
                        "{}: expected the same arrays of the same sizes for training and test, found others", source_);
    const auto name = [&](const std::string& what, auto&& target, auto&& names) {
      std::vector<const Tensor*> values;
      for (Dataset& part : parts) values.push_back(&target(part));
      if (!values[0]->defined() || values[0]->dtype() != DType::i64) return;
      const int64_t classes = largest_class(source_ + "(" + what + ")", values) + 1;
      for (Dataset& part : parts) names(part) = numbered(classes);
    };
    name(
        "y", [](Dataset& d) -> Tensor& { return d.labels; },
        [](Dataset& d) -> std::vector<std::string>& { return d.class_names; });
    for (size_t i = 0; i < parts[0].targets.size(); ++i)
      name(
          "y_" + parts[0].targets[i].name, [i](Dataset& d) -> Tensor& { return d.targets[i].values; },
          [i](Dataset& d) -> std::vector<std::string>& { return d.targets[i].class_names; });
  }

  bool zipped_, values_ = false;
  SplitOptions split_;
  std::string source_;
  Arrays arrays_;
};

}  // namespace

DataKindPtr make_arrays_kind(bool zipped) { return std::make_shared<ArraysKind>(zipped); }

}  // namespace espalier
