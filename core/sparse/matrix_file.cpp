#include "core/sparse/matrix_file.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <numeric>
#include <string_view>

#include "core/safetensors.h"
#include "core/text.h"

namespace espalier {
namespace {

constexpr int64_t kMostIndex = std::numeric_limits<int32_t>::max();

/// Reads numbers from a text, line by line.
class NumberReader {
 public:
  NumberReader(const std::string& path, std::string text) : path_(path), text_(std::move(text)) {}

  /// The next line, without its end; `what` names it in the error.
  std::string_view line(const char* what) {
    if (at_ >= text_.size()) bad("expected {}, found the end of the file", what);
    const size_t end = std::min(text_.find('\n', at_), text_.size());
    std::string_view line(text_.data() + at_, end - at_);
    if (line.ends_with('\r')) line.remove_suffix(1);
    at_ = end + 1;
    ++line_number_;
    return line;
  }
  bool at_end() const { return text_.find_first_not_of(" \t\r\n", at_) == std::string::npos; }
  size_t bytes_left() const { return at_ < text_.size() ? text_.size() - at_ : 0; }

  /// The next number of a line, behind blanks and commas.
  template <class T>
  T number(std::string_view& line, const char* what) const {
    line.remove_prefix(std::min(line.find_first_not_of(" \t,"), line.size()));
    T value{};
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    if (error != std::errc{}) {
      const std::string found = line.empty() ? "the end of the line" : "'" + printable(line.substr(0, 20)) + "'";
      bad("expected {}, found {}", what, found);
    }
    line.remove_prefix(static_cast<size_t>(end - line.data()));
    return value;
  }
  void expect_line_end(std::string_view line) const {
    if (line.find_first_not_of(" \t,") != std::string_view::npos)
      bad("expected the end of the line, found '{}'", printable(line.substr(0, 20)));
  }

  template <class... Args>
  [[noreturn]] void bad(fmt::format_string<Args...> text, Args&&... args) const {
    fail<FileError>("read_matrix", "{}, line {}: {}", path_, std::max<int64_t>(1, line_number_),
                    fmt::format(text, std::forward<Args>(args)...));
  }

