// Errors that say where, what was expected, what came, and what to do.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

namespace espalier {

/// Base of every exception the library throws. The message begins with the operation in brackets.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument has the wrong shape, type, device or value.
class ArgumentError : public Error {
 public:
  using Error::Error;
};

/// Something outside the process is wrong: a file, a download, a recipe, a checkpoint.
class FileError : public Error {
 public:
  using Error::Error;
};

/// The requested backend or feature is not in this build or not on this machine.
class UnavailableError : public Error {
 public:
  using Error::Error;
};

/// A number became NaN or infinite where that ends the work.
class NumericError : public Error {
 public:
  using Error::Error;
};

/// Throws `E` with the message "[where] text"; the text is formatted by fmt.
template <class E = ArgumentError, class... Args>
[[noreturn]] void fail(std::string_view where, fmt::format_string<Args...> text, Args&&... args) {
  throw E(fmt::format("[{}] {}", where, fmt::format(text, std::forward<Args>(args)...)));
}

/// Throws ArgumentError unless `ok`. The arguments are formatted only when the check fails.
template <class... Args>
void check(bool ok, std::string_view where, fmt::format_string<Args...> text, Args&&... args) {
  if (!ok) [[unlikely]]
    fail<ArgumentError>(where, text, std::forward<Args>(args)...);
}

/// ", did you mean 'resnet20'?" for the candidate nearest to `got` by edit distance, or "" when none is near.
std::string did_you_mean(std::string_view got, const std::vector<std::string>& candidates);

}  // namespace espalier
