// folder:FOLDER: a folder of PNG or JPEG images for each class, CLASS/IMAGE, or train/CLASS/IMAGE and test/CLASS/IMAGE.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>

#include "core/text.h"
#include "datasets/data_kind.h"
#include "datasets/image.h"
#include "datasets/jpeg.h"

namespace espalier {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostPixelBytes = uint64_t{1} << 33;

/// What a folder has, sorted by name; hidden entries are left out.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    if (!at->path().filename().string().starts_with(".")) entries.push_back(at->path());
  if (error) fail<FileError>("read_dataset", "{}: expected a folder: {}", folder.string(), error.message());
  std::sort(entries.begin(), entries.end());
  return entries;
}

Tensor read_image(const fs::path& path) {
  std::string end = path.extension().string();
  std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return std::tolower(c); });
  if (end == ".png") return read_png(path.string());
  if (end == ".jpg" || end == ".jpeg") return read_jpeg(path.string());
  fail<FileError>("read_dataset", "{}: expected images .png, .jpg or .jpeg, found another file", path.string());
}

bool is_grey(const Tensor& image) {
  const int64_t plane = image.size(1) * image.size(2);
  const auto* p = image.data<uint8_t>();
  return std::memcmp(p, p + plane, static_cast<size_t>(plane)) == 0 &&
         std::memcmp(p, p + 2 * plane, static_cast<size_t>(plane)) == 0;
}

class FolderKind : public DataKind {
 public:
  void fields(FieldVisitor& f) override {
    f("size", size_, at_least(0), "Height and width to which images are fitted; 0: they are all of one size");
    f("channels", channels_, "1 or 3; by default 3 unless every image is grey");
    espalier::fields(f, split_);
    f.judge([&] {
      check(!channels_ || *channels_ == 1 || *channels_ == 3, "folder", "expected channels = 1 or 3, got {}",
            channels_.value_or(0));
    });
  }

  Splits load(const std::string& path, const std::string& data_dir) override {
    const std::string folder = find_path(path, data_dir);
    const bool is_split = fs::is_directory(fs::path(folder) / "train") && fs::is_directory(fs::path(folder) / "test");
    const std::vector<std::string> parts =
        is_split ? std::vector<std::string>{folder + "/train", folder + "/test"} : std::vector<std::string>{folder};
    for (const fs::path& of_class : entries_of(parts[0]))
      if (fs::is_directory(of_class)) classes_.push_back(of_class.filename().string());
    if (classes_.empty()) fail<FileError>("read_dataset", "{}: expected a folder for each class, found none", parts[0]);
    std::vector<std::vector<Tensor>> images;
    std::vector<std::vector<int64_t>> labels;
    for (const std::string& part : parts) read(part, images.emplace_back(), labels.emplace_back());
    const int64_t channels = channels_ ? *channels_ : grey_ ? 1 : 3;
    std::vector<Dataset> data;
    for (size_t i = 0; i < parts.size(); ++i)
      data.push_back({.name = {},
                      .source = folder,
                      .images = stacked(images[i], channels),
                      .labels = Tensor::from(labels[i], {static_cast<int64_t>(labels[i].size())}),
                      .class_names = classes_});
    if (is_split) return {std::move(data[0]), std::move(data[1])};
    return split_test(data[0], split_);
  }

 private:
  void read(const std::string& folder, std::vector<Tensor>& images, std::vector<int64_t>& labels) {
    for (const fs::path& of_class : entries_of(folder)) {
      const auto found = std::find(classes_.begin(), classes_.end(), of_class.filename().string());
      if (found == classes_.end())
        fail<FileError>("read_dataset", "{}: expected the classes {}, found another", of_class.string(),
                        printable(fmt::format("{}", fmt::join(classes_, ", "))));
      for (const fs::path& path : entries_of(of_class)) {
        Tensor image = read_image(path);
        if (size_ > 0) image = fitted(image, size_, size_);
        if (!shape_) shape_ = image.shape();
        if (image.shape() != *shape_)
          fail<FileError>("read_dataset",
                          "{}: expected an image of {}x{} as the first one, found {}x{}; option size=32 fits all",
                          path.string(), (*shape_)[1], (*shape_)[2], image.size(1), image.size(2));
        bytes_ += image.bytes();
        if (bytes_ > kMostPixelBytes)
          fail<FileError>("read_dataset",
                          "{}: expected at most {} bytes of pixels, found more; option size=32 makes them small",
                          folder, kMostPixelBytes);
        grey_ = grey_ && is_grey(image);
        images.push_back(std::move(image));
        labels.push_back(found - classes_.begin());
      }
    }
    if (images.empty())
      fail<FileError>("read_dataset", "{}: expected images in the folders of classes, found none", folder);
  }

  static Tensor stacked(const std::vector<Tensor>& images, int64_t channels) {
    const int64_t height = images[0].size(1), width = images[0].size(2);
    Tensor all = Tensor::empty({static_cast<int64_t>(images.size()), channels, height, width}, DType::u8);
    auto* out = static_cast<char*>(all.raw());
    for (const Tensor& image : images) {
      const Tensor one = channels == 3 ? image : is_grey(image) ? image.slice(0, 0, 1) : to_channels(image, 1);
      std::memcpy(out, one.contiguous().raw(), one.contiguous().bytes());
      out += one.contiguous().bytes();
    }
    return all;
  }

  int64_t size_ = 0;
  std::optional<int64_t> channels_;
  SplitOptions split_;
  std::vector<std::string> classes_;
  std::optional<Shape> shape_;
  uint64_t bytes_ = 0;
  bool grey_ = true;
};

}  // namespace

DataKindPtr make_folder_kind() { return std::make_shared<FolderKind>(); }

}  // namespace espalier
