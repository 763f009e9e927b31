// TOML as text: what writes values that every reader gives back, and a look at a file before it is parsed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// A string on one line: "a \"word\"\n". Throws ArgumentError for what is not UTF-8.
std::string quote(const std::string& text);
/// ["a", "b"].
std::string quote(const std::vector<std::string>& texts);
/// A float: 1 becomes 1.0.
std::string toml_number(double value);

/// Parsers walk down the parts of a.dotted.key and brackets in brackets by recursion: thousands of either would
/// overflow the stack. Throws FileError, with the line, on more than kDeepestToml.
void check_toml_nesting(std::string_view text, const std::string& source);
constexpr int kDeepestToml = 32;

}  // namespace espalier
