#include "datasets/byte_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include <zlib.h>

namespace espalier {

namespace {
constexpr const char* kHint = "the file is cut short or damaged; fetch it again";
}

ByteReader::ByteReader(const std::string& path) : path_(path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    fail<FileError>("read_dataset", "{}: expected a file, found {}", path,
                    std::filesystem::exists(path, error) ? "something else (a folder?)" : "nothing of this name");
  }
  size_ = std::filesystem::file_size(path, error);
  errno = 0;
  file_ = error ? nullptr : gzopen(path.c_str(), "rb");
  if (file_ == nullptr) {
    fail<FileError>("read_dataset", "{}: can't open: {}", path, errno != 0 ? std::strerror(errno) : "no memory");
  }
  gzbuffer(file_, 1 << 18);
}

ByteReader::~ByteReader() { gzclose(file_); }

size_t ByteReader::read_some(void* to, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    const unsigned chunk = static_cast<unsigned>(std::min<size_t>(bytes - done, 1u << 30));
    const int got = gzread(file_, static_cast<char*>(to) + done, chunk);
    if (got > 0) {
      done += static_cast<size_t>(got);
      offset_ += static_cast<size_t>(got);
    }
    if (got == static_cast<int>(chunk)) continue;
    // A short count is the end of the file only when zlib has no complaint.
    int code = Z_OK;
    const std::string message = gzerror(file_, &code);
    if (code == Z_ERRNO) bad(offset_, "can't read: {}", std::strerror(errno));
    if (code != Z_OK && code != Z_STREAM_END) {
      bad(offset_, "expected a whole gzip stream, found '{}'; {}",
          code == Z_BUF_ERROR ? "unexpected end of file" : message.substr(message.rfind(": ") + 1), kHint);
    }
    break;
  }
  return done;
}

void ByteReader::read(void* to, size_t bytes, std::string_view what) {
  const uint64_t start = offset_;
  const size_t got = read_some(to, bytes);
  if (got != bytes) bad(start, "expected {} bytes of {}, found {}; {}", bytes, what, got, kHint);
}

void ByteReader::expect_end() {
  char extra;
  const uint64_t start = offset_;
  if (read_some(&extra, 1) != 0) {
    bad(start, "expected the end of the file, found more bytes; the header disagrees with the contents");
  }
}

uint64_t ByteReader::most_bytes_left() const {
  // deflate can't compress better than 1032:1.
  const uint64_t most = gzdirect(file_) ? size_ : size_ * 1032;
  return most - std::min(most, offset_);
}

}  // namespace espalier
