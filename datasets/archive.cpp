#include "datasets/archive.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

#include <archive.h>
#include <archive_entry.h>

#include "core/error.h"
#include "core/file_errors.h"

namespace espalier {

namespace fs = std::filesystem;

void unpack_archive(const std::string& archive_path, const std::string& folder, const std::string& suffix,
                    int64_t most_bytes) {
  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  const auto require = [&](la_ssize_t result) {
    if (result >= 0 || result == ARCHIVE_WARN) return;
    const char* message = archive_error_string(reader.get());
    fail<FileError>("unpack", "{}: expected an archive, found '{}'; it is cut short or damaged, fetch it again",
                    archive_path, message != nullptr ? message : "no archive");
  };
  require(archive_read_support_filter_all(reader.get()));
  require(archive_read_support_format_zip(reader.get()));
  require(archive_read_support_format_tar(reader.get()));
  require(archive_read_open_filename(reader.get(), archive_path.c_str(), 1 << 18));

  std::vector<char> buffer(1 << 18);
  int unpacked = 0;
  int64_t bytes = 0;
  archive_entry* entry = nullptr;
  for (;;) {
    const int result = archive_read_next_header(reader.get(), &entry);
    if (result == ARCHIVE_EOF) break;
    require(result);
    const char* name = archive_entry_pathname(entry);
    const std::string base = name != nullptr ? fs::path(name).filename().string() : "";
    if (archive_entry_filetype(entry) != AE_IFREG || base == suffix || !base.ends_with(suffix)) continue;

    const std::string path = folder + "/" + base, part = path + ".part";
    const auto can_not_write = [&] {
      fail<WriteError>("unpack", "{}: can't write: {}; free some space", part, std::strerror(errno));
    };
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(part.c_str(), "wb"), std::fclose);
    if (!file) can_not_write();
    for (;;) {
      const la_ssize_t got = archive_read_data(reader.get(), buffer.data(), buffer.size());
      require(got);
      if (got <= 0) break;
      bytes += got;
      if (bytes > most_bytes) {
        file.reset();
        std::error_code ignored;
        fs::remove(part, ignored);
        fail<FileError>("unpack", "{}: expected members of at most {} bytes together, found more at {}; fetch it again",
                        archive_path, most_bytes, base);
      }
      if (std::fwrite(buffer.data(), 1, static_cast<size_t>(got), file.get()) != static_cast<size_t>(got)) {
        can_not_write();
      }
    }
    if (std::fclose(file.release()) != 0) can_not_write();
    std::error_code error;
    fs::rename(part, path, error);
    if (error) fail<WriteError>("unpack", "{}: can't rename {}: {}", path, part, error.message());
    ++unpacked;
  }
  if (unpacked == 0) {
    fail<FileError>("unpack", "{}: expected members that end with '{}', found none", archive_path, suffix);
  }
}

}  // namespace espalier
