#include "datasets/npy.h"

#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include <archive.h>
#include <archive_entry.h>

#include "core/safetensors.h"
#include "core/text.h"

namespace espalier {

namespace {

constexpr size_t kLongestHeader = 1 << 16;

/// The bytes of a member of an archive, read as ByteReader reads a file.
class MemberReader {
 public:
  MemberReader(std::string name, std::vector<char> bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {}

  void read(void* to, size_t bytes, std::string_view what) {
    if (bytes > bytes_.size() - at_)
      bad(at_, "expected {} bytes of {}, found {}; it is cut short", bytes, what, bytes_.size() - at_);
    std::memcpy(to, bytes_.data() + at_, bytes);
    at_ += bytes;
  }
  void expect_end() {
    if (at_ < bytes_.size()) bad(at_, "expected the end of the member, found {} more bytes", bytes_.size() - at_);
  }
  uint64_t most_bytes_left() const { return bytes_.size() - at_; }
  uint64_t offset() const { return at_; }

  template <class... Args>
  [[noreturn]] void bad(uint64_t offset, fmt::format_string<Args...> text, Args&&... args) const {
    fail<FileError>("read_dataset", "{}, offset {}: {}", name_, offset, fmt::format(text, std::forward<Args>(args)...));
  }

 private:
  std::string name_;
  std::vector<char> bytes_;
  size_t at_ = 0;
};

/// What the header of an array says: a Python dictionary of three entries, as NumPy writes it.
struct NpyHeader {
  std::string type;  ///< "<f4"
  bool columns_first = false;
  std::vector<int64_t> shape;
};

/// Takes a header apart from its beginning.
class HeaderText {
 public:
  explicit HeaderText(std::string text) : text_(std::move(text)) {}

  bool take(std::string_view word) {
    skip();
    if (text_.compare(at_, word.size(), word) != 0) return false;
    at_ += word.size();
    return true;
  }
  std::optional<std::string> quoted() {
    skip();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) return std::nullopt;
    const size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string::npos) return std::nullopt;
    std::string word = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return word;
  }
  std::optional<int64_t> number() {
    skip();
    constexpr size_t kMostDigits = 15;
    const size_t end = std::min(text_.find_first_not_of("0123456789", at_), text_.size());
    if (end == at_ || end - at_ > kMostDigits) return std::nullopt;
    const int64_t value = std::stoll(text_.substr(at_, end - at_));
    at_ = end;
    return value;
  }
  bool at_end() {
    skip();
    return at_ == text_.size();
  }

