// SHA-256 of bytes and files.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "datasets/byte_reader.h"

struct evp_md_ctx_st;

namespace espalier {

class Sha256 {
 public:
  Sha256();
  void update(const void* data, size_t bytes);
  /// The sum as 64 hexadecimal digits; ends the computation.
  std::string hex();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

/// Of a file as it is. Throws FileError when it can't be read.
std::string sha256_of_file(const std::string& path);
/// Of a file's contents, decompressed if it is compressed with gzip. Throws FileError beyond `most_bytes` of them.
std::string sha256_of_contents(const std::string& path, uint64_t most_bytes = kMostContents);

}  // namespace espalier
