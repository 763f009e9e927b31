// Text for people: numbers, tables, and what is safe to show.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// Text without what a terminal would obey: control characters (C0 but for line ends and tabs, DEL, C1) and bytes that
/// are not UTF-8 become '?'.
std::string clean(std::string_view text);
/// Text from a file as part of a line: clean, and line ends and tabs become '?' too.
std::string printable(std::string_view text);
/// Columns that a text takes, if it is UTF-8 of ordinary width.
size_t width_of(std::string_view text);

/// Bytes of the UTF-8 character that begins at text[i]; 0 when none does.
size_t character_at(std::string_view text, size_t i);
/// Whether a terminal would obey the character of `length` bytes at text[i]: C0 but for line ends and tabs, DEL, C1.
bool is_control(std::string_view text, size_t i, size_t length);

/// 1234567 -> "1,234,567".
std::string grouped(int64_t value);
/// 1536000 -> "1.5 MB".
std::string bytes_text(int64_t bytes);
/// Rows of equally many cells, in columns as wide as their widest cell; the first row is the heading. Columns named in
/// `right` are set flush right.
std::string table(const std::vector<std::vector<std::string>>& rows, const std::vector<size_t>& right = {});

}  // namespace espalier