 private:
  void skip() { at_ = std::min(text_.find_first_not_of(" \n", at_), text_.size()); }
  std::string text_;
  size_t at_ = 0;
};

bool take_shape(HeaderText& text, std::vector<int64_t>& shape) {
  if (!text.take("(")) return false;
  while (!text.take(")")) {
    const std::optional<int64_t> size = text.number();
    if (!size) return false;
    shape.push_back(*size);
    if (!text.take(",")) return text.take(")");
  }
  return true;
}

/// False where it isn't one.
bool parse_header(HeaderText text, NpyHeader& header) {
  int found = 0;
  if (!text.take("{")) return false;
  while (!text.take("}")) {
    const std::optional<std::string> key = text.quoted();
    if (!key || !text.take(":")) return false;
    if (*key == "descr") {
      const std::optional<std::string> type = text.quoted();
      if (!type) return false;
      header.type = *type;
      found |= 1;
    } else if (*key == "fortran_order") {
      header.columns_first = text.take("True");
      if (!header.columns_first && !text.take("False")) return false;
      found |= 2;
    } else if (*key == "shape" && header.shape.empty()) {
      if (!take_shape(text, header.shape)) return false;
      found |= 4;
    } else {
      return false;
    }
    if (!text.take(",")) return text.take("}") && text.at_end() && found == 7;
  }
  return found == 7 && text.at_end();
}

template <class Reader>
NpyHeader read_header(Reader& file) {
  std::array<unsigned char, 8> magic;
  file.read(magic.data(), magic.size(), "the magic number of NumPy's arrays");
  if (std::memcmp(magic.data(), "\x93NUMPY", 6) != 0)
    file.bad(0, "expected an array as NumPy saves it (\\x93NUMPY), found something else");
  if (magic[6] < 1 || magic[6] > 3) file.bad(6, "expected version 1, 2 or 3 of the format, found {}", magic[6]);
  std::array<unsigned char, 4> bytes{};
  file.read(bytes.data(), magic[6] == 1 ? 2 : 4, "the header's size");
  const uint64_t size = bytes[0] | uint64_t{bytes[1]} << 8 | uint64_t{bytes[2]} << 16 | uint64_t{bytes[3]} << 24;
  const uint64_t start = file.offset();
  if (size > kLongestHeader || size > file.most_bytes_left())
    file.bad(start, "expected a header of at most {} bytes, found one of {}",
             std::min<uint64_t>(kLongestHeader, file.most_bytes_left()), size);
  std::string text(size, '\0');
  file.read(text.data(), size, "the header");
  NpyHeader header;
  if (!parse_header(HeaderText(text), header))
    file.bad(start, "expected {{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}}, found {}",
             printable(text.substr(0, 100)));
  return header;
}

template <class Stored, class Kept>
Tensor converted(const std::vector<char>& bytes, const Shape& shape, DType dtype) {
  Tensor result = Tensor::empty(shape, dtype);
  for (int64_t i = 0; i < shape.numel(); ++i) {
    Stored value;
    std::memcpy(&value, bytes.data() + static_cast<size_t>(i) * sizeof(Stored), sizeof(Stored));
    result.data<Kept>()[i] = static_cast<Kept>(value);
  }
  return result;
}

struct NpyType {
  const char* name;
  size_t bytes;
  Tensor (*convert)(const std::vector<char>&, const Shape&, DType);  ///< nullptr: stored as it is kept
  DType dtype;
};
constexpr NpyType kTypes[] = {{"<f4", 4, nullptr, DType::f32},
                              {"<f8", 8, converted<double, float>, DType::f32},
                              {"|u1", 1, nullptr, DType::u8},
                              {"<i8", 8, nullptr, DType::i64},
                              {"<i4", 4, converted<int32_t, int64_t>, DType::i64},
                              {"<i2", 2, converted<int16_t, int64_t>, DType::i64},
                              {"|i1", 1, converted<int8_t, int64_t>, DType::i64},
                              {"<u4", 4, converted<uint32_t, int64_t>, DType::i64},
                              {"<u2", 2, converted<uint16_t, int64_t>, DType::i64},
                              {"|b1", 1, converted<uint8_t, int64_t>, DType::i64}};

template <class Reader>
Tensor read_array(Reader& file) {
  const NpyHeader header = read_header(file);
  const NpyType* type = nullptr;
  for (const NpyType& known : kTypes)
    if (header.type == known.name) type = &known;
  if (type == nullptr)
    file.bad(10,
             "expected numbers of type <f4, <f8, |u1, <i8, <i4, <i2, |i1, <u4, <u2 or |b1, found '{}'; save it with "
             "astype('float32') or astype('int64')",
             printable(header.type));
  if (header.columns_first)
    file.bad(10, "expected rows first, found fortran_order; save it with numpy.ascontiguousarray");
  if (header.shape.empty() || header.shape.size() > 6)
    file.bad(10, "expected 1 to 6 axes, found {}", header.shape.size());
  uint64_t total = type->bytes;
  for (const int64_t size : header.shape) {
    if (size == 0) file.bad(10, "expected sizes of at least 1, found ({})", fmt::join(header.shape, ", "));
    if (__builtin_mul_overflow(total, static_cast<uint64_t>(size), &total))
      total = std::numeric_limits<uint64_t>::max();
  }
  if (total > file.most_bytes_left())
    file.bad(
        10,
        "the header promises ({}) numbers of {} bytes, the file can hold at most {} bytes; it is cut short or damaged",
        fmt::join(header.shape, ", "), type->bytes, file.most_bytes_left());
  const Shape shape(header.shape);
  Tensor result;
  if (type->convert == nullptr) {
    result = Tensor::empty(shape, type->dtype);
    file.read(result.raw(), total, "numbers");
  } else {
    std::vector<char> bytes(total);
    file.read(bytes.data(), total, "numbers");
    result = type->convert(bytes, shape, type->dtype);
  }
  file.expect_end();
  return result;
}

}  // namespace

