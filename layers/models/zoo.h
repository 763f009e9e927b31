// The model zoo: networks by name.
#pragma once

#include <string>
#include <vector>

#include "core/registry.h"
#include "layers/module.h"

namespace espalier {

/// What a network is built for; a 0 takes the network's own default (ModelInfo::image).
struct ModelOptions {
  int64_t classes = 10;
  int64_t in_channels = 0;
  int64_t height = 0, width = 0;  ///< of the images; one given: square
  /// Of one example, in place of channels and sizes: (C,H,W), a sequence (T,F), or any other; rank 0: an image as
  /// above.
  Shape input = {};
  /// The outputs that each head has for one example, in place of classes: {{10}}, {{10}, {1}}, {{T,C}} of every step.
  std::vector<Shape> heads = {};
};

struct ModelInfo {
  std::string name;         ///< "resnet20"; "mlp:SIZES" where sizes have to follow
  std::string description;  ///< one line, with the source
  Shape image;              ///< default (C,H,W)
  /// With fresh parameters, for images (C,H,W) -> outputs (N,head...); `sizes`: those behind the colon of its name.
  std::function<ModulePtr(const Shape& image, const Shape& head, const std::vector<int64_t>& sizes)> build;
  size_t most_sizes = 0;
  bool takes_any = false;        ///< inputs of any shape, not images alone
  bool takes_sequences = false;  ///< (T,F) too
};

/// The networks by name, up to the colon: add() your own before a recipe names it.
Registry<ModelInfo()>& model_registry();
/// Every network of the zoo, in the order of a list for people.
std::vector<ModelInfo> model_catalogue();
/// Their names: "lenet300", ..., "mlp:SIZES".
std::vector<std::string> model_names();

/// Builds a network with fresh parameters for images (N,C,H,W) -> logits (N,classes): "resnet20", "mlp:64,32" (hidden
/// sizes), "lstm-rows:256" (hidden units). Multilayer perceptrons take inputs of any shape and answer in rows, (N,K);
/// lstm-rows takes sequences too. Several heads are a Heads. Throws on an unknown name, naming the nearest, on images
/// too small and on inputs that the network doesn't take.
ModulePtr make_model(const std::string& name, const ModelOptions& options = {});
/// The images (C,H,W) that make_model(name, options) takes.
Shape model_image(const std::string& name, const ModelOptions& options = {});

}  // namespace espalier
