#include "tools/output.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

namespace espalier::tools {

namespace {

/// Bytes of the UTF-8 character that begins at text[i]; 0 when none does.
size_t character_at(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char first = byte(i);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 0;
  if (length == 0 || i + length > text.size()) return 0;
  for (size_t k = i + 1; k < i + length; ++k)
    if ((byte(k) & 0xC0) != 0x80) return 0;
  const bool overlong = (first == 0xE0 && byte(i + 1) < 0xA0) || (first == 0xF0 && byte(i + 1) < 0x90);
  return overlong ? 0 : length;
}

/// Whether a terminal would obey the character of `length` bytes at text[i]: C0 but for line ends and tabs, DEL, C1.
bool is_control(std::string_view text, size_t i, size_t length) {
  const auto first = static_cast<unsigned char>(text[i]);
  if (length == 1) return (first < 0x20 && first != '\n' && first != '\t') || first == 0x7F;
  return length == 2 && first == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0;
}

/// JSON whose control characters are all escaped; nlohmann::json leaves DEL and C1.
std::string json_text(const nlohmann::json& object) {
  const std::string text = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t length = std::max<size_t>(1, character_at(text, i));
    if (is_control(text, i, length))  // in JSON only inside of strings
      result += fmt::format("\\u{:04x}", static_cast<unsigned char>(text[i + length - 1]));
    else
      result += text.substr(i, length);
    i += length;
  }
  return result;
}

}  // namespace

void Output::write(std::FILE* stream, const std::string& text) const {
  errno = 0;
  const bool all = std::fwrite(text.data(), 1, text.size(), stream) == text.size() && std::fflush(stream) == 0;
  if (!all && stream == stdout && lost_.empty()) lost_ = errno != 0 ? std::strerror(errno) : "it could not be written";
}

void Output::line(const std::string& text) const { write(stream(), clean(text) + "\n"); }

void Output::picture(const std::string& line) const { write(stream(), line + "\n"); }

void Output::finish(const nlohmann::json& object) const {
  if (json_) write(stdout, json_text(object) + "\n");
}

void Output::error(const std::string& message) const noexcept {
  try {
    write(stderr, fmt::format("espalier: {}\n", clean(message)));
    finish({{"error", message}});
  } catch (...) {  // no memory for the message: the exit status says that there was an error
  }
}

void Output::hint(const std::string& text) const noexcept {
  try {
    write(stderr, clean(text));
  } catch (...) {  // as above
  }
}

std::string grouped(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    const size_t left = digits.size() - i;  // digits from here on
    if (i > 0 && left % 3 == 0 && digits[i - 1] != '-') text += ',';
    text += digits[i];
  }
  return text;
}

std::string bytes_text(int64_t bytes) {
  constexpr const char* kUnits[] = {"bytes", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) value /= 1000, ++unit;
  return unit == 0 ? fmt::format("{} bytes", bytes)
                   : fmt::format("{:.{}f} {}", value, value < 100 ? 1 : 0, kUnits[unit]);
}

std::string clean(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t length = character_at(text, i);
    if (length == 0 || is_control(text, i, length))
      result += '?';
    else
      result += text.substr(i, length);
    i += std::max<size_t>(1, length);
  }
  return result;
}

std::string printable(std::string_view text) {
  std::string result = clean(text);
  for (char& c : result)
    if (c == '\n' || c == '\t') c = '?';
  return result;
}

size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string table(const std::vector<std::vector<std::string>>& rows, const std::vector<size_t>& right) {
  std::vector<size_t> width(rows.empty() ? 0 : rows[0].size());
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], width_of(row[i]));
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string row;
    for (size_t i = 0; i < rows[r].size(); ++i) {
      const bool flush_right = std::find(right.begin(), right.end(), i) != right.end();
      const std::string space(width[i] - width_of(rows[r][i]), ' ');
      row += flush_right ? space + rows[r][i] + "  " : rows[r][i] + space + "  ";
    }
    row.erase(row.find_last_not_of(' ') + 1);
    text += row + "\n";
    if (r == 0) {
      size_t total = 0;
      for (size_t w : width) total += w + 2;
      text += std::string(total - 2, '-') + "\n";
    }
  }
  return text;
}

}  // namespace espalier::tools
