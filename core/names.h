// Enumerations by name: one table for each, from which its name_of, its parser and its options (core/fields.h) come.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "core/error.h"

namespace espalier {

/// The names of an enumeration's values, whatever its type. An enumeration that is an option of something has a
/// function `EnumNames names_of(E)` beside it.
class EnumNames {
 public:
  /// `what` is said in messages: "scope".
  template <class E, size_t N>
  EnumNames(const char* what, const std::pair<E, const char*> (&table)[N]) : what_(what) {
    for (const auto& [value, name] : table) entries_.emplace_back(static_cast<int64_t>(value), name);
  }

  const char* what() const { return what_; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [value, name] : entries_) names.emplace_back(name);
    return names;
  }
  const char* name(int64_t of) const {
    for (const auto& [value, name] : entries_)
      if (value == of) return name;
    return "?";
  }
  /// Throws ArgumentError in the name of `operation`, naming the nearest.
  int64_t value(const char* operation, const std::string& text) const {
    for (const auto& [value, name] : entries_)
      if (text == name) return value;
    fail(operation, "unknown {} '{}'{}; known: {}", what_, text, did_you_mean(text, names()), fmt::join(names(), ", "));
  }

 private:
  const char* what_;
  std::vector<std::pair<int64_t, const char*>> entries_;
};

/// The value that a table gives this name. Throws ArgumentError, naming the nearest.
template <class E, size_t N>
E value_of_name(const char* operation, const char* what, const std::pair<E, const char*> (&table)[N],
                const std::string& text) {
  return static_cast<E>(EnumNames(what, table).value(operation, text));
}

}  // namespace espalier
