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

ByteReader::ByteReader(const std::string& path, uint64_t most_bytes) : path_(path), most_bytes_(most_bytes) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    fail<FileError>("read_dataset", "{}: expected a file, found {}", path,
                    std::filesystem::exists(path, error) ? "something else (a folder?)" : "nothing of this name");
  }
  size_ = std::filesystem::file_size(path, error);
  errno = 0;
  file_.open(path, std::ios::binary);
  if (!file_ || error) fail<FileError>("read_dataset", "{}: can't open: {}", path, std::strerror(errno));
  if (file_.get() == 0x1f && file_.get() == 0x8b) {
    input_.resize(1 << 18);
    gzip_ = std::make_unique<z_stream>();
    check(inflateInit2(gzip_.get(), MAX_WBITS + 16) == Z_OK, "read_dataset", "{}: no memory to decompress it", path);
  }
  file_.clear();
  file_.seekg(0);
}

ByteReader::~ByteReader() {
  if (gzip_) inflateEnd(gzip_.get());
}

bool ByteReader::refill() {
  file_.read(input_.data(), static_cast<std::streamsize>(input_.size()));
  gzip_->next_in = reinterpret_cast<Bytef*>(input_.data());
  gzip_->avail_in = static_cast<uInt>(file_.gcount());
  return gzip_->avail_in > 0;
}

size_t ByteReader::inflate_some(void* to, size_t bytes) {
  z_stream& stream = *gzip_;
  const auto broken = [&](const char* what) {
    bad(offset_ + bytes - stream.avail_out, "expected a whole gzip stream, found '{}'; {}", what, kHint);
  };
  stream.next_out = static_cast<Bytef*>(to);
  stream.avail_out = static_cast<uInt>(bytes);
  while (stream.avail_out > 0) {
    const bool more = stream.avail_in > 0 || refill();
    if (member_ended_) {  // what follows is another member, or as for gzip itself of no interest
      if (!more || *stream.next_in != 0x1f) break;
      inflateReset(&stream);
      member_ended_ = false;
    }
    if (!more) broken("unexpected end of file");
    const int code = inflate(&stream, Z_NO_FLUSH);
    member_ended_ = code == Z_STREAM_END;
    if (code != Z_OK && code != Z_STREAM_END) broken(stream.msg != nullptr ? stream.msg : "an error");
  }
  return bytes - stream.avail_out;
}

size_t ByteReader::read_some(void* to, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    const size_t wanted = std::min<size_t>(bytes - done, 1u << 30);
    char* at = static_cast<char*>(to) + done;
    size_t got = 0;
    if (gzip_) {
      got = inflate_some(at, wanted);
    } else {
      file_.read(at, static_cast<std::streamsize>(wanted));
      got = static_cast<size_t>(file_.gcount());
    }
    if (file_.bad()) bad(offset_, "can't read: {}", std::strerror(errno));
    done += got;
    offset_ += got;
    if (offset_ > most_bytes_)
      bad(most_bytes_, "expected at most {} bytes of contents, found more; it is not the file it should be",
          most_bytes_);
    if (got < wanted) break;
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
  const uint64_t most = std::min(gzip_ ? size_ * 1032 : size_, most_bytes_);
  return most - std::min(most, offset_);
}

}  // namespace espalier
