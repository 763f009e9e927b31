#include "core/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "core/dtype.h"
#include "core/file_errors.h"
#include "core/json.h"

namespace espalier {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation
constexpr const char* kFormatNames[kNumDTypes] = {"F32", "F64", "I64", "I32", "U8", "I8", "BOOL"};

constexpr char kTemporary[] = ".tmp-";  // between a file's name and the process that writes it

// Takes the lock of a file, or tells that another open file has it, or that the file was removed meanwhile.
bool is_locked_by_others(int fd) {
  struct stat info = {};
  return (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) || (fstat(fd, &info) == 0 && info.st_nlink == 0);
}

// A file written under a temporary name in the same folder; commit() makes it the real one.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path) : path_(path) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    // Renaming would put a file in the place of a device such as /dev/full.
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
      fail<WriteError>("save", "{}: expected the name of a file, found a folder or a device; choose another name",
                       path);
    for (int attempt = 0; fd_ < 0; ++attempt) {
      temporary_ = fmt::format("{}{}{}-{}", path, kTemporary, getpid(), attempt);
      fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ < 0 && (errno != EEXIST || attempt == 1000)) {
        const int cause = errno;
        temporary_.clear();
        fail_errno("can't create a file in this folder", cause);
      }
      // The lock says that the file is being written. Whoever clears the folder may have got hold of it before.
      if (fd_ >= 0 && is_locked_by_others(fd_)) close(std::exchange(fd_, -1));
    }
  }
  ~AtomicFile() {
    if (fd_ >= 0) close(fd_);
    if (!temporary_.empty()) unlink(temporary_.c_str());
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes) {
    const char* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t written = ::write(fd_, from, bytes);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_errno(fmt::format("can't write after {} bytes", offset_), errno);
      from += written;
      bytes -= static_cast<size_t>(written);
      offset_ += static_cast<uint64_t>(written);
    }
  }

  void commit() {
    if (fsync(fd_) != 0) fail_errno("can't flush to the disk", errno);
    const int locked = dup(fd_);  // the lock lasts until the file has its name
    // Some file systems report a full disk only here.
    const int error = close(std::exchange(fd_, -1)) != 0               ? errno
                      : rename(temporary_.c_str(), path_.c_str()) != 0 ? -errno
                                                                       : 0;
    if (locked >= 0) close(locked);
    if (error != 0) fail_errno(error > 0 ? "can't close" : "can't rename the temporary file", std::abs(error));
    temporary_.clear();
    // The rename itself must survive a power cut; where a folder can't be flushed, the contents are safe anyway.
    const std::string folder = std::filesystem::path(path_).parent_path().string();
    const int folder_fd = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd >= 0) {
      fsync(folder_fd);
      close(folder_fd);
    }
  }

 private:
  [[noreturn]] void fail_errno(const std::string& what, int error) const {
    const bool full = error == ENOSPC || error == EFBIG || error == EDQUOT;
    std::error_code ignored;
    fail<WriteError>("save", "{}: {}: {}; {}{}", path_, what, std::strerror(error), full ? "free some space; " : "",
                     std::filesystem::exists(path_, ignored) ? "the file that was there before is unchanged"
                                                             : "there is no such file");
  }

  std::string path_, temporary_;
  int fd_ = -1;
  uint64_t offset_ = 0;
};

