// CIFAR's records in a tar archive.
#include "datasets/cifar.h"
#include "tests/fuzz/target.h"

namespace espalier::fuzz {

const char* const kName = "cifar";
void (*const kRepair)(std::string&, const std::string&) = nullptr;

namespace {
/// A tar archive of one file, in the old format.
std::string tar(const std::string& name, const std::string& contents) {
  std::string header(512, '\0');
  header.replace(0, name.size(), name);
  header.replace(100, 7, "0000644");
  std::string size = "00000000000";
  for (size_t left = contents.size(), i = size.size(); left > 0; left /= 8)
    size[--i] = static_cast<char>('0' + left % 8);
  header.replace(124, size.size(), size);
  header.replace(136, 11, "00000000000");
  header[156] = '0';
  header.replace(148, 8, "        ");
  unsigned sum = 0;
  for (char c : header) sum += static_cast<unsigned char>(c);
  std::string check = "000000";
  for (size_t i = check.size(); i > 0; sum /= 8) check[--i] = static_cast<char>('0' + sum % 8);
  header.replace(148, 6, check);
  header[154] = '\0';
  return header + contents + std::string((512 - contents.size() % 512) % 512 + 1024, '\0');
}
}  // namespace

std::vector<std::string> seeds() {
  std::string record(3073, 'x');
  record[0] = 3;
  return {tar("data_batch_1.bin", record), tar("folder/data_batch_1.bin", record + record)};
}

void read(const std::string&, const std::string& path) { read_cifar(path, {"data_batch_1.bin"}, {}); }

}  // namespace espalier::fuzz
