// Where the command writes: text for people, or text on stderr and one JSON object as the last line of stdout.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json_fwd.hpp>

namespace espalier::tools {

/// The command's two kinds of output. With `json` everything for people goes to stderr.
class Output {
 public:
  explicit Output(bool json) : json_(json) {}

  bool json() const { return json_; }
  bool quiet() const { return quiet_; }
  /// Drops what say() gets.
  void set_quiet(bool quiet) { quiet_ = quiet; }
  /// Where text for people goes.
  std::FILE* stream() const { return json_ ? stderr : stdout; }

  /// A line for people.
  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) const {
    if (!quiet_) line(fmt::format(text, std::forward<Args>(args)...));
  }
  /// A line that --quiet leaves.
  template <class... Args>
  void result(fmt::format_string<Args...> text, Args&&... args) const {
    line(fmt::format(text, std::forward<Args>(args)...));
  }
  /// The JSON object that ends stdout; nothing without --json.
  void finish(const nlohmann::json& object) const;
  /// "espalier: [train] ..." on stderr, and {"error": ...} with --json.
  void error(const std::string& message) const;

 private:
  void line(const std::string& text) const;

  bool json_, quiet_ = false;
};

/// The contents of a file; nothing when it cannot be read.
std::optional<std::string> read_text(const std::string& path);

/// 1234567 -> "1,234,567".
std::string grouped(int64_t value);
/// 1536000 -> "1.5 MB".
std::string bytes_text(int64_t bytes);
/// Text from a file without what a terminal would obey: control characters become '?'.
std::string printable(std::string_view text);

/// Rows of equally many cells, in columns; the first row is the heading. Columns named in `right` are set flush right.
std::string table(const std::vector<std::vector<std::string>>& rows, const std::vector<size_t>& right = {});

}  // namespace espalier::tools