// A regular file read by position.
class InputFile {
 public:
  explicit InputFile(const std::string& path) : path_(path), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat info = {};
    if (fd_ < 0 || fstat(fd_, &info) != 0) {
      const int error = errno;
      if (fd_ >= 0) close(fd_);
      fail<FileError>("load_safetensors", "{}: can't open: {}", path, std::strerror(error));
    }
    if (!S_ISREG(info.st_mode)) {
      close(fd_);
      fail<FileError>("load_safetensors", "{}: expected a file, found {}", path,
                      S_ISDIR(info.st_mode) ? "a folder" : "something else");
    }
    size_ = static_cast<uint64_t>(info.st_size);
  }
  ~InputFile() { close(fd_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const { return size_; }

  void read(uint64_t offset, void* data, size_t bytes) const {
    char* to = static_cast<char*>(data);
    while (bytes > 0) {
      const ssize_t got = pread(fd_, to, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) bad(offset, "expected {} more bytes, found {}", bytes, got < 0 ? std::strerror(errno) : "the end");
      to += got;
      offset += static_cast<uint64_t>(got);
      bytes -= static_cast<size_t>(got);
    }
  }

  template <class... Args>
  [[noreturn]] void bad(uint64_t offset, fmt::format_string<Args...> text, Args&&... args) const {
    fail<FileError>("load_safetensors", "{}, offset {}: {}", path_, offset,
                    fmt::format(text, std::forward<Args>(args)...));
  }

 private:
  std::string path_;
  int fd_;
  uint64_t size_ = 0;
};

// Floats of 16 bits, which PyTorch writes; they become f32, which holds each of them exactly.
enum class Half : uint8_t { none, f16, bf16 };

float from_half(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16, exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  if (exponent == 0) return std::copysign(std::ldexp(static_cast<float>(fraction), -24), sign ? -1.0F : 1.0F);
  const uint32_t wide = exponent == 0x1f ? 0xff : exponent + 127 - 15;  // infinite and NaN stay so
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

float from_bfloat(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Where a tensor lies, as the header says and after all checks.
struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin, end;  // bytes from the end of the header
  Half half = Half::none;

  size_t element_bytes() const { return half == Half::none ? size_of(dtype) : 2; }
};

// nlohmann::json keeps the last of equal keys; the format forbids them, and a reader that takes another one would see
// different weights.
nlohmann::ordered_json parse_header(const InputFile& file, const std::string& text) {
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  const auto callback = [&](int, nlohmann::ordered_json::parse_event_t event, nlohmann::ordered_json& parsed) {
    using Event = nlohmann::ordered_json::parse_event_t;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end && !keys.empty()) keys.pop_back();
    if (event == Event::key && !keys.empty()) {
      const std::string key = parsed.get<std::string>();
      if (!keys.back().insert(key).second && duplicate.empty()) duplicate = key;
    }
    return true;
  };
  // Tensors are objects of depth 2 with two arrays in them.
  if (json_depth(text) > 8) file.bad(8, "expected a JSON header with tensors, found deeply nested values");
  nlohmann::ordered_json header;
  try {
    header = nlohmann::ordered_json::parse(text, callback);
  } catch (const nlohmann::json::exception& error) {
    file.bad(8, "expected a JSON header of {} bytes, found: {}", text.size(), error.what());
  }
  if (!duplicate.empty()) file.bad(8, "expected every key once, found '{}' twice", duplicate);
  if (!header.is_object()) file.bad(8, "expected a JSON object as the header, found {}", header.type_name());
  return header;
}

Entry parse_entry(const InputFile& file, const std::string& name, const nlohmann::ordered_json& value) {
  constexpr const char* kKeys[] = {"dtype", "shape", "data_offsets"};
  if (!value.is_object() || value.size() != 3 || !value.contains(kKeys[0]) || !value.contains(kKeys[1]) ||
      !value.contains(kKeys[2])) {
    file.bad(8, "tensor '{}': expected an object with dtype, shape and data_offsets, found {}", name,
             value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 200));
  }
  Entry entry{name, DType::f32, {}, 0, 0};

  const std::string dtype = value["dtype"].is_string() ? value["dtype"].get<std::string>() : "";
  const auto known = std::find(std::begin(kFormatNames), std::end(kFormatNames), dtype);
  entry.half = dtype == "F16" ? Half::f16 : dtype == "BF16" ? Half::bf16 : Half::none;
  if (known == std::end(kFormatNames) && entry.half == Half::none) {
    file.bad(8, "tensor '{}': expected a dtype of F32, F16, BF16, F64, I64, I32, U8, I8, BOOL, found {}", name,
             value["dtype"].dump().substr(0, 200));
  }
  if (entry.half == Half::none) entry.dtype = static_cast<DType>(known - std::begin(kFormatNames));

  const auto& shape = value["shape"];
  if (!shape.is_array() || shape.size() > kMaxRank) {
    file.bad(8, "tensor '{}': expected a shape of at most {} sizes, found {}", name, kMaxRank,
             shape.dump().substr(0, 200));
  }
  // Zero sizes count as 1 here, so that strides can't overflow either.
  uint64_t elements = 1, extent = size_of(entry.dtype);
  for (const auto& size : shape) {
    constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
    if (!size.is_number_unsigned()) {
      file.bad(8, "tensor '{}': expected sizes of at least 0, found {}", name, shape.dump());
    }
    const uint64_t n = size.get<uint64_t>();
    if (n > kMax || __builtin_mul_overflow(extent, std::max<uint64_t>(n, 1), &extent) || extent > kMax) {
      file.bad(8, "tensor '{}': the shape {} overflows", name, shape.dump());
    }
    elements *= n;
    entry.shape.push_back(static_cast<int64_t>(n));
  }

  const auto& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned() || offsets[0].get<uint64_t>() > offsets[1].get<uint64_t>()) {
    file.bad(8, "tensor '{}': expected data_offsets [begin, end], found {}", name, offsets.dump().substr(0, 200));
  }
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  const uint64_t expected = elements * entry.element_bytes();
  if (entry.end - entry.begin != expected) {
    file.bad(8, "tensor '{}': expected {} bytes for {} {}, found data_offsets [{}, {}]", name, expected,
             entry.half == Half::none ? name_of(entry.dtype) : dtype.c_str(), entry.shape, entry.begin, entry.end);
  }
  return entry;
}

std::map<std::string, std::string> parse_metadata(const InputFile& file, const nlohmann::ordered_json& value) {
  std::map<std::string, std::string> metadata;
  if (!value.is_object()) file.bad(8, "__metadata__: expected an object, found {}", value.type_name());
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) file.bad(8, "__metadata__ '{}': expected a string, found {}", key, text.type_name());
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

