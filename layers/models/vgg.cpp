#include <array>

#include "layers/activations.h"
#include "layers/containers.h"
#include "layers/conv.h"
#include "layers/linear.h"
#include "layers/models/builders.h"
#include "layers/norm.h"
#include "layers/pooling.h"

namespace espalier {

ModulePtr build_vgg(const Shape& image, int64_t classes, int64_t depth) {
  check(image[1] >= 32 && image[2] >= 32, "vgg", "five poolings need images of at least 32x32, got {}x{}; pad them",
        image[1], image[2]);
  constexpr std::array<int64_t, 5> kChannels = {64, 128, 256, 512, 512};
  const int64_t deep = depth == 16 ? 3 : 4;  // convolutions in each of the last three stages
  const std::array<int64_t, 5> convolutions = {2, 2, deep, deep, deep};
  auto net = std::make_shared<Sequential>();
  Sequential features;
  int64_t channels = image[0];
  for (size_t stage = 0; stage < kChannels.size(); ++stage) {
    for (int64_t i = 1; i <= convolutions[stage]; ++i) {
      const std::string place = fmt::format("{}_{}", stage + 1, i);
      // BatchNorm's shift takes the place of the bias.
      features.add("conv" + place,
                   kaiming_conv2d(channels, kChannels[stage], {.kernel = 3, .padding = 1, .bias = false}));
      features.add("bn" + place, BatchNorm2d(kChannels[stage]));
      features.add("relu" + place, ReLU());
      channels = kChannels[stage];
    }
    features.add(fmt::format("pool{}", stage + 1), MaxPool2d());
  }
  net->add("features", std::move(features));
  net->add("pool", AdaptiveAvgPool2d());
  net->add("flatten", Flatten());
  net->add("fc", Linear(channels, classes));
  return net;
}

}  // namespace espalier
