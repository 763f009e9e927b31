// csv:FILE: a table with a line of names. One column, the last unless option target names another, is what to answer;
// the others are numbers, the inputs.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>

#include "core/text.h"
#include "datasets/byte_reader.h"
#include "datasets/data_kind.h"

namespace espalier {

namespace {

using Row = std::vector<std::string>;

struct Table {
  std::string path;
  Row names = {};
  std::vector<Row> rows = {};
  std::vector<int64_t> lines = {};  ///< where each row begins, from 1
};

/// Splits text into rows of cells: RFC 4180, with "\n" or "\r\n" between lines.
class CsvReader {
 public:
  explicit CsvReader(const std::string& path) : file_(path) {}

  Table read() {
    Table table{.path = file_.path()};
    int64_t line = 1;
    while (std::optional<Row> row = next_row()) {
      if (!(row->size() == 1 && row->front().empty())) {  // an empty line
        if (table.names.empty()) {
          table.names = std::move(*row);
        } else {
          if (row->size() != table.names.size())
            bad(line, "expected {} cells, as in the first line, found {}", table.names.size(), row->size());
          table.rows.push_back(std::move(*row));
          table.lines.push_back(line);
        }
      }
      line = line_;
    }
    if (table.rows.empty()) bad(line, "expected a line of names, then rows, found none");
    return table;
  }

 private:
  template <class... Args>
  [[noreturn]] void bad(int64_t line, fmt::format_string<Args...> text, Args&&... args) const {
    fail<FileError>("read_dataset", "{}, line {}: {}", file_.path(), line,
                    fmt::format(text, std::forward<Args>(args)...));
  }

  int next() {
    if (at_ == buffer_.size()) {
      buffer_.resize(1 << 16);
      buffer_.resize(file_.read_some(buffer_.data(), buffer_.size()));
      at_ = 0;
      if (buffer_.empty()) return -1;
    }
    return static_cast<unsigned char>(buffer_[at_++]);
  }
  int peek() {
    const int c = next();
    if (c >= 0) --at_;
    return c;
  }

  /// The cells up to the end of the line; nothing at the end of the file.
  std::optional<Row> next_row() {
    if (peek() < 0) return std::nullopt;
    Row row(1);
    bool quoted = false;
    const int64_t begin = line_;
    for (;;) {
      const int c = next();
      std::string& cell = row.back();
      if (c < 0) {
        if (quoted) bad(begin, "expected a closing quotation mark, found the end of the file");
        return row;
      }
      if (c == '\n') ++line_;
      if (c == 0) bad(line_, "expected text, found a byte 0: is it a table?");
      if (quoted) {
        if (c != '"')
          cell += static_cast<char>(c);
        else if (peek() == '"')
          cell += static_cast<char>(next());
        else
          quoted = false;
      } else if (c == '"' && cell.empty()) {
        quoted = true;
      } else if (c == ',') {
        row.emplace_back();
      } else if (c == '\n') {
        return row;
      } else if (c != '\r' || peek() != '\n') {
        cell += static_cast<char>(c);
      }
    }
  }

