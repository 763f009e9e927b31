// A run's data, and what its networks have to be for it.
#pragma once

#include <string>

#include "datasets/dataset.h"
#include "layers/bundle.h"
#include "layers/models/zoo.h"

namespace espalier {

/// Reads a data set or KIND:PATH. `loss` and `metric`: by which names networks learn it and are judged; "": what its
/// targets ask for. Throws for names that nobody knows.
Splits load_data(const std::string& name, const std::string& data_dir, const std::string& loss = "",
                 const std::string& metric = "");

/// What a network of the zoo takes and gives for this data.
ModelOptions model_options(const Dataset& data);
/// The same by name: of a data set of the catalogue without its files.
ModelOptions model_options(const std::string& name, const std::string& data_dir);
/// Inputs for tracing and counting: batch 1, on the device.
Bundle example_of(const Dataset& data, Device device = Device::cpu());
/// The shorter side of its images, for the amounts of augmentations; 0: no images.
int64_t image_side(const Dataset& data);
/// "images 1x8x8 in 10 classes", "inputs (20,3) with lengths, targets (1)".
std::string shape_text(const Dataset& data);

}  // namespace espalier
