// What a fuzz target consists of: a name, seeds, one call.
#pragma once

#include <string>
#include <vector>

namespace espalier::fuzz {

/// The target's name: "safetensors".
extern const char* const kName;
/// Good inputs, made by the library itself, to mutate.
std::vector<std::string> seeds();
/// Reads one input; `path` is a file that holds it. Errors of the library are what should come; all others get out.
void read(const std::string& bytes, const std::string& path);

/// A file of this process alone, in memory where the system has such files; the same one each time.
std::string scratch_file();
std::string contents_of(const std::string& path);
void write_file(const std::string& path, const std::string& bytes);
/// Calls read() with the bytes in scratch_file(); an espalier::Error is swallowed.
void read_one(const std::string& bytes);

}  // namespace espalier::fuzz
