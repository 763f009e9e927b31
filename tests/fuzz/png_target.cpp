// Images that people want classified.
#include "datasets/image.h"
#include "tests/fuzz/target.h"

namespace espalier::fuzz {

const char* const kName = "png";
void (*const kRepair)(std::string&, const std::string&) = nullptr;

std::vector<std::string> seeds() {
  const std::string path = scratch_file();
  std::vector<std::string> files;
  for (int64_t channels : {1, 3}) {
    write_png(path, Tensor::full({channels, 5, 4}, 77, DType::u8));
    files.push_back(contents_of(path));
  }
  return files;
}

void read(const std::string&, const std::string& path) {
  const Tensor image = read_png(path);
  if (image.numel() < 1 << 20) fitted(to_channels(image, 1), 28, 28);
}

}  // namespace espalier::fuzz
