#include "tests/fuzz/target.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace espalier::fuzz {

std::string scratch_file() {
  const std::filesystem::path memory = "/dev/shm";
  std::error_code error;
  const auto folder = std::filesystem::is_directory(memory, error) ? memory : std::filesystem::temp_directory_path();
  return (folder / ("espalier-fuzz-" + std::string(kName) + "-" + std::to_string(getpid()))).string();
}

std::string contents_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

namespace {

constexpr size_t kLength = 8;  // bytes of the number in front of the header

/// Where the header ends: behind its last bracket, and spaces. The size of the bytes where it has no end.
size_t end_of_header(const std::string& bytes) {
  int64_t depth = 0;
  bool in_string = false;
  for (size_t i = kLength; i < bytes.size(); ++i) {
    const char c = bytes[i];
    if (in_string && c == '\\') ++i;
    if (c == '"') in_string = !in_string;
    if (!in_string && c == '{') ++depth;
    if (!in_string && c == '}' && --depth == 0) return std::min(bytes.size(), bytes.find_first_not_of(' ', i + 1));
  }
  return bytes.size();
}

nlohmann::json header_of(const std::string& bytes, size_t end) {
  return nlohmann::json::parse(bytes.substr(std::min(kLength, end), end - std::min(kLength, end)), nullptr, false);
}

/// How many bytes its tensors take.
uint64_t bytes_behind(const nlohmann::json& header) {
  uint64_t used = 0;
  for (const auto& [name, entry] : header.items())
    if (entry.is_object() && entry.contains("data_offsets"))
      for (const nlohmann::json& offset : entry["data_offsets"])
        if (offset.is_number_unsigned()) used = std::max(used, offset.get<uint64_t>());
  return used;
}

}  // namespace

void repair_safetensors(std::string& bytes, const std::string& good) {
  constexpr size_t kMost = size_t{1} << 16;
  size_t end = end_of_header(bytes);
  nlohmann::json header = header_of(bytes, end);
  if (!header.is_object()) {
    end = end_of_header(good);
    header = header_of(good, end);
    const size_t behind = std::min(bytes.size(), good.size() - end);
    bytes = good.substr(0, end) + bytes.substr(bytes.size() - behind);
  }
  for (size_t i = 0; i < kLength; ++i) bytes[i] = static_cast<char>((end - kLength) >> 8 * i);
  if (const uint64_t used = bytes_behind(header); used <= kMost) bytes.resize(end + used);
}

bool read_one(const std::string& bytes) {
  const std::string path = scratch_file();
  write_file(path, bytes);
  try {
    read(bytes, path);
    return true;
  } catch (const Error&) {  // what a reader says about bad bytes
    return false;
  }
}

}  // namespace espalier::fuzz
