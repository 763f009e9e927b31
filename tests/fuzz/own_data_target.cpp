// Tables, NumPy's arrays and JPEG images, told apart by their first byte.
#include "datasets/data_kind.h"
#include "datasets/jpeg.h"
#include "datasets/npy.h"
#include "tests/fuzz/target.h"

namespace espalier::fuzz {

const char* const kName = "own_data";
void (*const kRepair)(std::string&, const std::string&) = nullptr;

std::vector<std::string> seeds() {
  const std::string path = scratch_file();
  std::vector<std::string> files = {"a,\"b, c\",kind\r\n1,2.5,cat\r\n-3e2,4,\"dog \"\"x\"\"\"\n0,0,cat\n1,1,dog\n"};
  for (const Tensor& array : {Tensor::ones({3, 2}), Tensor::from<int64_t>({1, -2, 3}, {3})}) {
    write_npy(path, array);
    files.push_back(contents_of(path));
  }
  return files;
}

void read(const std::string& bytes, const std::string& path) {
  if (bytes.starts_with("\x93"))
    read_npy(path);
  else if (bytes.starts_with("\xff"))
    read_jpeg(path);
  else
    make_csv_kind()->load(path, "");
}

}  // namespace espalier::fuzz
