// Trained networks in files, with what they know of the data they were trained on.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "layers/module.h"
#include "pruning/structure/compact.h"

namespace espalier {

/// What it takes to feed a network and to name its answer; the metadata entry "data" of a checkpoint, which
/// description_of(dataset) writes.
struct DataDescription {
  std::string name;
  std::vector<std::string> classes;  ///< none: it answers something else
  std::vector<float> mean, stddev;   ///< (C)
  Shape input;                       ///< (C,H,W), (T,F), ...
  std::string loss, metric;          ///< Dataset::loss and metric

  bool is_image() const { return input.rank() == 3; }
  /// `count` zeros as its first input. What is known of others is their names.
  Tensor example(int64_t count = 1, Device device = Device::cpu()) const;
};

struct ModelFile {
  std::string path;
  ModulePtr module;                     ///< in evaluation mode
  std::optional<DataDescription> data;  ///< nothing in a file that was not written by a training
  std::map<std::string, std::string> metadata;
};

/// The file meant by `path`: itself, or model.safetensors (else best, else checkpoint) in a run folder; "" means the
/// newest runs/*/model.safetensors. Throws FileError when there is none.
std::string find_model(const std::string& path);
/// The images as this network saw them in training: with its own mean and standard deviation. Throws, in the name of
/// `command`, when it takes images of another shape.
Dataset seen_by(const char* command, const ModelFile& file, const Dataset& images);

/// The images that a network was not trained on: what its file's settings say of the training.
struct ValidationSplit {
  std::string data;   ///< the data set
  double share = 0;   ///< of the training images; 0: it was trained on all of them
  uint64_t seed = 0;  ///< of the split
  /// Of how many images, the first of the data set, they are a part; nothing: of all.
  std::optional<int64_t> images = {};
};
/// Nothing for a file that doesn't say. Throws FileError as open_model does.
std::optional<ValidationSplit> validation_split_of(const std::string& path);

/// Which indices of its original a compacted network still has; empty for one that was never compacted.
IndexMap index_map_of(const ModelFile& file);
/// Throws NumericError when a weight of the network is NaN or infinite, naming the parameter.
void check_finite_weights(const ModelFile& file);
/// A warning when another process still trains the network in that file: it is not the one that will be left. "" else.
std::string training_warning(const std::string& file);
/// Throws FileError for a file that is bad in any way.
ModelFile open_model(const std::string& path);

}  // namespace espalier
