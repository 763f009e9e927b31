#include "datasets/cifar.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>

#include <archive.h>
#include <archive_entry.h>

namespace espalier {
namespace {

constexpr int64_t kPixels = 3 * 32 * 32;
constexpr uint64_t kMostArchive = 400'000'000;  // twice what the archives hold

using Bytes = std::vector<uint8_t>;

// Grows with what is really there, whatever sizes are claimed.
template <class Read>
Bytes read_all(Read&& read) {
  Bytes bytes;
  size_t used = 0;
  for (;;) {
    if (used == bytes.size()) bytes.resize(std::max<size_t>(bytes.size() * 2, 1 << 20));
    const size_t got = read(bytes.data() + used, bytes.size() - used);
    if (got == 0) break;
    used += got;
  }
  bytes.resize(used);
  return bytes;
}

// zlib decompresses and checks, libarchive only sees the tar: its own gzip reader ignores the checksum.
struct TarSource {
  explicit TarSource(const std::string& path) : reader(path, kMostArchive) {}
  ByteReader reader;
  std::vector<char> buffer = std::vector<char>(1 << 18);
  std::exception_ptr error;
};

la_ssize_t read_tar_block(archive* tar, void* data, const void** block) {
  TarSource& source = *static_cast<TarSource*>(data);
  try {
    *block = source.buffer.data();
    return static_cast<la_ssize_t>(source.reader.read_some(source.buffer.data(), source.buffer.size()));
  } catch (...) {  // must not cross the C library
    source.error = std::current_exception();
    archive_set_error(tar, EIO, "can't read the archive");
    return ARCHIVE_FATAL;
  }
}

std::map<std::string, Bytes> read_archive(const std::string& path, const std::vector<std::string>& wanted,
                                          uint64_t most_bytes) {
  TarSource source(path);
  const std::unique_ptr<archive, int (*)(archive*)> tar(archive_read_new(), archive_read_free);
  const auto require = [&](la_ssize_t result) {
    if (result >= 0 || result == ARCHIVE_WARN) return;
    if (source.error) std::rethrow_exception(source.error);
    const char* message = archive_error_string(tar.get());
    source.reader.bad(source.reader.offset(), "expected a tar archive, found '{}'; it is cut short or damaged",
                      message != nullptr ? message : "no archive");
  };
  require(archive_read_support_format_tar(tar.get()));
  require(archive_read_open(tar.get(), &source, nullptr, read_tar_block, nullptr));

  std::map<std::string, Bytes> found;
  archive_entry* entry = nullptr;
  for (;;) {
    const int result = archive_read_next_header(tar.get(), &entry);
    if (result == ARCHIVE_EOF) break;
    require(result);
    const char* name = archive_entry_pathname(entry);
    const std::string base = name != nullptr ? std::filesystem::path(name).filename().string() : "";
    if (std::find(wanted.begin(), wanted.end(), base) == wanted.end()) continue;
    const int64_t claimed = archive_entry_size(entry);
    if (claimed < 0 || static_cast<uint64_t>(claimed) > most_bytes) {
      source.reader.bad(source.reader.offset(), "member {}: expected at most {} bytes, found {}", base, most_bytes,
                        claimed);
    }
    found[base] = read_all([&](uint8_t* to, size_t bytes) {
      const la_ssize_t got = archive_read_data(tar.get(), to, bytes);
      require(got);
      return static_cast<size_t>(std::max<la_ssize_t>(got, 0));
    });
  }
  while (source.reader.read_some(source.buffer.data(), source.buffer.size()) > 0) {  // to the checksum at the end
  }
  return found;
}

}  // namespace

CifarImages read_cifar(const std::string& folder_or_archive, const std::vector<std::string>& files,
                       const CifarOptions& options) {
  std::error_code error;
  const bool in_folder = std::filesystem::is_directory(folder_or_archive, error);
  std::map<std::string, Bytes> contents;
  if (!in_folder) contents = read_archive(folder_or_archive, files, options.most_bytes);

  const int64_t record = options.label_bytes + kPixels;
  int64_t records = 0;  // in each file
  CifarImages result;
  for (size_t f = 0; f < files.size(); ++f) {
    const std::string path = folder_or_archive + (in_folder ? "/" : ": ") + files[f];
    const auto bad = [&]<class... Args>(size_t offset, fmt::format_string<Args...> text, Args&&... args) {
      fail<FileError>("read_dataset", "{}, offset {}: {}", path, offset,
                      fmt::format(text, std::forward<Args>(args)...));
    };
    if (in_folder) {
      ByteReader reader(path, options.most_bytes);
      contents[files[f]] = read_all([&](uint8_t* to, size_t bytes) { return reader.read_some(to, bytes); });
    } else if (!contents.contains(files[f])) {
      fail<FileError>("read_dataset", "{}: expected a member {}, found none in the archive", folder_or_archive,
                      files[f]);
    }
    const Bytes bytes = std::move(contents[files[f]]);
    const int64_t size = static_cast<int64_t>(bytes.size());
    if (size == 0 || size % record != 0) {
      bad(bytes.size(), "expected a multiple of {} bytes (records of {} label and {} pixel bytes), found {}; {}",
          record, options.label_bytes, kPixels, size, "the file is cut short or not the binary version");
    }
    if (f == 0) {
      records = size / record;
      const int64_t total = records * static_cast<int64_t>(files.size());
      result = {Tensor::empty({total, 3, 32, 32}, DType::u8), Tensor::empty({total}, DType::i64)};
    } else if (size != records * record) {
      bad(bytes.size(), "expected {} records as in {}, found {}; the file is cut short or of another set", records,
          files[0], size / record);
    }
    uint8_t* images = result.images.data<uint8_t>() + static_cast<int64_t>(f) * records * kPixels;
    int64_t* labels = result.labels.data<int64_t>() + static_cast<int64_t>(f) * records;
    for (int64_t i = 0; i < records; ++i) {
      const uint8_t* from = bytes.data() + i * record;
      labels[i] = from[options.label_bytes - 1];
      if (labels[i] >= options.num_classes) {
        bad(static_cast<size_t>(i * record + options.label_bytes - 1),
            "expected labels in 0..{}, found {} for record {}", options.num_classes - 1, labels[i], i);
      }
      std::memcpy(images + i * kPixels, from + options.label_bytes, kPixels);
    }
  }
  return result;
}

}  // namespace espalier
