#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/linear.h"
#include "layers/models/builders.h"
#include "layers/pooling.h"
#include "layers/residual.h"

namespace espalier {

ModulePtr build_resnet(const Shape& image, int64_t classes, int64_t depth) {
  check(depth >= 8 && (depth - 2) % 6 == 0, "resnet", "the depth must be 6n+2, got {}", depth);
  const int64_t blocks = (depth - 2) / 6;
  auto net = std::make_shared<Sequential>();
  net->add("conv1", kaiming_conv2d(image[0], 16, {.kernel = 3, .padding = 1, .bias = false}));
  net->add("bn1", BatchNorm2d(16));
  net->add("relu1", ReLU());
  int64_t channels = 16;
  for (int64_t stage = 0; stage < 3; ++stage) {
    const int64_t width = int64_t{16} << stage;
    Sequential layers;
    for (int64_t block = 0; block < blocks; ++block) {
      layers.add(BasicBlock(channels, width, {.stride = stage > 0 && block == 0 ? 2 : 1}));
      channels = width;
    }
    net->add(fmt::format("stage{}", stage + 1), std::move(layers));
  }
  net->add("pool", AdaptiveAvgPool2d());
  net->add("flatten", Flatten());
  net->add("fc", Linear(channels, classes));
  return net;
}

}  // namespace espalier
