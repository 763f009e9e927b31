// Transforms: what operations see in place of a parameter or of a module's output. A transform is a Module whose
// forward gives a tensor of its input's shape: noise, gates, learned masks, quantised values. It has a registered type,
// a config(), parameters and buffers of its own, so it is cloned and saved as layers are.
//
//   Parameter weight = net->find("conv1")->parameter("weight");
//   weight.add_transform(std::make_shared<GaussianNoise>(NoiseOptions{.deviation = 0.01}));
//   net->find("conv1")->set_output_transform(std::make_shared<GaussianNoise>(NoiseOptions{.deviation = 0.1}));
//
// The parameters of a parameter's transforms are no parameters of the network: named_parameters() does not list them,
// and whoever adds the transform gives them to the optimiser. An output transform is a part of the network, a layer
// behind the layer. This page is for those who copy and save networks.
#pragma once

#include "layers/containers.h"

namespace espalier {

/// The transforms of all parameters as the layers of one Sequential that nobody runs: "conv1/weight:0" is the first one
/// of "conv1.weight". A transform, or a parameter of transforms, that serves several parameters is there once, and a
/// tie.
std::shared_ptr<Sequential> parameter_transforms(const Module& network);
/// Gives the network's parameters the transforms of such a Sequential, in place of all that they have. Throws when it
/// names a parameter that isn't there.
void set_parameter_transforms(Module& network, const Sequential& transforms);

/// What rebuilds the transforms, but for their tensors: JSON null when there are none.
nlohmann::json transforms_config(const Module& network);
/// Gives the network fresh transforms of that configuration in place of those that it has, unless they are of that
/// configuration already. Throws on anything that transforms_config has not made for such a network.
void build_transforms(Module& network, const nlohmann::json& config);

}  // namespace espalier