Tensor read_npy(const std::string& path, uint64_t most_bytes) {
  ByteReader file(path, most_bytes);
  return read_array(file);
}

void write_npy(const std::string& path, const Tensor& values) {
  const Tensor rows = values.to(Device::cpu()).contiguous();
  const char* type = rows.dtype() == DType::f32   ? "<f4"
                     : rows.dtype() == DType::f64 ? "<f8"
                     : rows.dtype() == DType::u8  ? "|u1"
                                                  : "<i8";
  const Shape& shape = rows.shape();
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}", type,
                                   fmt::join(shape.begin(), shape.end(), ", "));
  constexpr size_t kBefore = 10, kAligned = 64;  // so that the numbers begin at a multiple of 64
  header += std::string(kAligned - (kBefore + header.size() + 1) % kAligned, ' ') + "\n";
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 255);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;
  bytes.append(static_cast<const char*>(rows.raw()), rows.bytes());
  write_file_atomically(path, bytes);
}

std::map<std::string, Tensor> read_npz(const std::string& path, uint64_t most_bytes) {
  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  const auto require = [&](la_ssize_t result) {
    if (result >= 0) return;
    const char* message = archive_error_string(reader.get());
    fail<FileError>("read_dataset",
                    "{}, offset {}: expected a zip archive of arrays, found '{}'; it is cut short or damaged", path,
                    archive_filter_bytes(reader.get(), 0), message != nullptr ? message : "none");
  };
  require(archive_read_support_format_zip(reader.get()));
  require(archive_read_open_filename(reader.get(), path.c_str(), 1 << 18));
  std::map<std::string, Tensor> arrays;
  uint64_t all = 0;
  archive_entry* entry = nullptr;
  for (;;) {
    const int result = archive_read_next_header(reader.get(), &entry);
    if (result == ARCHIVE_EOF) break;
    require(result);
    const char* name = archive_entry_pathname(entry);
    const std::string member = name != nullptr ? name : "";
    if (!member.ends_with(".npy"))
      fail<FileError>("read_dataset", "{}: expected members NAME.npy, found '{}'", path, printable(member));
    std::vector<char> bytes, buffer(1 << 18);
    for (;;) {  // the archive's own sizes are not to be trusted
      const la_ssize_t got = archive_read_data(reader.get(), buffer.data(), buffer.size());
      require(got);
      if (got <= 0) break;
      all += static_cast<uint64_t>(got);
      if (all > most_bytes)
        fail<FileError>("read_dataset", "{}: expected arrays of at most {} bytes together, found more at '{}'", path,
                        most_bytes, printable(member));
      bytes.insert(bytes.end(), buffer.begin(), buffer.begin() + got);
    }
    MemberReader array(fmt::format("{}({})", path, printable(member)), std::move(bytes));
    if (!arrays.emplace(member.substr(0, member.size() - 4), read_array(array)).second)
      fail<FileError>("read_dataset", "{}: expected every array once, found '{}' again", path, printable(member));
  }
  if (arrays.empty()) fail<FileError>("read_dataset", "{}: expected arrays, found an empty archive", path);
  return arrays;
}

}  // namespace espalier