 private:
  std::string path_, text_;
  size_t at_ = 0;
  int64_t line_number_ = 0;
};

/// Rows, columns and entries of a matrix, which the rest of the file can hold: each entry takes two bytes of text.
struct Sizes {
  int64_t rows, columns, entries;
};
Sizes read_sizes(NumberReader& file, std::string_view line) {
  Sizes sizes{};
  sizes.rows = file.number<int64_t>(line, "the number of rows");
  sizes.columns = file.number<int64_t>(line, "the number of columns");
  sizes.entries = file.number<int64_t>(line, "the number of entries");
  file.expect_line_end(line);
  if (sizes.rows < 0 || sizes.columns < 0 || sizes.entries < 0 || sizes.rows > kMostIndex || sizes.columns > kMostIndex)
    file.bad("expected sizes from 0 to {}, found ({},{}) with {} entries", kMostIndex, sizes.rows, sizes.columns,
             sizes.entries);
  if (sizes.entries > static_cast<int64_t>(file.bytes_left() / 2 + 1))
    file.bad("expected {} entries, found {} more bytes, too few for them", sizes.entries, file.bytes_left());
  return sizes;
}

Csr read_smtx(NumberReader& file) {
  const Sizes sizes = read_sizes(file, file.line("rows, columns and entries"));
  if (sizes.rows > static_cast<int64_t>(file.bytes_left()))
    file.bad("expected {} rows, found {} more bytes, too few for their offsets", sizes.rows, file.bytes_left());
  Csr a{.rows = sizes.rows, .columns = sizes.columns, .row_offsets = {}, .column = {}, .value = {}};
  a.row_offsets.reserve(static_cast<size_t>(sizes.rows) + 1);
  std::string_view line = file.line("the row offsets");
  for (int64_t i = 0; i <= sizes.rows; ++i) {
    const auto offset = file.number<int64_t>(line, "a row offset");
    const int64_t before = a.row_offsets.empty() ? 0 : a.row_offsets.back();
    if (offset < before || offset > sizes.entries || (i == 0 && offset != 0) ||
        (i == sizes.rows && offset != sizes.entries))
      file.bad("expected row offsets from 0 to {} that never fall, found {} after {}", sizes.entries, offset, before);
    a.row_offsets.push_back(offset);
  }
  file.expect_line_end(line);
  a.column.reserve(static_cast<size_t>(sizes.entries));
  line = sizes.entries == 0 && file.at_end() ? std::string_view() : file.line("the columns");
  for (int64_t e = 0; e < sizes.entries; ++e) {
    const auto column = file.number<int64_t>(line, "a column");
    if (column < 0 || column >= sizes.columns) file.bad("expected columns in [0,{}), found {}", sizes.columns, column);
    a.column.push_back(static_cast<int32_t>(column));
  }
  file.expect_line_end(line);
  if (!file.at_end()) file.bad("expected the end of the file after {} columns", sizes.entries);
  // The collection's own tools write a row's columns in no promised order.
  for (size_t i = 0; i < static_cast<size_t>(a.rows); ++i) {
    const auto begin = a.column.begin() + a.row_offsets[i], end = a.column.begin() + a.row_offsets[i + 1];
    if (!std::is_sorted(begin, end)) std::sort(begin, end);
    const auto twice = std::adjacent_find(begin, end);
    if (twice != end) file.bad("expected each column once in a row, found column {} twice in row {}", *twice, i);
  }
  return a;
}

Csr read_mtx(NumberReader& file) {
  std::string header(file.line("the Matrix Market header"));
  std::transform(header.begin(), header.end(), header.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool pattern = header.find(" pattern") != std::string::npos;
  const bool symmetric = header.find(" symmetric") != std::string::npos;
  const bool numbers = header.find(" real") != std::string::npos || header.find(" integer") != std::string::npos;
  if (!header.starts_with("%%matrixmarket matrix coordinate") || !(pattern || numbers) ||
      !(symmetric || header.find(" general") != std::string::npos))
    file.bad("expected '%%MatrixMarket matrix coordinate real|integer|pattern general|symmetric', found '{}'",
             printable(header.substr(0, 60)));
  std::string_view line = file.line("rows, columns and entries");
  while (line.starts_with('%')) line = file.line("rows, columns and entries");
  const Sizes sizes = read_sizes(file, line);
  struct Entry {
    int64_t row, column;
    float value;
  };
  std::vector<Entry> entries;
  entries.reserve(static_cast<size_t>(sizes.entries) * (symmetric ? 2 : 1));
  for (int64_t e = 0; e < sizes.entries; ++e) {
    line = file.line("an entry");
    const auto row = file.number<int64_t>(line, "a row") - 1, column = file.number<int64_t>(line, "a column") - 1;
    const float value = pattern ? 1.0F : file.number<float>(line, "a value");
    file.expect_line_end(line);
    if (row < 0 || row >= sizes.rows || column < 0 || column >= sizes.columns)
      file.bad("expected an entry within ({},{}), counted from 1, found ({},{})", sizes.rows, sizes.columns, row + 1,
               column + 1);
    entries.push_back({row, column, value});
    if (symmetric && row != column) entries.push_back({column, row, value});
  }
  if (!file.at_end()) file.bad("expected the end of the file after {} entries", sizes.entries);
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.row != b.row ? a.row < b.row : a.column < b.column; });
  // Rows take memory though the file names none of them: as many as its bytes, or as a small matrix has.
  constexpr int64_t kSmall = 1 << 24;
  if (sizes.rows > kSmall && sizes.rows > 64 * (sizes.entries + 1))
    file.bad("expected at most {} rows for {} entries, found {}", 64 * (sizes.entries + 1), sizes.entries, sizes.rows);
  Csr a{.rows = sizes.rows, .columns = sizes.columns, .row_offsets = {}, .column = {}, .value = {}};
  a.row_offsets.assign(static_cast<size_t>(sizes.rows) + 1, 0);
  for (size_t e = 0; e < entries.size(); ++e) {
    const Entry& entry = entries[e];
    if (e > 0 && entries[e - 1].row == entry.row && entries[e - 1].column == entry.column)
      file.bad("expected each place once, found ({},{}) twice", entry.row + 1, entry.column + 1);
    ++a.row_offsets[static_cast<size_t>(entry.row) + 1];
    a.column.push_back(static_cast<int32_t>(entry.column));
    if (!pattern) a.value.push_back(entry.value);
  }
  std::partial_sum(a.row_offsets.begin(), a.row_offsets.end(), a.row_offsets.begin());
  return a;
}

std::string smtx_text(const Csr& a) {
  return fmt::format("{}, {}, {}\n{}\n{}\n", a.rows, a.columns, a.nnz(), fmt::join(a.row_offsets, " "),
                     fmt::join(a.column, " "));
}

std::string mtx_text(const Csr& a) {
  const bool pattern = a.value.empty();
  std::string text = fmt::format("%%MatrixMarket matrix coordinate {} general\n{} {} {}\n",
                                 pattern ? "pattern" : "real", a.rows, a.columns, a.nnz());
  for (size_t i = 0; i < static_cast<size_t>(a.rows); ++i) {
    for (auto e = static_cast<size_t>(a.row_offsets[i]); e < static_cast<size_t>(a.row_offsets[i + 1]); ++e) {
      text += fmt::format("{} {}", i + 1, a.column[e] + 1);
      text += pattern ? "\n" : fmt::format(" {:.9g}\n", a.value[e]);
    }
  }
  return text;
}

bool is_smtx(const char* operation, const std::string& path) {
  const std::string ending = std::filesystem::path(path).extension().string();
  check(ending == ".smtx" || ending == ".mtx", operation, "expected a file *.smtx or *.mtx, got '{}'", path);
  return ending == ".smtx";
}

}  // namespace

Csr read_matrix(const std::string& path) {
  const bool smtx = is_smtx("read_matrix", path);
  std::ifstream stream(path, std::ios::binary);
  std::error_code error;
  if (!stream || std::filesystem::is_directory(path, error))
    fail<FileError>("read_matrix", "expected to read {}, which can't be opened", path);
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (stream.bad()) fail<FileError>("read_matrix", "{} can't be read to its end", path);
  NumberReader file(path, std::move(text));
  return smtx ? read_smtx(file) : read_mtx(file);
}

void write_matrix(const std::string& path, const Csr& a) {
  check_csr("write_matrix", a);
  write_file_atomically(path, is_smtx("write_matrix", path) ? smtx_text(a) : mtx_text(a));
}

}  // namespace espalier
