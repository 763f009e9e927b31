// JSON from outside: files, and texts in them.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace espalier {

/// JSON that the library itself refuses; caught where the JSON library's own errors are.
class JsonError : public nlohmann::json::exception {
 public:
  explicit JsonError(const std::string& what);
};

/// Networks of 64 modules in each other need 200.
constexpr int64_t kDeepestJson = 256;

/// How deep the objects and arrays of a text are in each other, by their brackets alone.
int64_t json_depth(std::string_view text);

/// Reads JSON that is not to be trusted: what walks over the result, printing and copying it included, may recurse.
/// Throws nlohmann::json::exception for a text that is no JSON or is deeper than kDeepestJson.
nlohmann::json parse_json(std::string_view text);

/// The same, for what is useful but not needed: an empty object in place of an error, and of what is no object.
nlohmann::json parse_json_object_or_empty(std::string_view text);

/// A list of whole numbers. Throws JsonError for others: get<int64_t> would take 16.5 for 16.
std::vector<int64_t> whole_numbers(const nlohmann::json& list);

/// What is not known is null.
template <class T>
nlohmann::json json_or_null(const std::optional<T>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

}  // namespace espalier
