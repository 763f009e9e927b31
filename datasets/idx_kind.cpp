// idx:FOLDER: the four files of MNIST, by its names, with images of any size and any number of examples and classes.
#include <algorithm>
#include <string>

#include "datasets/data_kind.h"
#include "datasets/idx.h"
#include "datasets/load.h"

namespace espalier {

namespace {

class IdxKind : public DataKind {
 public:
  Splits load(const std::string& path, const std::string& data_dir) override {
    const std::string folder = find_path(path, data_dir);
    Splits data{read(folder, "train"), read(folder, "t10k")};
    if (data.train.input_shape() != data.test.input_shape())
      fail<FileError>("read_dataset", "{}: expected training and test images of one size, found {} and {}", folder,
                      data.train.input_shape(), data.test.input_shape());
    int64_t classes = 0;
    for (const Dataset* part : {&data.train, &data.test})
      for (const int64_t label : part->labels.to_vector<int64_t>()) classes = std::max(classes, label + 1);
    for (Dataset* part : {&data.train, &data.test})
      for (int64_t c = 0; c < classes; ++c) part->class_names.push_back(std::to_string(c));
    return data;
  }

 private:
  static Dataset read(const std::string& folder, const std::string& part) {
    constexpr int64_t kMostClasses = 256;  // a label is a byte
    const std::string images = idx_path(folder, part + "-images-idx3-ubyte"),
                      labels = idx_path(folder, part + "-labels-idx1-ubyte");
    Dataset data{.name = {},
                 .source = folder,
                 .images = read_idx_images(images),
                 .labels = read_idx_labels(labels, kMostClasses)};
    if (data.labels.size(0) != data.size())
      fail<FileError>("read_dataset", "{}, offset 4: expected {} labels, one for each image of {}, found {}", labels,
                      data.size(), images, data.labels.size(0));
    return data;
  }
};

}  // namespace

DataKindPtr make_idx_kind() { return std::make_shared<IdxKind>(); }

}  // namespace espalier