std::string make_header(const std::string& path, const NamedTensors& tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string> names;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    check(tensor.defined(), "save_safetensors", "{}: tensor '{}' is undefined", path, name);
    check(name != "__metadata__" && names.insert(name).second, "save_safetensors",
          "{}: expected every name once and none of them __metadata__, got '{}' again", path, name);
    const std::vector<int64_t> shape(tensor.shape().begin(), tensor.shape().end());
    header[name] = {{"dtype", kFormatNames[static_cast<int>(tensor.dtype())]},
                    {"shape", shape},
                    {"data_offsets", {offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    fail("save_safetensors", "{}: names and metadata must be UTF-8", path);
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the format's alignment of the data
  check(text.size() <= kMaxHeader, "save_safetensors", "{}: the header would be {} bytes, at most {} are allowed", path,
        text.size(), kMaxHeader);
  return text;
}

}  // namespace

void save_safetensors(const std::string& path, const NamedTensors& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(path, tensors, metadata);
  AtomicFile file(path);
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(uint64_t{header.size()} >> (8 * i));
  file.write(length, sizeof(length));
  file.write(header.data(), header.size());
  for (const auto& [name, tensor] : tensors) {
    if (tensor.numel() == 0) continue;
    const Tensor host = tensor.to(Device::cpu()).contiguous();
    file.write(host.raw(), host.bytes());
  }
  file.commit();
}

SafetensorsFile load_safetensors(const std::string& path) {
  const InputFile file(path);
  if (file.size() < 8) file.bad(0, "expected 8 bytes with the header's length, found a file of {} bytes", file.size());
  uint8_t bytes[8];
  file.read(0, bytes, sizeof(bytes));
  uint64_t header_length = 0;
  for (int i = 0; i < 8; ++i) header_length |= uint64_t{bytes[i]} << (8 * i);
  if (header_length > kMaxHeader || header_length > file.size() - 8) {
    file.bad(0,
             "expected a header of at most {} bytes, found a length of {}; the file is cut short or is no safetensors",
             std::min(kMaxHeader, file.size() - 8), header_length);
  }
  std::string text(header_length, '\0');
  file.read(8, text.data(), text.size());
  const nlohmann::ordered_json header = parse_header(file, text);

  SafetensorsFile result;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__")
      result.metadata = parse_metadata(file, value);
    else
      entries.push_back(parse_entry(file, name, value));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  const uint64_t data = 8 + header_length;
  uint64_t next = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != next) {
      file.bad(data + next, "tensor '{}': expected its data to begin at {}, found {} ({})", entry.name, next,
               entry.begin, entry.begin < next ? "tensors overlap" : "a hole between tensors");
    }
    next = entry.end;
  }
  if (next != file.size() - data) {
    file.bad(data + std::min(next, file.size() - data), "expected {} bytes of tensors, found {}; {}", next,
             file.size() - data, next > file.size() - data ? "the file is cut short" : "bytes after the last tensor");
  }

  for (const Entry& entry : entries) {
    Tensor tensor = Tensor::empty(entry.shape, entry.dtype);
    if (entry.half != Half::none) {
      std::vector<uint16_t> bits(static_cast<size_t>(tensor.numel()));
      file.read(data + entry.begin, bits.data(), entry.end - entry.begin);
      std::transform(bits.begin(), bits.end(), tensor.data<float>(), entry.half == Half::f16 ? from_half : from_bfloat);
    } else if (entry.end > entry.begin) {
      file.read(data + entry.begin, tensor.raw(), entry.end - entry.begin);
    }
    if (entry.dtype == DType::boolean) {
      const uint8_t* values = static_cast<const uint8_t*>(tensor.raw());
      for (uint64_t i = 0; i < entry.end - entry.begin; ++i) {
        if (values[i] > 1) {
          file.bad(data + entry.begin + i, "tensor '{}': expected booleans 0 or 1, found {}", entry.name, values[i]);
        }
      }
    }
    result.tensors.emplace_back(entry.name, std::move(tensor));
  }
  return result;
}

void write_file_atomically(const std::string& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents.data(), contents.size());
  file.commit();
}

void remove_abandoned_files(const std::string& folder) {
  std::error_code ignored;
  // A folder that can't be read to its end is left as it is: nothing depends on the clearing.
  for (std::filesystem::directory_iterator at_entry(folder, ignored), end; !ignored && at_entry != end;
       at_entry.increment(ignored)) {
    const std::filesystem::directory_entry& entry = *at_entry;
    const std::string name = entry.path().filename().string();
    const size_t at = name.rfind(kTemporary);
    if (at == std::string::npos ||
        name.find_first_not_of("0123456789-", at + std::strlen(kTemporary)) != std::string::npos)
      continue;
    const int fd = open(entry.path().c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) continue;
    // Only a lock that was got says that nobody writes it: some file systems have none.
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlink(entry.path().c_str());
    close(fd);
  }
}

}  // namespace espalier
