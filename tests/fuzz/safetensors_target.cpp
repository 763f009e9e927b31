#include "core/safetensors.h"
#include "tests/fuzz/target.h"

namespace espalier::fuzz {

const char* const kName = "safetensors";
void (*const kRepair)(std::string&, const std::string&) = repair_safetensors;

std::vector<std::string> seeds() {
  const std::string path = scratch_file();
  std::vector<std::string> files;
  for (const NamedTensors& tensors :
       {NamedTensors{}, NamedTensors{{"a", Tensor::arange(0, 6).reshape({2, 3})}},
        NamedTensors{
            {"w", Tensor::ones({3, 1, 2})}, {"n", Tensor::scalar(1, DType::i64)}, {"e", Tensor::zeros({0, 4})}}}) {
    save_safetensors(path, tensors, {{"format", "pt"}, {"note", "text"}});
    files.push_back(contents_of(path));
  }
  return files;
}

void read(const std::string&, const std::string& path) { load_safetensors(path); }

}  // namespace espalier::fuzz
