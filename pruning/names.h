// Enumerations by name. Internal: included by .cpp files only.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "core/error.h"

namespace espalier {

/// The value that a table gives this name. `what` is said in messages: "scope". Throws ArgumentError, naming the
/// nearest.
template <class E, size_t N>
E value_of_name(const char* operation, const char* what, const std::pair<E, const char*> (&table)[N],
                const std::string& text) {
  std::vector<std::string> known;
  for (const auto& [value, name] : table) {
    if (text == name) return value;
    known.emplace_back(name);
  }
  fail(operation, "unknown {} '{}'{}; known: {}", what, text, did_you_mean(text, known), fmt::join(known, ", "));
}

}  // namespace espalier
