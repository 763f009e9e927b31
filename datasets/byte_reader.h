// Front-to-back reading of files that are not to be trusted, compressed or not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"

struct gzFile_s;

namespace espalier {

/// Reads a file that may be compressed with gzip, which its first bytes decide and not its name. Offsets are those of
/// the decompressed bytes. Every problem is a FileError with file, offset, expected and found; a broken gzip stream,
/// its checksum included, is one.
class ByteReader {
 public:
  explicit ByteReader(const std::string& path);
  ~ByteReader();
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  /// Exactly `bytes` bytes; `what` names them in the error.
  void read(void* to, size_t bytes, std::string_view what);
  /// Up to `bytes` bytes; fewer only at the end of the file, whose checksum is right then.
  size_t read_some(void* to, size_t bytes);
  /// Checks that nothing follows.
  void expect_end();

  /// No more bytes than this can follow: a claimed size above it needs no memory to be refused.
  uint64_t most_bytes_left() const;
  uint64_t offset() const { return offset_; }
  const std::string& path() const { return path_; }

  template <class... Args>
  [[noreturn]] void bad(uint64_t offset, fmt::format_string<Args...> text, Args&&... args) const {
    fail<FileError>("read_dataset", "{}, offset {}: {}", path_, offset, fmt::format(text, std::forward<Args>(args)...));
  }

 private:
  std::string path_;
  gzFile_s* file_ = nullptr;
  uint64_t size_ = 0;  ///< of the file on disk
  uint64_t offset_ = 0;
};

}  // namespace espalier
