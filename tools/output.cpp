#include "tools/output.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

namespace espalier::tools {

namespace {

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

}  // namespace espalier::tools
