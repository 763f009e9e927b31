// MNIST's files, plain and compressed.
#include <zlib.h>

#include "datasets/idx.h"
#include "tests/fuzz/target.h"

namespace espalier::fuzz {

const char* const kName = "idx";
void (*const kRepair)(std::string&, const std::string&) = nullptr;

namespace {
std::string compressed(const std::string& bytes) {
  const std::string path = scratch_file();
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
  return contents_of(path);
}
}  // namespace

std::vector<std::string> seeds() {
  const std::string images(
      "\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x02"
      "abcdefgh",
      24);
  const std::string labels("\0\0\x08\x01\0\0\0\x03\x01\x02\x03", 11);
  return {images, labels, compressed(images)};
}

void read(const std::string& bytes, const std::string& path) {
  // The first byte of a compressed file is 0x1f; the fourth of a plain one is the rank.
  const bool labels = bytes.size() > 3 && bytes[3] == 1;
  if (labels) read_idx_labels(path, 10);
  if (!labels) read_idx_images(path, bytes.size() % 2 == 0);
}

}  // namespace espalier::fuzz