  ByteReader file_;
  std::string buffer_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

std::optional<double> number_of(const std::string& cell) {
  const size_t first = cell.find_first_not_of(' ');
  if (first == std::string::npos) return std::nullopt;
  const char *begin = cell.data() + first, *end = cell.data() + cell.find_last_not_of(' ') + 1;
  double value = 0;
  const auto [at, error] = std::from_chars(begin + (*begin == '+' ? 1 : 0), end, value);
  if (error != std::errc() || at != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

bool is_whole(const std::string& cell) {
  const std::optional<double> value = number_of(cell);
  return value && *value == std::floor(*value) && cell.find('.') == std::string::npos;
}

std::vector<std::string> split(const std::string& text, char mark) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == mark)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

class CsvKind : public DataKind {
 public:
  void fields(FieldVisitor& f) override {
    f("target", target_, "The column to answer; a,b: values side by side; a+b: one target for each of two heads");
    f("values", values_, "Whole numbers in the target are values, not classes");
    espalier::fields(f, split_);
  }

  Splits load(const std::string& path, const std::string& data_dir) override {
    const std::string source = find_path(path, data_dir);
    if (!std::filesystem::is_directory(source))
      return split_test(read({CsvReader(source).read()}, source).front(), split_);
    std::vector<Dataset> parts =
        read({CsvReader(source + "/train.csv").read(), CsvReader(source + "/test.csv").read()}, source);
    return {std::move(parts[0]), std::move(parts[1])};
  }

 private:
  size_t column(const Table& table, const std::string& name) const {
    const auto found = std::find(table.names.begin(), table.names.end(), name);
    if (found == table.names.end())
      fail<FileError>("read_dataset", "{}, line 1: expected a column '{}', found {}{}", table.path, printable(name),
                      printable(fmt::format("{}", fmt::join(table.names, ", "))), did_you_mean(name, table.names));
    return static_cast<size_t>(found - table.names.begin());
  }

  static double number(const Table& table, size_t row, size_t column) {
    const std::optional<double> value = number_of(table.rows[row][column]);
    if (!value)
      fail<FileError>("read_dataset", "{}, line {}: expected a number in column '{}', found '{}'", table.path,
                      table.lines[row], printable(table.names[column]), printable(table.rows[row][column]));
    return *value;
  }

  static Tensor numbers(const Table& table, const std::vector<size_t>& columns) {
    std::vector<float> values;
    for (size_t row = 0; row < table.rows.size(); ++row)
      for (const size_t c : columns) values.push_back(static_cast<float>(number(table, row, c)));
    return Tensor::from(values, {static_cast<int64_t>(table.rows.size()), static_cast<int64_t>(columns.size())});
  }

  /// Training rows, and test rows where they are apart.
  std::vector<Dataset> read(const std::vector<Table>& tables, const std::string& source) const {
    const Table& first = tables.front();
    for (const Table& table : tables)
      if (table.names != first.names)
        fail<FileError>("read_dataset", "{}, line 1: expected the columns of {}, found others", table.path, first.path);
    std::vector<std::vector<size_t>> targets;
    std::vector<bool> is_target(first.names.size(), false);
    if (target_.empty()) {  // the last one, whatever its name
      targets = {{first.names.size() - 1}};
      is_target.back() = true;
    } else {
      for (const std::string& head : split(target_, '+')) {
        targets.emplace_back();
        for (const std::string& name : split(head, ',')) {
          targets.back().push_back(column(first, name));
          is_target[targets.back().back()] = true;
        }
      }
    }
    std::vector<size_t> inputs;
    for (size_t c = 0; c < is_target.size(); ++c)
      if (!is_target[c]) inputs.push_back(c);
    if (inputs.empty())
      fail<FileError>("read_dataset", "{}, line 1: expected a column besides the target, found none", first.path);

    std::vector<Dataset> parts;
    for (const Table& table : tables)
      parts.push_back({.name = {}, .source = source, .images = numbers(table, inputs), .labels = {}});
    for (size_t head = 0; head < targets.size(); ++head) {
      const std::vector<std::string> classes = classes_of(tables, targets[head]);
      for (size_t i = 0; i < tables.size(); ++i) {
        Tensor values =
            classes.empty() ? numbers(tables[i], targets[head]) : labels(tables[i], targets[head][0], classes);
        if (head > 0)
          parts[i].targets.push_back({first.names[targets[head][0]], std::move(values), classes});
        else
          parts[i].labels = std::move(values), parts[i].class_names = classes;
      }
    }
    return parts;
  }

  /// The texts or whole numbers of a column in their order; none for values.
  std::vector<std::string> classes_of(const std::vector<Table>& tables, const std::vector<size_t>& columns) const {
    if (values_ || columns.size() > 1) return {};
    bool all_whole = true, all_numbers = true;
    std::map<std::string, double> found;
    for (const Table& table : tables)
      for (const Row& row : table.rows) {
        const std::string& cell = row[columns[0]];
        const std::optional<double> value = number_of(cell);
        all_numbers = all_numbers && value;
        all_whole = all_whole && is_whole(cell);
        found[cell] = value.value_or(0);
      }
    if (all_numbers && !all_whole) return {};
    std::vector<std::string> classes;
    for (const auto& [name, value] : found) classes.push_back(name);
    if (all_whole)
      std::stable_sort(classes.begin(), classes.end(), [&](auto& a, auto& b) { return found[a] < found[b]; });
    return classes;
  }

  static Tensor labels(const Table& table, size_t column, const std::vector<std::string>& classes) {
    std::map<std::string, int64_t> numbers;
    for (const std::string& name : classes) numbers.emplace(name, static_cast<int64_t>(numbers.size()));
    std::vector<int64_t> labels;
    for (const Row& row : table.rows) labels.push_back(numbers.at(row[column]));
    return Tensor::from(labels, {static_cast<int64_t>(labels.size())});
  }

  std::string target_;
  bool values_ = false;
  SplitOptions split_;
};

}  // namespace

DataKindPtr make_csv_kind() { return std::make_shared<CsvKind>(); }

}  // namespace espalier
