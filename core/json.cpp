#include "core/json.h"

#include <algorithm>

#include <fmt/core.h>

namespace espalier {

JsonError::JsonError(const std::string& what) : nlohmann::json::exception(0, what.c_str()) {}

int64_t json_depth(std::string_view text) {
  int64_t depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

nlohmann::json parse_json(std::string_view text) {
  if (const int64_t depth = json_depth(text); depth > kDeepestJson)
    throw JsonError(fmt::format("expected objects and arrays at most {} deep, found {}", kDeepestJson, depth));
  return nlohmann::json::parse(text);
}

nlohmann::json parse_json_object_or_empty(std::string_view text) {
  try {
    if (nlohmann::json parsed = parse_json(text); parsed.is_object()) return parsed;
  } catch (const nlohmann::json::exception&) {
    // as promised
  }
  return nlohmann::json::object();
}

std::vector<int64_t> whole_numbers(const nlohmann::json& list) {
  for (const nlohmann::json& number : list)
    if (!number.is_number_integer())
      throw JsonError(fmt::format("expected whole numbers, found {}", number.dump().substr(0, 40)));
  return list.get<std::vector<int64_t>>();
}

}  // namespace espalier
