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

/// Makes mutated bytes fit each other again, so that the reader gets past its first checks; `good`: the seed that they
/// come from. nullptr: no such thing.
extern void (*const kRepair)(std::string& bytes, const std::string& good);
/// For safetensors: the length of the header, and as many bytes behind it as its offsets speak of. A header that is no
/// JSON any more makes way for the seed's.
void repair_safetensors(std::string& bytes, const std::string& good);

/// A file of this process alone, in memory where the system has such files; the same one each time.
std::string scratch_file();
std::string contents_of(const std::string& path);
void write_file(const std::string& path, const std::string& bytes);
/// Calls read() with the bytes in scratch_file(); an espalier::Error is swallowed. Whether there was none.
bool read_one(const std::string& bytes);

}  // namespace espalier::fuzz
