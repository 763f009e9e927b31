#include "pipeline/toml_text.h"

#include <algorithm>
#include <cctype>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace espalier {

std::string quote(const std::string& text) {
  // A JSON string is a TOML string, but for the one control character that only TOML wants escaped.
  const auto as_json = [&](nlohmann::json::error_handler_t handler) {
    return nlohmann::json(text).dump(-1, ' ', false, handler);
  };
  std::string quoted;
  try {
    quoted = as_json(nlohmann::json::error_handler_t::strict);
  } catch (const nlohmann::json::exception&) {
    fail("recipe", "expected text in UTF-8, got {}; choose a name without those bytes",
         as_json(nlohmann::json::error_handler_t::replace));
  }
  constexpr char kDelete = 0x7f;
  for (size_t at = 0; (at = quoted.find(kDelete, at)) != std::string::npos;) quoted.replace(at, 1, "\\u007F");
  return quoted;
}

std::string quote(const std::vector<std::string>& texts) {
  std::vector<std::string> quoted;
  for (const std::string& text : texts) quoted.push_back(quote(text));
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::string toml_number(double value) {
  std::string text = fmt::format("{}", value);
  return text.find_first_of(".einf") == std::string::npos ? text + ".0" : text;
}

namespace {
/// The place behind the string that begins at `at` with a quote, of one line or several.
size_t end_of_string(std::string_view text, size_t at) {
  const char quote = text[at];
  const std::string three(3, quote);
  const bool long_one = text.substr(at, 3) == three;
  const std::string_view closing = long_one ? std::string_view(three) : text.substr(at, 1);
  for (at += closing.size(); at < text.size(); ++at) {
    if (quote == '"' && text[at] == '\\')
      ++at;
    else if (text.substr(at, closing.size()) == closing)
      return at + closing.size();
    else if (!long_one && text[at] == '\n')
      return at;
  }
  return text.size();
}
}  // namespace

void check_toml_nesting(std::string_view text, const std::string& source) {
  int brackets = 0, dots = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"' || c == '\'') {  // a value, or a part of a key
      at = end_of_string(text, at);
      continue;
    }
    if (c == '#') {
      at = std::min(text.find('\n', at), text.size());
      continue;
    }
    if (c == '.')
      ++dots;
    else if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '-' && c != ' ' && c != '\t')
      dots = 0;
    if (c == '[' || c == '{') ++brackets;
    if (c == ']' || c == '}') brackets = std::max(brackets - 1, 0);
    if (dots >= kDeepestToml || brackets > kDeepestToml)
      fail<FileError>("recipe",
                      "{}:{}: expected keys of at most {} parts and as many brackets in each other, found more", source,
                      1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'), kDeepestToml);
    ++at;
  }
}

}  // namespace espalier
