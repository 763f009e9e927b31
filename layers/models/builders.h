// Builders of the zoo's families; zoo.cpp maps names to them. `image` is (C,H,W).
#pragma once

#include <vector>

#include "layers/module.h"

namespace espalier {

/// Flatten, then Linear and ReLU for each hidden size, then Linear: 784-300-100-10 is the LeNet-300-100 of
/// LeCun et al. 1998, section III.C.
ModulePtr build_mlp(const Shape& image, int64_t classes, const std::vector<int64_t>& hidden);

/// LeNet-5 as Caffe ships it and the pruning literature uses it (430,500 weights on MNIST): conv 20 5x5, pool, conv 50
/// 5x5, pool, 500, classes; ReLU after each but the last, Xavier weights and zero biases.
ModulePtr build_lenet5(const Shape& image, int64_t classes);

/// ResNet for small images, depth 6n+2: 3x3 conv 16, then n blocks each of 16, 32, 64 channels with parameter-free
/// shortcuts, mean over the image, Linear. He et al. 2016, section 4.2.
ModulePtr build_resnet(const Shape& image, int64_t classes, int64_t depth);

/// VGG of 16 or 19 layers with BatchNorm for small images: the 13 or 16 convolutions of Simonyan & Zisserman 2015,
/// table 1 (columns D, E), then the mean over the image and one Linear.
ModulePtr build_vgg(const Shape& image, int64_t classes, int64_t depth);

/// LstmRows on rows of C*W values, or on steps of F: `image` may be (T,F).
ModulePtr build_lstm_rows(const Shape& image, int64_t classes, int64_t hidden, bool every_step);

}  // namespace espalier
