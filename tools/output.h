// Where the command writes: text for people, or text on stderr and one JSON object as the last line of stdout.
// Everything that it writes passes through Output, which cleans it of what a terminal would obey and remembers what got
// lost.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json_fwd.hpp>

#include "core/text.h"

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
  /// Lines for stdout, with --json too: the help, the version.
  void text(const std::string& lines) const { write(stdout, clean(lines)); }
  /// A line that may hold colours, made by this program alone: draw() and bar(). It is written as it is.
  void picture(const std::string& line) const;
  /// A line of progress on stderr, with its own carriage return; written as it is.
  void progress(const std::string& text) const { write(stderr, text); }
  /// The JSON object that ends stdout; nothing without --json.
  void finish(const nlohmann::json& object) const;
  /// "espalier: [train] ..." on stderr, and {"error": ...} with --json. Never throws.
  void error(const std::string& message) const noexcept;
  /// More text for stderr, after an error: help.
  void hint(const std::string& text) const noexcept;
  /// Why some of what stdout should hold is not there: "No space left on device". Empty: all of it is.
  const std::string& lost() const { return lost_; }

 private:
  void line(const std::string& text) const;
  void write(std::FILE* stream, const std::string& text) const;

  bool json_, quiet_ = false;
  mutable std::string lost_ = {};
};

}  // namespace espalier::tools
