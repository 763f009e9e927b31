#include "tests/fuzz/target.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include <unistd.h>

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

void read_one(const std::string& bytes) {
  const std::string path = scratch_file();
  write_file(path, bytes);
  try {
    read(bytes, path);
  } catch (const Error&) {  // what a reader says about bad bytes
  }
}

}  // namespace espalier::fuzz
