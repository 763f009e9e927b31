// A checkpoint: tensors, masks, transforms, the optimiser's state, the network's configuration.
#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "tests/fuzz/target.h"
#include "training/checkpoint.h"

namespace espalier::fuzz {

const char* const kName = "checkpoint";
void (*const kRepair)(std::string&, const std::string&) = repair_safetensors;

std::vector<std::string> seeds() {
  const std::string path = scratch_file();
  std::vector<std::string> files;
  const ModulePtr network =
      share(Sequential(Conv2d(1, 2, {.kernel = 3}), BatchNorm2d(2), ReLU(), Flatten(), Linear(8, 3)));
  Sgd optimizer(*network, {.lr = 0.1, .momentum = 0.9});
  for (int masked = 0; masked < 2; ++masked) {
    sum((*network)(Tensor::ones({2, 1, 4, 4}))).backward();
    optimizer.step();
    save_checkpoint(path, *network, &optimizer, {{"data", "{}"}});
    files.push_back(contents_of(path));
    Parameter weight = network->parameters().back();
    weight = network->find<Linear>("4")->weight();
    weight.set_mask(Mask::from_scores(weight.shape(), Pattern::element(), weight.data(), 5));
  }
  // A transform with tensors of its own, and a layer behind a layer
  Parameter(network->find<Linear>("4")->weight()).add_transform(share(BatchNorm1d(8)));
  network->find("2")->set_output_transform(share(BatchNorm2d(2)));
  save_checkpoint(path, *network);
  files.push_back(contents_of(path));
  return files;
}

void read(const std::string&, const std::string& path) { load_model(path); }

}  // namespace espalier::fuzz
