// Front-to-back reading of files that are not to be trusted, compressed or not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"

struct z_stream_s;

namespace espalier {

/// More than any file of a known data set holds: 549 MB are the images of EMNIST byclass.
constexpr uint64_t kMostContents = uint64_t{1} << 30;

/// Reads a file that may be compressed with gzip, which its first bytes decide and not its name. Offsets are those of
/// the decompressed bytes. Every problem is a FileError with file, offset, expected and found; a broken gzip stream,
/// its checksum included, is one, and so are more than `most_bytes` of contents: a few bytes of gzip can stand for a
/// thousand times as many.
class ByteReader {
 public:
  explicit ByteReader(const std::string& path, uint64_t most_bytes = kMostContents);
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
  size_t inflate_some(void* to, size_t bytes);
  /// Gives the stream more of the file. False at its end.
  bool refill();

  std::string path_;
  std::ifstream file_;
  std::vector<char> input_;
  std::unique_ptr<z_stream_s> gzip_;  ///< nullptr: the file is not compressed
  bool member_ended_ = false;         ///< the gzip stream, whose checksum was right
  uint64_t size_ = 0;                 ///< of the file on disk
  uint64_t most_bytes_;
  uint64_t offset_ = 0;
};

}  // namespace espalier
